//! The host daemon seen from a starter: how it is found, rung and begun.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::session::{Error, lock, pipe};
use crate::sys::{descriptor, process, title};
use crate::wire::{Doorbell, Ring};

/// All that a host daemon starts from; inherited across fork.
#[derive(Debug)]
pub struct Start {
    /// The session directory.
    pub directory: PathBuf,
    /// The data directory, for its locks.
    pub data: PathBuf,
    /// Rings arrive here; open for reading and writing, so that it never reads end of file.
    pub doorbell: File,
    /// Readable when the mount server has ended.
    pub server: OwnedFd,
}

/// Path of the named pipe that a host daemon listens on.
#[must_use]
pub fn doorbell(session: &Path) -> PathBuf {
    session.join("host.fifo")
}

/// Rings the host daemon; false when none listens.
///
/// # Errors
/// When something else stands in the pipe's place.
pub fn ring(session: &Path, ring: Ring) -> Result<bool, Error> {
    ring_pipe(&doorbell(session), ring)
}

/// Rings the host daemon; returns its pipe, which shows an error when it has gone, or `None` when none listens.
///
/// # Errors
/// When something else stands in the pipe's place.
pub fn ring_and_hold(session: &Path, ring: Ring) -> Result<Option<File>, Error> {
    hold(&doorbell(session), ring)
}

/// Rings the guest daemon of the instance with this directory; false when it has gone.
///
/// # Errors
/// When something else stands in the pipe's place.
pub fn ring_guest(instance: &Path, ring: Ring) -> Result<bool, Error> {
    ring_pipe(&instance.join(pipe::GUEST), ring)
}

fn ring_pipe(path: &Path, ring: Ring) -> Result<bool, Error> {
    Ok(hold(path, ring)?.is_some())
}

fn hold(path: &Path, ring: Ring) -> Result<Option<File>, Error> {
    let Some(mut pipe) = pipe::writer(path)? else { return Ok(None) };
    // A full pipe empties as fast as the daemon reads; a doorbell is small enough to be written whole or not at all.
    crate::request::block(&pipe).map_err(Error::io("ring", path))?;
    match pipe.write(&Doorbell::encode(ring)) {
        Ok(_) => Ok(Some(pipe)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(Error::io("ring", path)(error)),
    }
}

/// Starts a host daemon as a child of the caller, which must have one thread only and holds the start lock, so that
/// there is one at most. `role` is its program.
///
/// # Errors
/// When the pipe cannot be opened or no process can be made.
pub fn start(
    session: &Path,
    data: &Path,
    server: OwnedFd,
    _starting: &lock::Held,
    role: fn(Start) -> i32,
) -> Result<nix::unistd::Pid, Error> {
    // Opened by the starter, so that a ring right after this finds a listener.
    let doorbell = pipe::listener(&doorbell(session))?;
    let forked =
        process::fork().map_err(|errno: Errno| Error::io("start the host daemon of", session)(errno.into()))?;
    match forked {
        process::Side::Parent(pid) => Ok(pid),
        process::Side::Child => {
            let keep = [0, 1, 2, doorbell.as_raw_fd(), server.as_raw_fd()];
            let detached = descriptor::close_all_but(&keep)
                .map_err(io::Error::from)
                .and_then(|()| descriptor::detach_standard_streams())
                .and_then(|()| Ok(nix::unistd::setsid()?));
            if detached.is_err() || std::env::set_current_dir("/").is_err() {
                std::process::exit(crate::error::FAILURE);
            }
            // A client that starts a daemon has its own signals blocked.
            let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
            title::set("fim-host", format!("fim: host daemon of {}", session.display()).as_bytes());
            let status = role(Start { directory: session.to_owned(), data: data.to_owned(), doorbell, server });
            std::process::exit(status)
        }
    }
}
