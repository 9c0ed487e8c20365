//! The layer index: what stands where behind the config slots.

use std::fmt;

use super::chunk_tree::{ChunkTree, TreeParts, check_chunk_size, tree_len};
use super::error::FormatError;
use super::{MAX_IMAGE_LEN, MAX_LAYERS, PAGE, Superblock};

/// A BLAKE3-256 digest; prints as 64 lower-case hexadecimal digits, as `b3sum` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(Self::from)
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the bytes of an index entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A squashfs 4.0 file system, a lower directory of the root.
    Squashfs,
    /// The icon of the desktop integration; not part of the root.
    Icon,
}

impl LayerKind {
    /// Name as `inspect` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Icon => "icon",
        }
    }
}

/// What a packer knows about a layer besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerFacts {
    /// What the bytes are.
    pub kind: LayerKind,
    /// Number of inodes; 0 when unknown or meaningless.
    pub inodes: u64,
    /// Sum of the unpacked regular files in bytes; 0 when unknown.
    pub unpacked: u64,
}

/// One entry of the layer index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// Offset of the first byte from the start of the file, a multiple of [`PAGE`].
    pub offset: u64,
    /// Length in bytes, at least 1.
    pub size: u64,
    /// What the bytes are.
    pub kind: LayerKind,
    /// Plain BLAKE3-256 of the layer's bytes.
    pub digest: Digest,
    /// Where the digests of its chunks are.
    pub chunks: ChunkTree,
    /// Number of inodes; 0 when unknown.
    pub inodes: u64,
    /// Sum of the unpacked regular files in bytes; 0 when unknown.
    pub unpacked: u64,
}

impl LayerEntry {
    /// The entry of a layer at `offset` whose chunk tree follows on the next page. The caller checks it.
    #[must_use]
    pub fn new(offset: u64, facts: LayerFacts, parts: &TreeParts) -> Self {
        let chunks = ChunkTree {
            offset: offset.saturating_add(parts.size).next_multiple_of(PAGE),
            size: parts.pages.len() as u64,
            chunk_size: parts.chunk_size,
            root: parts.root,
        };
        let LayerFacts { kind, inodes, unpacked } = facts;
        Self { offset, size: parts.size, kind, digest: parts.digest, chunks, inodes, unpacked }
    }

    /// First byte behind the layer and its chunk tree. Only for entries that [`check_index`] accepted.
    #[must_use]
    pub fn end(&self) -> u64 {
        (self.offset + self.size).max(self.chunks.offset + self.chunks.size)
    }

    /// Checks every rule that needs no other entry. All sums of accepted values stay below 2^42.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), &'static str> {
        let in_range = |value: u64| value <= MAX_IMAGE_LEN;
        if self.size == 0 {
            return Err("it has no bytes");
        }
        if ![self.offset, self.size, self.chunks.offset, self.chunks.size].into_iter().all(in_range) {
            return Err("a number exceeds 1 TiB");
        }
        if !self.offset.is_multiple_of(PAGE) || !self.chunks.offset.is_multiple_of(PAGE) {
            return Err("an offset is not a multiple of 4096");
        }
        check_chunk_size(self.chunks.chunk_size)?;
        if self.chunks.size != tree_len(self.size, self.chunks.chunk_size) {
            return Err("the chunk tree's length does not fit the layer's");
        }
        if self.chunks.offset < self.offset + self.size {
            return Err("the chunk tree overlaps the layer");
        }
        if self.end() > MAX_IMAGE_LEN {
            return Err("it ends behind 1 TiB");
        }
        Ok(())
    }
}

/// Checks an index: entries are in file order, apart from each other, behind the slots.
///
/// # Errors
/// The entry and the rule that it breaks.
pub fn check_index(layers: &[LayerEntry], superblock: &Superblock) -> Result<(), FormatError> {
    if layers.len() > MAX_LAYERS {
        return Err(FormatError::Index("it has more than 512 entries"));
    }
    let mut free = superblock.payload;
    for (index, layer) in layers.iter().enumerate() {
        layer.check().map_err(|reason| FormatError::Layer { index, reason })?;
        if layer.offset < free {
            return Err(FormatError::Layer { index, reason: "it overlaps what stands before it" });
        }
        free = layer.end();
    }
    Ok(())
}

/// First byte behind everything the index names, where the next layer may begin.
#[must_use]
pub fn index_end(layers: &[LayerEntry], superblock: &Superblock) -> u64 {
    layers.last().map_or(superblock.payload, LayerEntry::end)
}
