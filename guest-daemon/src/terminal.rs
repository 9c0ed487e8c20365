//! The instance's own pseudo-terminal, when the starter has one.

use std::os::fd::AsFd;

use runtime::control::{Channel, FromGuest};
use runtime::instance::TerminalUse;
use runtime::spawn::Terminal;
use runtime::sys::pty;

use crate::Error;

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
