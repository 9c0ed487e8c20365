//! A layer whose every chunk is checked when it is first read.

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::PAGE;
use super::chunk_tree::{FANOUT, Shape};
use super::layer::{Digest, LayerEntry};
use crate::source::{ByteSource, FileRange};

type Page = [u8; PAGE as usize];

thread_local! {
    /// Room for the chunk that a small read needs whole.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes of one layer. Each chunk is verified when it is first read and then remembered in a bitmap, so
/// later reads cost one bit test more than reading the file. No lock is taken; two threads that meet at an
/// unverified chunk both verify it.
///
/// `S` is the whole image, addressed from byte 0.
#[derive(Debug)]
pub struct VerifiedSource<S = FileRange> {
    image: S,
    entry: LayerEntry,
    /// Position of the entry in the index, for messages.
    index: usize,
    shape: Shape,
    verified: Box<[AtomicU64]>,
    /// Verified pages of the chunk tree.
    pages: Box<[OnceLock<Box<Page>>]>,
}

impl<S: ByteSource> VerifiedSource<S> {
    /// Entry `index` of the layer index of `image`. Reads nothing.
    ///
    /// # Errors
    /// `InvalidInput` when the entry breaks a rule of the format.
    pub fn new(image: S, entry: &LayerEntry, index: usize) -> io::Result<Self> {
        entry.check().map_err(|reason| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("entry {index} of the layer index: {reason}"))
        })?;
        let shape = Shape::new(entry.size, entry.chunks.chunk_size);
        // An accepted entry has at most 2^26 chunks.
        let words = shape.chunks.div_ceil(64) as usize;
        let verified = (0..words).map(|_| AtomicU64::new(0)).collect();
        let pages = (0..shape.pages()).map(|_| OnceLock::new()).collect();
        Ok(Self { image, entry: entry.clone(), index, shape, verified, pages })
    }

    /// The index entry.
    #[must_use]
    pub fn entry(&self) -> &LayerEntry {
        &self.entry
    }

    /// The source that is read.
    #[cfg(test)]
    pub(super) fn image(&self) -> &S {
        &self.image
    }

    fn is_verified(&self, chunk: u64) -> bool {
        // Acquire is not needed: the bit promises something about the file, not about memory.
        self.verified[(chunk / 64) as usize].load(Ordering::Relaxed) & (1 << (chunk % 64)) != 0
    }

    fn chunk_start(&self, chunk: u64) -> u64 {
        chunk * u64::from(self.entry.chunks.chunk_size)
    }

    fn chunk_end(&self, chunk: u64) -> u64 {
        self.chunk_start(chunk + 1).min(self.entry.size)
    }

    fn read_image(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.image.read_exact_at(buf, self.entry.offset + offset)
    }

    /// Compares `bytes`, which are all of `chunk`, with its digest.
    fn verify(&self, chunk: u64, bytes: &[u8]) -> io::Result<()> {
        if Digest::of(bytes) != self.digest(0, chunk)? {
            return Err(self.damaged("chunk", self.entry.offset + self.chunk_start(chunk), bytes.len()));
        }
        self.verified[(chunk / 64) as usize].fetch_or(1 << (chunk % 64), Ordering::Relaxed);
        Ok(())
    }

    /// The digest that `chunk` should have, from a verified page.
    pub(super) fn chunk_digest(&self, chunk: u64) -> io::Result<Digest> {
        self.digest(0, chunk)
    }

    /// Digest number `item` of a level of the tree. Goes up to the root, at most four levels, as far as pages
    /// are not verified yet.
    fn digest(&self, level: usize, item: u64) -> io::Result<Digest> {
        let page = self.page(level, item / FANOUT)?;
        let at = (item % FANOUT) as usize * 32;
        let mut digest = [0; 32];
        digest.copy_from_slice(&page[at..at + 32]);
        Ok(Digest(digest))
    }

    fn page(&self, level: usize, index: u64) -> io::Result<&Page> {
        let position = self.shape.page(level, index);
        let cell = &self.pages[position as usize];
        if let Some(page) = cell.get() {
            return Ok(page);
        }
        let expected = match level + 1 == self.shape.levels() {
            true => self.entry.chunks.root,
            false => self.digest(level + 1, index)?,
        };
        let mut page = Box::new([0; PAGE as usize]);
        let offset = self.entry.chunks.offset + position * PAGE;
        self.image.read_exact_at(&mut page[..], offset)?;
        if Digest::of(&page[..]) != expected {
            return Err(self.damaged("digest page", offset, page.len()));
        }
        Ok(cell.get_or_init(|| page))
    }

    fn damaged(&self, what: &str, offset: u64, len: usize) -> io::Error {
        let index = self.index;
        let text = format!(
            "layer {index} is damaged: the {what} at byte {offset} of the image ({len} bytes) does not match its digest"
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// Reads a part of an unverified chunk: the whole of it once, into scratch memory of the thread.
    fn read_part(&self, chunk: u64, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let (start, end) = (self.chunk_start(chunk), self.chunk_end(chunk));
        let mut scratch = SCRATCH.take();
        // A chunk has at most 1 MiB, and the part lies inside it.
        scratch.resize((end - start) as usize, 0);
        let result = self.read_image(&mut scratch, start).and_then(|()| self.verify(chunk, &scratch));
        if result.is_ok() {
            let at = (offset - start) as usize;
            buf.copy_from_slice(&scratch[at..at + buf.len()]);
        }
        SCRATCH.set(scratch);
        result
    }
}

impl<S: ByteSource> ByteSource for VerifiedSource<S> {
    fn len(&self) -> u64 {
        self.entry.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.entry.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let chunk_size = u64::from(self.entry.chunks.chunk_size);
        let (mut rest, mut at) = (buf, offset);
        while at < end {
            let first = at / chunk_size;
            // The longest run of chunks that are treated alike, so that each run is one read of the file.
            let known = self.is_verified(first);
            let whole = |chunk| self.chunk_start(chunk) >= at && self.chunk_end(chunk) <= end;
            let mut next = first + 1;
            while self.chunk_start(next) < end
                && self.is_verified(next) == known
                && (known || whole(first) && whole(next))
            {
                next += 1;
            }
            let stop = self.chunk_end(next - 1).min(end);
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut((stop - at) as usize);
            if known {
                self.read_image(piece, at)?;
            } else if whole(first) {
                self.read_image(piece, at)?;
                for (chunk, bytes) in (first..next).zip(piece.chunks(chunk_size as usize)) {
                    self.verify(chunk, bytes)?;
                }
            } else {
                self.read_part(first, piece, at)?;
            }
            (rest, at) = (tail, stop);
        }
        Ok(())
    }
}
