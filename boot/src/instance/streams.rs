//! Bytes between the user's streams and the pipes of a request, spliced by the kernel where it can.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes asked for at once, and the capacity that a busy pipe is given (fcntl(2), F_SETPIPE_SZ).
const PIECE: usize = 1 << 20;

/// Writes what a pipe that does not block takes; takes it out of `bytes`.
pub(super) fn write_some(pipe: &mut File, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match pipe.write(bytes) {
            Ok(len) => {
                bytes.drain(..len);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The streams of a request that has begun. Each gets a thread of its own when its first bytes come, so that a command
/// that reads and writes nothing costs none.
pub(super) struct Streams {
    user: io::Stdin,
    /// To the command, while the user's input has not been looked at.
    input: Option<File>,
    /// From the command to the user's stdout and stderr, while nothing has come.
    outputs: [Option<File>; 2],
    moving: Vec<JoinHandle<()>>,
}

impl Streams {
    /// `input` is `None` for a command whose keys come from a terminal.
    pub(super) fn new(input: Option<File>, stdout: File, stderr: File) -> Self {
        // An input that ends at once is passed on by closing the pipe.
        let input = input.filter(|_| !is_null(io::stdin()));
        Self { user: io::stdin(), input, outputs: [Some(stdout), Some(stderr)], moving: Vec::new() }
    }

    /// What to wait for: input of the user, then both outputs. [`Streams::turn`] takes what is ready.
    pub(super) fn watch(&self) -> [Option<BorrowedFd<'_>>; 3] {
        let [stdout, stderr] = self.outputs.each_ref().map(|output| output.as_ref().map(AsFd::as_fd));
        [self.input.as_ref().map(|_| self.user.as_fd()), stdout, stderr]
    }

    /// Begins to move what has bytes to be moved, or has ended.
    pub(super) fn turn(&mut self, ready: [bool; 3]) -> io::Result<()> {
        if ready[0]
            && let Some(pipe) = self.input.take()
        {
            from_user(self.user.as_fd(), pipe)?;
        }
        for index in 0..2 {
            if ready[index + 1] {
                self.begin(index)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: usize) -> io::Result<()> {
        if let Some(pipe) = self.outputs[index].take().filter(|pipe| !has_ended(pipe)) {
            self.moving.push(if index == 0 {
                to_user(pipe, io::stdout().as_fd())?
            } else {
                to_user(pipe, io::stderr().as_fd())?
            });
        }
        Ok(())
    }

    /// Waits until both outputs have ended.
    pub(super) fn finish(mut self) {
        for index in 0..2 {
            // Without a thread its rest is lost; the exit code is not.
            let _ = self.begin(index);
        }
        for output in self.moving {
            let _ = output.join();
        }
    }
}

/// Whether a stream is /dev/null (null(4)), which has nothing to read.
fn is_null(stream: impl AsFd) -> bool {
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::fstat(stream).is_ok_and(|stat| stat.st_rdev == null)
}

/// Whether a pipe is empty and will stay so.
fn has_ended(pipe: &File) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents() == Some(PollFlags::POLLHUP)
}

/// Moves a stream of the command to the user until it ends.
fn to_user(from: File, to: BorrowedFd<'_>) -> io::Result<JoinHandle<()>> {
    let to = File::from(to.try_clone_to_owned()?);
    thread::Builder::new().name("output".to_owned()).stack_size(64 * 1024).spawn(move || {
        // A user who stopped reading ends the command's stream, as a closed pipe does.
        let _ = copy(from, to);
    })
}

/// Moves the user's input to the command until either ends. Nobody waits for it: an input that never ends must not
/// keep a client alive whose command has.
fn from_user(from: BorrowedFd<'_>, to: File) -> io::Result<()> {
    let from = File::from(from.try_clone_to_owned()?);
    let body = move || {
        // Dropping the pipe at the end is what passes the end of input on.
        let _ = copy(from, to);
    };
    thread::Builder::new().name("input".to_owned()).stack_size(64 * 1024).spawn(body).map(drop)
}

fn copy(mut from: File, mut to: File) -> io::Result<()> {
    let mut enlarged = false;
    loop {
        match splice(&from, None, &to, None, PIECE, SpliceFFlags::SPLICE_F_MOVE) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                if len >= 64 * 1024 && !enlarged {
                    enlarged = true;
                    // Only one end need be a pipe, and past the user's limit it stays as it is.
                    let _ = fcntl(&from, FcntlArg::F_SETPIPE_SZ(PIECE as i32));
                    let _ = fcntl(&to, FcntlArg::F_SETPIPE_SZ(PIECE as i32));
                }
            }
            Err(Errno::EINTR) => {}
            // Terminals, files opened for appending and a few others cannot be spliced.
            Err(Errno::EINVAL) => return copy_through_memory(&mut from, &mut to),
            Err(Errno::EAGAIN) => wait_for_both(&from, &to)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn copy_through_memory(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let len = match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for(from, PollFlags::POLLIN)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut rest = &bytes[..len];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for(to, PollFlags::POLLOUT)?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The user's own streams may be set not to block.
fn wait_for_both(from: &File, to: &File) -> io::Result<()> {
    wait_for(from, PollFlags::POLLIN)?;
    wait_for(to, PollFlags::POLLOUT)
}

fn wait_for(file: &File, flags: PollFlags) -> io::Result<()> {
    let mut fds = [PollFd::new(file.as_fd(), flags)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom};

    #[test]
    fn bytes_arrive_unchanged_whatever_the_streams_are() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&content).unwrap();
        source.seek(SeekFrom::Start(0)).unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        from_user(source.as_fd(), File::from(write)).unwrap();
        let target = tempfile::tempfile().unwrap();
        to_user(File::from(read), target.as_fd()).unwrap().join().unwrap();
        let (mut copied, mut target) = (Vec::new(), target);
        target.seek(SeekFrom::Start(0)).unwrap();
        target.read_to_end(&mut copied).unwrap();
        assert!(copied == content);
    }
}
