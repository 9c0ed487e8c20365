//! Bodies of the frames of a request, in bincode (the one place of the wire that names it): little-endian, fixed-width
//! integers, so that the bytes can be specified.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

use super::VERSION;
use super::frame::LIMIT;

const FORMAT: Configuration<LittleEndian, Fixint, Limit<LIMIT>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<LIMIT>();

/// The first frame on `control`: what to run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Version of the sender's messages.
    pub version: u16,
    /// Program word and arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment, `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Directories to start in; the first that can be entered is taken.
    pub directories: Vec<Vec<u8>>,
    /// Whether standard error goes where standard output goes.
    pub merged: bool,
    /// The terminal that the command gets, if any.
    pub terminal: Option<Terminal>,
}

/// A terminal for a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Terminal {
    /// Standard streams that it replaces.
    pub streams: [bool; 3],
    /// Whether the command begins in its foreground.
    pub foreground: bool,
    /// Its size.
    pub size: Size,
}

/// Size of a terminal (`struct winsize`, tty_ioctl(4)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Size {
    /// Rows in characters.
    pub rows: u16,
    /// Columns in characters.
    pub columns: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// Later frames on `control`: what happens to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// Send this signal to the command, or to its whole process group.
    Signal {
        /// Signal number.
        number: i32,
        /// Whether the whole group gets it.
        group: bool,
    },
    /// The client's terminal has another size.
    Resize(Size),
    /// The client is in the foreground of its terminal: so shall the command be in its own, and continue.
    Foreground,
}

/// Frames on `result`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The request's pipes are open on this side.
    Accepted,
    /// The command was stopped by this signal.
    Stopped(i32),
    /// The command ended with this exit code.
    Exited(i32),
    /// The command was ended by this signal.
    Killed(i32),
    /// The request cannot be served; one line of text.
    Failed(String),
}

impl Reply {
    /// A [`Reply::Failed`] short enough that the kernel writes it whole (pipe(7), PIPE_BUF).
    #[must_use]
    pub fn failed(mut text: String) -> Self {
        let end = (0..=text.len().min(LONGEST_FAILURE)).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or_default());
        Self::Failed(text)
    }
}

/// Longest text of a [`Reply::Failed`], in bytes.
const LONGEST_FAILURE: usize = 2048;

/// Why bytes are no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They do not decode.
    #[error("the message cannot be understood: {0}")]
    Malformed(String),
    /// They were written by another version.
    #[error(
        "the message has version {0}, this program speaks version {VERSION}; use the same version of the image on both sides"
    )]
    Version(u16),
}

/// A body as bytes.
#[must_use]
pub fn encode(body: &impl Encode) -> Vec<u8> {
    // Vectors in memory take any length, and the types hold nothing that cannot be encoded.
    bincode::encode_to_vec(body, FORMAT).unwrap_or_default()
}

/// Reads a body. Bytes left over are an error.
///
/// # Errors
/// [`Error::Malformed`].
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, Error> {
    let (body, used) =
        bincode::decode_from_slice::<T, _>(bytes, FORMAT).map_err(|error| Error::Malformed(error.to_string()))?;
    if used == bytes.len() { Ok(body) } else { Err(Error::Malformed("bytes are left over".to_owned())) }
}

impl Request {
    /// Reads a request of this version.
    ///
    /// # Errors
    /// [`Error::Version`] for another one, which is looked at first; [`Error::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        match bytes.first_chunk::<2>().map(|version| u16::from_le_bytes(*version)) {
            Some(VERSION) => decode(bytes),
            Some(other) => Err(Error::Version(other)),
            None => Err(Error::Malformed("it is empty".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            version: VERSION,
            argv: vec![b"a".to_vec()],
            env: vec![],
            directories: vec![b"/".to_vec()],
            merged: true,
            terminal: Some(Terminal {
                streams: [true, true, false],
                foreground: true,
                size: Size { rows: 24, columns: 80, width: 0, height: 0 },
            }),
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(&request());
        let expected = b"\x01\0\
            \x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0a\
            \0\0\0\0\0\0\0\0\
            \x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0/\
            \x01\x01\x01\x01\0\x01\x18\0\x50\0\0\0\0\0";
        assert_eq!(bytes, expected);
        assert_eq!(Request::decode(&bytes), Ok(request()));
        assert_eq!(encode(&Reply::Exited(3)), b"\x02\0\0\0\x03\0\0\0");
        assert_eq!(encode(&Event::Foreground), b"\x02\0\0\0");
    }

    #[test]
    fn damaged_bodies_are_errors() {
        let bytes = encode(&request());
        for len in 0..bytes.len() {
            assert!(Request::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(Request::decode(&longer), Err(Error::Malformed(_))));
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(Request::decode(&newer), Err(Error::Version(2)));
        // A huge claimed count must not allocate.
        assert!(Request::decode(b"\x01\0\xff\xff\xff\xff\xff\xff\xff\x7f").is_err());
    }
}
