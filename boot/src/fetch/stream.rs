//! The bytes at an address, one after the other. Those of the web come through curl or wget of the host: they know the
//! host's resolver, proxies and certificates, and a static program can use none of these itself.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::libc;
use runtime::sys::process;

use super::address::Address;
use super::head::Head;
use crate::host_program;
use crate::interrupt::Interrupt;

/// Seconds after which a server that sends nothing counts as gone.
const PATIENCE: &str = "60";
/// Most times that a server may send us elsewhere.
const REDIRECTS: &str = "5";
/// Most bytes of what a program complains of.
const COMPLAINT: u64 = 16 * 1024;

/// Why the bytes do not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("neither curl nor wget is in PATH; install one of them (sudo apt install curl)")]
    NoProgram,
    #[error("cannot run {}", .0.display())]
    Program(PathBuf, #[source] io::Error),
    #[error("the server answers: {0}")]
    Refused(String),
    #[error("{0}")]
    Odd(&'static str),
    #[error("{0}")]
    Failed(String),
    #[error("it is no regular file")]
    NoFile,
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes from a place on.
pub(super) struct Stream<'a> {
    from: From,
    /// Read and not yet asked for.
    ahead: Vec<u8>,
    /// Where in the whole the bytes begin.
    pub(super) start: u64,
    /// Length of the whole, when it is known.
    pub(super) total: Option<u64>,
    interrupt: &'a Interrupt,
}

enum From {
    File(File),
    Program { child: Child, out: ChildStdout },
}

impl<'a> Stream<'a> {
    /// The bytes at `address`, from `start` on where that can be had, else from the beginning.
    pub(super) fn open(address: &Address, start: u64, interrupt: &'a Interrupt) -> Result<Self, Error> {
        match address {
            Address::File(path) => {
                let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(Error::NoFile);
                }
                let start = if start <= metadata.len() { file.seek(SeekFrom::Start(start))? } else { 0 };
                let total = Some(metadata.len());
                Ok(Self { from: From::File(file), ahead: Vec::new(), start, total, interrupt })
            }
            Address::Web(url) => Self::of_program(url, start, interrupt),
        }
    }

    fn of_program(url: &str, start: u64, interrupt: &'a Interrupt) -> Result<Self, Error> {
        let (program, mut command) = host_program::find("curl")
            .map(|program| (program.clone(), curl(&program, url, start)))
            .or_else(|| host_program::find("wget").map(|program| (program.clone(), wget(&program, url))))
            .ok_or(Error::NoProgram)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
        process::unblock_signals(&mut command);
        let failed = |error| Error::Program(program.clone(), error);
        let mut child = command.spawn().map_err(failed)?;
        let out = child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let from = From::Program { child, out };
        let mut stream = Self { from, ahead: Vec::new(), start: 0, total: None, interrupt };
        let head = stream.head()?;
        (stream.start, stream.total) = head.place().ok_or(Error::Refused(head.line))?;
        Ok(stream)
    }

    /// Reads the heads in front of the content; returns the last.
    fn head(&mut self) -> Result<Head, Error> {
        let mut bytes = Vec::new();
        loop {
            match Head::parse(&bytes).map_err(Error::Odd)? {
                Some((head, len)) => {
                    bytes.drain(..len);
                    if !head.is_followed() {
                        self.ahead = bytes;
                        return Ok(head);
                    }
                }
                None => {
                    let mut piece = [0; 4096];
                    match self.read(&mut piece)? {
                        0 => return Err(Error::Failed(self.complaint())),
                        count => bytes.extend_from_slice(&piece[..count]),
                    }
                }
            }
        }
    }

    /// Reads some bytes; 0 at their end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.len());
            self.ahead.drain(..count).zip(buf).for_each(|(byte, place)| *place = byte);
            return Ok(count);
        }
        loop {
            let read = match &mut self.from {
                From::File(_) if self.interrupt.is_pending() => return Err(Error::Interrupted),
                From::File(file) => file.read(buf),
                From::Program { out, .. } if self.interrupt.comes_before(out) => return Err(Error::Interrupted),
                From::Program { out, .. } => out.read(buf),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Ok(read?),
            }
        }
    }

    /// Ends what has no more bytes.
    ///
    /// # Errors
    /// When there should have been more.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let From::Program { child, .. } = &mut self.from else { return Ok(()) };
        if child.wait()?.success() { Ok(()) } else { Err(Error::Failed(self.complaint())) }
    }

    /// The last line that the program has written to its standard error.
    fn complaint(&mut self) -> String {
        let mut text = Vec::new();
        if let From::Program { child, .. } = &mut self.from
            && let Some(err) = child.stderr.take()
        {
            // What can be read is what there is.
            let _ = err.take(COMPLAINT).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        line.unwrap_or("the server has closed the connection").chars().filter(|char| !char.is_control()).collect()
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let From::Program { child, .. } = &mut self.from {
            // One that has ended is just forgotten.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// curl(1): heads in front of the content, nothing of the user's configuration, and from https to https only.
fn curl(program: &Path, url: &str, start: u64) -> Command {
    let mut command = Command::new(program);
    command.args(["-q", "-sS", "-i", "-g", "-L", "-N", "--suppress-connect-headers", "--max-redirs", REDIRECTS]);
    let next = if url.starts_with("https:") { "=https" } else { "=http,https" };
    command.args(["--proto", "=http,https", "--proto-redir", next]);
    command.args(["--connect-timeout", PATIENCE, "--speed-limit", "1", "--speed-time", PATIENCE]);
    if start > 0 {
        command.args(["-r", &format!("{start}-")]);
    }
    command.args(["--url", url]);
    command
}

/// wget(1), always from the beginning: what it prints does not tell whether it went on.
fn wget(program: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--no-config", "-nv", "-O", "-", "--save-headers", "--tries=1"]);
    command.arg(format!("--timeout={PATIENCE}")).arg(format!("--max-redirect={REDIRECTS}")).args(["--", url]);
    command
}
