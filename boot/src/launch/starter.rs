//! The process that the user started: forwards signals, owns the terminal, and ends with the command's exit code.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::Pid;
use runtime::control::{Channel, FromGuest, ToGuest};
use runtime::error::killed_by;
use runtime::instance::TerminalUse;
use runtime::sys::process::{self, Change};

use super::detach::Detached;
use super::signals;
use super::terminal::{Bridge, stop_here};

/// The state of the process that the user started.
pub(super) struct Starter {
    channel: Channel,
    terminal: TerminalUse,
    bridge: Option<Bridge>,
    detached: Option<Detached>,
    outcome: Option<Result<i32, String>>,
    /// The child that makes the instance and ends.
    intermediate: Pid,
    /// Children that live on: the session's daemons, where this start began them.
    daemons: Vec<Pid>,
    /// The proxy of published ports, while it lives.
    ports: Option<Pid>,
    /// Whether PID 1 has nothing left to end but itself.
    alone: bool,
    /// Whether PID 1 of the instance, and with it every process there, has gone.
    ended: bool,
}

impl Starter {
    pub(super) fn new(
        channel: Channel,
        terminal: TerminalUse,
        intermediate: Pid,
        daemons: Vec<Pid>,
        detached: Option<Detached>,
        ports: Option<Pid>,
    ) -> Self {
        Self {
            channel,
            terminal,
            bridge: None,
            detached,
            outcome: None,
            intermediate,
            daemons,
            ports,
            alone: false,
            ended: false,
        }
    }

    /// Stays until the instance has gone, or has nothing left but to go; returns the exit code, or why it could not go
    /// on.
    pub(super) fn run(mut self) -> Result<i32, String> {
        let watched = signals::watched();
        watched.thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|errno| format!("cannot watch for signals: {errno}"))?;
        let mut channel_open = true;
        // A child that has ended before signals were watched is collected at the first turn.
        self.collect();
        while !self.is_over(channel_open) {
            let nobody = signals.as_fd();
            let bridge = self.bridge.as_ref();
            let keys = bridge.and_then(Bridge::typed);
            let output = bridge.map(Bridge::inner);
            let log = self.detached.as_ref().and_then(Detached::output);
            let places = [Some(signals.as_fd()), channel_open.then(|| self.channel.as_fd()), keys, output, log];
            let mut fds = places.map(|place| {
                PollFd::new(
                    place.unwrap_or(nobody),
                    if place.is_some() { PollFlags::POLLIN } else { PollFlags::empty() },
                )
            });
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(format!("cannot wait for events: {errno}")),
            }
            let ready = fds.map(|fd| fd.any().unwrap_or(false));
            let [signal, message, key, output, log] =
                [0, 1, 2, 3, 4].map(|index| ready[index] && places[index].is_some());
            if let (true, Some(detached)) = (log, &mut self.detached) {
                detached.take_output();
            }
            if output && self.bridge.as_mut().is_some_and(|bridge| !bridge.pass_output()) {
                self.bridge = None;
            }
            if key && self.bridge.as_mut().is_some_and(|bridge| !bridge.pass_keys()) {
                self.bridge = None;
            }
            if (key || output) && self.bridge.as_mut().is_some_and(Bridge::take_for_keys) {
                self.tell(ToGuest::Foreground);
            }
            if signal {
                while let Ok(Some(info)) = signals.read_signal() {
                    self.forward(&info);
                }
            }
            if message {
                channel_open = self.listen();
            }
        }
        // What the command wrote last is still in its terminal.
        while self.bridge.as_mut().is_some_and(Bridge::pass_output) {}
        self.bridge = None;
        let outcome = self
            .outcome
            .unwrap_or_else(|| Err("the instance was killed: its guest daemon ended without a word".to_owned()));
        if let Some(detached) = self.detached {
            detached.end(outcome.as_ref().err());
        }
        outcome
    }

    /// Whether there is nothing more to hear, show or wait for.
    fn is_over(&self, channel_open: bool) -> bool {
        let said = self.alone && self.outcome.is_some() && self.bridge.is_none();
        said || (self.ended && !channel_open)
    }

    /// Takes one message of the guest daemon; false when it has gone.
    fn listen(&mut self) -> bool {
        let Ok(Some((bytes, file))) = self.channel.receive() else { return false };
        match FromGuest::decode(&bytes) {
            Some(FromGuest::Terminal) => {
                if let (Some(file), TerminalUse::Own { streams, foreground }) = (file, self.terminal) {
                    self.bridge = Bridge::new(file, streams).ok();
                    if let (Some(bridge), true) = (&mut self.bridge, foreground) {
                        bridge.screen.take();
                    }
                }
            }
            Some(FromGuest::Started) => {
                if let Some(detached) = &self.detached {
                    detached.started();
                }
            }
            Some(FromGuest::Stopped(signal)) => self.stopped(signal),
            Some(FromGuest::Alone) => self.alone = true,
            Some(FromGuest::Exited(code)) => self.conclude(Ok(code)),
            Some(FromGuest::Killed(signal)) => self.conclude(Ok(killed_by(signal))),
            Some(FromGuest::Failed(text)) => self.conclude(Err(text)),
            None => {}
        }
        true
    }

    /// The first word is the one that counts.
    fn conclude(&mut self, outcome: Result<i32, String>) {
        self.outcome.get_or_insert(outcome);
    }

    fn forward(&mut self, info: &siginfo) {
        let number = info.ssi_signo as i32;
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => self.collect(),
            Ok(Signal::SIGWINCH) => {
                if let Some(bridge) = &self.bridge {
                    bridge.copy_size();
                }
            }
            _ => self.tell(ToGuest::Signal { number, group: signals::from_kernel(info.ssi_code) }),
        }
    }

    fn tell(&self, message: ToGuest) {
        // A guest daemon that has gone is noticed by the end of its channel.
        let _ = self.channel.send(&message.encode(), None);
    }

    /// The command was stopped, so this process stops too, as the shell that waits for it expects.
    fn stopped(&mut self, signal: i32) {
        let wants_terminal = signal == Signal::SIGTTIN as i32 || signal == Signal::SIGTTOU as i32;
        let foreground = match &mut self.bridge {
            Some(bridge) => bridge.screen.yield_or_take(signal, wants_terminal),
            None => {
                stop_here(signal, false);
                false
            }
        };
        if let Some(bridge) = &self.bridge {
            bridge.copy_size();
        }
        self.tell(if foreground {
            ToGuest::Foreground
        } else {
            ToGuest::Signal { number: Signal::SIGCONT as i32, group: true }
        });
    }

    /// Says something to the user, or in the log of a detached instance.
    fn warn(&mut self, text: &str) {
        match &mut self.detached {
            Some(detached) => detached.note(text),
            None => crate::report(&format!("warning: {text}")),
        }
    }

    /// Collects children that have ended. Whichever is not known is PID 1 of the instance.
    fn collect(&mut self) {
        while let Some((pid, change)) = process::next_change() {
            if matches!(change, Change::Stopped(_)) {
                continue;
            }
            if pid == self.intermediate {
                // One that failed has made no instance, or one that will not come to be.
                self.ended |= change != Change::Exited(0);
            } else if self.ports == Some(pid) {
                self.ports = None;
                self.warn("the published ports reach the instance no more: their process (fim-ports) has ended");
            } else if !self.daemons.contains(&pid) {
                self.ended = true;
            }
        }
    }
}
