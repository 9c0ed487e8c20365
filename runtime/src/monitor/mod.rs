//! Serving a request: a process, forked from a daemon, that leads a session of its own, starts the command and stays
//! with it. The bytes of a command without a terminal never pass through here.

mod pump;

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::request::Server;
use crate::sandbox::plan::Command;
use crate::spawn::{self, Execute, Terminal};
use crate::sys::process::{self, Change};
use crate::sys::{descriptor, pty};
use crate::wire::body::{self, Event, Reply, Request, Size};
use crate::wire::{RequestId, frame};
use pump::Pump;

/// What can go wrong while a request is served.
#[derive(Debug, thiserror::Error)]
#[error("cannot {0}")]
struct Error(&'static str, #[source] io::Error);

impl Error {
    fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self(action, error.into())
    }
}

/// How requests become commands.
pub struct Service<'a> {
    /// Longest request in bytes.
    pub limit: usize,
    /// The command of a request, or one line that says why there is none.
    pub command: &'a dyn Fn(Request) -> Result<Command, String>,
    /// How it is executed.
    pub execute: Execute<'a>,
}

/// Serves a request below a directory; to be called in a process that was forked for it and ends after it.
pub fn run(directory: impl AsFd, id: RequestId, service: &Service<'_>) {
    // A request that somebody else serves, or that was withdrawn, is nothing to do; nor is one whose client has gone.
    let Ok(Some(mut server)) = Server::open(directory, id) else { return };
    let reply = match serve(&mut server, service) {
        Ok(Some(reply)) => reply,
        Ok(None) => {
            server.remove();
            return;
        }
        Err(error) => Reply::failed(crate::error::chain(&error)),
    };
    server.remove();
    // A client that has gone needs no answer.
    let _ = frame::write(&mut server.result, &body::encode(&reply));
}

/// Runs the request's command; `None` when the client went first.
fn serve(server: &mut Server, service: &Service<'_>) -> Result<Option<Reply>, Error> {
    // SIGCHLD comes through a descriptor; only what cannot be blocked ends this process before its command.
    SigSet::all().thread_block().map_err(Error::system("block signals"))?;
    // The client sees from here on when this process dies.
    reply(server, &Reply::Accepted)?;
    let Some(bytes) =
        frame::read_at_most(&mut server.control, service.limit).map_err(Error::system("read the request"))?
    else {
        return Ok(None);
    };
    let request = match Request::decode(&bytes) {
        Ok(request) => request,
        Err(error) => return Ok(Some(Reply::failed(error.to_string()))),
    };
    let (wanted, merged) = (request.terminal.clone(), request.merged);
    let command = match (service.command)(request) {
        Ok(command) => command,
        Err(reason) => return Ok(Some(Reply::failed(reason))),
    };
    nix::unistd::setsid().map_err(Error::system("start a session of processes"))?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Error::system("watch for children"))?;
    let (terminal, pump) = match &wanted {
        Some(wanted) => {
            let (controller, file) = pty::open_pair().map_err(Error::system("open a terminal"))?;
            pty::set_controlling(&file).map_err(Error::system("take the terminal"))?;
            resize(&controller, wanted.size);
            let terminal = Terminal { file, streams: wanted.streams, foreground: wanted.foreground };
            let keys = server.stdin.try_clone().map_err(Error::system("share a pipe"))?;
            // Into the pipe of a stream that is the user's terminal: what a file gets is the command's output alone.
            let screen = match wanted.streams {
                [_, true, _] => Some(&server.stdout),
                [_, false, true] => Some(&server.stderr),
                [_, false, false] => None,
            };
            let screen = screen.map(std::fs::File::try_clone).transpose().map_err(Error::system("share a pipe"))?;
            (Some(terminal), Some(Pump::new(controller, keys, screen, wanted)))
        }
        None => (None, None),
    };
    adopt_streams(server, merged)?;
    let main =
        spawn::start(&command, terminal.as_ref(), service.execute).map_err(Error::system("start the command"))?;
    // Only the command keeps its streams open, so that their ends are seen when it closes them.
    descriptor::detach_standard_streams().map_err(Error::system("open /dev/null"))?;
    close_streams(server)?;
    Monitor { server, terminal, pump, main, signals, ended: None }.run()
}

/// Puts the request's streams where the command will find its own.
fn adopt_streams(server: &Server, merged: bool) -> Result<(), Error> {
    let failed = Error::system;
    nix::unistd::dup2_stdin(&server.stdin).map_err(failed("connect a stream"))?;
    nix::unistd::dup2_stdout(&server.stdout).map_err(failed("connect a stream"))?;
    let stderr = if merged { &server.stdout } else { &server.stderr };
    nix::unistd::dup2_stderr(stderr).map_err(failed("connect a stream"))
}

/// Lets go of the monitor's own ends of the streams.
fn close_streams(server: &mut Server) -> Result<(), Error> {
    let null = std::fs::File::open("/dev/null").map_err(Error::system("open /dev/null"))?;
    for stream in [&mut server.stdin, &mut server.stdout, &mut server.stderr] {
        *stream = null.try_clone().map_err(Error::system("open /dev/null"))?;
    }
    Ok(())
}

fn resize(terminal: impl AsFd, size: Size) {
    let size =
        pty::WindowSize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: size.width, ws_ypixel: size.height };
    // A size that the kernel does not take leaves the old one.
    let _ = pty::set_window_size(terminal, &size);
}

fn reply(server: &mut Server, reply: &Reply) -> Result<(), Error> {
    frame::write(&mut server.result, &body::encode(reply)).map_err(Error::system("answer the client"))
}

struct Monitor<'a> {
    server: &'a mut Server,
    terminal: Option<Terminal>,
    pump: Option<Pump>,
    main: Pid,
    signals: SignalFd,
    ended: Option<Reply>,
}

/// How long a command whose client has gone may take to end after SIGHUP, in milliseconds.
const GRACE: u16 = 1000;

impl Monitor<'_> {
    fn run(mut self) -> Result<Option<Reply>, Error> {
        let mut client = true;
        loop {
            let wait = if client { PollTimeout::NONE } else { PollTimeout::from(GRACE) };
            let (child, control, ready) = {
                let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                let flags = if client { PollFlags::POLLIN } else { PollFlags::empty() };
                fds.push(PollFd::new(if client { self.server.control.as_fd() } else { self.signals.as_fd() }, flags));
                if let Some(pump) = &self.pump {
                    pump.watch(&mut fds);
                }
                match poll(&mut fds, wait) {
                    Ok(0) => {
                        self.signal(Signal::SIGKILL as i32, true);
                        continue;
                    }
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::system("wait for events")(errno)),
                }
                let ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
                (!ready[0].is_empty(), client && !ready[1].is_empty(), ready[2..].to_vec())
            };
            if let Some(pump) = &mut self.pump {
                pump.turn(&ready);
                if pump.wants_keys() {
                    self.stopped(Signal::SIGTTIN as i32);
                }
            }
            if child {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            if control && !self.obey()? {
                // The client was killed: so is what a terminal would have hung up on.
                client = false;
                self.signal(Signal::SIGHUP as i32, true);
                self.signal(Signal::SIGCONT as i32, true);
            }
            if let Some(reply) = self.ended.take() {
                if let Some(pump) = &mut self.pump {
                    // The command's own side must be closed for the end of its output to show.
                    self.terminal = None;
                    pump.drain();
                }
                return Ok(client.then_some(reply));
            }
        }
    }

    fn reap(&mut self) {
        while let Some((pid, change)) = process::next_change() {
            if pid != self.main {
                continue;
            }
            match change {
                Change::Exited(code) => self.ended = Some(Reply::Exited(code)),
                Change::Killed(signal) => self.ended = Some(Reply::Killed(signal)),
                Change::Stopped(signal) => {
                    if let Some(pump) = &mut self.pump {
                        pump.hold(false);
                    }
                    self.stopped(signal);
                }
            }
        }
    }

    /// Tells the client that the command was stopped, or would have been.
    fn stopped(&mut self, signal: i32) {
        // A client that has gone is noticed elsewhere.
        let _ = frame::write(&mut self.server.result, &body::encode(&Reply::Stopped(signal)));
    }

    /// Does what the client says; false when it has gone.
    fn obey(&mut self) -> Result<bool, Error> {
        let event = match frame::read(&mut self.server.control) {
            Ok(Some(bytes)) => body::decode::<Event>(&bytes),
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(Error::system("read from the client")(error)),
        };
        match event {
            Ok(Event::Signal { number, group }) => self.signal(number, group),
            Ok(Event::Resize(size)) => {
                if let Some(pump) = &self.pump {
                    resize(pump.controller(), size);
                }
            }
            Ok(Event::Foreground) => {
                if let Some(pump) = &mut self.pump {
                    pump.hold(true);
                }
                if let Some(terminal) = &self.terminal {
                    // A command that has just ended has no group to put anywhere.
                    let _ = terminal.give_to(self.main);
                }
                self.signal(Signal::SIGCONT as i32, true);
            }
            Err(error) => return Err(Error("go on with this client", io::Error::other(error))),
        }
        Ok(true)
    }

    fn signal(&self, number: i32, group: bool) {
        let target = if group { Pid::from_raw(-self.main.as_raw()) } else { self.main };
        process::kill(target, number);
    }
}
