//! What a starter and the guest daemon of its instance agree on before the instance exists.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::control::Channel;
use crate::sandbox::id_map::IdMap;
use crate::sandbox::plan::{Command, Plan};
use crate::sandbox::points::Journal;
use crate::sys::notifier::Listener;

/// Whether an instance gets a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalUse {
    /// No standard stream is a terminal.
    None,
    /// The instance has a terminal of its own.
    Own {
        /// Standard streams that it replaces.
        streams: [bool; 3],
        /// Whether the command begins in its foreground. Otherwise it is stopped when it first reads from the
        /// terminal, and the starter then decides.
        foreground: bool,
    },
}

/// Where PID 1 of an instance waits for its ID maps, which only a process outside can write. Where root is emulated, it
/// hangs up when that process, which stays to answer calls, has gone.
#[derive(Debug)]
pub struct Gate(Channel);

/// The other side of a [`Gate`].
#[derive(Debug)]
pub struct Keeper(Channel);

/// Both sides.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn gate() -> io::Result<(Gate, Keeper)> {
    let (one, other) = Channel::pair()?;
    Ok((Gate(one), Keeper(other)))
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Gate {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsRawFd for Keeper {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The next word of a channel; the end of the other side is an error.
fn hear(channel: &Channel) -> io::Result<Option<File>> {
    channel.receive()?.map(|(_, file)| file).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Gate {
    /// Says that the user namespace exists and waits until its maps are written.
    ///
    /// # Errors
    /// When the keeper has gone, because the map was refused.
    pub fn ask_for_maps(&self) -> io::Result<()> {
        self.0.send(&[0], None)?;
        hear(&self.0).map(drop)
    }

    /// Hands over where calls of the instance wait for an answer, and the mounts that their paths are walked in; or
    /// says that no call will wait.
    ///
    /// # Errors
    /// When the keeper has gone.
    pub fn hand_over(&self, listener: Option<&Listener>, mounts: &File) -> io::Result<()> {
        self.0.send(&[0], listener.map(AsFd::as_fd))?;
        self.0.send(&[0], Some(mounts.as_fd()))
    }
}

impl Keeper {
    /// Waits for the user namespace of `pid` and writes its maps.
    ///
    /// # Errors
    /// When the process has gone, or a map is refused.
    pub fn write_maps(&self, pid: Pid, ids: &IdMap) -> io::Result<()> {
        hear(&self.0)?;
        ids.write(pid)?;
        self.0.send(&[0], None)
    }

    /// Waits for what [`Gate::hand_over`] hands over.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn take_over(&self) -> io::Result<Option<(Listener, File)>> {
        let (listener, mounts) = (hear(&self.0)?, hear(&self.0)?);
        Ok(listener.map(|listener| Listener::from(OwnedFd::from(listener))).zip(mounts))
    }
}

/// All that PID 1 of an instance starts from; inherited across clone.
#[derive(Debug)]
pub struct Start {
    /// The session's writable root, as the session's mount namespace names it.
    pub root: PathBuf,
    /// The instance's directory in the session's, with its pipes.
    pub directory: PathBuf,
    /// What the instance sees.
    pub plan: Plan,
    /// Whether owners and users that the kernel does not know here are emulated.
    pub emulate_root: bool,
    /// What it runs.
    pub command: Command,
    /// Where mount points that the image lacks are written down; present when the plan may make some.
    pub points: Option<Journal>,
    /// Whether and how it gets a terminal.
    pub terminal: TerminalUse,
    /// To the starter.
    pub channel: Channel,
    /// To the intermediate that writes the instance's ID maps.
    pub gate: Gate,
    /// Readable when the mount server has ended.
    pub server: OwnedFd,
}
