//! Contents of regular files (specification sections 3 and 4).
//!
//! A file is a run of blocks that lie one behind the other, and perhaps a tail inside a fragment block that it
//! shares. The inode lists the stored sizes, so the position of block N is the sum of the sizes before it.

use std::cell::RefCell;

use super::error::{Error, Table};
use super::inode::{Inode, Kind};
use super::meta::Place;
use super::superblock::SUPERBLOCK_SIZE;
use super::{Archive, compress};

/// Most bytes that [`Archive::read_file`] returns.
const READ_FILE_MAX: u64 = 256 << 20;

/// Bit of a stored size: the block is stored as it is.
pub(super) const STORED: u32 = 1 << 24;

thread_local! {
    /// Where a thread reads packed blocks. Used again and again: buffers of their many sizes between the unpacked ones,
    /// which stay for a while, would leave the heap full of holes, and fresh memory costs page faults.
    static PACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where the blocks of a regular file are.
#[derive(Clone, Debug)]
pub struct FileLayout {
    pub(super) start: u64,
    pub(super) block_size: u32,
    /// Bytes of the file in holes, as the inode says; 0 where it has no room to say so.
    pub(super) sparse: u64,
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

impl Inode {
    /// Bytes of a regular file that are stored, as far as its inode tells; holes are the rest.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        match &self.kind {
            Kind::File { size, layout } => size.saturating_sub(layout.sparse),
            _ => 0,
        }
    }

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

        let (passed, stored_size) = self.bytes_before(layout, index)?;
        // The kernel wants the whole field to be 0, libsquashfs the size alone.
        if stored_size & !STORED == 0 {
            return Ok(Block::Hole { len });
        }
        let position = layout.start.saturating_add(passed);
        let stored = self.stored(Table::Data, position, stored_size, layout.block_size)?;
        Ok(Block::Stored { stored, skip: 0, len })
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
        let size = block.size as usize;
        if !block.compressed {
            let mut bytes = vec![0; size];
            self.meta.read(Table::Data, block.offset, &mut bytes)?;
            return Ok(bytes);
        }
        PACKED.with_borrow_mut(|packed| {
            if packed.len() < size {
                packed.resize(size, 0);
            }
            let packed = &mut packed[..size];
            self.meta.read(Table::Data, block.offset, packed)?;
            compress::decompress(self.superblock.compressor, packed, limit as usize)
                .map_err(|reason| wrong(format!("block cannot be unpacked: {reason}")))
        })
    }

    /// Fills `buf` from byte `skip` of a block that is stored as it is; such a block needs no reading as a whole.
    ///
    /// # Errors
    /// When the block is compressed, cannot be read, or ends before `buf` is full.
    pub fn load_part(&self, block: Stored, skip: usize, buf: &mut [u8]) -> Result<(), Error> {
        let end = skip.checked_add(buf.len());
        if block.compressed || end.is_none_or(|end| end > block.size as usize) {
            let reason = format!("block of {} bytes, a file has {} from {skip} on", block.size, buf.len());
            return Err(Error::corrupt(Table::Data, block.offset, reason));
        }
        self.meta.read(Table::Data, block.offset.saturating_add(skip as u64), buf)
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

#[cfg(test)]
mod tests {
    use super::super::block_map::{MARKS_MAX, STRIDE};
    use super::super::handmade::{Handmade, words};
    use super::*;

    /// An extended file inode at byte `start` with these stored sizes.
    fn file(made: &mut Handmade, start: u64, size: u64, fragment: u32, sizes: &[u32]) -> super::super::InodeRef {
        let mut body = [start, size, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        body.extend(words(&[1, fragment, 0, u32::MAX]));
        body.extend(words(sizes));
        made.inode(9, &body)
    }

    #[test]
    fn any_block_of_a_huge_file_is_found() {
        // More blocks than marks at the first distance, holes among them.
        let count = MARKS_MAX as u64 * STRIDE + 70_000;
        let sizes: Vec<u32> = (0..count).map(|index| (index % 4) as u32 | (index as u32 & 8) << 21).collect();
        let mut positions = vec![96u64];
        positions.extend(sizes.iter().scan(96, |sum, size| {
            *sum += u64::from(size & !STORED);
            Some(*sum)
        }));
        let mut made = Handmade::new();
        made.data = vec![0; positions[count as usize] as usize - 96];
        made.inode(3, &[&words(&[1, 3])[..], b"odd"].concat()); // sizes that are not aligned
        let inode = file(&mut made, 96, count * 4096, u32::MAX, &sizes);
        let archive = made.open();
        let inode = archive.inode(inode).unwrap();
        assert_eq!(inode.block_count(), count);
        let check = |index: u64| {
            let size = sizes[index as usize];
            let expected = if size & !STORED == 0 {
                Block::Hole { len: 4096 }
            } else {
                let (offset, compressed) = (positions[index as usize], size & STORED == 0);
                let stored = Stored { offset, size: size & !STORED, compressed, unpacked: 4096 };
                Block::Stored { stored, skip: 0, len: 4096 }
            };
            assert_eq!(archive.block(&inode, index).unwrap(), expected, "block {index}");
        };
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let check = &check;
                scope.spawn(move || (0..count).rev().step_by(9973 + thread).for_each(check));
            }
        });
        (0..count).step_by(997).chain([0, 255, 256, 257, count - 1]).for_each(check);
        assert!(archive.block(&inode, count).is_err());
    }

    #[test]
    fn a_claim_of_many_blocks_takes_no_memory() {
        let mut made = Handmade::new();
        let inode = file(&mut made, 96, i64::MAX as u64, u32::MAX, &[1; 1000]);
        let archive = made.open();
        let inode = archive.inode(inode).unwrap();
        assert_eq!(inode.block_count(), 1 << 51);
        let error = archive.block(&inode, 1 << 50).unwrap_err().to_string();
        assert!(error.contains("the table ends inside a record"), "{error}");
        assert!(archive.read_file(&inode).unwrap_err().to_string().contains("too large"));
        assert!(archive.read_at(&inode, 1 << 62, &mut [0; 8192]).is_err());
    }

    #[test]
    fn blocks_outside_the_archive_are_refused() {
        let cases: [(u64, u32, &str); 5] = [
            (96, 4097, "block says 4097 bytes, from 1 to 4096 are allowed"),
            (96, 1 << 25, "block says 33554432 bytes"),
            (95, 1, "leaves the archive"),
            (u64::MAX, 1, "leaves the archive"),
            (4000, 1000, "leaves the archive"),
        ];
        for (start, size, reason) in cases {
            let mut made = Handmade::new();
            made.data = vec![0; 4096];
            let inode = file(&mut made, start, 4096, u32::MAX, &[size]);
            let archive = made.open();
            let error = archive.block(&archive.inode(inode).unwrap(), 0).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}: {reason}");
        }
        let mut made = Handmade::new();
        let inode = file(&mut made, 96, 100, 3, &[]);
        let archive = made.open();
        let error = archive.block(&archive.inode(inode).unwrap(), 0).unwrap_err().to_string();
        assert!(error.contains("a file ends in fragment 3, but there are 0"), "{error}");
    }

    #[test]
    fn a_block_has_the_length_that_the_file_needs() {
        let mut made = Handmade::new();
        made.data = vec![7; 4096];
        let short = file(&mut made, 96, 4096, u32::MAX, &[STORED | 100]);
        let whole = file(&mut made, 96, 50, u32::MAX, &[STORED | 50]);
        let archive = made.open();
        let error = archive.read_file(&archive.inode(short).unwrap()).unwrap_err().to_string();
        assert!(error.contains("data at byte 96: block unpacks to 100 bytes, a file has 4096 from 0 on"), "{error}");
        assert_eq!(archive.read_file(&archive.inode(whole).unwrap()).unwrap(), [7; 50]);
        let block = Stored { offset: 96, size: u32::MAX, compressed: false, unpacked: u32::MAX };
        assert!(archive.load(block).is_err());
        assert!(archive.load(Stored { size: 20, compressed: true, ..block }).is_err());
        assert!(archive.load(Stored { size: 20, unpacked: 19, ..block }).is_err());
        assert_eq!(archive.load(Stored { size: 20, ..block }).unwrap(), [7; 20]);
    }
}
