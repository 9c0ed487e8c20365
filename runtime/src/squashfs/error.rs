//! What can be wrong with an archive, and where.

use std::fmt;
use std::io;

use super::superblock::Compressor;

/// Part of an archive, named in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The 96 bytes at the beginning.
    Superblock,
    /// The block of compressor options behind the superblock.
    Options,
    /// Inodes.
    Inodes,
    /// Directory listings.
    Directories,
    /// User and group ids.
    Ids,
    /// Where fragment blocks lie.
    Fragments,
    /// Inode numbers to inodes, for NFS and for us.
    Export,
    /// Extended attributes.
    Xattrs,
    /// Nanoseconds of times.
    Nanoseconds,
    /// File contents.
    Data,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superblock => "superblock",
            Self::Options => "compressor options",
            Self::Inodes => "inode table",
            Self::Directories => "directory table",
            Self::Ids => "id table",
            Self::Fragments => "fragment table",
            Self::Export => "export table",
            Self::Xattrs => "xattr table",
            Self::Nanoseconds => "nanosecond table",
            Self::Data => "data",
        })
    }
}

/// Why an archive cannot be opened or read. Offsets are bytes from its beginning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive contradicts itself or the format.
    #[error("squashfs: {table} at byte {offset}: {reason}")]
    Corrupt {
        /// Where the contradiction was met.
        table: Table,
        /// Byte it was met at; of the metadata block, where it is inside of one.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The source could not give the bytes.
    #[error("squashfs: {table} at byte {offset}: cannot be read")]
    Io {
        /// What was to be read.
        table: Table,
        /// First byte of the read.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// The archive is sound but its compressor is not one of ours.
    #[error("squashfs: compressor {0} is not supported; make the archive again with zstd, gzip, xz, lz4 or lzo")]
    Unsupported(Compressor),
    /// The caller asked a question that this kind of inode has no answer to.
    #[error("squashfs: inode {number} is not a {wanted}")]
    WrongKind {
        /// Inode number.
        number: u32,
        /// The kind that the question needs.
        wanted: &'static str,
    },
    /// The caller asked for more than is there, or than may be held in memory.
    #[error("squashfs: inode {number}: {reason}")]
    Range {
        /// Inode number.
        number: u32,
        /// What was too much.
        reason: String,
    },
}

impl Error {
    pub(super) fn corrupt(table: Table, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { table, offset, reason: reason.into() }
    }
}
