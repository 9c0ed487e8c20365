//! The user's terminal: raw while the command has it, as it was otherwise.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::termios::{self, LocalFlags, OutputFlags, SetArg, Termios};
use nix::unistd::{getpgrp, tcgetpgrp};
use runtime::sys::pty;

fn standard(index: usize) -> nix::Result<OwnedFd> {
    match index {
        0 => nix::unistd::dup(std::io::stdin()),
        1 => nix::unistd::dup(std::io::stdout()),
        _ => nix::unistd::dup(std::io::stderr()),
    }
}

/// Whether this process group may read from the terminal it was started from.
#[must_use]
pub(super) fn in_foreground(terminals: [bool; 3]) -> bool {
    terminals.iter().position(|is| *is).and_then(|index| standard(index).ok()).is_some_and(|fd| owns(fd.as_fd()))
}

fn owns(fd: BorrowedFd<'_>) -> bool {
    tcgetpgrp(fd).is_ok_and(|group| group == getpgrp())
}

/// The user's terminal and the controlling side of the instance's.
pub(super) struct Bridge {
    user: File,
    inner: File,
    saved: Termios,
    /// Whether another program of a pipeline writes to the user's terminal too: its line ends must still work.
    shared: bool,
    raw: bool,
    /// Whether the user's keys go to the instance.
    pub(super) forwards_keys: bool,
}

impl Bridge {
    /// Connects them. The instance's terminal begins with the settings and the size of the user's.
    pub(super) fn new(inner: File, terminals: [bool; 3]) -> std::io::Result<Self> {
        let index = [0, 1, 2].into_iter().find(|&index| terminals[index]).unwrap_or(0);
        let user = File::from(standard(index)?);
        let saved = termios::tcgetattr(&user)?;
        termios::tcsetattr(&inner, SetArg::TCSANOW, &saved)?;
        let bridge = Self { user, inner, saved, shared: !terminals[1], raw: false, forwards_keys: false };
        bridge.copy_size();
        Ok(bridge)
    }

    /// The user's side, to wait for keys.
    pub(super) fn user(&self) -> BorrowedFd<'_> {
        self.user.as_fd()
    }

    /// The instance's side, to wait for output.
    pub(super) fn inner(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }

    /// Whether this process group may use the user's terminal now.
    pub(super) fn in_foreground(&self) -> bool {
        owns(self.user.as_fd())
    }

    /// Gives the instance the user's window size.
    pub(super) fn copy_size(&self) {
        // A terminal without a size has none to give.
        if let Ok(size) = pty::window_size(&self.user) {
            let _ = pty::set_window_size(&self.inner, &size);
        }
    }

    /// Passes every key to the instance, interrupt and suspend among them; its own terminal makes signals of them.
    pub(super) fn take(&mut self) {
        let mut raw = self.saved.clone();
        termios::cfmakeraw(&mut raw);
        if self.shared {
            raw.output_flags.set(OutputFlags::OPOST, self.saved.output_flags.contains(OutputFlags::OPOST));
        }
        raw.local_flags.remove(LocalFlags::ISIG);
        self.raw = termios::tcsetattr(&self.user, SetArg::TCSADRAIN, &raw).is_ok();
        self.forwards_keys = true;
    }

    /// Gives the user's terminal back as it was.
    pub(super) fn give_back(&mut self) {
        if self.raw {
            // The shell that takes over sets its own state; a terminal that is gone needs none.
            let _ = termios::tcsetattr(&self.user, SetArg::TCSADRAIN, &self.saved);
        }
        self.raw = false;
        self.forwards_keys = false;
    }

    /// Keys to the instance; false when the user's terminal is gone.
    pub(super) fn pass_keys(&mut self) -> bool {
        copy(&mut self.user, &mut self.inner)
    }

    /// Output to the user; false when no process of the instance has its terminal open any more.
    pub(super) fn pass_output(&mut self) -> bool {
        copy(&mut self.inner, &mut self.user)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn copy(from: &mut File, to: &mut File) -> bool {
    let mut bytes = [0; 16 * 1024];
    match from.read(&mut bytes) {
        Ok(0) => false,
        // What cannot be written has lost its reader; reading on keeps the writer from waiting for ever.
        Ok(len) => to.write_all(&bytes[..len]).is_ok() || !to.is_terminal(),
        Err(error) => matches!(error.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock),
    }
}
