//! Squashfs 4.0: our own lazy reader, and writing through libsquashfs.
//!
//! [`Archive`] reads over any [`ByteSource`], from any number of threads. Opening reads the superblock; everything
//! else is read when it is asked for, one metadata block at a time, and the latest blocks are kept (4 MiB). Archives are
//! taken for hostile: every count, size and position is checked, a damaged one gives an [`Error`] that says what and
//! where, and no claim of an archive makes memory grow beyond what its bytes hold.
//!
//! Two things are left to the caller: a directory may contain itself, and an entry may name a type that its inode
//! does not have.
//!
//! "Specification" is the squashfs format description of squashfs-tools-ng (`doc/format.adoc`); the kernel's own is
//! `Documentation/filesystems/squashfs.rst`.

use std::sync::Arc;

use crate::source::ByteSource;

mod cache;
mod compress;
mod data;
mod dir;
mod error;
mod inode;
mod lzo;
mod meta;
mod superblock;
mod table;
pub mod write;
mod xattr;

pub use data::{Block, FileLayout, Stored};
pub use dir::{DirEntry, Listing};
pub use error::{Error, Table};
pub use inode::{FileKind, Inode, Kind};
pub use superblock::{Compressor, SUPERBLOCK_SIZE, Superblock, flags};

/// Files whose block positions are kept; each takes 96 KiB at most, and only files of more than 256 blocks are.
const BLOCK_MAPS: usize = 128;

/// Where an inode lies: `(metadata block << 16) | offset`, the block in bytes from the beginning of the inode table;
/// below 2^48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeRef(pub u64);

/// An open archive. Share it in an [`Arc`].
pub struct Archive {
    superblock: Superblock,
    meta: meta::Meta,
    block_maps: cache::Cache<Arc<data::BlockMap>>,
}

impl Archive {
    /// Opens the archive that begins at byte 0 of `source`; bytes behind its end do not matter. One small read.
    ///
    /// # Errors
    /// When the source cannot be read, it is no squashfs 4.0, its superblock is damaged, or its compressor is lzma.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self, Error> {
        let available = source.len();
        // The superblock and the longest compressor options.
        let mut buf = [0; SUPERBLOCK_SIZE + 2 + 8];
        let count = usize::try_from(available).map_or(buf.len(), |available| available.min(buf.len()));
        let buf = &mut buf[..count];
        let table = Table::Superblock;
        source.read_exact_at(buf, 0).map_err(|source| Error::Io { table, offset: 0, source })?;
        let Some((superblock, options)) = buf.split_first_chunk() else {
            return Err(Error::corrupt(table, 0, format!("{available} bytes are too few for a squashfs archive")));
        };
        let superblock = Superblock::parse(superblock, available)?;
        if superblock.compressor == Compressor::Lzma {
            return Err(Error::Unsupported(superblock.compressor));
        }
        if superblock.flags & flags::COMPRESSOR_OPTIONS != 0 {
            superblock::check_options(superblock.compressor, options)?;
        }
        let meta = meta::Meta::new(source, superblock.compressor, superblock.bytes_used);
        Ok(Self { superblock, meta, block_maps: cache::Cache::new(BLOCK_MAPS) })
    }

    /// The superblock.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// What the archive is read from.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        self.meta.source()
    }

    /// The inode of the root directory.
    #[must_use]
    pub fn root(&self) -> InodeRef {
        self.superblock.root
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("superblock", &self.superblock).finish_non_exhaustive()
    }
}
