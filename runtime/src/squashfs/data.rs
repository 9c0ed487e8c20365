//! Contents of regular files (specification sections 3 and 4).
//!
//! A file is a run of blocks that lie one behind the other, and perhaps a tail inside a fragment block that it
//! shares. The inode lists the stored sizes, so the position of block N is the sum of the sizes before it.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::{Error, Table};
use super::inode::{Inode, Kind};
use super::meta::Place;
use super::superblock::SUPERBLOCK_SIZE;
use super::{Archive, compress};

/// Blocks from mark to mark, at first. Files with fewer need no marks.
const STRIDE: u64 = 256;

/// Most marks of one file, 96 KiB. A file with more than a million blocks gets them farther apart.
const MARKS_MAX: usize = 4096;

/// Most bytes that [`Archive::read_file`] returns.
const READ_FILE_MAX: u64 = 256 << 20;

/// Bit of a stored size: the block is stored as it is.
const STORED: u32 = 1 << 24;

/// Where the blocks of a regular file are.
#[derive(Clone, Debug)]
pub struct FileLayout {
    pub(super) start: u64,
    pub(super) block_size: u32,
    /// Number of the fragment block that holds the tail, and offset in it.
    pub(super) fragment: Option<(u32, u32)>,
    /// The list of stored sizes.
    pub(super) sizes: Place,
}

/// What a block of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Zeros that are not stored.
    Hole {
        /// Bytes of the file in it, at most the block size.
        len: usize,
    },
    /// Bytes of a stored block.
    Stored {
        /// The block, for [`Archive::load`].
        stored: Stored,
        /// Offset in the unpacked block where this file begins; not 0 in fragment blocks only.
        skip: usize,
        /// Bytes of the file in it, at most the block size.
        len: usize,
    },
}

impl Block {
    /// Bytes of the file in it.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no block is empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Hole { len } | Self::Stored { len, .. } => *len,
        }
    }
}

/// A stored block: data or fragment. Equal values have equal contents, so it may serve as the key of a cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stored {
    /// First byte in the archive.
    pub offset: u64,
    /// Stored bytes, at most the block size.
    pub size: u32,
    /// Whether it must be unpacked.
    pub compressed: bool,
    /// Most bytes that it unpacks to: the block size.
    pub unpacked: u32,
}

impl Stored {
    /// The `len` bytes from `skip` on of this block's unpacked `bytes`; see [`Block::Stored`].
    ///
    /// # Errors
    /// When the block unpacked to fewer bytes than the file has in it.
    pub fn part<'a>(&self, bytes: &'a [u8], skip: usize, len: usize) -> Result<&'a [u8], Error> {
        bytes.get(skip..).and_then(|rest| rest.get(..len)).ok_or_else(|| {
            let reason = format!("block unpacks to {} bytes, a file has {len} from {skip} on", bytes.len());
            Error::corrupt(Table::Data, self.offset, reason)
        })
    }
}

/// For files with many blocks: the state of the sum at every so many of them.
pub(super) struct BlockMap(Mutex<Marks>);

struct Marks {
    /// Blocks from mark to mark.
    stride: u64,
    marks: Vec<Mark>,
}

/// Place of a block's stored size, and how many bytes behind the first block it lies.
#[derive(Clone, Copy)]
struct Mark {
    sizes: Place,
    passed: u64,
}

impl Inode {
    /// Number of blocks of a regular file, the tail in a fragment included; 0 for every other inode. A damaged inode
    /// may claim up to 2^51: iterate with that in mind.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        match &self.kind {
            Kind::File { size, layout } => size.div_ceil(u64::from(layout.block_size)),
            _ => 0,
        }
    }
}

impl Archive {
    /// Where block `index` of the regular file `inode` lies. Reads metadata only, and for any `index` about a
    /// kilobyte of it once the blocks before have been passed.
    ///
    /// # Errors
    /// When `inode` is no regular file or has no such block, or its metadata is damaged.
    pub fn block(&self, inode: &Inode, index: u64) -> Result<Block, Error> {
        let Kind::File { size, layout } = &inode.kind else {
            return Err(Error::WrongKind { number: inode.number, wanted: "regular file" });
        };
        let block_size = u64::from(layout.block_size);
        let count = inode.block_count();
        if index >= count {
            let reason = format!("there is no block {index} among {count}");
            return Err(Error::Range { number: inode.number, reason });
        }
        let len = (size - index * block_size).min(block_size) as usize;
        if let Some((fragment, offset)) = layout.fragment
            && index == count - 1
        {
            return Ok(Block::Stored { stored: self.fragment(fragment)?, skip: offset as usize, len });
        }

        let (stride, mark) = self.mark_before(layout, index)?;
        let mut cursor = self.meta.cursor(Table::Inodes, mark.sizes, self.superblock.directory_table)?;
        let mark = sum(&mut cursor, mark, index % stride)?;
        let stored_size = cursor.u32()?;
        if stored_size == 0 {
            return Ok(Block::Hole { len });
        }
        let position = layout.start.saturating_add(mark.passed);
        let stored = self.stored(Table::Data, position, stored_size, layout.block_size)?;
        Ok(Block::Stored { stored, skip: 0, len })
    }

    /// The last mark at or before block `index`, and the distance of marks. Makes missing marks; no lock is held
    /// while metadata is read.
    fn mark_before(&self, layout: &FileLayout, index: u64) -> Result<(u64, Mark), Error> {
        let first = Mark { sizes: layout.sizes, passed: 0 };
        if index < STRIDE {
            return Ok((STRIDE, first));
        }
        // Offsets are at most 8192, and so fit 14 bits.
        let key = layout.sizes.block << 14 | u64::from(layout.sizes.offset);
        let map = match self.block_maps.get(key) {
            Some(map) => map,
            None => self.block_maps.insert(key, Arc::new(BlockMap::new(first))),
        };
        loop {
            let (stride, made, last) = match map.before(index) {
                Found::Mark { stride, mark } => return Ok((stride, mark)),
                Found::Missing { stride, made, last } => (stride, made, last),
            };
            let mut cursor = self.meta.cursor(Table::Inodes, last.sizes, self.superblock.directory_table)?;
            let next = sum(&mut cursor, last, stride)?;
            map.push(stride, made, next);
        }
    }

    /// Checks a stored block that an inode or the fragment table of kind `table` names.
    pub(super) fn stored(&self, table: Table, offset: u64, size: u32, unpacked: u32) -> Result<Stored, Error> {
        let wrong = |reason| Err(Error::corrupt(table, offset, reason));
        let (compressed, size) = (size & STORED == 0, size & !STORED);
        if size == 0 || size > self.superblock.block_size {
            return wrong(format!("block says {size} bytes, from 1 to {} are allowed", self.superblock.block_size));
        }
        let end = offset.checked_add(u64::from(size));
        if offset < SUPERBLOCK_SIZE as u64 || end.is_none_or(|end| end > self.superblock.bytes_used) {
            let used = self.superblock.bytes_used;
            return wrong(format!("block of {size} bytes leaves the archive, which has {used}"));
        }
        Ok(Stored { offset, size, compressed, unpacked })
    }

    /// Reads and unpacks a stored block. It has at most `block.unpacked` bytes, but a damaged one may have fewer than
    /// a file needs: see [`Stored::part`].
    ///
    /// # Errors
    /// When the block cannot be read or unpacked, or has more bytes than it may.
    pub fn load(&self, block: Stored) -> Result<Vec<u8>, Error> {
        let wrong = |reason| Error::corrupt(Table::Data, block.offset, reason);
        let limit = block.unpacked.min(self.superblock.block_size);
        if block.size > self.superblock.block_size || (!block.compressed && block.size > limit) {
            return Err(wrong(format!("block says {} bytes, at most {limit} are allowed", block.size)));
        }
        let mut bytes = vec![0; block.size as usize];
        self.meta.read(Table::Data, block.offset, &mut bytes)?;
        if !block.compressed {
            return Ok(bytes);
        }
        compress::decompress(self.superblock.compressor, &bytes, limit as usize)
            .map_err(|reason| wrong(format!("block cannot be unpacked: {reason}")))
    }

    /// Fills `buf` from byte `offset` of the regular file `inode`; returns how many bytes there were, fewer only at
    /// the end of the file. Keeps no block: calls should cover whole blocks.
    ///
    /// # Errors
    /// When `inode` is no regular file, or what is to be read is damaged.
    pub fn read_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let Kind::File { size, layout } = &inode.kind else {
            return Err(Error::WrongKind { number: inode.number, wanted: "regular file" });
        };
        let block_size = u64::from(layout.block_size);
        let wanted = size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut filled = 0;
        while filled < wanted {
            let at = offset + filled as u64;
            let block = self.block(inode, at / block_size)?;
            let within = (at % block_size) as usize;
            let count = (block.len() - within).min(wanted - filled);
            let target = &mut buf[filled..filled + count];
            match block {
                Block::Hole { .. } => target.fill(0),
                Block::Stored { stored, skip, len } => {
                    let bytes = self.load(stored)?;
                    target.copy_from_slice(&stored.part(&bytes, skip, len)?[within..within + count]);
                }
            }
            filled += count;
        }
        Ok(filled)
    }

    /// The whole contents of a regular file of at most 256 MiB.
    ///
    /// # Errors
    /// As [`Archive::read_at`], and when the file is larger.
    pub fn read_file(&self, inode: &Inode) -> Result<Vec<u8>, Error> {
        let mut contents = Vec::new();
        if let Kind::File { size, .. } = inode.kind
            && size > READ_FILE_MAX
        {
            let reason = format!("a file of {size} bytes is too large to be read at once");
            return Err(Error::Range { number: inode.number, reason });
        }
        for index in 0..inode.block_count() {
            match self.block(inode, index)? {
                Block::Hole { len } => contents.resize(contents.len() + len, 0),
                Block::Stored { stored, skip, len } => {
                    let bytes = self.load(stored)?;
                    contents.extend_from_slice(stored.part(&bytes, skip, len)?);
                }
            }
        }
        Ok(contents)
    }
}

enum Found {
    Mark { stride: u64, mark: Mark },
    Missing { stride: u64, made: usize, last: Mark },
}

impl BlockMap {
    fn new(first: Mark) -> Self {
        Self(Mutex::new(Marks { stride: STRIDE, marks: vec![first] }))
    }

    fn before(&self, index: u64) -> Found {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stride, made) = (marks.stride, marks.marks.len());
        let wanted = usize::try_from(index / stride).unwrap_or(usize::MAX).min(made - 1);
        let mark = marks.marks[wanted];
        // The last mark serves the blocks up to the next one.
        if index / stride == wanted as u64 {
            Found::Mark { stride, mark }
        } else {
            Found::Missing { stride, made, last: mark }
        }
    }

    /// Adds the mark that follows the `made` marks at distance `stride`, unless another thread has been here.
    fn push(&self, stride: u64, made: usize, mark: Mark) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.stride != stride || marks.marks.len() != made {
            return;
        }
        marks.marks.push(mark);
        if made + 1 == MARKS_MAX {
            let mut even = false;
            marks.marks.retain(|_| {
                even = !even;
                even
            });
            marks.stride *= 2;
        }
    }
}

/// Passes over `count` stored sizes, adding them up.
fn sum(cursor: &mut super::meta::Cursor<'_>, mark: Mark, mut count: u64) -> Result<Mark, Error> {
    let mut passed = mark.passed;
    let mut buf = [0; 4 * STRIDE as usize];
    while count > 0 {
        let step = count.min(STRIDE);
        let sizes = &mut buf[..4 * step as usize];
        cursor.read(sizes)?;
        let sum: u64 = sizes.as_chunks::<4>().0.iter().map(|size| u64::from(u32::from_le_bytes(*size) & !STORED)).sum();
        passed = passed.checked_add(sum).ok_or_else(|| cursor.wrong("the blocks of a file leave the archive"))?;
        count -= step;
    }
    Ok(Mark { sizes: cursor.place(), passed })
}
