//! Why layers were not extracted, and what was left out without that being an error.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use crate::squashfs;

/// Why layers were not extracted. Nothing of them is left then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer cannot be read. Paths are those inside the layer.
    #[error("cannot extract /{} of layer {layer}", path.display())]
    Layer {
        /// Position of the layer, counted from the bottom.
        layer: usize,
        /// What was to be extracted.
        path: PathBuf,
        /// Cause.
        source: squashfs::Error,
    },
    /// A layer says something that no file system can be.
    #[error("cannot extract /{} of layer {layer}: {reason}; the layer is damaged or hostile", path.display())]
    Contradiction {
        /// Position of the layer, counted from the bottom.
        layer: usize,
        /// Where it was met.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system that is extracted to refuses something.
    #[error("cannot {action} {}", path.display())]
    Write {
        /// What was tried: "create", "write" and so on.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The listener wanted no more.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For `map_err`: `action` on `path` failed.
    pub(super) fn write<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        move |source| Self::Write { action, path: path.into(), source: source.into() }
    }
}

/// What could not be restored, because the caller has not the privilege or the file system not the feature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Files that belong to the caller instead of their owner.
    pub owners: u64,
    /// Files among them that lost their set-uid or set-gid bit, which would lend the caller's own rights.
    pub set_id: u64,
    /// Device nodes that were not made.
    pub devices: u64,
    /// Extended attributes that were not set.
    pub attributes: u64,
}

impl Omitted {
    /// Whether everything was restored.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Omitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.owners, "owners"),
            (self.set_id, "set-uid or set-gid bits"),
            (self.devices, "device nodes"),
            (self.attributes, "extended attributes"),
        ];
        let mut separator = "";
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {what}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// [`Omitted`] while several threads count.
#[derive(Debug, Default)]
pub(super) struct Counters {
    owners: AtomicU64,
    set_id: AtomicU64,
    devices: AtomicU64,
    attributes: AtomicU64,
}

impl Counters {
    pub(super) fn owner(&self) {
        self.owners.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_id(&self) {
        self.set_id.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn device(&self) {
        self.devices.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn attribute(&self) {
        self.attributes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sum(&self) -> Omitted {
        Omitted {
            owners: self.owners.load(Ordering::Relaxed),
            set_id: self.set_id.load(Ordering::Relaxed),
            devices: self.devices.load(Ordering::Relaxed),
            attributes: self.attributes.load(Ordering::Relaxed),
        }
    }
}

/// Whether an errno means that privilege or a feature is missing: what it refused is left out.
pub(super) fn is_refusal(errno: Option<i32>) -> bool {
    // EINVAL: an id that the user namespace does not map.
    let refusals = [Errno::EPERM, Errno::EACCES, Errno::EINVAL, Errno::EOVERFLOW, Errno::EOPNOTSUPP, Errno::ENOSYS];
    errno.is_some_and(|errno| refusals.contains(&Errno::from_raw(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_there_is() {
        assert!(Omitted::default().is_nothing());
        let omitted = Omitted { owners: 2, devices: 1, ..Omitted::default() };
        assert_eq!(omitted.to_string(), "2 owners, 1 device nodes");
    }
}
