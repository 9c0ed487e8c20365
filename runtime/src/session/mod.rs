//! A session: the live instances of one installation of one image by one user. Its files are the truth that
//! daemons and clients share; a daemon that dies loses nothing.
//!
//! ```text
//! DATA/start.lock          held (flock) by whoever starts, joins or ends the session; nothing else waits on it
//! DATA/session.lock        held (flock) by the mount server while the session lives; holds the session record
//! RUNTIME/fim/SESSION/     0700, owned by the user
//!     alive                named pipe: the mount server reads, every instance holds a write end
//!     host.fifo            named pipe: doorbells to the host daemon
//!     layers/ root/        mount points inside the session's own mount namespace, empty on the host
//!     next                 the next instance ID
//!     instances/ID/        one directory a live instance
//!     ended/ID/            log and exit code of a detached instance that has ended
//!     host.log             what the host daemon had to refuse
//! RUNTIME/fim/ephemeral-PID-START/   both of a throw-away session
//! ```

pub mod claims;
pub mod directory;
pub mod ephemeral;
mod index;
pub mod lock;
pub mod log;
pub mod marks;
pub mod pipe;
pub mod record;
pub mod registry;
pub mod service;

use std::io;
use std::path::PathBuf;

/// What can go wrong with a session's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed on a path.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory that must be the caller's is somebody else's, or no directory.
    #[error("{} {problem}; remove it, or name another place with {variable}", path.display())]
    Untrusted {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The environment variable that names another place.
        variable: &'static str,
    },
    /// The session record cannot be understood.
    #[error("the session record in {} is not readable by this version: {reason}", path.display())]
    Record {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
}

impl Error {
    /// Wraps an I/O error with its object.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
