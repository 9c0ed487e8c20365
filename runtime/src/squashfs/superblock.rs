//! The superblock: 96 bytes at the beginning that say where everything else is.
//!
//! Format: kernel `fs/squashfs/squashfs_fs.h`, `struct squashfs_super_block`; specification section 2.
//! All numbers are little-endian.

use std::fmt;

use super::InodeRef;
use super::error::{Error, Table};

/// Size of the superblock in bytes.
pub const SUPERBLOCK_SIZE: usize = 96;

/// `hsqs`, the first four bytes, little-endian.
pub const MAGIC: u32 = 0x7371_7368;

/// A table start that says there is no such table.
const ABSENT: u64 = u64::MAX;

/// Compression of metadata and data blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Compressor {
    /// zlib streams; the tools call it gzip.
    Gzip = 1,
    /// LZMA1, never in a mainline kernel; not supported.
    Lzma = 2,
    /// LZO1X streams without a header.
    Lzo = 3,
    /// `.xz` streams, with BCJ filters at will.
    Xz = 4,
    /// LZ4 blocks.
    Lz4 = 5,
    /// Zstandard frames.
    Zstd = 6,
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Bits of [`Superblock::flags`].
pub mod flags {
    /// Inodes are stored as they are.
    pub const UNCOMPRESSED_INODES: u16 = 0x0001;
    /// Data blocks are stored as they are.
    pub const UNCOMPRESSED_DATA: u16 = 0x0002;
    /// Fragment blocks are stored as they are.
    pub const UNCOMPRESSED_FRAGMENTS: u16 = 0x0008;
    /// There are no fragments.
    pub const NO_FRAGMENTS: u16 = 0x0010;
    /// The tail of every file is a fragment.
    pub const ALWAYS_FRAGMENTS: u16 = 0x0020;
    /// Equal files are stored once.
    pub const DUPLICATES: u16 = 0x0040;
    /// There is an export table.
    pub const EXPORTABLE: u16 = 0x0080;
    /// Extended attributes are stored as they are.
    pub const UNCOMPRESSED_XATTRS: u16 = 0x0100;
    /// There are no extended attributes.
    pub const NO_XATTRS: u16 = 0x0200;
    /// Compressor options follow the superblock.
    pub const COMPRESSOR_OPTIONS: u16 = 0x0400;
    /// Ids are stored as they are.
    pub const UNCOMPRESSED_IDS: u16 = 0x0800;
}

/// The superblock, decoded and checked. Positions are bytes from the beginning of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Number of inodes; inode numbers count from 1.
    pub inode_count: u32,
    /// When the archive was made, seconds since 1970 (unsigned).
    pub modification_time: u32,
    /// Bytes of an unpacked data block: a power of two from 4 KiB to 1 MiB.
    pub block_size: u32,
    /// Number of entries of the fragment table.
    pub fragment_count: u32,
    /// Compressor of all blocks.
    pub compressor: Compressor,
    /// See [`flags`]. They tell how the archive was made; reading depends on `COMPRESSOR_OPTIONS` alone.
    pub flags: u16,
    /// Number of entries of the id table, at least 1.
    pub id_count: u16,
    /// Inode of the root directory.
    pub root: InodeRef,
    /// Length of the archive without the padding behind it.
    pub bytes_used: u64,
    /// List of the metadata blocks of the id table.
    pub id_table: u64,
    /// Header of the xattr tables, when there are any.
    pub xattr_table: Option<u64>,
    /// First metadata block of the inodes.
    pub inode_table: u64,
    /// First metadata block of the directory listings; the inodes end here.
    pub directory_table: u64,
    /// List of the metadata blocks of the fragment table, when there is one.
    pub fragment_table: Option<u64>,
    /// List of the metadata blocks of the export table, when there is one.
    pub export_table: Option<u64>,
}

impl Superblock {
    /// Decodes the superblock of an archive whose source has `available` bytes.
    ///
    /// # Errors
    /// When it is not squashfs 4.0, or a size or a table position is outside what the format or the source allows.
    pub fn parse(bytes: &[u8; SUPERBLOCK_SIZE], available: u64) -> Result<Self, Error> {
        let wrong = |at: u64, reason: String| Err(Error::corrupt(Table::Superblock, at, reason));
        let (u16_at, u32_at, u64_at) = (|at| le16(bytes, at), |at| le32(bytes, at), |at| le64(bytes, at));

        if u32_at(0) != MAGIC {
            return wrong(0, format!("magic is {:#010x}, not {MAGIC:#010x}: this is no squashfs archive", u32_at(0)));
        }
        if (u16_at(28), u16_at(30)) != (4, 0) {
            return wrong(28, format!("version is {}.{}, only 4.0 can be read", u16_at(28), u16_at(30)));
        }
        let block_size = u32_at(12);
        if !block_size.is_power_of_two() || !(4096..=1 << 20).contains(&block_size) {
            return wrong(12, format!("block size is {block_size}, not a power of two from 4096 to 1048576"));
        }
        if u32::from(u16_at(22)) != block_size.trailing_zeros() {
            return wrong(22, format!("block log is {}, which is not that of block size {block_size}", u16_at(22)));
        }
        let compressor = match u16_at(20) {
            1 => Compressor::Gzip,
            2 => Compressor::Lzma,
            3 => Compressor::Lzo,
            4 => Compressor::Xz,
            5 => Compressor::Lz4,
            6 => Compressor::Zstd,
            id => return wrong(20, format!("compressor {id} is unknown")),
        };
        let bytes_used = u64_at(40);
        if bytes_used > available {
            return wrong(40, format!("the archive has {bytes_used} bytes, but only {available} are there"));
        }
        if u16_at(26) == 0 {
            return wrong(26, "there is no id".into());
        }
        let root = u64_at(32);
        if root >= 1 << 48 {
            return wrong(32, format!("root inode is {root:#x}, beyond 48 bits"));
        }

        let table = |at: usize, name: &str| {
            let start = u64_at(at);
            if start < SUPERBLOCK_SIZE as u64 || start >= bytes_used {
                let reason = format!("{name} begins at byte {start}, outside {SUPERBLOCK_SIZE}..{bytes_used}");
                return Err(Error::corrupt(Table::Superblock, at as u64, reason));
            }
            Ok(start)
        };
        let optional = |at, name| if u64_at(at) == ABSENT { Ok(None) } else { table(at, name).map(Some) };
        let superblock = Self {
            inode_count: u32_at(4),
            modification_time: u32_at(8),
            block_size,
            fragment_count: u32_at(16),
            compressor,
            flags: u16_at(24),
            id_count: u16_at(26),
            root: InodeRef(root),
            bytes_used,
            id_table: table(48, "id table")?,
            xattr_table: optional(56, "xattr table")?,
            inode_table: table(64, "inode table")?,
            directory_table: table(72, "directory table")?,
            fragment_table: optional(80, "fragment table")?,
            export_table: optional(88, "export table")?,
        };
        if superblock.inode_table >= superblock.directory_table {
            return wrong(64, "inode table does not lie before the directory table".into());
        }
        Ok(superblock)
    }

    /// End of the directory table: the nearest thing that is known to lie behind it.
    pub(super) fn directory_end(&self) -> u64 {
        [Some(self.id_table), self.xattr_table, self.fragment_table, self.export_table]
            .into_iter()
            .flatten()
            .filter(|start| *start > self.directory_table)
            .fold(self.bytes_used, u64::min)
    }
}

/// Checks the options block that begins at byte 96: a metadata block, stored as it is. None of the options is
/// needed to unpack anything, except that LZ4 could name a format other than the one there is.
pub(super) fn check_options(compressor: Compressor, block: &[u8]) -> Result<(), Error> {
    let wrong = |reason: String| Err(Error::corrupt(Table::Options, SUPERBLOCK_SIZE as u64, reason));
    let expected: usize = match compressor {
        Compressor::Gzip | Compressor::Lzo | Compressor::Xz | Compressor::Lz4 => 8,
        Compressor::Zstd => 4,
        Compressor::Lzma => return wrong("lzma has none, but the superblock says they are there".into()),
    };
    let Some((header, body)) = block.split_first_chunk::<2>() else {
        return wrong("the archive ends before them".into());
    };
    let header = u16::from_le_bytes(*header);
    if header != 0x8000 | expected as u16 {
        return wrong(format!("header is {header:#06x}, for {compressor} it must be {:#06x}", 0x8000 | expected));
    }
    let Some(body) = body.get(..expected) else { return wrong("the archive ends inside them".into()) };
    if compressor == Compressor::Lz4 && le32(body, 0) != 1 {
        return wrong(format!("lz4 version is {}, only 1 is known", le32(body, 0)));
    }
    Ok(())
}

/// Two bytes at `at`, zero where there are none (callers pass fixed offsets inside fixed arrays).
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// Four bytes at `at`; see [`le16`].
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Eight bytes at `at`; see [`le16`].
pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::handmade::Handmade;
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Superblock, Error> {
        Superblock::parse(bytes.first_chunk().unwrap(), bytes.len() as u64)
    }

    #[test]
    fn every_field_is_where_the_format_has_it() {
        let mut bytes = vec![0; 2000];
        let fields: [(usize, &[u8]); 16] = [
            (0, b"hsqs"),
            (4, &[1, 2, 3, 4]),
            (8, &[5, 6, 7, 8]),
            (12, &[0, 0, 2, 0]),
            (16, &[9, 0, 0, 0]),
            (20, &[4, 0]),
            (22, &[17, 0]),
            (24, &[0xc0, 0x02]),
            (26, &[3, 0]),
            (28, &[4, 0, 0, 0]),
            (32, &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0, 0]),
            (40, &[0xd0, 7, 0, 0, 0, 0, 0, 0]),
            (48, &[0, 5, 0, 0, 0, 0, 0, 0]),
            (56, &[0xff; 8]),
            (64, &[100, 0, 0, 0, 0, 0, 0, 0]),
            (72, &[200, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (at, value) in fields {
            bytes[at..at + value.len()].copy_from_slice(value);
        }
        bytes[80..88].copy_from_slice(&0x300u64.to_le_bytes());
        bytes[88..96].copy_from_slice(&0x400u64.to_le_bytes());
        let expected = Superblock {
            inode_count: 0x0403_0201,
            modification_time: 0x0807_0605,
            block_size: 131_072,
            fragment_count: 9,
            compressor: Compressor::Xz,
            flags: flags::DUPLICATES | flags::EXPORTABLE | flags::NO_XATTRS,
            id_count: 3,
            root: InodeRef(0x6655_4433_2211),
            bytes_used: 2000,
            id_table: 0x500,
            xattr_table: None,
            inode_table: 100,
            directory_table: 200,
            fragment_table: Some(0x300),
            export_table: Some(0x400),
        };
        assert_eq!(parse(&bytes).unwrap(), expected);
        assert_eq!(expected.directory_end(), 0x300);
    }

    #[test]
    fn every_damage_is_named() {
        let good = Handmade::new().bytes();
        parse(&good).unwrap();
        let cases: [(usize, &[u8], &str); 14] = [
            (0, b"sqsh", "byte 0: magic is"),
            (28, &[3], "byte 28: version is 3.0"),
            (30, &[1], "version is 4.1"),
            (12, &[0, 0x0f], "byte 12: block size is 3840"),
            (12, &[0, 0, 0x20], "block size is 2097152"),
            (12, &[0, 8], "block size is 2048"),
            (22, &[13], "byte 22: block log is 13"),
            (20, &[7], "byte 20: compressor 7 is unknown"),
            (26, &[0], "byte 26: there is no id"),
            (38, &[1], "byte 32: root inode"),
            (40, &[0xff; 8], "byte 40: the archive has"),
            (48, &[0xff; 8], "byte 48: id table begins"),
            (64, &[95], "byte 64: inode table begins at byte 95"),
            (72, &[96], "byte 64: inode table does not lie before"),
        ];
        for (at, value, reason) in cases {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            let error = parse(&bytes).unwrap_err().to_string();
            assert!(error.starts_with("squashfs: superblock at ") && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn options_must_be_those_of_the_compressor() {
        check_options(Compressor::Zstd, &[4, 0x80, 19, 0, 0, 0]).unwrap();
        check_options(Compressor::Lz4, &[8, 0x80, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert!(check_options(Compressor::Lz4, &[8, 0x80, 2, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(check_options(Compressor::Zstd, &[8, 0x80, 19, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(check_options(Compressor::Zstd, &[4, 0x80, 19]).is_err());
        assert!(check_options(Compressor::Zstd, &[4]).is_err());
    }
}
