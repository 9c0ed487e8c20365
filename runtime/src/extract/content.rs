//! Contents of regular files, written by several threads.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use super::attributes::{Made, Restorer};
use super::error::Error;
use super::merge::{Part, contradiction, damaged};
use crate::squashfs::{self, Archive, Block, Kind, Stored};

/// Blocks that several files share and that are kept: up to 16 MiB.
const KEPT: usize = 16;

/// A file that has been created and waits for its content.
pub(super) struct Job {
    pub file: File,
    pub part: Part,
    pub path: Vec<u8>,
}

/// What a worker tells.
pub(super) enum Event {
    /// So many more bytes and files are done.
    Done(u64, u64),
    /// The extraction cannot go on.
    Failed(Error),
}

type Key = (usize, Stored);

/// The blocks shared by small files, latest last.
#[derive(Default)]
pub(crate) struct Shared(Mutex<VecDeque<(Key, Arc<Vec<u8>>)>>);

impl Shared {
    /// A block of `archive`, the layer of this number, of which a file needs `len` bytes.
    ///
    /// # Errors
    /// When it cannot be read or unpacked.
    pub(crate) fn load(
        &self,
        layer: usize,
        archive: &Archive,
        stored: Stored,
        len: usize,
    ) -> Result<Arc<Vec<u8>>, squashfs::Error> {
        let key = (layer, stored);
        // Only a block that is larger than the file's part of it can be shared.
        let shared = len < stored.unpacked as usize;
        if let Some(bytes) = self.find(&key).filter(|_| shared) {
            return Ok(bytes);
        }
        let bytes = Arc::new(archive.load(stored)?);
        if shared {
            self.keep(key, &bytes);
        }
        Ok(bytes)
    }

    fn find(&self, key: &Key) -> Option<Arc<Vec<u8>>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(known, _)| known == key).map(|(_, bytes)| Arc::clone(bytes))
    }

    fn keep(&self, key: Key, bytes: &Arc<Vec<u8>>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((key, Arc::clone(bytes)));
    }
}

/// One worker.
pub(super) struct Worker<'a> {
    pub restorer: &'a Restorer<'a>,
    pub shared: &'a Shared,
    pub jobs: &'a Mutex<Receiver<Job>>,
    pub events: Sender<Event>,
    pub stop: &'a AtomicBool,
}

impl Worker<'_> {
    /// Works until no job comes any more or `stop` is set.
    pub(super) fn run(self) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let outcome = self.file(&job);
            let event = match outcome {
                Ok(()) => Event::Done(0, 1),
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    Event::Failed(error)
                }
            };
            // Nobody listens any more after the first failure.
            let _ = self.events.send(event);
        }
    }

    fn file(&self, job: &Job) -> Result<(), Error> {
        let Kind::File { size, .. } = job.part.inode.kind else {
            return Err(contradiction(job.part.layer, &job.path, "it is no regular file"));
        };
        let shown = || self.restorer.shown(&job.path);
        // First of all, so that a size that cannot be is refused before any work; what is not written stays a hole.
        job.file.set_len(size).map_err(Error::write("set the size of", shown()))?;
        let archive = &self.restorer.layers.archives[job.part.layer];
        let damaged = || damaged(job.part.layer, &job.path);
        let mut at = 0;
        for index in 0..job.part.inode.block_count() {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let block = archive.block(&job.part.inode, index).map_err(damaged())?;
            if let Block::Stored { stored, skip, len } = block {
                let bytes = self.shared.load(job.part.layer, archive, stored, len).map_err(damaged())?;
                let bytes = stored.part(&bytes, skip, len).map_err(damaged())?;
                job.file.write_all_at(bytes, at).map_err(Error::write("write", shown()))?;
            }
            at += block.len() as u64;
            let _ = self.events.send(Event::Done(block.len() as u64, 0));
        }
        self.restorer.restore(&Made::Open(&job.file), &job.part, &job.path)
    }
}
