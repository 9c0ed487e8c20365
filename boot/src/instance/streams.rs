//! Bytes between the user's streams and the pipes of a request, spliced by the kernel where it can.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};

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

/// Moves a stream of the command to the user until it ends.
pub(super) fn to_user(from: File, to: BorrowedFd<'_>) -> io::Result<JoinHandle<()>> {
    let to = File::from(to.try_clone_to_owned()?);
    thread::Builder::new().name("output".to_owned()).stack_size(64 * 1024).spawn(move || {
        // A user who stopped reading ends the command's stream, as a closed pipe does.
        let _ = copy(from, to);
    })
}

/// Moves the user's input to the command until either ends. Nobody waits for it: an input that never ends must not
/// keep a client alive whose command has.
pub(super) fn from_user(from: BorrowedFd<'_>, to: File) -> io::Result<()> {
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
                wait_for(from, nix::poll::PollFlags::POLLIN)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut rest = &bytes[..len];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for(to, nix::poll::PollFlags::POLLOUT)?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The user's own streams may be set not to block.
fn wait_for_both(from: &File, to: &File) -> io::Result<()> {
    wait_for(from, nix::poll::PollFlags::POLLIN)?;
    wait_for(to, nix::poll::PollFlags::POLLOUT)
}

fn wait_for(file: &File, flags: nix::poll::PollFlags) -> io::Result<()> {
    use std::os::fd::AsFd;
    let mut fds = [nix::poll::PollFd::new(file.as_fd(), flags)];
    match nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom};
    use std::os::fd::AsFd;

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
