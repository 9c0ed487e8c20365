//! The merged layers of an image become a directory tree.
//!
//! One thread walks the merged directories and creates every name; the others write contents. Directories get their
//! attributes last.

pub(crate) mod attributes;
mod check;
pub(crate) mod content;
mod error;
pub(crate) mod merge;
#[cfg(test)]
mod tests;
mod walk;

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, TrySendError, channel, sync_channel};

use attributes::Restorer;
pub use check::{Checked, check};
use content::{Event, Shared, Worker};
use error::Counters;
pub use error::{Error, Omitted};
use merge::Layers;
use walk::Walk;

use crate::progress::Progress;
use crate::squashfs::Archive;

/// Files that are open and wait for a worker.
const WAITING: usize = 64;

/// Extracts the merged `layers`, bottom first, to `into`, which must not exist while its parent must. With an error,
/// `into` is gone again. Returns what the caller's privilege was not enough for.
///
/// # Errors
/// When a layer is damaged, the file system refuses, or `progress` wants no more.
pub fn extract(layers: &[Archive], into: &Path, progress: &mut dyn Progress) -> Result<Omitted, Error> {
    create_tree(Layers { archives: layers.into(), whiteouts: false }, into, false, progress)
}

/// Extracts one layer as it is, with its whiteouts and opaque directories, so that an overlay can stack it. With `own`,
/// every file is the caller's, and the attribute [`crate::fuse::OWNER_XATTR`] tells whose it was.
///
/// # Errors
/// As [`extract`], and when the file system cannot hold what the layer takes away from lower ones.
pub fn extract_layer(layer: &Archive, into: &Path, own: bool, progress: &mut dyn Progress) -> Result<Omitted, Error> {
    create_tree(Layers { archives: std::slice::from_ref(layer).into(), whiteouts: true }, into, own, progress)
}

fn create_tree(layers: Layers<'_>, into: &Path, own: bool, progress: &mut dyn Progress) -> Result<Omitted, Error> {
    let counters = Counters::default();
    fs::DirBuilder::new().mode(0o700).create(into).map_err(Error::write("make the directory", into))?;
    let root = File::open(into).map_err(Error::write("enter", into))?;
    let restorer = Restorer { layers, omitted: &counters, into, own };
    let mut walk = Walk::new(&restorer, root);
    let done = create(&restorer, &mut walk, progress).and_then(|()| walk.finish());
    if let Err(error) = done {
        walk.unlock();
        return Err(match fs::remove_dir_all(into) {
            Ok(()) => error,
            Err(kept) => {
                log::warn!("cannot remove {}: {kept}", into.display());
                error
            }
        });
    }
    Ok(counters.sum())
}

/// Creates all but the attributes of directories.
fn create(restorer: &Restorer<'_>, walk: &mut Walk<'_>, progress: &mut dyn Progress) -> Result<(), Error> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (send_job, jobs) = sync_channel(WAITING);
    let (send_event, events) = channel();
    let (jobs, shared, stop) = (Mutex::new(jobs), Shared::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let events = send_event.clone();
            let worker = Worker { restorer, shared: &shared, jobs: &jobs, events, stop: &stop };
            scope.spawn(|| worker.run());
        }
        drop(send_event);
        let mut reports = Reports { events, progress };
        let walked = walk.run(&mut |job| {
            let mut job = job;
            loop {
                reports.pass_on_all()?;
                match send_job.try_send(job) {
                    Ok(()) => return Ok(()),
                    Err(TrySendError::Full(back)) => job = back,
                    // A worker that ends early has failed and said why.
                    Err(TrySendError::Disconnected(_)) => return reports.until_end(),
                }
                reports.next()?;
            }
        });
        drop(send_job);
        let done = walked.and_then(|()| reports.until_end());
        if done.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        done
    })
}

/// What the workers say, passed on to the listener.
struct Reports<'p> {
    events: Receiver<Event>,
    progress: &'p mut dyn Progress,
}

impl Reports<'_> {
    fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Failed(error) => return Err(error),
            Event::Done(bytes, files) => self.progress.advance(bytes, files),
        }
        if self.progress.stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Waits for one report; false when no worker is left.
    fn next(&mut self) -> Result<bool, Error> {
        match self.events.recv() {
            Ok(event) => self.take(event).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn pass_on_all(&mut self) -> Result<(), Error> {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.take(event)?,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    fn until_end(&mut self) -> Result<(), Error> {
        while self.next()? {}
        Ok(())
    }
}
