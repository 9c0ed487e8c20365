//! The userspace overlay: the layers and a writable directory above them as one FUSE file system.
//!
//! It takes the place of the kernel's overlayfs where that refuses, and where names are to be found without regard to
//! case. Layers are read by our own reader, with no other mount below. `filesystem` hands the kernel's requests to an
//! [`stack::Overlay`]: `names` and `stack` find what is at a name, `node` knows what the kernel refers to, `copy_up` and
//! `change` write, and all writing ends in `upper`. `docs/OVERLAYS.md` tells how both overlays differ.

mod change;
mod copy_up;
mod file;
mod filesystem;
mod fold;
mod holes;
mod links;
mod listing;
mod marks;
mod names;
mod node;
mod stack;
mod upper;
mod xattrs;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use self::filesystem::OverlayFs;
pub use self::marks::Marks;
pub(crate) use self::marks::Meaning;
use self::stack::Overlay;
use self::upper::Upper;
pub use self::upper::takes_kernel_marks;
use super::reader::Reader;
use super::server::{Options, Server, blocks_of, read_ahead_threads, start};
use crate::squashfs::Archive;

/// The writable side of an overlay.
#[derive(Debug, Clone, Copy)]
pub struct Writable<'a> {
    /// The upper directory.
    pub upper: &'a Path,
    /// A directory on the same file system, for what is not complete.
    pub work: &'a Path,
    /// How the upper directory says that names are gone.
    pub marks: Marks,
    /// Whether names are found without regard to case.
    pub casefold: bool,
}

/// Serves `layers`, the topmost last, below a writable directory. `device` is as for [`super::serve`], mounted for
/// writing. The caller's creation mask must be 0.
///
/// # Errors
/// As [`super::serve`], and when the directories cannot be used.
pub fn serve(
    device: OwnedFd,
    layers: Vec<Arc<Archive>>,
    writable: &Writable<'_>,
    options: &Options,
) -> io::Result<Server> {
    let blocks = blocks_of(layers, options)?;
    let reader = Reader::new(Arc::clone(&blocks), read_ahead_threads(options), options.cache_bytes);
    let upper = Upper::open(writable.upper, writable.work, writable.marks)?;
    let overlay = Overlay::new(Arc::clone(&blocks), reader, options.owners, upper, writable.casefold)?;
    let notifying = holes::Notifying::default();
    let server = start(device, blocks, OverlayFs::new(overlay, Arc::clone(&notifying)), options)?;
    let _ = notifying.set(server.notifier());
    Ok(server)
}
