//! The instance's own pseudo-terminal, when the starter has one.

use std::fs::File;
use std::os::fd::AsFd;

use nix::unistd::Pid;
use runtime::control::{Channel, FromGuest};
use runtime::instance::TerminalUse;
use runtime::sys::pty;

use crate::Error;

/// The terminal side of the pair; the controlling side is with the starter.
pub(crate) struct Terminal {
    pub(crate) file: File,
    /// Which standard streams it replaces.
    pub(crate) streams: [bool; 3],
    /// Whether the command begins in the foreground.
    pub(crate) foreground: bool,
}

/// Opens the pair, makes it this session's terminal and sends the other side to the starter.
pub(crate) fn open(terminal: &TerminalUse, channel: &Channel) -> Result<Option<Terminal>, Error> {
    let TerminalUse::Own { streams, foreground } = *terminal else { return Ok(None) };
    let (controller, file) = pty::open_pair().map_err(Error::system("open a terminal of the instance"))?;
    pty::set_controlling(&file).map_err(Error::system("take the instance's terminal"))?;
    channel
        .send(&FromGuest::Terminal.encode(), Some(controller.as_fd()))
        .map_err(Error::system("hand the terminal to the starter"))?;
    Ok(Some(Terminal { file, streams, foreground }))
}

impl Terminal {
    /// Puts a process group into the foreground. The caller has SIGTTOU blocked.
    pub(crate) fn give_to(&self, group: Pid) -> nix::Result<()> {
        nix::unistd::tcsetpgrp(&self.file, group)
    }
}
