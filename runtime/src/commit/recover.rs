//! Going on where a commit or reset was interrupted.

use std::path::Path;

use super::intent::{INTENT, Intent};
use super::{Error, swap};

/// What was interrupted, and what has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// Nothing was.
    Nothing,
    /// The layer was not in its place: everything is as before.
    GivenUp,
    /// The layer is in its place, or a reset was begun: the writable layer is empty. The former one is to be removed
    /// ([`super::remove_committed`], [`super::clean`]).
    Completed,
}

/// Whether something was interrupted in this data directory: one look, for every start.
#[must_use]
pub fn interrupted(data: &Path) -> bool {
    std::fs::symlink_metadata(data.join(INTENT)).is_ok()
}

/// Brings a data directory, which nobody uses, into the state before or behind what was interrupted. Doing so may be
/// interrupted, too. `image` is the image that uses it now.
///
/// # Errors
/// I/O errors; a record that cannot be understood.
pub fn recover(data: &Path, image: &Path) -> Result<Interrupted, Error> {
    match Intent::read(data)? {
        None => Ok(Interrupted::Nothing),
        Some(Intent::Publish(publication)) if !publication.is_published(image) => {
            swap::forget(data)?;
            Intent::remove(data).map(|()| Interrupted::GivenUp)
        }
        Some(Intent::Publish(_) | Intent::Reset) => swap::swap(data).map(|()| Interrupted::Completed),
        Some(Intent::Clean) => Ok(Interrupted::Completed),
    }
}
