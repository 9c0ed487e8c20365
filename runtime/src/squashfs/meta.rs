//! Metadata blocks: how every table except the superblock is stored.
//!
//! A block is a 16-bit header and up to 8192 bytes, packed or not (specification section 1.1). Tables of records
//! run on from block to block; a place in one is the position of a block and an offset in the unpacked bytes.

use std::sync::Arc;

use super::cache::Cache;
use super::compress;
use super::error::{Error, Table};
use super::superblock::{Compressor, SUPERBLOCK_SIZE, le32, le64};
use crate::source::ByteSource;

/// Unpacked size of every metadata block but the last of a table, in bytes.
pub(super) const BLOCK_SIZE: usize = 8192;

/// Blocks kept unpacked: 4 MiB.
const CACHED_BLOCKS: usize = 512;

/// Header bit: the block is stored as it is.
const STORED: u16 = 0x8000;

/// Cache keys with this bit name pages of a position list, which are no metadata blocks.
const LIST_PAGE: u64 = 1 << 63;

/// A place in a table: byte of the archive where a block begins, and offset in its unpacked bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) offset: u16,
}

/// One unpacked metadata block.
pub(super) struct MetaBlock {
    bytes: Vec<u8>,
    /// Where the next block begins, if there is one.
    next: u64,
}

/// Reads metadata blocks, and keeps the latest.
pub(super) struct Meta {
    source: Arc<dyn ByteSource>,
    compressor: Compressor,
    end: u64,
    cache: Cache<Arc<MetaBlock>>,
}

impl Meta {
    /// `end` is the length of the archive in bytes.
    pub(super) fn new(source: Arc<dyn ByteSource>, compressor: Compressor, end: u64) -> Self {
        Self { source, compressor, end, cache: Cache::new(CACHED_BLOCKS) }
    }

    pub(super) fn source(&self) -> &Arc<dyn ByteSource> {
        &self.source
    }

    /// Fills `buf` from byte `offset` of the archive.
    pub(super) fn read(&self, table: Table, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.end) {
            let reason = format!("{} bytes from here leave the archive, which has {}", buf.len(), self.end);
            return Err(Error::corrupt(table, offset, reason));
        }
        self.source.read_exact_at(buf, offset).map_err(|source| Error::Io { table, offset, source })
    }

    /// The block at `position`, which must end at or before `limit`.
    pub(super) fn block(&self, table: Table, position: u64, limit: u64) -> Result<Arc<MetaBlock>, Error> {
        let block = match self.cache.get(position) {
            Some(block) => block,
            None => self.cache.insert(position, Arc::new(self.unpack(table, position)?)),
        };
        if block.next > limit {
            let reason = format!("block ends at byte {}, but the table ends at {limit}", block.next);
            return Err(Error::corrupt(table, position, reason));
        }
        Ok(block)
    }

    fn unpack(&self, table: Table, position: u64) -> Result<MetaBlock, Error> {
        let wrong = |reason: String| Error::corrupt(table, position, reason);
        let left = self.end.saturating_sub(position);
        if position < SUPERBLOCK_SIZE as u64 || left < 2 {
            return Err(wrong(format!("block lies outside the archive, which has {} bytes", self.end)));
        }
        // One read for header and body: its length is known only afterwards, and a second read costs more.
        let mut buf = [0; 2 + BLOCK_SIZE];
        let available = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let mut buf = &mut buf[..available];
        if self.read(table, position, buf).is_err() {
            // What follows the block may be what is unreadable; that is no reason to lose the block.
            let mut header = [0; 2];
            self.read(table, position, &mut header)?;
            let size = usize::from(u16::from_le_bytes(header) & !STORED);
            buf = &mut buf[..available.min(2 + size)];
            self.read(table, position, buf)?;
        }
        let (header, body) = buf.split_first_chunk::<2>().ok_or_else(|| wrong("block has no header".into()))?;
        let header = u16::from_le_bytes(*header);
        let size = usize::from(header & !STORED);
        if size == 0 || size > BLOCK_SIZE {
            return Err(wrong(format!("block says {size} bytes, from 1 to {BLOCK_SIZE} are allowed")));
        }
        let Some(body) = body.get(..size) else {
            return Err(wrong(format!("block says {size} bytes, but the archive ends after {}", body.len())));
        };
        let bytes = if header & STORED != 0 {
            body.to_vec()
        } else {
            compress::decompress(self.compressor, body, BLOCK_SIZE)
                .map_err(|reason| wrong(format!("block cannot be unpacked: {reason}")))?
        };
        if bytes.is_empty() {
            return Err(wrong("block unpacks to nothing".into()));
        }
        Ok(MetaBlock { bytes, next: position + 2 + size as u64 })
    }

    /// A cursor at `place` of a table that ends at byte `limit` of the archive.
    pub(super) fn cursor(&self, table: Table, place: Place, limit: u64) -> Result<Cursor<'_>, Error> {
        let block = self.block(table, place.block, limit)?;
        let offset = usize::from(place.offset);
        if offset > block.bytes.len() {
            let reason = format!("offset {offset} is beyond the {} bytes of the block", block.bytes.len());
            return Err(Error::corrupt(table, place.block, reason));
        }
        Ok(Cursor { meta: self, table, limit, position: place.block, block, offset })
    }

    /// Record `index` of a table of `N`-byte records whose blocks are listed from byte `list` on. `N` divides
    /// [`BLOCK_SIZE`]; the caller has compared `index` with the table's count.
    pub(super) fn record<const N: usize>(&self, table: Table, list: u64, index: u64) -> Result<[u8; N], Error> {
        let position = self.listed(table, list, index / (BLOCK_SIZE / N) as u64)?;
        // The blocks of a table are written before the list of them.
        self.record_in(table, position, list, index)
    }

    /// The same where the block of the record is known: it begins at `position` and must end at or before `limit`.
    pub(super) fn record_in<const N: usize>(
        &self,
        table: Table,
        position: u64,
        limit: u64,
        index: u64,
    ) -> Result<[u8; N], Error> {
        let per_block = (BLOCK_SIZE / N) as u64;
        let block = self.block(table, position, limit)?;
        let offset = (index % per_block) as usize * N;
        block.bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(|| {
            let reason = format!("block has {} bytes, record {index} would begin at {offset}", block.bytes.len());
            Error::corrupt(table, position, reason)
        })
    }

    /// Entry `index` of the list of 64-bit positions that begins at byte `list`.
    fn listed(&self, table: Table, list: u64, index: u64) -> Result<u64, Error> {
        let per_page = (BLOCK_SIZE / 8) as u64;
        let position = (index / per_page).checked_mul(BLOCK_SIZE as u64).and_then(|bytes| list.checked_add(bytes));
        let position = position.filter(|position| *position < self.end).ok_or_else(|| {
            Error::corrupt(table, list, format!("the position of block {index} would lie outside the archive"))
        })?;
        let page = match self.cache.get(position | LIST_PAGE) {
            Some(page) => page,
            None => {
                // What follows the list may be read along with it; it is never looked at.
                let mut bytes = vec![0; (self.end - position).min(BLOCK_SIZE as u64) as usize];
                self.read(table, position, &mut bytes)?;
                self.cache.insert(position | LIST_PAGE, Arc::new(MetaBlock { bytes, next: position }))
            }
        };
        let offset = (index % per_page) as usize * 8;
        match page.bytes.get(offset..).and_then(|rest| rest.first_chunk()) {
            Some(entry) => Ok(u64::from_le_bytes(*entry)),
            None => Err(Error::corrupt(table, position, "the list of blocks leaves the archive")),
        }
    }
}

/// Reads a table onwards from some place. Every step moves forward in the archive, so a chain of blocks ends.
pub(super) struct Cursor<'a> {
    meta: &'a Meta,
    table: Table,
    limit: u64,
    position: u64,
    block: Arc<MetaBlock>,
    offset: usize,
}

impl Cursor<'_> {
    /// Fills `buf` with the bytes that follow.
    pub(super) fn read(&mut self, mut buf: &mut [u8]) -> Result<(), Error> {
        while !buf.is_empty() {
            let available = self.available()?;
            let count = available.len().min(buf.len());
            let (now, later) = buf.split_at_mut(count);
            now.copy_from_slice(&available[..count]);
            self.offset += count;
            buf = later;
        }
        Ok(())
    }

    /// The bytes that follow in the current block, or the next where this one is used up; at least one.
    fn available(&mut self) -> Result<&[u8], Error> {
        if self.offset == self.block.bytes.len() {
            let next = self.block.next;
            if next >= self.limit {
                return Err(Error::corrupt(self.table, next, "the table ends inside a record"));
            }
            self.block = self.meta.block(self.table, next, self.limit)?;
            (self.position, self.offset) = (next, 0);
        }
        Ok(&self.block.bytes[self.offset..])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        Ok(le32(&self.array::<4>()?, 0))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        Ok(le64(&self.array::<8>()?, 0))
    }

    /// `len` bytes; the caller has bounded `len`.
    pub(super) fn bytes(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Where the cursor stands. The offset is at most [`BLOCK_SIZE`].
    pub(super) fn place(&self) -> Place {
        Place { block: self.position, offset: self.offset as u16 }
    }

    /// An error at the current place.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(self.table, self.position, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(tail: &[u8]) -> Meta {
        let mut bytes = vec![0; SUPERBLOCK_SIZE];
        bytes.extend_from_slice(tail);
        let end = bytes.len() as u64;
        Meta::new(Arc::new(bytes), Compressor::Zstd, end)
    }

    fn failure(tail: &[u8], limit: u64) -> String {
        meta(tail).block(Table::Inodes, 96, limit).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_record_may_cross_blocks() {
        let meta = meta(&[3, 0x80, 1, 2, 3, 2, 0x80, 4, 5]);
        let mut cursor = meta.cursor(Table::Inodes, Place { block: 96, offset: 1 }, 105).unwrap();
        assert_eq!(cursor.u32().unwrap(), 0x0504_0302);
        assert_eq!(cursor.place(), Place { block: 101, offset: 2 });
        assert!(cursor.u32().unwrap_err().to_string().contains("the table ends inside a record"));
        assert!(meta.cursor(Table::Inodes, Place { block: 96, offset: 4 }, 105).is_err());
    }

    #[test]
    fn errors_say_what_and_where() {
        assert_eq!(
            failure(&[0x28, 0xa3, 0, 0], 999),
            "squashfs: inode table at byte 96: block says 9000 bytes, from 1 to 8192 are allowed"
        );
        assert!(failure(&[0, 0x80], 999).contains("block says 0 bytes"));
        assert!(failure(&[4, 0x80, 1], 999).contains("the archive ends after 1"));
        assert!(failure(&[4], 999).contains("outside the archive"));
        assert!(failure(&[1, 0x80, 1], 98).contains("the table ends at 98"));
        assert!(failure(&[3, 0, 1, 2, 3], 999).contains("cannot be unpacked"));
        assert!(meta(&[]).block(Table::Data, u64::MAX, u64::MAX).is_err());
        assert!(meta(&[1, 0x80, 1]).block(Table::Data, 95, 999).is_err());
    }

    #[test]
    fn records_are_found_through_the_list() {
        // One block of two ids at 96, the list at 106.
        let mut tail = vec![8, 0x80, 1, 0, 0, 0, 2, 0, 0, 0];
        tail.extend_from_slice(&96u64.to_le_bytes());
        let meta = meta(&tail);
        assert_eq!(meta.record(Table::Ids, 106, 1).unwrap(), [2, 0, 0, 0]);
        assert!(meta.record::<4>(Table::Ids, 106, 2).is_err());
        assert!(meta.record::<4>(Table::Ids, 106, 2048).is_err());
        assert!(meta.record::<4>(Table::Ids, 106, u64::MAX).is_err());
        assert!(meta.record::<4>(Table::Ids, 105, 0).is_err());
    }
}
