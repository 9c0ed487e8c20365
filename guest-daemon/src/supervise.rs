//! The loop of PID 1: reaps, forwards, reports, and ends.

use std::io::Read;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use runtime::control::{FromGuest, ToGuest};
use runtime::sys::process::{self, Change};
use runtime::wire::{Doorbells, Ring};

use runtime::instance::Start;
use runtime::spawn::Terminal;

use crate::{Built, Error, command};

/// Signals that a terminal makes of keys. Until the command is in its foreground, they come to PID 1.
const KEYS: [Signal; 3] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP];
/// `SI_KERNEL` of siginfo(2): from the terminal, not from a process of the guest.
const SI_KERNEL: i32 = 0x80;
/// How long, in milliseconds, a command's SIGBUS waits for the end of the mount server that may have caused it.
const SERVER_GRACE: u16 = 1000;

/// Starts the command and stays until it has ended. When this process returns, the kernel ends all others of the
/// instance.
pub(crate) fn run(start: &Start, built: Built) -> Result<(), Error> {
    // Signals are blocked since before the terminal: what its keys made of them until now waits here.
    let watched: SigSet = KEYS.into_iter().chain([Signal::SIGCHLD]).collect();
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Error::system("watch for children"))?;
    let Built { terminal, pipes, mut doorbell, emulated } = built;
    let main = command::start(&start.command, terminal.as_ref()).map_err(Error::system("start the command"))?;
    let instance = Instance { start, terminal, main };
    instance.report(&FromGuest::Started);
    let mut doorbells = Doorbells::default();
    loop {
        let watched =
            [start.channel.as_fd(), start.server.as_fd(), signals.as_fd(), doorbell.as_fd(), start.gate.as_fd()];
        // Without emulation the gate is closed by now, and nobody's business.
        let count = watched.len() - usize::from(!emulated);
        let mut fds = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds[..count], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("wait for events")(errno)),
        }
        let [channel, server, child, ring, emulator] = fds.map(|fd| fd.any().unwrap_or(false));
        // Before the command's own end: without its files it ends by an error that is not its own.
        if server {
            instance.report(&files_gone());
            return Ok(());
        }
        if emulator {
            let text = "the process that keeps the owners of files has ended; the instance cannot go on without it";
            instance.report(&FromGuest::Failed(text.to_owned()));
            return Ok(());
        }
        if child {
            while let Ok(Some(info)) = signals.read_signal() {
                let typed = KEYS.iter().any(|key| *key as u32 == info.ssi_signo) && info.ssi_code == SI_KERNEL;
                if typed {
                    instance.signal(info.ssi_signo as i32, true);
                }
            }
            if instance.reap() {
                return Ok(());
            }
        }
        if ring {
            let mut bytes = [0; 4096];
            if let Ok(len) = doorbell.read(&mut bytes) {
                for ring in doorbells.feed(&bytes[..len]) {
                    match ring {
                        // At a process limit the request is lost with its client's pipes; the instance goes on.
                        Ring::Exec { request, .. } => drop(crate::request::start(&pipes, request, &start.plan.account)),
                        Ring::Signal { number, .. } => instance.signal(number, false),
                        _ => {}
                    }
                }
            }
        }
        if channel && !instance.obey() {
            return Ok(());
        }
    }
}

/// What the starter is told when the mount server is no more.
fn files_gone() -> FromGuest {
    let text = "the mount server of this session has ended; the instance cannot go on without its files";
    FromGuest::Failed(text.to_owned())
}

struct Instance<'a> {
    start: &'a Start,
    terminal: Option<Terminal>,
    main: Pid,
}

impl Instance<'_> {
    /// Collects every child that changed; true when the command has ended and was reported.
    fn reap(&self) -> bool {
        let mut ended = false;
        while let Some((pid, change)) = process::next_change() {
            if pid != self.main {
                continue;
            }
            if !matches!(change, Change::Stopped(_)) {
                ended = true;
                if process::is_alone() {
                    self.report(&FromGuest::Alone);
                }
            }
            self.report(&match change {
                Change::Exited(code) => FromGuest::Exited(code),
                Change::Killed(signal) if signal == Signal::SIGBUS as i32 && self.server_ends() => files_gone(),
                Change::Killed(signal) => FromGuest::Killed(signal),
                Change::Stopped(signal) => FromGuest::Stopped(signal),
            });
        }
        ended
    }

    /// Whether the mount server is ending. A page that cannot be read any more ends the command (SIGBUS) at the moment
    /// the dying server's descriptors close, which is shortly before the server itself is seen to have ended.
    fn server_ends(&self) -> bool {
        let mut fds = [PollFd::new(self.start.server.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, SERVER_GRACE), Ok(1))
    }

    /// Does what the starter says; false when it has gone.
    fn obey(&self) -> bool {
        let Ok(Some((bytes, _))) = self.start.channel.receive() else { return false };
        match ToGuest::decode(&bytes) {
            Some(ToGuest::Signal { number, group }) => self.signal(number, group),
            Some(ToGuest::Foreground) => {
                if let Some(terminal) = &self.terminal {
                    // A command that has just ended has no group to put anywhere.
                    let _ = terminal.give_to(self.main);
                }
                self.signal(Signal::SIGCONT as i32, true);
            }
            // Said once, before this loop began.
            Some(ToGuest::Build) | None => {}
        }
        true
    }

    fn signal(&self, number: i32, group: bool) {
        let target = if group { Pid::from_raw(-self.main.as_raw()) } else { self.main };
        process::kill(target, number);
    }

    fn report(&self, message: &FromGuest) {
        // A starter that has gone ends the instance by other means.
        let _ = self.start.channel.send(&message.encode(), None);
    }
}
