//! The threads that decompress blocks before anyone asks for them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::blocks::Blocks;
use super::cache::Key;
use crate::squashfs::{Inode, Kind, Stored};

/// Most blocks of one file that are read because the files before it were; its own readers ask for more.
const FILE_BLOCKS: u64 = 8;

/// What to read ahead.
pub(super) enum Job {
    /// These blocks of a file.
    Blocks { layer: usize, inode: Arc<Inode>, blocks: Range<u64> },
    /// The beginnings of the files with these inode numbers.
    Files { layer: usize, files: Range<u32> },
}

/// A queue and its threads, which start with the first job.
pub(super) struct ReadAhead {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Most unpacked bytes that may be queued.
    budget: usize,
}

#[derive(Default)]
struct Queue {
    /// Blocks promised to the cache.
    promised: VecDeque<(Key, Stored)>,
    bytes: usize,
    started: bool,
    closed: bool,
}

impl ReadAhead {
    /// `budget` is in unpacked bytes; nothing is started yet.
    pub(super) fn new(threads: usize, budget: usize) -> Self {
        let shared = Shared { queue: Mutex::default(), filled: Condvar::new(), budget };
        Self { shared: Arc::new(shared), threads }
    }

    /// Queues the blocks of a job that the cache does not have, as far as the budget allows. Reads metadata at
    /// most; never waits for a block.
    pub(super) fn submit(&self, blocks: &Arc<Blocks>, job: Job) {
        // What is damaged is reported to the reader who comes to it.
        match job {
            Job::Blocks { layer, inode, blocks: range } => {
                for index in range {
                    self.promise(blocks, layer, &inode, index);
                }
            }
            Job::Files { layer, files } => {
                let archive = &blocks.layers()[layer];
                for number in files {
                    let Ok(Some(at)) = archive.inode_by_number(number) else { return };
                    let Ok(inode) = archive.inode(at) else { return };
                    let Kind::File { size, .. } = inode.kind else { continue };
                    let count = size.div_ceil(u64::from(archive.superblock().block_size));
                    for index in 0..count.min(FILE_BLOCKS) {
                        self.promise(blocks, layer, &inode, index);
                    }
                }
            }
        }
    }

    fn promise(&self, blocks: &Arc<Blocks>, layer: usize, inode: &Inode, index: u64) {
        let Some((key, stored)) = blocks.stored(layer, inode, index) else { return };
        let mut queue = self.shared.lock();
        let bytes = queue.bytes + stored.unpacked as usize;
        if queue.closed || bytes > self.shared.budget || !blocks.promise(key) {
            return;
        }
        queue.bytes = bytes;
        queue.promised.push_back((key, stored));
        if !queue.started {
            queue.started = true;
            queue.closed = !self.start(blocks);
            if queue.closed {
                queue.abandon(blocks);
            }
        }
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Whether at least one thread runs.
    fn start(&self, blocks: &Arc<Blocks>) -> bool {
        let start = |index: &usize| {
            let (shared, blocks) = (Arc::clone(&self.shared), Arc::clone(blocks));
            std::thread::Builder::new().name(format!("read-ahead-{index}")).spawn(move || shared.work(&blocks)).is_ok()
        };
        (0..self.threads).filter(start).count() > 0
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
    }
}

impl Shared {
    fn work(&self, blocks: &Blocks) {
        let mut queue = self.lock();
        while !queue.closed {
            let Some((key, stored)) = queue.promised.pop_front() else {
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.bytes -= stored.unpacked as usize;
            drop(queue);
            blocks.keep_promise(key, stored);
            queue = self.lock();
        }
        queue.abandon(blocks);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn abandon(&mut self, blocks: &Blocks) {
        for (key, _) in self.promised.drain(..) {
            blocks.break_promise(key);
        }
        self.bytes = 0;
    }
}
