//! Applying a sandbox plan: what is decided elsewhere is done here, as one visible sequence.

pub mod account;
pub mod apply;
pub(crate) mod bpf;
mod content;
pub mod id_map;
pub mod inside;
pub mod layout;
pub mod plan;
pub mod points;
pub mod seccomp;
pub mod subordinate;

use std::path::PathBuf;

use nix::errno::Errno;

/// Why a /proc may be refused: the kernel lets nobody make one that shows what the visible one hides (mount_too_revealing
/// in fs/namespace.c).
pub const MASKED_PROC: &str = "parts of /proc are masked or mounted over here, as containers do";
/// What helps against it.
pub const UNMASK_PROC: &str =
    "start the container with --security-opt unmask=ALL (podman) or --security-opt systempaths=unconfined (docker)";

/// What can go wrong while an instance is set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step failed on an object.
    #[error("cannot {action} {}", object.display())]
    Step {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// On what, as the guest or the host names it.
        object: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// What a plug gets has no place.
    #[error(
        "the plug '{plug}' cannot be put at {}: {why}; have it appear elsewhere: fim-content unplug {plug}, fim-content plug {plug} --target PATH",
        target.display()
    )]
    Content {
        /// The plug.
        plug: String,
        /// Where it was to appear, in the guest.
        target: PathBuf,
        /// Why not.
        why: String,
    },
    /// The kernel lets nobody make a /proc that shows what another hides.
    #[error("cannot mount the /proc of the instance: {MASKED_PROC}; {UNMASK_PROC}")]
    MaskedProc,
    /// The system call filter could not be made or installed.
    #[error("cannot install the system call filter: {0}")]
    Filter(String),
    /// A layout cannot be made.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// An ID map was refused.
    #[error("cannot map the user and group IDs of the instance")]
    IdMap(#[source] std::io::Error),
}

impl Error {
    /// Wraps an errno with its object.
    pub fn step(action: &'static str, object: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Self {
        let object = object.into();
        move |source| Self::Step { action, object, source }
    }

    /// Wraps an I/O error with its object.
    pub fn io(action: &'static str, object: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let object = object.into();
        move |error| Self::Step { action, object, source: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)) }
    }
}
