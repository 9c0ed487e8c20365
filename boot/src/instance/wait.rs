//! `fim-instance wait`: the exit code of an instance's command.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::session;
use crate::{Failure, Invocation, Message};

/// Waits until the instance has ended; returns the exit code of its command.
pub(super) fn run(invocation: &Invocation, id: u64) -> Result<i32, Failure> {
    let session = session::require(invocation)?;
    // Opened before anything is looked at: the code can be read from it after the instance has been removed.
    let outcome = session.registry.outcome(id);
    match session.hold(id) {
        Ok((_, starter)) => loop {
            match poll(&mut [PollFd::new(starter.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Message::boxed(format!("cannot wait for the instance: {}", errno.desc()))),
            }
        },
        // It may have ended before this command began, or in between.
        Err(error) if outcome.is_none() => return Err(error),
        Err(_) => {}
    }
    outcome.and_then(|outcome| outcome.code()).ok_or_else(|| {
        Message::boxed(format!("instance {id} has ended, but its exit code cannot be known: its starter was killed"))
    })
}
