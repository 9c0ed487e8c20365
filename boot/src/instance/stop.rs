//! `fim-instance stop` and `kill`: signals for the command of an instance. Its guest daemon sends them, so that every
//! signal can be sent and the starter, which stays, ends with the command's exit code.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use runtime::host;
use runtime::session::registry::Instance;
use runtime::sys::process;
use runtime::wire::Ring;

use super::session::{self, Session};
use super::trailing_arguments;
use crate::{Failure, Invocation, Message};

/// How long a command may take to end after SIGTERM when the user says nothing else.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the instance may take to end after its command was killed.
const LAST: Duration = Duration::from_secs(1);

/// An instance that is going to be sent signals.
struct Target {
    session: Session,
    instance: Instance,
    starter: OwnedFd,
}

impl Target {
    fn find(invocation: &Invocation, id: u64) -> Result<Self, Failure> {
        let session = session::require(invocation)?;
        let (instance, starter) = session.hold(id)?;
        Ok(Self { session, instance, starter })
    }

    /// Sends a signal to the command; true when there is nothing to send it to any more.
    fn signal(&self, number: i32) -> Result<bool, Failure> {
        let id = self.instance.id;
        let rung = host::ring_guest(&self.session.registry.directory(id), Ring::Signal { instance: id, number })?;
        Ok(!rung)
    }

    /// A starter that was stopped with its command could not tell of the end.
    fn wake(&self) {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.instance.pid)).unwrap_or_default();
        if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
            // It may have ended by now.
            let _ = process::pidfd_signal(&self.starter, Signal::SIGCONT as i32);
        }
    }

    /// Whether the instance ends within this time.
    fn ends_within(&self, time: Duration) -> Result<bool, Failure> {
        let end = Instant::now().checked_add(time);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            // A time too long for poll(2) is waited for in parts.
            let part = left.and_then(|left| PollTimeout::try_from(left).ok()).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.starter.as_fd(), PollFlags::POLLIN)], part) {
                Ok(0) if left.is_some_and(|left| left <= Duration::from_millis(1)) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(Message::boxed(format!("cannot wait for the instance: {}", errno.desc()))),
            }
        }
    }
}

/// Ends the command: SIGTERM, then SIGKILL when the time is over. Returns when the instance has ended.
pub(crate) fn stop(invocation: &Invocation, id: u64, words: &[OsString]) -> Result<i32, Failure> {
    let timeout = timeout(words)?;
    let target = Target::find(invocation, id)?;
    target.signal(Signal::SIGTERM as i32)?;
    // One that is stopped gets it only when it goes on.
    target.signal(Signal::SIGCONT as i32)?;
    target.wake();
    if target.ends_within(timeout)? {
        return Ok(0);
    }
    target.signal(Signal::SIGKILL as i32)?;
    target.wake();
    if !target.ends_within(LAST)? {
        // It is held up by its terminal, perhaps; everything in the instance ends with it.
        let _ = process::pidfd_signal(&target.starter, Signal::SIGKILL as i32);
        target.ends_within(Duration::MAX)?;
    }
    Ok(0)
}

fn timeout(words: &[OsString]) -> Result<Duration, Failure> {
    let mut words = words.iter();
    let timeout = match words.next() {
        None => TIMEOUT,
        Some(word) if word == "--timeout" => {
            let value = words.next().and_then(|word| word.to_str());
            let seconds = value.and_then(|value| value.parse().ok());
            Duration::from_secs(seconds.ok_or_else(|| {
                Message::boxed("--timeout takes whole seconds: fim-instance stop ID --timeout SECONDS")
            })?)
        }
        Some(word) => return Err(trailing_arguments(std::iter::once(word).chain(words))),
    };
    match words.next() {
        None => Ok(timeout),
        Some(word) => Err(trailing_arguments(std::iter::once(word).chain(words))),
    }
}

/// Sends one signal, SIGTERM unless another is named.
pub(super) fn kill(invocation: &Invocation, id: u64, words: &[OsString]) -> Result<i32, Failure> {
    let number = match words {
        [] => Signal::SIGTERM as i32,
        [word] => parse_signal(word)?,
        [_, rest @ ..] => return Err(trailing_arguments(rest)),
    };
    let target = Target::find(invocation, id)?;
    if target.signal(number)? {
        return Err(session::ended(id));
    }
    target.wake_for(number);
    Ok(0)
}

impl Target {
    /// The signals that make a stopped command go on concern its starter too.
    fn wake_for(&self, number: i32) {
        if number == Signal::SIGCONT as i32 || number == Signal::SIGKILL as i32 {
            self.wake();
        }
    }
}

/// `TERM`, `SIGTERM`, in any case, or a number from 1 to 64.
fn parse_signal(word: &OsStr) -> Result<i32, Failure> {
    let text = word.to_string_lossy().to_uppercase();
    if let Some(number) = text.parse().ok().filter(|number| (1..=64).contains(number)) {
        return Ok(number);
    }
    let name = if text.starts_with("SIG") { text } else { format!("SIG{text}") };
    name.parse::<Signal>().map(|signal| signal as i32).map_err(|_| {
        Message::boxed(format!(
            "Unknown signal '{}': use a name such as TERM or SIGTERM, or a number from 1 to 64",
            word.to_string_lossy()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        let parse = |word: &str| parse_signal(OsStr::new(word)).map_err(|error| error.to_string());
        for (word, number) in [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("hup", 1), ("9", 9), ("64", 64)] {
            assert_eq!(parse(word), Ok(number), "{word}");
        }
        for word in ["", "0", "65", "-9", "TERMX", "SIG", "9x"] {
            assert!(parse(word).unwrap_err().contains("Unknown signal"), "{word}");
        }
    }

    #[test]
    fn timeouts() {
        let parse = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            timeout(&words).map_err(|error| error.to_string())
        };
        assert_eq!(parse(""), Ok(TIMEOUT));
        assert_eq!(parse("--timeout 0"), Ok(Duration::ZERO));
        assert_eq!(parse("--timeout 18446744073709551615"), Ok(Duration::from_secs(u64::MAX)));
        for line in ["--timeout", "--timeout x", "--timeout -1", "--timeout 1.5"] {
            assert!(parse(line).unwrap_err().contains("whole seconds"), "{line}");
        }
        for line in ["5", "--timeout 5 6", "--json"] {
            assert!(parse(line).unwrap_err().contains("Trailing arguments"), "{line}");
        }
    }
}
