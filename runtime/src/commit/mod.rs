//! The writable layer of a data directory becomes a squashfs layer, and an empty one takes its place.
//!
//! Every step leaves the data directory in a state from which the next start or commit goes on ([`recover`]), so that
//! neither a kill nor a power cut loses the layer or the changes, or shows them twice:
//!
//! ```text
//! DATA/commit          what is being done ([`Intent`]); without it nothing is
//! DATA/fresh           the empty writable layer that is to be
//! DATA/committed       the one that was, until it is removed
//! ```
//!
//! The caller holds the session lock of the data directory.

mod diff;
mod intent;
mod place;
mod recover;
mod scan;
mod swap;

pub use diff::{Change, Changed, diff};
pub use intent::{INTENT, Intent, Place, Publication};
pub use place::digest;
pub use recover::{Interrupted, interrupted, recover};
pub use scan::{Omitted, Owners, Scan};
pub use swap::{clean, forget, make_fresh, remove_committed, swap};

use std::io;
use std::path::{Path, PathBuf};

/// Why changes were not committed.
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
    /// Something of the writable layer cannot be read, or the layer not be written.
    #[error(transparent)]
    Pack(#[from] crate::pack::Error),
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// A layer below cannot be read.
    #[error(transparent)]
    Layers(#[from] crate::extract::Error),
    /// Something is mounted in the writable layer.
    #[error("something is mounted on {}, which is not part of the writable layer; unmount it first", path.display())]
    Mounted {
        /// The mount point.
        path: PathBuf,
    },
    /// Files of the session.
    #[error(transparent)]
    Session(#[from] crate::session::Error),
    /// The record of what is being done cannot be understood.
    #[error("{} is damaged, or of a newer version; nothing was changed", path.display())]
    Intent {
        /// The record.
        path: PathBuf,
    },
}

impl Error {
    /// For `map_err`: `action` on `path` failed.
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// I/O errors.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    let synced = std::fs::File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(Error::io("write back", path))
}

/// Removes a file that need not be there.
fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
