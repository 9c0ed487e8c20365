//! The user's terminal: raw while the command has it, as it was otherwise.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, LocalFlags, OutputFlags, SetArg, Termios};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use runtime::line_ends::{self, LineEnds};
use runtime::sys::{process, pty};

use super::lines::{self, Lines};

fn standard(index: usize) -> nix::Result<OwnedFd> {
    match index {
        0 => nix::unistd::dup(std::io::stdin()),
        1 => nix::unistd::dup(std::io::stdout()),
        _ => nix::unistd::dup(std::io::stderr()),
    }
}

/// Whether this process group may read from the terminal it was started from.
#[must_use]
pub(crate) fn in_foreground(terminals: [bool; 3]) -> bool {
    terminals.iter().position(|is| *is).and_then(|index| standard(index).ok()).is_some_and(|fd| owns(fd.as_fd()))
}

fn owns(fd: BorrowedFd<'_>) -> bool {
    tcgetpgrp(fd).is_ok_and(|group| group == getpgrp())
}

/// The user's terminal, and where its keys go.
pub(crate) struct Screen {
    user: File,
    /// Where keys go; `None` when nothing takes them any more.
    keys: Option<File>,
    saved: Termios,
    /// Whether another program of a pipeline writes to the terminal too: its line ends must still work.
    shared: bool,
    raw: bool,
    held: bool,
}

impl Screen {
    /// The first of the standard streams that is a terminal.
    ///
    /// # Errors
    /// When none is.
    pub(crate) fn new(terminals: [bool; 3], keys: Option<File>) -> std::io::Result<Self> {
        let index = [0, 1, 2].into_iter().find(|&index| terminals[index]).unwrap_or(0);
        let user = File::from(standard(index)?);
        let saved = termios::tcgetattr(&user)?;
        Ok(Self { user, keys, saved, shared: !terminals[1], raw: false, held: false })
    }

    /// The terminal, to wait for keys and to write to.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.user.as_fd()
    }

    /// Whether the command has it.
    pub(crate) fn holds_terminal(&self) -> bool {
        self.held && self.keys.is_some()
    }

    /// Whether this process group may use the user's terminal now.
    fn in_foreground(&self) -> bool {
        owns(self.user.as_fd())
    }

    /// Whether this process group may have the user's terminal and has not taken it.
    fn can_take(&self) -> bool {
        !self.held && self.in_foreground()
    }

    /// Whether the user's terminal changes nothing of what is written to it.
    fn passes_everything(&self) -> bool {
        self.raw && !self.shared
    }

    /// Has the user's terminal process output as the command's does, while the command has it. Only a terminal that
    /// others of a pipeline write to processes any.
    fn follow(&self, command: &Termios) {
        if !(self.raw && self.shared) {
            return;
        }
        let wanted =
            command.output_flags.contains(OutputFlags::OPOST) && self.saved.output_flags.contains(OutputFlags::OPOST);
        if let Ok(mut now) = termios::tcgetattr(&self.user)
            && now.output_flags.contains(OutputFlags::OPOST) != wanted
        {
            now.output_flags.set(OutputFlags::OPOST, wanted);
            // A terminal that is gone shows nothing any more.
            let _ = termios::tcsetattr(&self.user, SetArg::TCSADRAIN, &now);
        }
    }

    /// Passes every key on, interrupt and suspend among them; the command's own terminal makes signals of them.
    pub(crate) fn take(&mut self) {
        let mut raw = self.saved.clone();
        termios::cfmakeraw(&mut raw);
        if self.shared {
            raw.output_flags.set(OutputFlags::OPOST, self.saved.output_flags.contains(OutputFlags::OPOST));
        }
        self.raw = termios::tcsetattr(&self.user, SetArg::TCSADRAIN, &raw).is_ok();
        self.held = true;
    }

    /// Gives the user's terminal back as it was.
    pub(crate) fn give_back(&mut self) {
        if self.raw {
            // The shell that takes over sets its own state; a terminal that is gone needs none.
            let _ = termios::tcsetattr(&self.user, SetArg::TCSADRAIN, &self.saved);
        }
        self.raw = false;
        self.held = false;
    }

    /// Keys to the command; false when the user's terminal is gone.
    pub(crate) fn pass_keys(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.user.read(&mut bytes) {
            Ok(0) => false,
            Ok(len) => {
                if self.keys.as_mut().is_some_and(|keys| keys.write_all(&bytes[..len]).is_err()) {
                    self.keys = None;
                }
                true
            }
            Err(error) => matches!(error.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock),
        }
    }

    /// After the command was stopped by `signal`: gives it the terminal when it was stopped for wanting it and may
    /// have it; otherwise stops this process too, as its shell expects, until it is continued. True when the command
    /// is to go on in the foreground, false when in the background.
    pub(crate) fn yield_or_take(&mut self, signal: i32, wants_terminal: bool) -> bool {
        if wants_terminal && self.in_foreground() {
            self.take();
            return true;
        }
        let held = self.held;
        self.give_back();
        stop_here(signal, held);
        // Continued: in the foreground again after `fg`, without the terminal after `bg`.
        let again = self.in_foreground() && (held || wants_terminal);
        if again {
            self.take();
        }
        again
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The user's terminal and the controlling side of the instance's.
pub(super) struct Bridge {
    pub(super) screen: Screen,
    inner: File,
    ends: LineEnds,
    /// Whether the instance's terminal began with whole lines: one that does not any more has a program that wants keys.
    began_with_lines: bool,
    wants_keys: bool,
    /// Where the command may come to want lines without having the terminal.
    lines: Option<Lines>,
}

impl Bridge {
    /// Connects them. The instance's terminal begins with the settings and the size of the user's.
    pub(super) fn new(inner: File, terminals: [bool; 3]) -> std::io::Result<Self> {
        let screen = Screen::new(terminals, Some(inner.try_clone()?))?;
        termios::tcsetattr(&inner, SetArg::TCSANOW, &screen.saved)?;
        let began_with_lines = screen.saved.local_flags.contains(LocalFlags::ICANON);
        // A command in the foreground has the terminal from the start.
        let lines = (!(terminals[0] && terminals[1])).then(|| Lines::watch(&screen.user)).transpose()?;
        let bridge = Self { screen, inner, ends: LineEnds::default(), began_with_lines, wants_keys: false, lines };
        bridge.copy_size();
        Ok(bridge)
    }

    /// The instance's side, to wait for output.
    pub(super) fn inner(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }

    /// Gives the instance the user's window size.
    pub(super) fn copy_size(&self) {
        // A terminal without a size has none to give.
        if let Ok(size) = pty::window_size(&self.screen.user) {
            let _ = pty::set_window_size(&self.inner, &size);
        }
    }

    /// Output to the user; false when no process of the instance has its terminal open any more.
    pub(super) fn pass_output(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.inner.read(&mut bytes) {
            Ok(0) => false,
            Ok(len) => {
                self.show(&bytes[..len]);
                true
            }
            Err(error) => matches!(error.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock),
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        let mut both_end_lines = false;
        if !self.screen.passes_everything()
            && let Ok(command) = termios::tcgetattr(&self.inner)
        {
            self.screen.follow(&command);
            both_end_lines = line_ends::are_made_by(&command) && line_ends::are_made_at(&self.screen.user);
            self.wants_keys = self.began_with_lines && !command.local_flags.contains(LocalFlags::ICANON);
        }
        // What cannot be written has lost its reader; reading on keeps the writer from waiting for ever.
        let _ = self.screen.user.write_all(&self.ends.pass(bytes, both_end_lines));
    }

    /// Readable when the user has typed something that may be for the command.
    pub(super) fn typed(&self) -> Option<BorrowedFd<'_>> {
        if self.screen.holds_terminal() { Some(self.screen.as_fd()) } else { self.lines.as_ref().map(Lines::as_fd) }
    }

    /// Passes on what the user has typed, if the command has the terminal; false when the terminal is gone.
    pub(super) fn pass_keys(&mut self) -> bool {
        if self.screen.holds_terminal() {
            return self.screen.pass_keys();
        }
        if let Some(lines) = &self.lines {
            lines.hear();
        }
        true
    }

    /// Takes the user's terminal for a program that waits for keys without having read, which would have stopped it;
    /// true when it was taken.
    pub(super) fn take_for_keys(&mut self) -> bool {
        let takes = (self.wants_keys || self.lines.is_some())
            && self.screen.can_take()
            && (self.wants_keys || lines::wanted(self.screen.as_fd()));
        if takes {
            self.screen.take();
        }
        takes
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.screen.user.write_all(self.ends.rest());
    }
}

/// Stops this process by `signal`'s default action. One that a terminal's key sent goes to the whole group, for the
/// raw terminal has kept it from the other members.
pub(crate) fn stop_here(signal: i32, whole_group: bool) {
    let Ok(signal) = Signal::try_from(signal) else { return };
    // SIGSTOP would hold even an orphaned group, which nobody could continue; the terminal's own does not.
    let signal = if signal == Signal::SIGSTOP { Signal::SIGTSTP } else { signal };
    let mut only = SigSet::empty();
    only.add(signal);
    process::default_signal(signal as i32);
    let target = if whole_group { Pid::from_raw(0) } else { nix::unistd::getpid() };
    process::kill(target, signal as i32);
    // Pending while it is blocked; this is where the process stops.
    let _ = only.thread_unblock();
    let _ = only.thread_block();
}
