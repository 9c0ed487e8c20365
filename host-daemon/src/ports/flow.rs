//! One direction of a connection: bytes go from socket to socket through a pipe, and never through this process
//! (splice(2)).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::pipe2;

/// Bytes asked for at once; a pipe takes what it can.
const PIECE: usize = 1 << 20;
/// Bytes that a pipe is to hold, the most that the kernel gives to everybody (pipe(7)); a third faster than the usual 64 KiB.
const SIZE: i32 = 1 << 20;
/// How often a flow goes on before the others get their turn.
const ROUNDS: usize = 16;

/// An empty pipe.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Empty pipes, kept for whoever needs one next: a connection that is silent has none.
#[derive(Default)]
pub(super) struct Pipes(Vec<Pipe>);

impl Pipes {
    /// How many are kept.
    const KEPT: usize = 32;

    fn take(&mut self) -> nix::Result<Pipe> {
        match self.0.pop() {
            Some(pipe) => Ok(pipe),
            None => {
                let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
                // A user who has many such pipes gets no more of them, and does with the usual size.
                let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(SIZE));
                Ok(Pipe { read, write })
            }
        }
    }

    fn give(&mut self, pipe: Pipe) {
        if self.0.len() < Self::KEPT {
            self.0.push(pipe);
        }
    }
}

/// One direction.
#[derive(Default)]
pub(super) struct Flow {
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    held: usize,
    /// Whether the sender has said that nothing more comes.
    ended: bool,
    /// Whether the receiver was told.
    told: bool,
}

impl Flow {
    /// Whether everything has been passed on, the end included.
    pub(super) fn is_over(&self) -> bool {
        self.told
    }

    /// Moves what can be moved; true when there may be more to move at once.
    pub(super) fn turn(&mut self, from: impl AsFd, to: impl AsFd, pipes: &mut Pipes) -> nix::Result<bool> {
        if self.told {
            return Ok(false);
        }
        let mut pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        for _ in 0..ROUNDS {
            let moved = self.fill(&from, &mut pipe)? | self.drain(&to, &mut pipe)?;
            if !moved {
                self.keep(pipe, pipes);
                return Ok(false);
            }
            if self.ended && self.held == 0 {
                self.told = true;
                pipes.give(pipe);
                // A receiver that has gone is noticed by itself.
                let _ = shutdown(to.as_fd().as_raw_fd(), Shutdown::Write);
                return Ok(false);
            }
        }
        self.keep(pipe, pipes);
        Ok(true)
    }

    fn keep(&mut self, pipe: Pipe, pipes: &mut Pipes) {
        if self.held == 0 {
            pipes.give(pipe);
        } else {
            self.pipe = Some(pipe);
        }
    }

    fn fill(&mut self, from: &impl AsFd, pipe: &mut Pipe) -> nix::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let Some(len) = passed(splice(from, None, &pipe.write, None, PIECE, flags()))? else { return Ok(false) };
        self.ended = len == 0;
        self.held += len;
        Ok(true)
    }

    fn drain(&mut self, to: &impl AsFd, pipe: &mut Pipe) -> nix::Result<bool> {
        if self.held == 0 {
            return Ok(false);
        }
        let len = passed(splice(&pipe.read, None, to, None, self.held, flags()))?.unwrap_or(0);
        self.held -= len;
        Ok(len > 0)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

/// `None` when nothing can be moved at the moment.
fn passed(result: nix::Result<usize>) -> nix::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}
