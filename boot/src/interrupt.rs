//! Ctrl-C and its kin while there is something to clean up: the signal waits until that is done, and then ends the
//! program as it would have.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals by which users and shells end a program.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Holds the signals back while it lives. Make it before any thread, and drop it after everything that cleans up.
#[derive(Debug)]
pub(crate) struct Interrupt {
    held: SigSet,
    fd: SignalFd,
}

impl Interrupt {
    /// Holds back what would end the program; a signal that the caller ignores or blocks stays as it is.
    pub(crate) fn hold() -> nix::Result<Self> {
        let blocked = SigSet::thread_get_mask()?;
        let ignored = std::fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
        let mut held = SigSet::empty();
        for signal in ENDING {
            if !blocked.contains(signal) && ignored & 1 << (signal as u32 - 1) == 0 {
                held.add(signal);
            }
        }
        held.thread_block()?;
        let fd = SignalFd::with_flags(&held, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { held, fd })
    }

    /// Whether one of the signals has come.
    pub(crate) fn is_pending(&self) -> bool {
        // The signal is not read: it stays pending for the end of the hold.
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Lets the signals through, in a process that was forked while they were held.
    pub(crate) fn let_through(&self) {
        // Unblocking a valid set does not fail.
        let _ = self.held.thread_unblock();
    }

    /// Waits until one of the signals comes or `other` is readable; whether a signal has come.
    pub(crate) fn comes_before(&self, other: &impl AsFd) -> bool {
        let mut fds = [self.fd.as_fd(), other.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        while let Err(nix::errno::Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {}
        self.is_pending()
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // Ends the program here when a signal is pending.
        self.let_through();
    }
}

/// The mask of ignored signals in the text of /proc/PID/status (proc_pid_status(5)).
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_found() {
        assert_eq!(ignored("SigBlk:\t00ff\nSigIgn:\t0000000000001006\nSigCgt:\t1\n"), 0x1006);
        assert_eq!(ignored("nothing"), 0);
    }
}
