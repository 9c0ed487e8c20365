//! Programs that a build runs.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::sys::process;

use crate::interrupt::Interrupt;

/// Runs a program to its end, or until a signal wants an end of the build: then the program gets `last`, and is waited for.
///
/// # Errors
/// When it cannot be started, and `Interrupted` when the signal has come.
pub(super) fn run(command: &mut Command, last: Signal, interrupt: &Interrupt) -> io::Result<ExitStatus> {
    // Ours are held back.
    process::unblock_signals(command);
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    if interrupt.comes_before(&process::pidfd_open(pid)?) {
        // The held signal ends this program when everything is cleaned up.
        let _ = kill(pid, last);
    }
    let status = child.wait()?;
    if interrupt.is_pending() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(status) }
}

/// How a program ended, in words.
pub(super) fn end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}
