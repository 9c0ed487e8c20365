//! Data and holes of files (`SEEK_DATA` and `SEEK_HOLE` of lseek(2)).
//!
//! The kernel writes back when it likes, and asks without having done so: what it has not written is a hole to us, and it
//! does not tell which pages those are, nor how long the file is by now. It can be made to write by a notification, which
//! waits until we have answered the writes, so a thread of its own sends them and answers.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fuser::{INodeNo, Notifier, ReplyLseek};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Whence, lseek};

use super::file::Source;
use super::node::Node;
use super::stack::Overlay;
use crate::squashfs::{Extent, Kind};

/// Unit of `st_blocks`, in bytes.
const SECTOR: u64 = 512;
/// Bytes of a page, the unit in which the kernel keeps contents: the largest that there is, for any multiple will do.
const PAGE: u64 = 1 << 16;

/// The way to notify the kernel, once there is a session.
pub(super) type Notifying = Arc<OnceLock<Notifier>>;

/// What a guest asks.
pub(super) struct Question {
    pub(super) node: INodeNo,
    pub(super) offset: i64,
    pub(super) whence: i32,
    pub(super) reply: ReplyLseek,
}

/// Where questions are put; the thread that answers begins with the first.
pub(super) struct Holes {
    notifying: Notifying,
    questions: Mutex<Option<Sender<Question>>>,
}

impl Holes {
    pub(super) fn new(notifying: Notifying) -> Self {
        Self { notifying, questions: Mutex::default() }
    }

    pub(super) fn ask(&self, overlay: &Arc<Overlay>, question: Question) {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if questions.is_none() {
            let (sender, receiver) = channel();
            let (overlay, notifying) = (Arc::clone(overlay), Arc::clone(&self.notifying));
            let begun = std::thread::Builder::new()
                .name("holes".to_owned())
                .spawn(move || answer_all(&overlay, &notifying, &receiver));
            *questions = begun.is_ok().then_some(sender);
        }
        match questions.as_ref().map(|sender| sender.send(question)) {
            Some(Ok(())) => {}
            Some(Err(unsent)) => unsent.0.reply.error(fuser::Errno::EIO),
            // No thread, and the question is dropped, which answers EIO.
            None => {}
        }
    }
}

fn answer_all(overlay: &Overlay, notifying: &OnceLock<Notifier>, questions: &Receiver<Question>) {
    let notifier = notifying.wait();
    for Question { node, offset, whence, reply } in questions {
        match overlay.next_extent(node, offset, whence, notifier) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(fuser::Errno::from_i32(errno as i32)),
        }
    }
}

/// Has the kernel write what it holds of a file from the page of `offset` on.
fn write_back(notifier: &Notifier, node: &Node, offset: u64) -> Result<(), Errno> {
    let first = i64::try_from(offset - offset % PAGE).map_err(|_| Errno::EOVERFLOW)?;
    // A length of 0 is everything behind it.
    notifier.inval_inode(INodeNo(node.number), first, 0).map_err(|error| super::upper::errno(&error))
}

impl Overlay {
    /// The first byte at or behind `offset` that is data or a hole, as `whence` asks.
    fn next_extent(&self, node: INodeNo, offset: i64, whence: i32, notifier: &Notifier) -> Result<i64, Errno> {
        let wanted = Extent::from_whence(whence).ok_or(Errno::EINVAL)?;
        let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let node = self.node(node)?;
        // How long it is. What lies before its end is left in the cache unless there are holes.
        write_back(notifier, &node, self.length(&node)?.0)?;
        let (size, stored) = self.length(&node)?;
        if from >= size {
            return Err(Errno::ENXIO);
        }
        if stored >= size {
            return if wanted == Extent::Data { Ok(offset) } else { i64::try_from(size).map_err(|_| Errno::EOVERFLOW) };
        }
        write_back(notifier, &node, from)?;
        match self.source(&node, false)? {
            Source::Upper(file) => {
                lseek(&*file, offset, if wanted == Extent::Data { Whence::SeekData } else { Whence::SeekHole })
            }
            Source::Lower => {
                let place = *node.state().lower.first().ok_or(Errno::EIO)?;
                let next = self.blocks.layers()[place.layer].next_extent(&self.inode(place)?, from, wanted);
                let next = next.map_err(|error| self.damaged(place.layer, &error))?.ok_or(Errno::ENXIO)?;
                i64::try_from(next).map_err(|_| Errno::EOVERFLOW)
            }
        }
    }

    /// Size of a file, and how many bytes of it are stored, as far as the server knows.
    fn length(&self, node: &Arc<Node>) -> Result<(u64, u64), Errno> {
        match self.source(node, false)? {
            Source::Upper(file) => {
                let stat = fstat(&*file)?;
                let number = |value| u64::try_from(value).unwrap_or_default();
                Ok((number(stat.st_size), number(stat.st_blocks).saturating_mul(SECTOR)))
            }
            Source::Lower => {
                let place = *node.state().lower.first().ok_or(Errno::EIO)?;
                let inode = self.inode(place)?;
                match inode.kind {
                    Kind::File { size, .. } => Ok((size, inode.stored_bytes())),
                    _ => Err(Errno::EINVAL),
                }
            }
        }
    }
}
