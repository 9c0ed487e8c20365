//! Contents of files: blocks, holes and tails.

use super::object::check;
use super::{Error, Writer, ffi};
use std::collections::HashMap;

/// Where the content of one file went. Belongs to the [`Writer`] that made it.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    pub(super) size: u64,
    /// Place of the inode that has the blocks.
    pub(super) blocks: Option<u32>,
    /// Place of the inode that has the fragment.
    pub(super) tail: Option<u32>,
}

impl Content {
    /// Bytes in the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Tails written so far, so that equal ones (and so, equal small files) are stored once. 128 bits of BLAKE3:
/// nobody finds two different tails with equal ones.
#[derive(Default)]
pub struct Tails(HashMap<[u8; 16], u32>);

impl Tails {
    fn key(tail: &[u8]) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(tail).as_bytes()[..16]);
        key
    }
}

/// Takes the bytes of one file in order. Dropped before [`ContentWriter::end`], it leaves the writer unusable:
/// drop that too.
pub struct ContentWriter<'w> {
    writer: &'w mut Writer,
    uncompressed: bool,
    size: u64,
    /// Place of the inode that gets the blocks, once there is one.
    blocks: Option<u32>,
}

impl<'w> ContentWriter<'w> {
    pub(super) fn new(writer: &'w mut Writer, uncompressed: bool) -> Self {
        writer.partial.clear();
        Self { writer, uncompressed, size: 0, blocks: None }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When an earlier block could not be compressed or written.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        let block_size = self.writer.block_size;
        if !self.writer.partial.is_empty() {
            let (fill, rest) = bytes.split_at(bytes.len().min(block_size - self.writer.partial.len()));
            self.writer.partial.extend_from_slice(fill);
            bytes = rest;
            if self.writer.partial.len() == block_size {
                self.flush()?;
            }
        }
        let (whole, rest) = bytes.split_at(bytes.len() / block_size * block_size);
        if !whole.is_empty() {
            self.append(whole)?;
        }
        self.writer.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Appends `length` zero bytes. Blocks of nothing else take no room.
    ///
    /// # Errors
    /// As [`ContentWriter::write`].
    pub fn hole(&mut self, mut length: u64) -> Result<(), Error> {
        let zeros = std::mem::take(&mut self.writer.zeros);
        let mut done = Ok(());
        while length > 0 && done.is_ok() {
            let step = usize::try_from(length).unwrap_or(usize::MAX).min(zeros.len());
            done = self.write(&zeros[..step]);
            length -= step as u64;
        }
        self.writer.zeros = zeros;
        done
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`ContentWriter::write`].
    pub fn end(mut self) -> Result<Content, Error> {
        let partial = &self.writer.partial;
        // A tail of zeros is a short sparse block: it needs no fragment.
        let as_block = self.uncompressed || partial.iter().all(|&byte| byte == 0);
        if !partial.is_empty() && as_block {
            self.flush()?;
        }
        if self.blocks.is_some() {
            self.end_file()?;
        }
        let tail = if self.writer.partial.is_empty() { None } else { Some(self.tail()?) };
        self.writer.partial.clear();
        Ok(Content { size: self.size, blocks: self.blocks, tail })
    }

    /// Stores what is in `partial` as a fragment, or finds the equal one.
    fn tail(&mut self) -> Result<u32, Error> {
        let key = Tails::key(&self.writer.partial);
        if let Some(&place) = self.writer.tails.0.get(&key) {
            return Ok(place);
        }
        let place = self.begin_file(ffi::BLK_DONT_DEDUPLICATE)?;
        let tail = std::mem::take(&mut self.writer.partial);
        let done = self.append_raw(&tail);
        self.writer.partial = tail;
        done?;
        self.end_file()?;
        self.writer.tails.0.insert(key, place);
        Ok(place)
    }

    fn flush(&mut self) -> Result<(), Error> {
        let block = std::mem::take(&mut self.writer.partial);
        let done = self.append(&block);
        self.writer.partial = block;
        self.writer.partial.clear();
        done
    }

    /// Appends to the blocks of the file. `DONT_FRAGMENT`, because a tail that shall be shared never gets here.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.blocks.is_none() {
            let compress = if self.uncompressed { ffi::BLK_DONT_COMPRESS } else { 0 };
            self.blocks = Some(self.begin_file(ffi::BLK_DONT_FRAGMENT | compress)?);
        }
        self.append_raw(bytes)
    }

    fn begin_file(&mut self, flags: u32) -> Result<u32, Error> {
        let (index, place) = self.writer.slots.push();
        let processor = self.writer.processor.as_ptr();
        // SAFETY: the processor is live; `place` does not move and outlives it; no user data is passed.
        let code = unsafe { ffi::sqfs_block_processor_begin_file(processor, place, std::ptr::null_mut(), flags) };
        check("beginning a file", code).map_err(|error| self.writer.with_cause(error))?;
        Ok(index)
    }

    fn append_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let processor = self.writer.processor.as_ptr();
        // SAFETY: the processor is live and copies `bytes` before it returns.
        let code = unsafe { ffi::sqfs_block_processor_append(processor, bytes.as_ptr().cast(), bytes.len()) };
        check("writing data", code).map_err(|error| self.writer.with_cause(error))
    }

    fn end_file(&mut self) -> Result<(), Error> {
        // SAFETY: the processor is live.
        let code = unsafe { ffi::sqfs_block_processor_end_file(self.writer.processor.as_ptr()) };
        check("ending a file", code).map_err(|error| self.writer.with_cause(error))
    }
}
