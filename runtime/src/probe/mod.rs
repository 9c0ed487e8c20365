//! Probes: each performs on this host the very operation that a start needs, in a process of its own, so that nothing
//! of it stays. What they find is returned; whoever asks prints it.

pub mod kernel;
mod namespaces;
mod process;
mod stack;

use std::io::{self, Read, Write};

use nix::sys::wait::waitpid;

pub use namespaces::{instance, mounts, user_namespace};
pub use process::{filter, notifier, pidfd, program};
pub use stack::{fuse, overlay};

use crate::mount_server::Error;
use crate::sys::process as forks;
use crate::sys::process::Side;

/// Why an operation does not work here, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The cause.
    pub why: String,
    /// What to do about it: a command where there is one.
    pub fix: String,
}

/// What a probe found, in a few words; or why the operation does not work.
pub type Verdict = Result<String, Refusal>;

impl Refusal {
    /// A cause and its cure.
    pub fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { why: why.into(), fix: fix.into() }
    }

    fn io(action: &str, error: impl Into<io::Error>, fix: &str) -> Self {
        Self::new(format!("cannot {action}: {}", error.into()), fix)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Host { what, why, fix } => {
                Self::new(format!("{what}: {why}"), fix.strip_prefix("try: ").unwrap_or(&fix))
            }
            Error::NoFuse(inner) => Self::from(*inner),
            other => Self::new(crate::error::chain(&other), CHECK),
        }
    }
}

/// For what has no better advice.
const CHECK: &str = "check the kernel log (sudo dmesg)";

/// Begins a message of [`isolated`].
const WORKS: u8 = b'W';
const REFUSED: u8 = b'R';

/// Runs a probe in a child process, whose end undoes what it did. The caller has one thread.
fn isolated(probe: impl FnOnce() -> Verdict) -> Verdict {
    apart(forks::fork, true, probe)
}

/// Runs a probe in the process that `make` makes; `ours` says that it is a child of the caller.
fn apart(make: impl FnOnce() -> nix::Result<Side>, ours: bool, probe: impl FnOnce() -> Verdict) -> Verdict {
    let (mut reader, writer) = io::pipe().map_err(|error| Refusal::io("make a pipe", error, CHECK))?;
    match make().map_err(|errno| Refusal::io("make a process", errno, "raise the limit of processes (ulimit -u)"))? {
        Side::Child => {
            drop(reader);
            let told = tell(writer, probe());
            std::process::exit(i32::from(told.is_err()))
        }
        Side::Parent(pid) => {
            drop(writer);
            let mut message = Vec::new();
            // Whatever could be read is judged below.
            let _ = reader.read_to_end(&mut message);
            let end = ours.then(|| waitpid(pid, None));
            heard(&message).unwrap_or_else(|| {
                let how = end.map_or_else(String::new, |end| format!(" ({end:?})"));
                Err(Refusal::new(format!("the process that tried it died{how}"), "a system call filter ends programs here; start it outside of the container or service that installs it"))
            })
        }
    }
}

fn tell(mut writer: io::PipeWriter, verdict: Verdict) -> io::Result<()> {
    let message = match verdict {
        Ok(found) => [&[WORKS], found.as_bytes()].concat(),
        Err(Refusal { why, fix }) => [&[REFUSED], why.as_bytes(), &[0], fix.as_bytes()].concat(),
    };
    writer.write_all(&message)
}

fn heard(message: &[u8]) -> Option<Verdict> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match message.split_first()? {
        (&WORKS, found) => Some(Ok(text(found))),
        (&REFUSED, rest) => {
            let mut parts = rest.splitn(2, |&byte| byte == 0);
            Some(Err(Refusal { why: text(parts.next()?), fix: text(parts.next()?) }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_comes_back_from_its_process() {
        let refusal = Refusal::new("why: not", "the fix");
        for verdict in [Ok("found".to_owned()), Err(refusal)] {
            let (mut reader, writer) = io::pipe().unwrap();
            tell(writer, verdict.clone()).unwrap();
            let mut message = Vec::new();
            reader.read_to_end(&mut message).unwrap();
            assert_eq!(heard(&message), Some(verdict));
        }
    }

    #[test]
    fn half_a_message_is_none() {
        for message in [&b""[..], b"x", b"Ronly why"] {
            assert_eq!(heard(message), None);
        }
    }
}
