//! One command line on an image, and what came of it.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::Running;

/// A command that is being put together.
pub struct TestCommand {
    pub(super) command: Command,
    pub(super) stdin: Vec<u8>,
}

impl TestCommand {
    /// Any program, with an environment that holds only what the test gives it.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, stdin: Vec::new() }
    }

    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    pub fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(words);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// What the command reads from its standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    /// Starts it. Its standard input stays open until the process is waited for, or closed.
    pub fn spawn(self) -> Running {
        Running::spawn(self)
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Runs it; it must succeed without a word on stderr. Returns its stdout without the last newline.
    pub fn prints(self) -> String {
        self.run().succeeds().quietly().text()
    }

    /// Runs it; it must end with exit code 125 and `fim: ` in front of one line that holds every one of `words`.
    pub fn fails_naming(self, words: &[&str]) -> Outcome {
        let outcome = self.run().exits(125);
        let line = outcome.stderr();
        assert!(
            line.starts_with("fim: ") && line.trim_end().lines().count() == 1,
            "not one line of fim's: {outcome:?}"
        );
        outcome.complains_of(words)
    }
}

/// A command that has ended.
pub struct Outcome {
    pub shown: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        writeln!(f, "{} -> {}", self.shown, self.status)?;
        writeln!(f, "--- stdout ({} bytes)\n{}", self.stdout.len(), cut(&self.stdout))?;
        write!(f, "--- stderr ({} bytes)\n{}", self.stderr.len(), cut(&self.stderr))
    }
}

impl Outcome {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        self
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// The process itself, not only the command inside, was ended by a signal.
    #[track_caller]
    pub fn dies_of(self, signal: nix::sys::signal::Signal) -> Self {
        assert_eq!(self.status.signal(), Some(signal as i32), "{self:?}");
        self
    }

    #[track_caller]
    pub fn quietly(self) -> Self {
        assert!(self.stderr.is_empty(), "{self:?}");
        self
    }

    #[track_caller]
    pub fn with_stdout(self, text: &str) -> Self {
        assert_eq!(String::from_utf8_lossy(&self.stdout), text, "{self:?}");
        self
    }

    #[track_caller]
    pub fn complains_of(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr().contains(word), "stderr lacks {word:?}: {self:?}");
        }
        self
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as text, without the last newline.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }
}
