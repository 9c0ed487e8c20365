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

use std::sync::{Arc, OnceLock};

use crate::source::ByteSource;

mod block_map;
mod cache;
mod compress;
mod data;
mod dir;
mod error;
mod extent;
#[cfg(test)]
pub(crate) mod handmade;
mod inode;
mod lzo;
mod meta;
mod superblock;
mod table;
mod time;
pub mod write;
mod xattr;

pub use data::{Block, FileLayout, Stored};
pub use dir::{DirEntry, Listing};
pub use error::{Error, Table};
pub use extent::Extent;
pub use inode::{FileKind, Inode, Kind, device_parts};
pub use superblock::{Compressor, MAGIC, SUPERBLOCK_SIZE, Superblock, flags};
pub use time::Time;
pub use xattr::Xattr;

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
    block_maps: cache::Cache<Arc<block_map::BlockMap>>,
    /// Looked for when the first time is asked for.
    nanoseconds: OnceLock<Option<time::Nanoseconds>>,
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
        Ok(Self { superblock, meta, block_maps: cache::Cache::new(BLOCK_MAPS), nanoseconds: OnceLock::new() })
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::handmade::{Handmade, words};
    use super::*;

    /// Notes what is read, and cannot give the bytes from `bad` on.
    struct Watched {
        bytes: Vec<u8>,
        bad: u64,
        reads: Mutex<Vec<(u64, usize)>>,
    }

    impl ByteSource for Watched {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.reads.lock().unwrap().push((offset, buf.len()));
            if offset + buf.len() as u64 > self.bad {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.bytes.read_exact_at(buf, offset)
        }
    }

    fn watched(bad: impl Fn(&Superblock) -> u64) -> (Arc<Watched>, InodeRef, Superblock) {
        let mut made = Handmade::new();
        let fifo = made.inode(6, &words(&[1]));
        let superblock = made.open().superblock().clone();
        let source = Watched { bytes: made.bytes(), bad: bad(&superblock), reads: Mutex::default() };
        (Arc::new(source), fifo, superblock)
    }

    #[test]
    fn opening_is_one_small_read_and_an_inode_is_read_once() {
        let (source, fifo, _) = watched(|_| u64::MAX);
        let archive = Archive::open(source.clone()).unwrap();
        assert_eq!(*source.reads.lock().unwrap(), [(0, 106)]);
        archive.inode(fifo).unwrap();
        let reads = source.reads.lock().unwrap().len();
        assert_eq!(reads, 4, "the block of the inode, the list of id blocks, the id block");
        archive.inode(fifo).unwrap();
        assert_eq!(source.reads.lock().unwrap().len(), reads);
    }

    #[test]
    fn what_is_unreadable_is_named_and_spares_what_lies_before() {
        let (source, fifo, superblock) = watched(|superblock| superblock.directory_table);
        let archive = Archive::open(source).unwrap();
        let error = archive.inode(fifo).unwrap_err();
        let Error::Io { table: Table::Ids, offset, source } = error else { panic!("{error}") };
        assert_eq!((offset, source.kind()), (superblock.id_table, io::ErrorKind::InvalidData));
    }

    #[test]
    fn an_archive_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Archive>();
    }

    #[test]
    fn too_few_bytes_are_no_archive() {
        for len in [0, 1, 95] {
            let error = Archive::open(Arc::new(vec![0; len])).unwrap_err().to_string();
            assert!(error.contains("too few"), "{error}");
        }
        assert!(Archive::open(Arc::new(vec![0; 96])).unwrap_err().to_string().contains("no squashfs archive"));
    }
}
