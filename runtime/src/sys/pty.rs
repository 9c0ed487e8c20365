//! Terminals: window size, controlling terminal, the instance's own pseudo-terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// A terminal's window size (`struct winsize`, tty_ioctl(4)).
pub type WindowSize = libc::winsize;

/// Asks a terminal for its window size.
///
/// # Errors
/// `ENOTTY`.
pub fn window_size(terminal: impl AsFd) -> nix::Result<WindowSize> {
    let mut size = WindowSize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which lives across the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets a terminal's window size; its foreground process group gets SIGWINCH.
///
/// # Errors
/// `ENOTTY`.
pub fn set_window_size(terminal: impl AsFd, size: &WindowSize) -> nix::Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize, which lives across the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const *size) }).map(drop)
}

/// Makes `terminal` the controlling terminal of the calling session leader.
///
/// # Errors
/// `EPERM` when the caller leads no session or has a terminal already.
pub fn set_controlling(terminal: impl AsFd) -> nix::Result<()> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Opens a pseudo-terminal of the devpts mounted at /dev/pts of the calling process: (controller, terminal).
///
/// # Errors
/// `ENOENT` without devpts, `ENOSPC` past its limit.
pub fn open_pair() -> io::Result<(File, File)> {
    let controller = File::options().read(true).write(true).open("/dev/ptmx")?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives across the call.
    Errno::result(unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int, which lives across the call.
    Errno::result(unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    use std::os::unix::fs::OpenOptionsExt;
    let terminal =
        File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(format!("/dev/pts/{number}"))?;
    Ok((controller, terminal))
}
