//! Tells sequential readers from random ones, and how far ahead of them to read.
//!
//! Without open and release (see [`super::filesystem`]) a reader is known only by the inode it reads, so the state
//! is a small fixed table: two inodes that meet in one slot forget each other, which costs read-ahead and nothing
//! else.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::squashfs::Inode;

/// The kernel's own read-ahead asks for at most this much at a time (`VM_READAHEAD_PAGES`, `include/linux/mm.h`),
/// and a request of this size at the start of a file comes from a reader that wants all of it.
const KERNEL_WINDOW: u64 = 128 << 10;

/// How far requests of the kernel's read-ahead may overtake each other on their way through our threads.
const DISORDER: u64 = 4 * KERNEL_WINDOW;

const SLOTS: usize = 64;

/// The recently read inodes.
pub(super) struct Streams {
    slots: Box<[Mutex<Stream>]>,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Mutex::default()).collect() }
    }

    /// The slot of the node with this number, emptied if another node was in it.
    pub(super) fn slot(&self, node: u64) -> MutexGuard<'_, Stream> {
        let hash = (node.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let mut stream = self.slots[hash % SLOTS].lock().unwrap_or_else(PoisonError::into_inner);
        if stream.node != node {
            *stream = Stream { node, ..Stream::default() };
        }
        stream
    }
}

/// What is known of the reads of one inode.
#[derive(Default)]
pub(super) struct Stream {
    node: u64,
    /// The inode, once somebody parsed it.
    pub(super) inode: Option<Arc<Inode>>,
    /// The byte after the last one asked for.
    next: u64,
    /// Bytes asked for in sequence.
    run: u64,
    /// The first block not yet handed to read-ahead.
    ahead: u64,
}

impl Stream {
    /// Notes a request and returns the blocks to read ahead, often none.
    ///
    /// `size` is that of the file, `limit` the most bytes to be ahead. The window grows with the sequence: as much
    /// ahead as was read behind.
    pub(super) fn note(&mut self, request: Range<u64>, size: u64, block_size: u64, limit: u64) -> Range<u64> {
        let len = request.end - request.start;
        let near = len >= KERNEL_WINDOW / 2 && request.start.abs_diff(self.next) <= DISORDER;
        if request.start == self.next || (near && self.run > 0) {
            self.run += len;
            self.next = self.next.max(request.end);
        } else {
            self.run = 0;
            self.next = request.end;
            self.ahead = 0;
        }
        if self.run < KERNEL_WINDOW || self.next >= size {
            return 0..0;
        }
        let window = self.run.min(limit).max(block_size);
        let first = self.ahead.max(self.next.div_ceil(block_size));
        let end = size.min(self.next + window).div_ceil(block_size);
        self.ahead = self.ahead.max(end);
        first..end.max(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 128 << 10;
    const SIZE: u64 = 100 * BLOCK;
    const LIMIT: u64 = 8 * BLOCK;

    fn blocks(stream: &mut Stream, start: u64, len: u64) -> Range<u64> {
        stream.note(start..start + len, SIZE, BLOCK, LIMIT)
    }

    #[test]
    fn a_sequence_asks_for_every_block_once_and_the_window_grows_to_its_limit() {
        let mut stream = Stream::default();
        let mut next = 1;
        for index in 0..100 {
            let ahead = blocks(&mut stream, index * BLOCK, BLOCK);
            if !ahead.is_empty() {
                assert_eq!(ahead.start, next);
                next = ahead.end;
            }
            assert!(next <= index + 1 + LIMIT / BLOCK);
        }
        assert_eq!(next, 100);
    }

    #[test]
    fn small_sequential_reads_start_a_window_too() {
        let mut stream = Stream::default();
        let asked: u64 = (0..64).map(|i| blocks(&mut stream, i * 4096, 4096)).map(|r| r.end - r.start).sum();
        assert!(asked > 0);
    }

    #[test]
    fn random_reads_ask_for_nothing() {
        let mut stream = Stream::default();
        let mut place = 12345u64;
        for _ in 0..10_000 {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = (place >> 20) % (SIZE - 4096);
            assert!(blocks(&mut stream, start, 4096).is_empty());
        }
    }

    #[test]
    fn requests_that_overtake_each_other_are_still_a_sequence() {
        let mut stream = Stream::default();
        blocks(&mut stream, 0, BLOCK);
        blocks(&mut stream, 2 * BLOCK, BLOCK);
        assert!(!blocks(&mut stream, BLOCK, BLOCK).is_empty());
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut stream = Stream::default();
        assert!(stream.note(0..BLOCK, BLOCK, BLOCK, LIMIT).is_empty());
        let mut stream = Stream::default();
        assert_eq!(stream.note(0..BLOCK, BLOCK + 1, BLOCK, LIMIT), 1..2);
    }
}
