//! The client side of a request: moves the streams, follows the command, and ends as it ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use runtime::error::killed_by;
use runtime::request;
use runtime::sys::pty;
use runtime::wire::body::{self, Event, Reply, Request, Size};
use runtime::wire::frame;

use super::streams::{self, Streams};
use crate::Failure;
use crate::launch::signals;
use crate::launch::terminal::{Screen, stop_here};

/// Size of the first of the standard streams that is a terminal.
pub(crate) fn size_of(streams: [bool; 3]) -> Size {
    let size = match streams {
        [true, _, _] => pty::window_size(io::stdin()),
        [_, true, _] => pty::window_size(io::stdout()),
        _ => pty::window_size(io::stderr()),
    };
    size.map_or(Size { rows: 0, columns: 0, width: 0, height: 0 }, |size| Size {
        rows: size.ws_row,
        columns: size.ws_col,
        width: size.ws_xpixel,
        height: size.ws_ypixel,
    })
}

/// How a client announces its request; returns a descriptor that shows an error when the host daemon that knows of
/// the request has gone.
pub(crate) type Announce<'a> = &'a dyn Fn() -> Result<Option<File>, Failure>;

/// A request that is being served.
pub(crate) struct Client {
    pipes: request::Client,
    request: Request,
    /// Readable when that in which the command runs has ended, should this process live on.
    place: Option<OwnedFd>,
    /// What that is.
    name: String,
    accepted: bool,
    /// Frames that `control` has not taken yet: the request, then what happened since.
    unsent: Vec<u8>,
    screen: Option<Screen>,
    streams: Option<Streams>,
    outcome: Option<Result<i32, String>>,
}

/// What there is to do after a wait.
#[derive(Default)]
struct Ready {
    signal: bool,
    reply: bool,
    instance: bool,
    control: bool,
    keys: bool,
    daemon: bool,
    streams: [bool; 3],
}

impl Client {
    pub(crate) fn new(pipes: request::Client, request: Request, place: Option<OwnedFd>, name: String) -> Self {
        Self {
            pipes,
            request,
            unsent: Vec::new(),
            place,
            name,
            accepted: false,
            screen: None,
            streams: None,
            outcome: None,
        }
    }

    /// Stays until the command has ended; returns its exit code, or why there is none.
    pub(crate) fn run(mut self, announce: Announce<'_>) -> Result<i32, String> {
        let outcome = self.follow(announce);
        // What the command wrote last is still in the pipes; their other ends are closed by now.
        if let Some(streams) = self.streams.take() {
            streams.finish();
        }
        self.screen = None;
        self.pipes.remove();
        outcome
    }

    fn follow(&mut self, announce: Announce<'_>) -> Result<i32, String> {
        let watched = signals::watched();
        watched.thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|errno| format!("cannot watch for signals: {errno}"))?;
        self.unsent = frame::encode(&body::encode(&self.request)).map_err(|error| error.to_string())?;
        let mut daemon = announce().map_err(|error| error.to_string())?;
        loop {
            let ready = self.wait(&signals, daemon.as_ref())?;
            if ready.control {
                // A request that nobody reads any more is noticed by the end of the replies.
                if streams::write_some(&mut self.pipes.control, &mut self.unsent).is_err() {
                    self.unsent.clear();
                }
            }
            if ready.reply {
                self.hear()?;
            } else if ready.instance {
                return Err(self.gone());
            }
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            if ready.daemon && !self.accepted {
                daemon = announce().map_err(|error| error.to_string())?;
            }
            if let Some(streams) = &mut self.streams {
                streams.turn(ready.streams).map_err(|error| format!("cannot move the streams: {error}"))?;
            }
            if ready.keys && !self.pass_keys() {
                self.screen = None;
            }
            if ready.signal {
                while let Ok(Some(info)) = signals.read_signal() {
                    self.forward(info.ssi_signo as i32, info.ssi_code);
                }
            }
        }
    }

    fn wait(&self, signals: &SignalFd, daemon: Option<&File>) -> Result<Ready, String> {
        let none = PollFlags::empty();
        let keys = self.screen.as_ref().filter(|screen| screen.holds_terminal());
        let [input, stdout, stderr] = self.streams.as_ref().map_or([None; 3], Streams::watch);
        let places = [
            (Some(signals.as_fd()), PollFlags::POLLIN),
            (Some(self.pipes.result.as_fd()), PollFlags::POLLIN),
            (self.place.as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            ((!self.unsent.is_empty()).then(|| self.pipes.control.as_fd()), PollFlags::POLLOUT),
            (keys.map(Screen::as_fd), PollFlags::POLLIN),
            (daemon.filter(|_| !self.accepted).map(AsFd::as_fd), none),
            (input, PollFlags::POLLIN),
            (stdout, PollFlags::POLLIN),
            (stderr, PollFlags::POLLIN),
        ];
        let mut fds = places.map(|(place, flags)| match place {
            Some(fd) => PollFd::new(fd, flags),
            None => PollFd::new(signals.as_fd(), none),
        });
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("cannot wait for events: {errno}")),
        }
        let ready =
            |index: usize| places[index].0.is_some() && fds[index].revents().is_some_and(|events| !events.is_empty());
        Ok(Ready {
            signal: ready(0),
            reply: ready(1),
            instance: ready(2),
            control: ready(3),
            keys: ready(4),
            daemon: ready(5),
            streams: [ready(6), ready(7), ready(8)],
        })
    }

    /// Takes one reply. Frames on this pipe are smaller than what the kernel writes whole, so none is ever half there.
    fn hear(&mut self) -> Result<(), String> {
        let bytes = match frame::read(&mut self.pipes.result) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(_) => return Err(self.gone()),
        };
        match body::decode(&bytes).map_err(|error| error.to_string())? {
            Reply::Accepted => self.begin()?,
            Reply::Stopped(signal) => self.stopped(signal),
            Reply::Exited(code) => self.outcome = Some(Ok(code)),
            Reply::Killed(signal) => self.outcome = Some(Ok(killed_by(signal))),
            Reply::Failed(text) => self.outcome = Some(Err(text)),
        }
        Ok(())
    }

    /// The other side has opened its ends: the streams flow from here on.
    fn begin(&mut self) -> Result<(), String> {
        self.accepted = true;
        let failed = |error: io::Error| format!("cannot connect the streams: {error}");
        let (stdin, stdout, stderr) = self.pipes.accepted().map_err(failed)?;
        let input = match &self.request.terminal {
            Some(terminal) => {
                let mut screen = Screen::new(terminal.streams, Some(stdin)).map_err(failed)?;
                if terminal.foreground {
                    screen.take();
                }
                self.screen = Some(screen);
                None
            }
            None => Some(stdin),
        };
        self.streams = Some(Streams::new(input, stdout, stderr));
        Ok(())
    }

    fn pass_keys(&mut self) -> bool {
        self.screen.as_mut().is_some_and(Screen::pass_keys)
    }

    fn gone(&self) -> String {
        if self.accepted {
            format!("{} has ended, and the command with it", self.name)
        } else {
            format!("{} has ended before the command could start", self.name)
        }
    }

    /// What happens before the command runs, such as an interrupt, is told when it does.
    fn tell(&mut self, event: Event) {
        // Events are a few bytes.
        self.unsent.extend(frame::encode(&body::encode(&event)).unwrap_or_default());
    }

    fn forward(&mut self, number: i32, code: i32) {
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => {}
            Ok(Signal::SIGWINCH) => {
                if let Some(terminal) = &self.request.terminal {
                    self.tell(Event::Resize(size_of(terminal.streams)));
                }
            }
            _ => self.tell(Event::Signal { number, group: signals::from_kernel(code) }),
        }
    }

    /// The command was stopped, so this process stops too, as the shell that waits for it expects.
    fn stopped(&mut self, signal: i32) {
        let wants_terminal = signal == Signal::SIGTTIN as i32 || signal == Signal::SIGTTOU as i32;
        let foreground = match &mut self.screen {
            Some(screen) => screen.yield_or_take(signal, wants_terminal),
            None => {
                stop_here(signal, false);
                false
            }
        };
        if foreground {
            if let Some(terminal) = &self.request.terminal {
                self.tell(Event::Resize(size_of(terminal.streams)));
            }
            self.tell(Event::Foreground);
        } else {
            self.tell(Event::Signal { number: Signal::SIGCONT as i32, group: true });
        }
    }
}
