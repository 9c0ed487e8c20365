//! Writing squashfs 4.0 through libsquashfs (the only FFI of the project).
//!
//! libsquashfs splits data into blocks, compresses them on its worker threads and lays out the tables; the
//! compressor, the output, the tree and the elimination of equal tails are ours. The order of use:
//! [`Writer::new`], contents in any order ([`Writer::content`]), then [`Writer::finish`] with a [`Tree`] of them.

mod compressor;
mod content;
mod ffi;
mod file;
mod inode;
mod nanoseconds;
mod object;
mod serialize;
mod tree;

pub use content::{Content, ContentWriter};
pub use tree::{Kind, MAX_IDS, MAX_NAME, MAX_TARGET, Metadata, NodeId, Tree, TreeError, Xattr, Xattrs};

use compressor::Zstd;
use content::Tails;
use file::Target;
use object::{Owned, Slots, check};
use std::fs::File;
use std::io;
use std::ptr::null_mut;
use thiserror::Error;

/// The archive is padded to a multiple of this many bytes, so that it can back a loop device.
pub const PADDING: u64 = 4096;
/// The zstd level that squashfs takes for granted; any other is noted in the archive.
const DEFAULT_LEVEL: i32 = 15;
/// Blocks waiting for a worker or for their turn to be written take no more memory than this.
const MAX_BACKLOG_BYTES: usize = 256 << 20;

/// What libsquashfs reported.
#[derive(Debug, Error)]
pub enum LibraryFailure {
    /// One of its documented codes.
    #[error(transparent)]
    Known(squashfs_ng::LibError),
    /// Any other code.
    #[error("unknown error {0}")]
    Unknown(i32),
}

/// Why a squashfs was not written. What is in the file then is garbage.
#[derive(Debug, Error)]
pub enum Error {
    /// An option is out of range.
    #[error("{0}")]
    Options(String),
    /// The output could not be written.
    #[error("cannot write the squashfs")]
    Output(#[source] io::Error),
    /// libsquashfs failed for another reason.
    #[error("libsquashfs failed while {action}")]
    Library {
        /// What it was doing.
        action: &'static str,
        /// What it reported.
        source: LibraryFailure,
    },
    /// A regular file in the tree was never given its content.
    #[error("a file in the tree has no content (an error in fim itself)")]
    NoContent,
}

/// How a squashfs is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes in a data block: a power of two, 4096..=1048576.
    pub block_size: u32,
    /// zstd level, 1..=22.
    pub level: i32,
    /// Threads that compress, at least 1. The result does not depend on it.
    pub threads: usize,
}

impl Default for Options {
    /// 128 KiB blocks, zstd 15, one thread per available core.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { block_size: 128 << 10, level: DEFAULT_LEVEL, threads }
    }
}

impl Options {
    fn check(&self) -> Result<(), Error> {
        let problem = if !self.block_size.is_power_of_two() || !(4096..=1 << 20).contains(&self.block_size) {
            format!("block size {}: must be a power of two from 4096 to 1048576 bytes", self.block_size)
        } else if !(1..=22).contains(&self.level) {
            format!("zstd level {}: must be 1 to 22", self.level)
        } else if !(1..=1024).contains(&self.threads) {
            format!("{} threads: must be 1 to 1024", self.threads)
        } else {
            return Ok(());
        };
        Err(Error::Options(problem))
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the archive, as its superblock says.
    pub bytes_used: u64,
    /// Bytes of the archive with its padding to a multiple of [`PADDING`].
    pub bytes_padded: u64,
    /// Inodes, the root included.
    pub inodes: u32,
    /// Inodes of regular files.
    pub files: u64,
    /// Sizes of the regular files added up, in bytes; hard links count once.
    pub unpacked_bytes: u64,
}

/// Writes one squashfs.
///
/// The fields are dropped in order: what borrows stands before what it borrows from.
pub struct Writer {
    processor: Owned<ffi::BlockProcessor>,
    /// Kept for `processor`.
    _block_writer: Owned<ffi::BlockWriter>,
    fragments: Owned<ffi::FragTable>,
    slots: Slots,
    compressor: Zstd,
    target: Target,
    tails: Tails,
    /// Bytes that do not fill a block yet.
    partial: Vec<u8>,
    zeros: Box<[u8]>,
    superblock: ffi::Super,
    block_size: usize,
}

impl Writer {
    /// Begins a squashfs in `file` at byte `offset`. Everything in the file from there on is given up: at the end
    /// the file ends with the archive. Offsets inside the archive count from its own start.
    ///
    /// # Errors
    /// An option out of range, no memory, or an error of the file.
    pub fn new(file: &File, offset: u64, options: &Options) -> Result<Self, Error> {
        options.check()?;
        let block_size = options.block_size as usize;
        let mut target = Target::new(file, offset).map_err(Error::Output)?;
        let no_memory = || Error::Output(io::ErrorKind::OutOfMemory.into());
        let compressor = Zstd::new(options.level, options.block_size).ok_or_else(no_memory)?;

        let mut superblock = ffi::Super::default();
        // SAFETY: `superblock` is a live sqfs_super_t.
        let code = unsafe { ffi::sqfs_super_init(&raw mut superblock, block_size, 0, ffi::COMP_ZSTD) };
        check("preparing the superblock", code)?;
        // Room for the superblock, which is written last.
        target.append(&[0; size_of::<ffi::Super>()]).map_err(Error::Output)?;
        if options.level != DEFAULT_LEVEL {
            // One uncompressed metadata block (bit 15 of its length) with the level.
            let mut block = 0x8004_u16.to_le_bytes().to_vec();
            block.extend_from_slice(&options.level.to_le_bytes());
            target.append(&block).map_err(Error::Output)?;
            superblock.flags |= ffi::FLAG_COMPRESSOR_OPTIONS;
        }

        // SAFETY: a new object each; what they borrow (`target`, `compressor`) is dropped after them in this
        // function as well as in `Writer`.
        let (block_writer, fragments) = unsafe {
            let writer = ffi::sqfs_block_writer_create(target.as_ptr(), PADDING as usize, 0);
            let writer = Owned::new(writer, "creating the block writer")?;
            (writer, Owned::new(ffi::sqfs_frag_table_create(0), "creating the fragment table")?)
        };
        let backlog = (MAX_BACKLOG_BYTES / block_size).clamp(3, 10 * options.threads.max(1));
        let desc = ffi::BlockProcessorDesc {
            size: size_of::<ffi::BlockProcessorDesc>() as u32,
            max_block_size: options.block_size,
            num_workers: options.threads as u32,
            max_backlog: backlog as u32,
            cmp: compressor.as_ptr(),
            wr: block_writer.as_ptr(),
            tbl: fragments.as_ptr(),
            // Without these the library compares tails by a 32-bit hash only. It never does: equal tails are
            // found by `Tails` and every tail is given with DONT_DEDUPLICATE. (Its own comparison fails on a
            // full fragment block that does not compress.)
            file: null_mut(),
            uncmp: null_mut(),
        };
        let mut processor = null_mut();
        // SAFETY: `desc` is complete and its pointers are live; the processor is dropped before what it borrows.
        let processor = unsafe {
            check(
                "creating the block processor",
                ffi::sqfs_block_processor_create_ex(&raw const desc, &raw mut processor),
            )?;
            Owned::new(processor, "creating the block processor")?
        };
        Ok(Self {
            processor,
            _block_writer: block_writer,
            fragments,
            slots: Slots::default(),
            compressor,
            target,
            tails: Tails::default(),
            partial: Vec::with_capacity(block_size),
            zeros: vec![0; block_size].into(),
            superblock,
            block_size,
        })
    }

    /// Bytes in a data block.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Begins the content of a file. With `uncompressed` its blocks are stored as they are, next to each other
    /// and without a shared fragment, for files whose first read must be fast.
    pub fn content(&mut self, uncompressed: bool) -> ContentWriter<'_> {
        ContentWriter::new(self, uncompressed)
    }

    /// Waits for the data blocks, then writes inodes, directories and tables of `tree`, whose contents must come
    /// from this writer. `mtime` (seconds since the epoch) is the time of the archive itself.
    ///
    /// # Errors
    /// An error of the file, or more metadata than squashfs can hold.
    pub fn finish(mut self, tree: &Tree, mtime: u32) -> Result<Summary, Error> {
        let done = self.write_tables(tree, mtime);
        done.map_err(|error| self.with_cause(error))
    }

    fn write_tables(&mut self, tree: &Tree, mtime: u32) -> Result<Summary, Error> {
        // SAFETY: the processor is live, and every place it writes to is in `slots`.
        check("writing data", unsafe { ffi::sqfs_block_processor_finish(self.processor.as_ptr()) })?;
        self.superblock.modification_time = mtime;
        let (inodes, files, unpacked_bytes) = serialize::serialize(self, tree)?;
        self.superblock.inode_count = inodes;
        self.superblock.bytes_used = self.target.size();
        // SAFETY: both are live.
        let code = unsafe { ffi::sqfs_super_write(&raw const self.superblock, self.target.as_ptr()) };
        check("writing the superblock", code)?;
        let bytes_used = self.target.size();
        let bytes_padded = self.target.pad(PADDING).map_err(Error::Output)?;
        Ok(Summary { bytes_used, bytes_padded, inodes, files, unpacked_bytes })
    }

    /// libsquashfs says "I/O failure"; the output knows why.
    fn with_cause(&mut self, error: Error) -> Error {
        self.target.take_error().map_or(error, Error::Output)
    }
}
