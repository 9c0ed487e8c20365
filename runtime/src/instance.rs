//! What a starter and the guest daemon of its instance agree on before the instance exists.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::control::Channel;
use crate::sandbox::id_map::IdMap;
use crate::sandbox::plan::{Command, Plan};
use crate::sandbox::points::Journal;

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

/// Where PID 1 of an instance waits for its ID maps, which only a process outside can write.
#[derive(Debug)]
pub struct Gate(UnixStream);

/// The other side of a [`Gate`].
#[derive(Debug)]
pub struct Keeper(UnixStream);

/// Both sides.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn gate() -> io::Result<(Gate, Keeper)> {
    let (one, other) = UnixStream::pair()?;
    Ok((Gate(one), Keeper(other)))
}

impl AsRawFd for Gate {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsRawFd for Keeper {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Gate {
    /// Says that the user namespace exists and waits until its maps are written.
    ///
    /// # Errors
    /// When the keeper has gone, because the map was refused.
    pub fn ask_for_maps(&self) -> io::Result<()> {
        (&self.0).write_all(&[0])?;
        (&self.0).read_exact(&mut [0])
    }
}

impl Keeper {
    /// Waits for the user namespace of `pid` and writes its maps.
    ///
    /// # Errors
    /// When the process has gone, or a map is refused.
    pub fn write_maps(&self, pid: Pid, ids: IdMap) -> io::Result<()> {
        (&self.0).read_exact(&mut [0])?;
        ids.write(pid)?;
        (&self.0).write_all(&[0])
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
