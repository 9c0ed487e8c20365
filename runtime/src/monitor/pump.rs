//! Bytes between the terminal of a command and the pipes of its client, both ways, without ever waiting.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

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
}

impl Pump {
    pub(super) fn new(controller: File, keys: File, screen: File) -> Self {
        for file in [&controller, &keys, &screen] {
            // Without it a turn could wait; with it, nothing else changes.
            let _ = fcntl(file, FcntlArg::F_GETFL)
                .and_then(|flags| fcntl(file, FcntlArg::F_SETFL(OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK)));
        }
        let side = || controller.try_clone().ok();
        let keys = Way { from: Some(keys), to: side(), held: Vec::new() };
        let screen = Way { from: side(), to: Some(screen), held: Vec::new() };
        Self { controller, keys, screen }
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
        for (way, ready) in [&mut self.keys, &mut self.screen].into_iter().zip(ready.chunks(2)) {
            let (reads, writes) = way.wants();
            if !reads.is_empty() && way.from.is_some() && !ready[0].is_empty() {
                way.read();
            }
            if (!writes.is_empty() && !ready[1].is_empty()) || !way.held.is_empty() {
                way.write();
            }
        }
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
            self.screen.read();
            if self.screen.held.is_empty() || !had {
                return;
            }
        }
    }
}
