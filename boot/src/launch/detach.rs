//! Detached starts: a daemon of its own session supervises the instance and keeps its output, while the process that
//! the user started returns as soon as it hears how the start went.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use runtime::error::chain;
use runtime::session::log::Log;
use runtime::sys::{descriptor, process};
use runtime::wire::frame;

use super::facts::{self, Facts};
use super::stamp::Stamp;
use crate::{Failure, Message};

/// Which process this is from now on.
pub(super) enum Side {
    /// The one that the user started.
    Caller(Hearing),
    /// The daemon, with the facts as they are for it.
    Supervisor(Box<Facts>, Report),
}

/// Where the caller hears of the start. One frame comes: a zero and the ID, or a one and an error.
pub(super) struct Hearing(File);

/// Where the supervisor tells of it. Nobody hears more than the first word.
#[derive(Debug)]
pub struct Report(File);

/// Makes the supervisor: leader of a session of its own, without a terminal, in `/`, its streams at /dev/null.
pub(super) fn fork(facts: Facts) -> Result<Side, Failure> {
    let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    match process::fork().map_err(|errno| Message::boxed(format!("cannot detach: {errno}")))? {
        process::Side::Parent(_) => Ok(Side::Caller(Hearing(File::from(ours)))),
        process::Side::Child => {
            drop(ours);
            let report = Report(File::from(theirs));
            let detached = nix::unistd::setsid()
                .map_err(std::io::Error::from)
                .and_then(|_| std::env::set_current_dir("/"))
                .and_then(|()| descriptor::detach_standard_streams());
            if let Err(error) = detached {
                report.say(1, &format!("cannot detach: {error}"));
                std::process::exit(runtime::error::FAILURE);
            }
            let facts = Facts { terminals: [false; 3], foreground: false, closed: [false; 3], ..facts };
            Ok(Side::Supervisor(Box::new(facts), report))
        }
    }
}

impl Hearing {
    /// The ID of the instance that has started.
    pub(super) fn hear(mut self) -> Result<String, Failure> {
        let bytes = frame::read(&mut self.0)?.unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned();
        match bytes.first() {
            Some(0) => Ok(text),
            Some(_) => Err(Message::boxed(text)),
            None => Err(Message::boxed("the detached start was killed before its command ran")),
        }
    }
}

impl Report {
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    fn say(&self, kind: u8, text: &str) {
        let mut body = vec![kind];
        body.extend_from_slice(text.as_bytes());
        // A caller that was interrupted, or has heard already, needs nothing.
        let _ = frame::write(&mut &self.0, &body);
    }

    /// The command has started, in the instance with this ID.
    pub(super) fn started(&self, id: u64) {
        self.say(0, &id.to_string());
    }

    /// The instance has ended, or never began.
    pub(super) fn end(&self, outcome: &Result<i32, Failure>) {
        if let Err(error) = outcome {
            self.say(1, &chain(error.as_ref()));
        }
    }
}

/// What the supervisor of a detached instance has besides what every starter has.
#[derive(Debug)]
pub struct Detached {
    report: Report,
    id: u64,
    log: Log,
    /// What stands in front of its lines, if anything does.
    stamp: Option<Stamp>,
    /// Output of the command; `None` when nobody can write any more.
    output: Option<File>,
}

impl Detached {
    /// Makes standard output and error of this process, which the command will inherit, a pipe to this log.
    pub(super) fn begin(report: Report, id: u64, log: Log, stamp: Option<Stamp>) -> Result<Self, Failure> {
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        nix::unistd::dup2_stdout(&input)?;
        nix::unistd::dup2_stderr(&input)?;
        let output = File::from(output);
        // Only the reader's end: the command is to see a pipe like any other.
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { report, id, log, stamp, output: Some(output) })
    }

    /// To wait for output of the command.
    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Moves a piece of output to the log; false when there is none at the moment.
    pub(super) fn take_output(&mut self) -> bool {
        let Some(output) = &mut self.output else { return false };
        let mut bytes = [0; 64 * 1024];
        match output.read(&mut bytes) {
            Ok(len) if len > 0 => {
                self.write(&bytes[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Ok(_) | Err(_) => {
                self.output = None;
                false
            }
        }
    }

    /// The command has started.
    pub(super) fn started(&self) {
        self.report.started(self.id);
    }

    /// Every process of the instance has gone: what they wrote last is still in the pipe.
    pub(super) fn end(mut self, failure: Option<&String>) {
        while self.take_output() {}
        if let Some(text) = failure {
            self.note(text);
        }
        self.end_line();
    }

    fn end_line(&mut self) {
        if let Some(stamp) = &mut self.stamp {
            self.log.append(stamp.end_of_line());
        }
    }

    /// Adds a line of this process's to the log.
    pub(super) fn note(&mut self, text: &str) {
        self.end_line();
        self.write(format!("fim: {text}\n").as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        match &mut self.stamp {
            Some(stamp) => self.log.append(&stamp.stamped(bytes, facts::now())),
            None => self.log.append(bytes),
        }
    }
}
