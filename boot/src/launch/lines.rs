//! Lines that the user types while the command does not have the terminal, and whether it waits for one.
//!
//! A command that reads from the terminal is stopped, and so is one that sets it; the terminal is then given to it. One
//! that waits by poll(2) before it reads does neither. Only what it has open tells that it wants what was typed.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::makedev;
use nix::unistd::Pid;
use runtime::sys::process;

/// Tells once of each line that is typed, whoever reads it: a line that waits for the shell must not keep this process
/// busy (epoll(7), edge-triggered).
pub(super) struct Lines(Epoll);

impl Lines {
    pub(super) fn watch(terminal: impl AsFd) -> nix::Result<Self> {
        let lines = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        lines.add(terminal, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        Ok(Self(lines))
    }

    /// Readable when a line was typed.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }

    /// Notes that it was heard.
    pub(super) fn hear(&self) {
        // A signal in between leaves it to the next turn.
        let _ = self.0.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO);
    }
}

/// Whether a line waits at the user's terminal and a process that this one has started has opened `/dev/tty` to read.
pub(super) fn wanted(terminal: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(terminal, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) && reads_below(nix::unistd::getpid())
}

/// Whether a descendant of this process reads the terminal.
fn reads_below(pid: Pid) -> bool {
    process::children(pid).into_iter().any(|child| {
        let mut open = fs::read_dir(format!("/proc/{child}/fd")).into_iter().flatten().flatten();
        open.any(|entry| reads_terminal(&entry.path(), child)) || reads_below(child)
    })
}

/// Whether a descriptor below /proc/PID/fd is `/dev/tty`, open to be read (proc_pid_fdinfo(5)).
fn reads_terminal(descriptor: &Path, pid: Pid) -> bool {
    let is_terminal = fs::read_link(descriptor).is_ok_and(|target| target.ends_with("tty"))
        && fs::metadata(descriptor).is_ok_and(|metadata| metadata.rdev() == makedev(5, 0));
    let Some(number) = descriptor.file_name().and_then(|name| name.to_str()).filter(|_| is_terminal) else {
        return false;
    };
    may_read(&fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default())
}

fn may_read(info: &str) -> bool {
    let flags = info.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlag::O_ACCMODE.bits() != OFlag::O_WRONLY.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_found_in_the_kernels_text() {
        assert!(may_read("pos:\t0\nflags:\t0100002\nmnt_id:\t27\n"));
        assert!(may_read("pos:\t0\nflags:\t0100000\n"));
        assert!(!may_read("pos:\t0\nflags:\t0100001\n"));
        assert!(!may_read(""));
    }
}
