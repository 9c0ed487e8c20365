//! The channel between a starter and the guest daemon of its instance: a SOCK_SEQPACKET pair inherited across fork, so
//! every message arrives whole and the death of either side is seen at once.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

/// Longest message in bytes; longer failure texts are cut.
const LIMIT: usize = 4096;

/// What a starter tells its guest daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToGuest {
    /// Send this signal to the command, or to its whole process group.
    Signal {
        /// Signal number.
        number: i32,
        /// Whether the whole group gets it, as from a terminal.
        group: bool,
    },
    /// The session's root is mounted: build the instance.
    Build,
    /// The starter is in the foreground of its terminal: so shall the command be in the instance's, and continue.
    Foreground,
}

/// What a guest daemon tells its starter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromGuest {
    /// The controlling side of the instance's terminal comes with this message.
    Terminal,
    /// The command has been started.
    Started,
    /// The command was stopped by this signal.
    Stopped(i32),
    /// No process is left but PID 1, which ends by itself: nothing has to be waited for. Comes before the last word.
    Alone,
    /// The command ended with this exit code.
    Exited(i32),
    /// The command was ended by this signal.
    Killed(i32),
    /// The instance cannot go on; one line of text.
    Failed(String),
}

const SIGNAL: u8 = 1;
const SIGNAL_GROUP: u8 = 2;
const FOREGROUND: u8 = 3;
const TERMINAL: u8 = 4;
const STOPPED: u8 = 5;
const EXITED: u8 = 6;
const KILLED: u8 = 7;
const FAILED: u8 = 8;
const BUILD: u8 = 9;
const STARTED: u8 = 10;
const ALONE: u8 = 11;

fn number(tag: u8, value: i32) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&value.to_le_bytes());
    bytes
}

fn value(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.try_into().ok()?))
}

impl ToGuest {
    /// The message as bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Signal { number: signal, group } => number(if group { SIGNAL_GROUP } else { SIGNAL }, signal),
            Self::Build => vec![BUILD],
            Self::Foreground => vec![FOREGROUND],
        }
    }

    /// Reads what [`ToGuest::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&tag, body) = bytes.split_first()?;
        match tag {
            SIGNAL | SIGNAL_GROUP => Some(Self::Signal { number: value(body)?, group: tag == SIGNAL_GROUP }),
            BUILD => Some(Self::Build),
            FOREGROUND => Some(Self::Foreground),
            _ => None,
        }
    }
}

impl FromGuest {
    /// The message as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Terminal => vec![TERMINAL],
            Self::Started => vec![STARTED],
            Self::Stopped(signal) => number(STOPPED, *signal),
            Self::Alone => vec![ALONE],
            Self::Exited(code) => number(EXITED, *code),
            Self::Killed(signal) => number(KILLED, *signal),
            Self::Failed(text) => {
                let mut bytes = vec![FAILED];
                bytes.extend_from_slice(&text.as_bytes()[..text.len().min(LIMIT - 1)]);
                bytes
            }
        }
    }

    /// Reads what [`FromGuest::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&tag, body) = bytes.split_first()?;
        match tag {
            TERMINAL => Some(Self::Terminal),
            STARTED => Some(Self::Started),
            STOPPED => Some(Self::Stopped(value(body)?)),
            ALONE => Some(Self::Alone),
            EXITED => Some(Self::Exited(value(body)?)),
            KILLED => Some(Self::Killed(value(body)?)),
            FAILED => Some(Self::Failed(String::from_utf8_lossy(body).into_owned())),
            _ => None,
        }
    }
}

/// One end of the channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends one message, with a descriptor when `descriptor` is given.
    ///
    /// # Errors
    /// `BrokenPipe` when the other side is gone.
    pub fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let raw: Vec<i32> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Receives one message; `None` when the other side is gone.
    ///
    /// # Errors
    /// I/O errors.
    pub fn receive(&self) -> io::Result<Option<(Vec<u8>, Option<File>)>> {
        let mut bytes = vec![0; LIMIT];
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let (len, file) = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => {
                    let file = message.cmsgs()?.find_map(|control| match control {
                        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                        _ => None,
                    });
                    break (message.bytes, file);
                }
                // A reset says that the other side has gone without reading everything. It comes once, before the
                // messages that the other side sent; those follow, then the end.
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let file = file.map(crate::sys::descriptor::adopt).transpose()?.map(File::from);
        bytes.truncate(len);
        Ok((len > 0).then_some((bytes, file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_channel() {
        let (one, other) = Channel::pair().unwrap();
        for message in [
            FromGuest::Terminal,
            FromGuest::Started,
            FromGuest::Stopped(20),
            FromGuest::Alone,
            FromGuest::Exited(255),
            FromGuest::Killed(9),
            FromGuest::Failed("no such thing".into()),
        ] {
            one.send(&message.encode(), None).unwrap();
            let (bytes, file) = other.receive().unwrap().unwrap();
            assert_eq!(FromGuest::decode(&bytes), Some(message));
            assert!(file.is_none());
        }
        for message in [ToGuest::Build, ToGuest::Foreground, ToGuest::Signal { number: 15, group: true }] {
            assert_eq!(ToGuest::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn a_descriptor_comes_along_and_the_end_is_seen() {
        let (one, other) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        one.send(&FromGuest::Terminal.encode(), Some(file.as_fd())).unwrap();
        assert!(other.receive().unwrap().unwrap().1.is_some());
        drop(one);
        assert!(other.receive().unwrap().is_none());
    }

    #[test]
    fn the_last_word_of_a_side_that_did_not_listen_is_heard() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&ToGuest::Foreground.encode(), None).unwrap();
        other.send(&FromGuest::Exited(3).encode(), None).unwrap();
        drop(other);
        let (bytes, _) = one.receive().unwrap().unwrap();
        assert_eq!(FromGuest::decode(&bytes), Some(FromGuest::Exited(3)));
        assert!(one.receive().unwrap().is_none());
    }

    #[test]
    fn garbage_is_no_message() {
        for bytes in [&b""[..], b"\x01", b"\x01\x01\x02", b"\x0b", b"\xff\0\0\0\0"] {
            assert_eq!(ToGuest::decode(bytes), None);
        }
        assert_eq!(FromGuest::decode(b"\x06\x01"), None);
    }
}
