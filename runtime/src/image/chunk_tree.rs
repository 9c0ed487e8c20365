//! Digests of a layer's chunks, kept as a tree of pages so that a start reads none of them.
//!
//! Leaf pages hold the BLAKE3-256 digests of 128 chunks each, upper pages those of 128 lower pages each, up
//! to one root page whose digest stands in the index. The levels follow each other, leaves first. Unused
//! places are zero.

use super::PAGE;
use super::layer::Digest;

/// Digests on one page. Changing this breaks the format.
pub const FANOUT: u64 = PAGE / 32;
/// Chunk length in bytes that the builder chooses.
pub const DEFAULT_CHUNK_SIZE: u32 = 32 * 1024;
/// Least chunk length in bytes.
pub const MIN_CHUNK_SIZE: u32 = 16 * 1024;
/// Greatest chunk length in bytes.
pub const MAX_CHUNK_SIZE: u32 = 1024 * 1024;
/// Bytes handed to [`TreeBuilder::update`] at once from which a second thread pays.
const PARALLEL_FROM: usize = 512 * 1024;

/// Where the digests of a layer's chunks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTree {
    /// Offset of the first page from the start of the file, a multiple of [`PAGE`].
    pub offset: u64,
    /// Length of all pages in bytes.
    pub size: u64,
    /// Length of a chunk in bytes, a power of two from 16 KiB to 1 MiB; the last chunk may be shorter.
    pub chunk_size: u32,
    /// BLAKE3-256 of the root page.
    pub root: Digest,
}

/// Checks a chunk length.
///
/// # Errors
/// The rule that is broken.
pub fn check_chunk_size(chunk_size: u32) -> Result<(), &'static str> {
    if chunk_size.is_power_of_two() && (MIN_CHUNK_SIZE..=MAX_CHUNK_SIZE).contains(&chunk_size) {
        Ok(())
    } else {
        Err("the chunk length is not a power of two from 16 KiB to 1 MiB")
    }
}

/// Length in bytes of the tree of a layer of `size` bytes, at least 1, in chunks of a valid `chunk_size`.
#[must_use]
pub fn tree_len(size: u64, chunk_size: u32) -> u64 {
    Shape::new(size, chunk_size).pages() * PAGE
}

/// Number of pages on each level. A layer has at most 2^26 chunks, so there are at most four levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Number of chunks.
    pub chunks: u64,
    /// Position of the first page of each level, leaves first, and one past the last page.
    starts: Vec<u64>,
}

impl Shape {
    /// The shape of the tree of `size` bytes, at least 1, in chunks of `chunk_size`, at least 1.
    #[must_use]
    pub fn new(size: u64, chunk_size: u32) -> Self {
        let chunks = size.div_ceil(u64::from(chunk_size)).max(1);
        let (mut starts, mut level) = (vec![0], chunks.div_ceil(FANOUT));
        let mut end = level;
        starts.push(end);
        while level > 1 {
            level = level.div_ceil(FANOUT);
            end += level;
            starts.push(end);
        }
        Self { chunks, starts }
    }

    /// Number of levels, at least 1.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of all pages, at least 1.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.starts[self.levels()]
    }

    /// Position of page `index` of `level` among all pages.
    #[must_use]
    pub fn page(&self, level: usize, index: u64) -> u64 {
        self.starts[level] + index
    }
}

/// What a [`TreeBuilder`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeParts {
    /// Length of the layer in bytes.
    pub size: u64,
    /// Plain BLAKE3-256 of the layer's bytes.
    pub digest: Digest,
    /// Length of a chunk in bytes.
    pub chunk_size: u32,
    /// BLAKE3-256 of the root page.
    pub root: Digest,
    /// The pages as they stand in the file; 1/1024 of the layer at the default chunk length.
    pub pages: Vec<u8>,
}

/// Computes a layer's digest and chunk tree in one pass over its bytes.
#[derive(Debug)]
pub struct TreeBuilder {
    chunk_size: usize,
    size: u64,
    whole: blake3::Hasher,
    /// The chunk that is not complete yet, and how many bytes of it were seen.
    partial: blake3::Hasher,
    partial_len: usize,
    digests: Vec<u8>,
}

impl TreeBuilder {
    /// A builder for chunks of `chunk_size` bytes.
    ///
    /// # Errors
    /// When the length is not allowed.
    pub fn new(chunk_size: u32) -> Result<Self, &'static str> {
        check_chunk_size(chunk_size)?;
        Ok(Self {
            chunk_size: chunk_size as usize,
            size: 0,
            whole: blake3::Hasher::new(),
            partial: blake3::Hasher::new(),
            partial_len: 0,
            digests: Vec::new(),
        })
    }

    /// Takes the next bytes of the layer. Pieces of 1 MiB and more use two threads.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if bytes.len() < PARALLEL_FROM {
            self.whole.update(bytes);
            return self.update_chunks(bytes);
        }
        let mut whole = self.whole.clone();
        self.whole = std::thread::scope(|scope| {
            let whole = scope.spawn(move || {
                whole.update(bytes);
                whole
            });
            self.update_chunks(bytes);
            // The thread only hashes; if it panicked all the same, so does this one.
            whole.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
    }

    fn update_chunks(&mut self, mut bytes: &[u8]) {
        if self.partial_len > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(self.chunk_size - self.partial_len));
            self.partial.update(head);
            self.partial_len += head.len();
            bytes = rest;
            if self.partial_len == self.chunk_size {
                self.end_partial();
            }
        }
        let mut chunks = bytes.chunks_exact(self.chunk_size);
        for chunk in &mut chunks {
            self.digests.extend_from_slice(blake3::hash(chunk).as_bytes());
        }
        if !chunks.remainder().is_empty() {
            self.partial.update(chunks.remainder());
            self.partial_len = chunks.remainder().len();
        }
    }

    fn end_partial(&mut self) {
        self.digests.extend_from_slice(self.partial.finalize().as_bytes());
        self.partial.reset();
        self.partial_len = 0;
    }

    /// Ends the layer and builds the pages.
    #[must_use]
    pub fn finish(mut self) -> TreeParts {
        if self.partial_len > 0 {
            self.end_partial();
        }
        let (mut pages, mut level) = (Vec::new(), self.digests);
        let root = loop {
            level.resize(level.len().max(1).next_multiple_of(PAGE as usize), 0);
            pages.extend_from_slice(&level);
            let upper: Vec<u8> = level.chunks_exact(PAGE as usize).flat_map(|p| Digest::of(p).0).collect();
            if let Ok(root) = <[u8; 32]>::try_from(upper.as_slice()) {
                break Digest(root);
            }
            level = upper;
        };
        // `new` took the chunk length from a u32.
        let chunk_size = self.chunk_size as u32;
        TreeParts { size: self.size, digest: self.whole.finalize().into(), chunk_size, root, pages }
    }
}
