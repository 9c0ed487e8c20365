//! `fim-instance logs`: what a detached instance has written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime::session::log;

use super::session::{self, Session};
use crate::{Failure, Invocation, Message};

/// Prints the log of instance `id`, and with `follow` what comes until the instance has ended.
pub(super) fn run(invocation: &Invocation, id: u64, follow: bool) -> Result<i32, Failure> {
    let session = session::require(invocation)?;
    let live = session.hold(id);
    let mut reader = of_instance(&session, id)?;
    if let (true, Ok((_, starter))) = (follow, &live) {
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // The watch is in place before the first look, so that nothing is written unseen in between.
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        let _gone = changes.add_watch(&reader.directory, flags);
        loop {
            if !reader.pass(&mut io::stdout().lock())? {
                return Ok(0);
            }
            let mut fds = [starter.as_fd(), changes.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let _interrupted = poll(&mut fds, PollTimeout::NONE);
            if fds[0].any().unwrap_or(false) {
                break;
            }
            let _none = changes.read_events();
        }
    }
    reader.pass(&mut io::stdout().lock())?;
    Ok(0)
}

/// The log of a detached instance that lives or has ended.
fn of_instance(session: &Session, id: u64) -> Result<Reader, Failure> {
    // In this order: an instance that ends in between moves from the first place to the second.
    let places = [session.registry.directory(id), session.registry.ended(id)];
    if let Some(reader) = places.iter().find_map(|place| Reader::open(place).ok()) {
        return Ok(reader);
    }
    // No such instance, one that writes to its user's own streams, or a service.
    Err(Message::boxed(match session.instance(id)?.service {
        Some(name) => {
            format!("instance {id} is the service '{name}', which has a log of its own: fim-service logs {name}")
        }
        None => {
            format!("instance {id} has no log: it was started without --detach and writes to the streams of its start")
        }
    }))
}

/// Reads a log from its beginning, over the changes of file that its bounds need.
pub(crate) struct Reader {
    directory: PathBuf,
    file: File,
}

impl Reader {
    /// The log in this directory.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let newer = File::open(directory.join(log::FILE))?;
        let directory = directory.to_owned();
        let mut reader = Self { directory, file: newer };
        // The older half comes first, unless the newer became it just now.
        if let Ok(older) = File::open(reader.directory.join(log::OLD))
            && inode(&older)? != inode(&reader.file)?
        {
            reader.file = older;
        }
        Ok(reader)
    }

    /// Passes on all that has come since the last time; false when nobody reads it any more.
    pub(crate) fn pass(&mut self, to: &mut impl Write) -> Result<bool, Failure> {
        loop {
            if !copy(&mut self.file, to)? {
                return Ok(false);
            }
            let Some(next) = self.next(&self.directory)? else { return Ok(true) };
            // What was written between the last look and the change of file.
            if !copy(&mut self.file, to)? {
                return Ok(false);
            }
            self.file = next;
        }
    }

    /// The newer file, when the one being read is not it.
    fn next(&self, directory: &Path) -> io::Result<Option<File>> {
        match File::open(directory.join(log::FILE)) {
            Ok(newer) if inode(&newer)? != inode(&self.file)? => Ok(Some(newer)),
            // Removed or moved with its instance: the one being read is the last.
            _ => Ok(None),
        }
    }
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// Copies up to the present end; false when nobody reads it any more.
fn copy(file: &mut File, to: &mut impl Write) -> Result<bool, Failure> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let len = file.read(&mut bytes)?;
        if len == 0 {
            return Ok(to.flush().is_ok());
        }
        match to.write_all(&bytes[..len]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(Message::boxed(format!("cannot write to stdout: {error}"))),
        }
    }
}
