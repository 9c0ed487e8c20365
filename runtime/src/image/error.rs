//! What can be wrong with an image, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::slot::{SlotFault, SlotName};

/// A violation of the image format, found in bytes alone.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No ELF magic at byte 0.
    #[error("it is not an ELF program; an image begins with the program that runs it")]
    NotElf,
    /// An ELF file that no version of this program can be.
    #[error("its ELF header is not usable: {0}; restore the file from where it came")]
    Elf(&'static str),
    /// Something ends behind the end of the file.
    #[error("it is truncated: {what} ends at byte {need}, the file has {have}; copy or download it again")]
    Truncated {
        /// The structure that is cut.
        what: String,
        /// First byte behind that structure.
        need: u64,
        /// Length of the file in bytes.
        have: u64,
    },
    /// Bytes follow the program that are not a superblock.
    #[error("there is no superblock behind the program, at byte {0}; the file was altered, restore it")]
    NoSuperblock(u64),
    /// The superblock's own digest does not match.
    #[error("the superblock is damaged (its digest does not match); restore the file from where it came")]
    SuperblockDigest,
    /// A field of a superblock with a valid digest is outside its range.
    #[error("the superblock is not valid: {0}; the program that wrote it is broken or hostile")]
    Superblock(&'static str),
    /// The image was written for a newer reader.
    #[error(
        "it has format version {version} and needs a fim that reads version {needed}; this one reads up to {known}: use a newer fim"
    )]
    NewerFormat {
        /// Version in the superblock.
        version: u32,
        /// Least reader version it asks for.
        needed: u32,
        /// Newest version this program knows.
        known: u32,
    },
    /// The config was written by a newer fim.
    #[error(
        "config slot {slot} has config version {version}, this fim knows up to {known}: use a newer fim; nothing was changed"
    )]
    NewerConfig {
        /// The slot.
        slot: SlotName,
        /// Version in its header.
        version: u32,
        /// Newest version this program knows.
        known: u32,
    },
    /// Neither config slot can be used.
    #[error("both config slots are damaged (A: {a}; B: {b}); restore the file from where it came")]
    BothSlots {
        /// What is wrong with slot A.
        a: SlotFault,
        /// What is wrong with slot B.
        b: SlotFault,
    },
    /// An index entry is outside its range.
    #[error("entry {index} of the layer index is not valid: {reason}")]
    Layer {
        /// Position in the index, from 0.
        index: usize,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The index as a whole is outside its range.
    #[error("the layer index is not valid: {0}")]
    Index(&'static str),
    /// The config does not fit into a slot.
    #[error("the configuration takes {len} bytes, the image has room for {limit}; remove or shorten entries")]
    ConfigTooLarge {
        /// Encoded length in bytes.
        len: usize,
        /// Longest body in bytes.
        limit: usize,
    },
    /// The configuration cannot be encoded.
    #[error("the configuration cannot be encoded: {0}")]
    Encode(String),
    /// The generation counter is at its end.
    #[error("the config generation counter is exhausted; build the image again")]
    Generation,
}

/// A failure to read an image from any source of bytes.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The medium failed.
    #[error("reading failed")]
    Io(#[from] io::Error),
    /// The bytes are not an image.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// A failure of an operation on an image file. Display names the operation and the file; the cause is the
/// source of the error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or examined.
    #[error("cannot open the image {}", path.display())]
    Open {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file cannot be read or is not a valid image.
    #[error("cannot use the image {}", path.display())]
    Read {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: ReadError,
    },
    /// The file is a program without a payload.
    #[error("{} is a program without an application; build an image first", path.display())]
    NoPayload {
        /// The program file.
        path: PathBuf,
    },
    /// The lock that serialises writers cannot be taken.
    #[error("cannot lock the image {} for writing", path.display())]
    Lock {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file may not be written.
    #[error(
        "cannot change the image {}: it is read-only; make it writable (chmod u+w, or a writable medium) or change a copy of it",
        path.display()
    )]
    ReadOnly {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The program runs from the file and the directory cannot hold a replacement.
    #[error(
        "cannot change the image {}: it is being executed, and its directory cannot hold a replacement; end its instances or make the directory writable",
        path.display()
    )]
    Replace {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The directory cannot hold the copy that is to take the image's place.
    #[error(
        "cannot change the image {}: its directory cannot hold a copy of it; make the directory writable or change a copy elsewhere",
        path.display()
    )]
    NoRoom {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Another program put a different file in the place of the image during the change.
    #[error("cannot change the image {}: the file was replaced meanwhile; try again", path.display())]
    Replaced {
        /// The image file.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("cannot write the image {}", path.display())]
    Write {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The bytes of a new layer cannot be read.
    #[error("cannot read the new layer for the image {}", path.display())]
    Source {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The new content breaks a rule or a limit of the format.
    #[error("cannot change the image {}", path.display())]
    Format {
        /// The image file.
        path: PathBuf,
        /// Cause.
        source: FormatError,
    },
}
