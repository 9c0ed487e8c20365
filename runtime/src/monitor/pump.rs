//! Bytes between the terminal of a command and the pipes of its client, both ways, without ever waiting.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::line_ends::{self, LineEnds};
use crate::wire::body::Terminal;

/// Bytes held in each direction at the most; a side that does not read stops the other.
const HELD: usize = 16 * 1024;

/// One direction.
struct Way {
    from: Option<File>,
    to: Option<File>,
    held: Vec<u8>,
}

impl Way {
    fn wants(&self) -> (PollFlags, PollFlags) {
        let read = if self.held.len() < HELD { PollFlags::POLLIN } else { PollFlags::empty() };
        let write = if self.held.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        (read, write)
    }

    fn may_read(&self, ready: PollFlags) -> bool {
        !self.wants().0.is_empty() && self.from.is_some() && !ready.is_empty()
    }

    fn write_if(&mut self, ready: PollFlags) {
        if (!self.wants().1.is_empty() && !ready.is_empty()) || !self.held.is_empty() {
            self.write();
        }
    }

    fn read(&mut self) {
        let Some(from) = &mut self.from else { return };
        let mut bytes = [0; HELD];
        match from.read(&mut bytes[..HELD - self.held.len().min(HELD)]) {
            Ok(0) => self.from = None,
            Ok(len) => self.held.extend_from_slice(&bytes[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // A terminal whose last user has gone answers EIO.
            Err(_) => self.from = None,
        }
    }

    fn write(&mut self) {
        let Some(to) = &mut self.to else {
            self.held.clear();
            return;
        };
        match to.write(&self.held) {
            Ok(len) => drop(self.held.drain(..len)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => {
                self.to = None;
                self.held.clear();
            }
        }
    }
}

/// Both directions.
pub(super) struct Pump {
    controller: File,
    keys: Way,
    screen: Way,
    ends: LineEnds,
    /// Whether the command has the user's terminal.
    held: bool,
    /// Whether others of a pipeline write to the user's terminal too, which therefore goes on to make line ends.
    shared: bool,
    /// Whether the client was told that the command wants keys.
    asked: bool,
}

impl Pump {
    /// Without a `screen`, what the terminal shows is shown to nobody.
    pub(super) fn new(controller: File, keys: File, screen: Option<File>, wanted: &Terminal) -> Self {
        for file in [Some(&controller), Some(&keys), screen.as_ref()].into_iter().flatten() {
            // Without it a turn could wait; with it, nothing else changes.
            let _ = fcntl(file, FcntlArg::F_GETFL)
                .and_then(|flags| fcntl(file, FcntlArg::F_SETFL(OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK)));
        }
        let side = || controller.try_clone().ok();
        let keys = Way { from: Some(keys), to: side(), held: Vec::new() };
        let screen = Way { from: side(), to: screen, held: Vec::new() };
        let (held, shared) = (wanted.foreground, !wanted.streams[1]);
        Self { controller, keys, screen, ends: LineEnds::default(), held, shared, asked: false }
    }

    /// Notes whether the command has the user's terminal from now on.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
        self.asked = false;
    }

    /// Whether the command waits for single keys that do not come, for it never reads, which would have stopped it. True
    /// once, until [`Pump::hold`] tells of an answer.
    pub(super) fn wants_keys(&mut self) -> bool {
        let wants = !self.held
            && !self.asked
            && tcgetattr(&self.controller).is_ok_and(|settings| !settings.local_flags.contains(LocalFlags::ICANON));
        self.asked |= wants;
        wants
    }

    /// Takes output of the command's terminal. Where the user's makes line ends as well, those made here are undone.
    fn read_screen(&mut self) {
        let before = self.screen.held.len();
        self.screen.read();
        if (!self.held || self.shared) && (self.screen.held.len() > before || self.screen.from.is_none()) {
            let new = self.screen.held.split_off(before);
            let made = line_ends::are_made_at(&self.controller);
            self.screen.held.extend(self.ends.pass(&new, made));
            if self.screen.from.is_none() {
                self.screen.held.extend_from_slice(self.ends.rest());
            }
        }
    }

    pub(super) fn controller(&self) -> BorrowedFd<'_> {
        self.controller.as_fd()
    }

    /// Adds four descriptors to be watched, in the order that [`Pump::turn`] takes their events.
    pub(super) fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for way in [&self.keys, &self.screen] {
            let (read, write) = way.wants();
            for (file, flags) in [(&way.from, read), (&way.to, write)] {
                // An error is reported even where nothing is asked for, so what is not needed is not watched at all.
                let (fd, flags) = match file {
                    Some(file) if !flags.is_empty() => (file.as_fd(), flags),
                    _ => (self.idle(), PollFlags::empty()),
                };
                fds.push(PollFd::new(fd, flags));
            }
        }
    }

    /// A descriptor without events of its own, as long as the terminal is open on this side.
    fn idle(&self) -> BorrowedFd<'_> {
        self.controller.as_fd()
    }

    /// Moves what is ready.
    pub(super) fn turn(&mut self, ready: &[PollFlags]) {
        if self.keys.may_read(ready[0]) {
            self.keys.read();
        }
        self.keys.write_if(ready[1]);
        if self.screen.may_read(ready[2]) {
            self.read_screen();
        }
        self.screen.write_if(ready[3]);
        if self.keys.from.is_none() && self.keys.held.is_empty() && self.keys.to.is_some() {
            self.keys.to = None;
        }
    }

    /// Passes on what is left of the output of a command that has ended.
    pub(super) fn drain(&mut self) {
        if let Some(to) = &self.screen.to {
            let _ = crate::request::block(to);
        }
        loop {
            while !self.screen.held.is_empty() {
                self.screen.write();
            }
            let had = self.screen.from.is_some();
            self.read_screen();
            if self.screen.held.is_empty() || !had {
                return;
            }
        }
    }
}
