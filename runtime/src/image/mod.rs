//! The image file: superblock, config slots, layer index, digests.
//!
//! `ELF | superblock | config slot A | config slot B | layer 0 | layer 1 | …`; `docs/FORMAT.md` is the
//! specification. Parsers are functions over bytes ([`elf`], [`Superblock`], [`slot`], [`body`]); I/O
//! stands in [`Image::open`], [`ImageWriter`], [`update`], [`append_layer`],
//! [`remove_layer`] and [`replace_layers`].

mod append;
pub mod body;
pub mod chunk_tree;
#[macro_use]
mod config;
mod create;
pub mod declared;
pub mod elf;
mod error;
mod layer;
mod open;
mod remove;
mod replace;
pub mod slot;
pub mod superblock;
#[cfg(test)]
pub(crate) mod tests;
mod update;
mod verified;
mod verify;
mod write;

pub use append::append_layer;
pub use chunk_tree::{ChunkTree, TreeBuilder, TreeParts};
pub use config::{
    Bind, BindKind, Boot, Config, Icon, NamedBit, NamedSet, OverlayKind, Permission, PermissionSet, Unshare, UnshareSet,
};
pub use create::{ImageWriter, WriterOptions};
pub use error::{Error, FormatError, ReadError};
pub use layer::{Digest, LayerEntry, LayerFacts, LayerKind};
pub use open::{Contents, Image, program_len, read};
pub use remove::remove_layer;
pub use replace::replace_layers;
pub use slot::{SlotFault, SlotName};
pub use superblock::{Superblock, Uuid};
pub use update::update;
pub use verified::VerifiedSource;
pub use verify::{BadRange, Report, verify};

/// Alignment of everything after the ELF, in bytes. Changing this breaks the format.
pub const PAGE: u64 = 4096;

/// Newest image format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Newest config body that this program reads, and the one it writes.
pub const CONFIG_VERSION: u32 = 3;

/// Largest accepted image in bytes (1 TiB): it bounds what a hostile index can make a reader allocate.
pub const MAX_IMAGE_LEN: u64 = 1 << 40;

/// Most entries of a layer index. The kernel stacks 500; the launch plan stops earlier, at 400.
pub const MAX_LAYERS: usize = 512;

/// `offset` rounded up to a multiple of [`PAGE`]; `None` on overflow.
#[must_use]
pub const fn page_align(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(PAGE)
}
