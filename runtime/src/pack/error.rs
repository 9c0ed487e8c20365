//! Why a source was not packed.

use crate::squashfs::write;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a source was not packed.
#[derive(Debug, Error)]
pub enum Error {
    /// The squashfs could not be written.
    #[error(transparent)]
    Write(#[from] write::Error),
    /// Something of the source could not be read.
    #[error("cannot {action} {}", path.display())]
    Read {
        /// What was tried: "open", "list" and so on.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file became another one, or grew, or shrank, between being found and being read to its end.
    #[error("{} changed while it was packed; stop what writes to it and try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Squashfs cannot hold a file of the source.
    #[error("cannot pack {}", path.display())]
    Unstorable {
        /// The file, or the entry of the archive.
        path: PathBuf,
        /// Why not.
        source: write::TreeError,
    },
    /// The source is nothing that can be packed.
    #[error(
        "cannot pack {}: it is {found}; what can be packed is a directory, a tar (plain, or compressed with gzip, \
         xz or zstd), a container image, a squashfs, an AppImage or an image of fim's own", path.display()
    )]
    NotASource {
        /// The source.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// A tar is damaged or cut off.
    #[error("cannot read the tar {} behind the entry {after:?}: {reason}", path.display())]
    Tar {
        /// The archive.
        path: PathBuf,
        /// The last entry read, escaped; empty at the beginning.
        after: String,
        /// What is wrong.
        reason: String,
    },
    /// An entry of a tar cannot be part of a tree.
    #[error("cannot pack the entry {entry:?} of {}: {reason}", path.display())]
    TarEntry {
        /// The archive.
        path: PathBuf,
        /// The entry's name as the archive has it, escaped.
        entry: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A container image is damaged, hostile, or not the one that is meant.
    #[error("cannot use the container image {}: {reason}", path.display())]
    Container {
        /// The image, or the file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The source unpacks to more than it may.
    #[error(
        "cannot pack {}: at the entry {entry:?} it unpacks to more than {limit} bytes; if you trust it, give \
         --max-unpacked SIZE", path.display()
    )]
    TooLarge {
        /// The archive.
        path: PathBuf,
        /// The entry in which the limit is reached, escaped; empty when it is not known.
        entry: String,
        /// Bytes that it may unpack to.
        limit: u64,
    },
    /// There is no room for what a compressed source unpacks to.
    #[error("cannot unpack the source into a temporary file beside the output")]
    Scratch(#[source] io::Error),
    /// A layer that is merged must be a squashfs.
    #[error(
        "cannot merge {} with other layers: only the layers of images, AppImages and squashfs files can be; build an \
         image of it first", path.display()
    )]
    Unsquashable {
        /// The source.
        path: PathBuf,
    },
    /// An AppImage is damaged or not of type 2.
    #[error("cannot use the AppImage {}: {reason}", path.display())]
    AppImage {
        /// The AppImage.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An image of ours cannot be read.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// Layers cannot be merged.
    #[error("cannot merge the layers of {}", path.display())]
    Merge {
        /// The source.
        path: PathBuf,
        /// What is wrong with which layer.
        source: crate::extract::Error,
    },
    /// A squashfs is damaged or of a kind that cannot be used.
    #[error("cannot use the squashfs {}: {reason}", path.display())]
    Squashfs {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The listener wanted no more.
    #[error("interrupted")]
    Interrupted,
    /// `SOURCE_DATE_EPOCH` is not a time.
    #[error("SOURCE_DATE_EPOCH={0}: must be a number of seconds from 0 to 4294967295; correct or unset it")]
    Epoch(String),
}

impl Error {
    /// For `map_err`: `action` on `path` failed.
    pub(crate) fn read(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { action, path: path.into(), source }
    }
}
