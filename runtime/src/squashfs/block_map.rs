//! Finding block N of a large file without adding up all sizes before it.
//!
//! The inode lists the stored sizes of a file's blocks. A map keeps the sum at marks some blocks apart, made when
//! they are first needed.

use std::sync::{Arc, Mutex, PoisonError};

use super::Archive;
use super::data::{FileLayout, STORED};
use super::error::{Error, Table};
use super::meta::{Cursor, Place};

/// Blocks from mark to mark, at first. Files with fewer need no marks.
pub(super) const STRIDE: u64 = 256;

/// Most marks of one file, 96 KiB. A file with more than a million blocks gets them farther apart.
pub(super) const MARKS_MAX: usize = 4096;

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

impl Archive {
    /// How many bytes the blocks before block `index` take, and the stored size of that block.
    pub(super) fn bytes_before(&self, layout: &FileLayout, index: u64) -> Result<(u64, u32), Error> {
        let (passed, mut cursor) = self.sizes_from(layout, index)?;
        Ok((passed, cursor.u32()?))
    }

    /// How many bytes the blocks before block `index` take, and where the stored sizes from that block on are.
    pub(super) fn sizes_from(&self, layout: &FileLayout, index: u64) -> Result<(u64, Cursor<'_>), Error> {
        let (stride, mark) = self.mark_before(layout, index)?;
        let mut cursor = self.meta.cursor(Table::Inodes, mark.sizes, self.superblock.directory_table)?;
        let mark = sum(&mut cursor, mark, index % stride)?;
        Ok((mark.passed, cursor))
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
fn sum(cursor: &mut Cursor<'_>, mark: Mark, mut count: u64) -> Result<Mark, Error> {
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
