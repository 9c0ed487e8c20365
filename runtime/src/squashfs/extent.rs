//! Data and holes of regular files, as `lseek(2)` tells them apart (`SEEK_DATA`, `SEEK_HOLE`).
//!
//! A hole is a run of blocks that are not stored. Zeros within a stored block are data.

use super::data::STORED;
use super::inode::{Inode, Kind};
use super::{Archive, Error};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Bytes that are stored.
    Data,
    /// Bytes that are not; the end of the file counts as one.
    Hole,
}

impl Extent {
    /// From the `whence` of `lseek(2)`; `None` for any that looks for neither.
    #[must_use]
    pub fn from_whence(whence: i32) -> Option<Self> {
        match whence {
            libc::SEEK_DATA => Some(Self::Data),
            libc::SEEK_HOLE => Some(Self::Hole),
            _ => None,
        }
    }
}

impl Archive {
    /// The first byte at or behind `offset` of the regular file `inode` that is in such an extent. `None` when there is
    /// none, or the file ends at or before `offset` (`ENXIO`). A file whose inode tells of no holes has none.
    ///
    /// # Errors
    /// When `inode` is no regular file, or its metadata is damaged.
    pub fn next_extent(&self, inode: &Inode, offset: u64, wanted: Extent) -> Result<Option<u64>, Error> {
        let Kind::File { size, layout } = &inode.kind else {
            return Err(Error::WrongKind { number: inode.number, wanted: "regular file" });
        };
        if offset >= *size {
            return Ok(None);
        }
        let found_at = |start: u64| Ok(Some(start.max(offset)));
        let last = match wanted {
            Extent::Data => None,
            Extent::Hole => Some(*size),
        };
        if layout.sparse == 0 {
            return if wanted == Extent::Data { found_at(offset) } else { Ok(last) };
        }
        let block_size = u64::from(layout.block_size);
        let blocks = inode.block_count() - u64::from(layout.fragment.is_some());
        let first = offset / block_size;
        if first < blocks {
            let (_, mut sizes) = self.sizes_from(layout, first)?;
            for index in first..blocks {
                let is_hole = sizes.u32()? & !STORED == 0;
                if is_hole == (wanted == Extent::Hole) {
                    return found_at(index * block_size);
                }
            }
        }
        // A tail in a fragment block is data.
        if wanted == Extent::Data && layout.fragment.is_some() { found_at(blocks * block_size) } else { Ok(last) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::handmade::{Handmade, words};
    use super::*;

    /// A file of blocks of 4096 bytes with these stored sizes, and a tail of 100 bytes in a fragment.
    fn file(sparse: u32, sizes: &[u32], has_tail: bool) -> (Archive, Inode) {
        let mut made = Handmade::new();
        let size = 4096 * sizes.len() as u32 + if has_tail { 100 } else { 0 };
        let fragment = if has_tail { 0 } else { u32::MAX };
        // start, size, sparse: 64 bits each; nlink, fragment, offset, attributes.
        let head = words(&[96, 0, size, 0, sparse, 0, 1, fragment, 0, u32::MAX]);
        let inode = made.inode(9, &[head, words(sizes)].concat());
        let archive = made.open();
        let inode = archive.inode(inode).unwrap();
        (archive, inode)
    }

    #[test]
    fn holes_are_the_blocks_that_are_not_stored() {
        let (archive, inode) = file(3 * 4096, &[0, 0, STORED | 4096, 0, 10], true);
        assert_eq!(inode.stored_bytes(), 2 * 4096 + 100);
        let end = 5 * 4096 + 100;
        for (offset, data, hole) in [
            (0, Some(8192), Some(0)),
            (5000, Some(8192), Some(5000)),
            (8192, Some(8192), Some(12288)),
            (12000, Some(12000), Some(12288)),
            (12289, Some(16384), Some(12289)),
            (16384, Some(16384), Some(end)),
            (end - 1, Some(end - 1), Some(end)),
            (end, None, None),
            (u64::MAX, None, None),
        ] {
            assert_eq!(archive.next_extent(&inode, offset, Extent::Data).unwrap(), data, "data from {offset}");
            assert_eq!(archive.next_extent(&inode, offset, Extent::Hole).unwrap(), hole, "hole from {offset}");
        }
    }

    #[test]
    fn the_end_of_a_file_may_be_a_hole() {
        let (archive, inode) = file(4096, &[10, 0], false);
        assert_eq!(archive.next_extent(&inode, 4096, Extent::Data).unwrap(), None);
        assert_eq!(archive.next_extent(&inode, 0, Extent::Hole).unwrap(), Some(4096));
        assert_eq!(archive.next_extent(&inode, 8192, Extent::Hole).unwrap(), None);
    }

    #[test]
    fn a_file_that_tells_of_no_holes_has_none() {
        let (archive, inode) = file(0, &[0, 0], false);
        assert_eq!(archive.next_extent(&inode, 7, Extent::Data).unwrap(), Some(7));
        assert_eq!(archive.next_extent(&inode, 7, Extent::Hole).unwrap(), Some(8192));
    }

    #[test]
    fn more_holes_than_bytes_and_sizes_behind_the_table_are_no_harm() {
        let (_, inode) = file(u32::MAX, &[0], false);
        assert_eq!(inode.stored_bytes(), 0);
        let mut made = Handmade::new();
        // 2^40 bytes, and no list of sizes.
        let at = made.inode(9, &words(&[96, 0, 0, 256, 4096, 0, 1, u32::MAX, 0, u32::MAX]));
        let archive = made.open();
        let inode = archive.inode(at).unwrap();
        assert!(archive.next_extent(&inode, 0, Extent::Data).is_err());
        let directory = Inode { kind: Kind::Fifo, ..inode };
        assert!(archive.next_extent(&directory, 0, Extent::Data).is_err());
    }
}
