//! The session record: what a joining start must know, written into the session lock by the mount server.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::Error;
use crate::sys::process;

/// First line of a record; changing what follows needs another number.
const HEADER: &str = "fim-session 1";
/// Longest record in bytes: a few numbers, one line with a path for each of at most 400 layers, one more path.
const LIMIT: u64 = 8 << 20;

/// A live session as its record tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Process ID of the mount server, in the namespace of the starter.
    pub server: Pid,
    /// Its start time in clock ticks, so that a reused process ID cannot be taken for it.
    pub server_started: u64,
    /// UUID of the image.
    pub image: [u8; 16],
    /// What shapes the stack (layers, overlay kind, …), one `name value` a line; starts that differ are refused.
    pub shape: Vec<String>,
    /// The session directory.
    pub directory: PathBuf,
}

impl Record {
    /// The record as bytes: lines, then the directory, which may hold any byte but NUL.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let image = u128::from_be_bytes(self.image);
        let mut text =
            format!("{HEADER}\n{} {}\n{image:032x}\n{}\n", self.server, self.server_started, self.shape.len());
        for line in &self.shape {
            text.push_str(line);
            text.push('\n');
        }
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.directory.as_os_str().as_bytes());
        bytes
    }

    /// Reads what [`Record::encode`] wrote.
    ///
    /// # Errors
    /// Why the bytes are no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut rest = bytes;
        let mut line = || -> Result<&str, &'static str> {
            let end = rest.iter().position(|&byte| byte == b'\n').ok_or("it ends early")?;
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            std::str::from_utf8(line).map_err(|_| "it is not text")
        };
        if line()? != HEADER {
            return Err("it has another version");
        }
        let (pid, started) = line()?.split_once(' ').ok_or("it names no mount server")?;
        let server = pid.parse().map(Pid::from_raw).map_err(|_| "its process ID is no number")?;
        let server_started = started.parse().map_err(|_| "its start time is no number")?;
        let image = u128::from_str_radix(line()?, 16).map_err(|_| "its image is no number")?.to_be_bytes();
        let count: usize = line()?.parse().map_err(|_| "its line count is no number")?;
        let mut shape = Vec::new();
        for _ in 0..count {
            shape.push(line()?.to_owned());
        }
        if rest.first() != Some(&b'/') {
            return Err("it names no directory");
        }
        Ok(Self { server, server_started, image, shape, directory: PathBuf::from(OsStr::from_bytes(rest)) })
    }

    /// Writes the record into the session lock.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, file: &File, path: &Path) -> Result<(), Error> {
        let bytes = self.encode();
        file.set_len(bytes.len() as u64)
            .and_then(|()| file.write_all_at(&bytes, 0))
            .map_err(Error::io("write the session record to", path))
    }

    /// Reads the record from a session lock that somebody else holds.
    ///
    /// # Errors
    /// I/O errors, and a record of another version.
    pub fn read(file: &File, path: &Path) -> Result<Self, Error> {
        let len = file.metadata().map_err(Error::io("examine", path))?.len().min(LIMIT);
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(Error::io("read the session record from", path))?;
        Self::decode(&bytes).map_err(|reason| Error::Record { path: path.to_owned(), reason })
    }

    /// Whether the mount server that wrote the record still runs.
    #[must_use]
    pub fn server_is_alive(&self) -> bool {
        process::start_time(self.server) == Some(self.server_started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            server: Pid::from_raw(77),
            server_started: 12345,
            image: [0x0a; 16],
            shape: vec!["layer abc".to_owned(), "overlay kernel".to_owned()],
            directory: PathBuf::from(OsStr::from_bytes(b"/run/\xff odd\n/x")),
        }
    }

    #[test]
    fn golden_bytes() {
        let expected = b"fim-session 1\n77 12345\n0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\n2\nlayer abc\noverlay kernel\n/run/\xff odd\n/x";
        assert_eq!(record().encode(), expected);
        assert_eq!(Record::decode(expected), Ok(record()));
    }

    #[test]
    fn damaged_records_are_errors() {
        let bytes = record().encode();
        for len in 0..bytes.len() - record().directory.as_os_str().len() + 1 {
            assert!(Record::decode(&bytes[..len]).is_err(), "{len}");
        }
        assert_eq!(Record::decode(b"fim-session 2\n"), Err("it has another version"));
        assert!(Record::decode(b"fim-session 1\n1 1\n0\n99999999999\n/x").is_err());
    }
}
