//! A squashfs is used as it is: checked, then copied.

use super::{Error, Progress, Summary};
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes in a superblock of squashfs 4.0.
const SUPERBLOCK: usize = 96;
/// Bytes copied between two reports.
const STEP: u64 = 16 << 20;

/// What a superblock tells about the archive as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Outline {
    inodes: u32,
    bytes_used: u64,
}

/// Parses a superblock, for a file of `len` bytes: <https://dr-emann.github.io/squashfs/> ("The Superblock").
/// All numbers little-endian.
fn parse(bytes: &[u8; SUPERBLOCK], len: u64) -> Result<Outline, String> {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if bytes[..4] != *b"hsqs" {
        return Err("it does not begin with the magic number of squashfs".into());
    }
    let (major, minor) = (u16_at(28), u16_at(30));
    if (major, minor) != (4, 0) {
        return Err(format!("it has version {major}.{minor}; only 4.0 is supported"));
    }
    let (block_size, block_log) = (u32_at(12), u16_at(22));
    if !(12..=20).contains(&block_log) || block_size != 1 << block_log {
        return Err(format!("its block size {block_size} is not a power of two from 4096 to 1048576"));
    }
    let compression = u16_at(20);
    if !matches!(compression, 1 | 3..=6) {
        return Err(format!("its compression {compression} is none of gzip, lzo, xz, lz4 and zstd"));
    }
    let bytes_used = u64_at(40);
    if bytes_used > len {
        return Err(format!("it is cut off: it should have {bytes_used} bytes and has {len}"));
    }
    // The tables stand in this order; inode, directory and id table are always there.
    let tables = [("inode", u64_at(64)), ("directory", u64_at(72)), ("id", u64_at(48))];
    let mut low = SUPERBLOCK as u64;
    for (name, start) in tables {
        if start < low || start >= bytes_used {
            return Err(format!("its {name} table begins at byte {start}, outside the archive or out of order"));
        }
        low = start;
    }
    for (name, start) in [("xattr", u64_at(56)), ("fragment", u64_at(80)), ("export", u64_at(88))] {
        if start != u64::MAX && !(SUPERBLOCK as u64..bytes_used).contains(&start) {
            return Err(format!("its {name} table begins at byte {start}, outside the archive"));
        }
    }
    let (inodes, ids) = (u32_at(4), u16_at(26));
    if inodes == 0 || ids == 0 {
        return Err("it has no inode or no owner".into());
    }
    Ok(Outline { inodes, bytes_used })
}

/// Copies the squashfs that begins at byte `start` of the file `path` into `out` at `offset`.
pub fn copy(path: &Path, start: u64, out: &File, offset: u64, progress: &mut dyn Progress) -> Result<Summary, Error> {
    let file = File::open(path).map_err(Error::read("open", path))?;
    let len = file.metadata().map_err(Error::read("read", path))?.len().saturating_sub(start);
    let broken = |reason: String| Error::Squashfs { path: path.to_owned(), reason };
    let mut superblock = [0; SUPERBLOCK];
    file.read_exact_at(&mut superblock, start).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => broken("it is shorter than a superblock".into()),
        _ => Error::read("read", path)(error),
    })?;
    let outline = parse(&superblock, len).map_err(broken)?;
    progress.total(Some(outline.bytes_used), None);

    let mut at = 0;
    while at < outline.bytes_used {
        let step = (outline.bytes_used - at).min(STEP);
        let count = copy_step(&file, start + at, out, offset + at, step).map_err(|error| match error {
            Copy::Read(error) => Error::read("read", path)(error),
            Copy::Write(error) => Error::Write(crate::squashfs::write::Error::Output(error)),
        })?;
        if count == 0 {
            return Err(Error::Changed { path: path.to_owned() });
        }
        at += count;
        progress.advance(count, 0);
        if progress.stopped() {
            return Err(Error::Interrupted);
        }
    }
    let bytes_padded = outline.bytes_used.next_multiple_of(crate::squashfs::write::PADDING);
    let ends = out.set_len(offset + outline.bytes_used).and_then(|()| out.set_len(offset + bytes_padded));
    ends.map_err(|error| Error::Write(crate::squashfs::write::Error::Output(error)))?;
    let Outline { inodes, bytes_used } = outline;
    Ok(Summary {
        bytes_used,
        bytes_padded,
        inodes: inodes.into(),
        files: None,
        unpacked_bytes: None,
        shell: None,
        startup: Vec::new(),
    })
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// Copies up to `step` bytes, in the kernel where it can (there it may even share the blocks).
fn copy_step(from: &File, from_at: u64, to: &File, to_at: u64, step: u64) -> Result<u64, Copy> {
    let offsets = (i64::try_from(from_at), i64::try_from(to_at));
    if let (Ok(mut from_at), Ok(mut to_at)) = offsets {
        // At most STEP, so it fits.
        match copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), step as usize) {
            // Some file systems say 0 instead of "not supported".
            Ok(0) | Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => {}
            Ok(count) => return Ok(count as u64),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Copy::Write(errno.into())),
        }
    }
    let mut buffer = vec![0; step.min(1 << 20) as usize];
    let count = from.read_at(&mut buffer, from_at).map_err(Copy::Read)?;
    to.write_all_at(&buffer[..count], to_at).map_err(Copy::Write)?;
    Ok(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sane() -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        bytes[..4].copy_from_slice(b"hsqs");
        bytes[4] = 1;
        bytes[12..16].copy_from_slice(&0x2_0000_u32.to_le_bytes());
        (bytes[20], bytes[22], bytes[26], bytes[28]) = (6, 17, 1, 4);
        bytes[40..48].copy_from_slice(&1000_u64.to_le_bytes());
        for (at, start) in [(48, 300_u64), (56, u64::MAX), (64, 100), (72, 200), (80, u64::MAX), (88, u64::MAX)] {
            bytes[at..at + 8].copy_from_slice(&start.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_sane_superblock_is_taken() {
        assert_eq!(parse(&sane(), 4096), Ok(Outline { inodes: 1, bytes_used: 1000 }));
    }

    #[test]
    fn every_insane_field_is_named() {
        let cases: [(usize, u8, &str); 11] = [
            (0, 0, "magic"),
            (28, 3, "version 3.0"),
            (12, 1, "block size"),
            (22, 16, "block size"),
            (20, 2, "compression 2"),
            (47, 1, "cut off"),
            (71, 1, "inode table"),
            (72, 50, "directory table"),
            (63, 0, "xattr table"),
            (26, 0, "no owner"),
            (4, 0, "no inode"),
        ];
        for (at, value, word) in cases {
            let mut bytes = sane();
            bytes[at] = value;
            let error = parse(&bytes, 4096).unwrap_err();
            assert!(error.contains(word), "byte {at}: {error}");
        }
    }
}
