//! Node numbers: which layer and which inode a FUSE request speaks of.
//!
//! The number of an inode is computed, never looked up, so the server keeps no table of them and `FUSE_FORGET` has
//! nothing to free. It is also `st_ino`: hard links share their inode and therefore their number.
//!
//! ```text
//! 1                                     the root, which lists the layers
//! 2 + index                             a directory of merged layers, which are in a table (`merged`)
//! (layer + 1) << 48 | inode reference   an inode of a layer (a reference is below 2^48)
//! ```
//! They cannot meet: the last form is at least 2^48, and no table gets that long.

use crate::squashfs::InodeRef;

/// The most layers one mount can show; the kernel's overlayfs takes 500 lower directories.
pub const MAX_LAYERS: usize = 400;

/// The root of the mount (`FUSE_ROOT_ID`, `include/uapi/linux/fuse.h`).
const ROOT: u64 = 1;
/// The first of the directories of merged layers.
const FIRST_MERGED: u64 = 2;
const REF_BITS: u32 = 48;

/// What a node number names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// The directory of layers.
    Root,
    /// A directory of merged layers.
    Merged(usize),
    /// An inode of the layer with this index.
    Inode { layer: usize, inode: InodeRef },
}

impl Node {
    /// The node behind a number, or `None` for one that was never given out.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        if number == ROOT {
            return Some(Self::Root);
        }
        if number > ROOT && number >> REF_BITS == 0 {
            return usize::try_from(number - FIRST_MERGED).ok().map(Self::Merged);
        }
        let layer = usize::try_from((number >> REF_BITS).checked_sub(1)?).ok()?;
        Some(Self::Inode { layer, inode: InodeRef(number & ((1 << REF_BITS) - 1)) })
    }

    /// The number the kernel and `stat` see.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Root => ROOT,
            Self::Merged(index) => FIRST_MERGED + index as u64,
            Self::Inode { layer, inode } => number(layer, inode),
        }
    }
}

/// The number of an inode of a layer.
pub(super) fn number(layer: usize, inode: InodeRef) -> u64 {
    ((layer as u64 + 1) << REF_BITS) | (inode.0 & ((1 << REF_BITS) - 1))
}

/// The layer that a name in the root directory stands for: canonical decimal below `layers`.
pub(super) fn layer_of_name(name: &[u8], layers: usize) -> Option<usize> {
    let canonical = matches!(name, [b'0'] | [b'1'..=b'9', ..]) && name.iter().all(u8::is_ascii_digit);
    let layer = std::str::from_utf8(name).ok().filter(|_| canonical)?.parse().ok()?;
    (layer < layers).then_some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_at_the_edges() {
        for layer in [0, 1, MAX_LAYERS - 1] {
            for inode in [0, 1, 0xffff, 1 << 16, (1 << 48) - 1] {
                let node = Node::Inode { layer, inode: InodeRef(inode) };
                assert_eq!(Node::from_number(node.number()), Some(node));
                assert!(node.number() > 1 << 47, "meets the root or a reserved number");
            }
        }
        assert_eq!(Node::from_number(1), Some(Node::Root));
        assert_eq!(Node::Root.number(), 1);
    }

    #[test]
    fn small_numbers_are_merged_directories() {
        assert_eq!(Node::from_number(0), None);
        for index in [0, 1, 100_000] {
            assert_eq!(Node::from_number(Node::Merged(index).number()), Some(Node::Merged(index)));
        }
        assert_eq!(Node::from_number((1 << 48) - 1), Some(Node::Merged((1 << 48) - 3)));
    }

    #[test]
    fn only_canonical_names_below_the_count_are_layers() {
        assert_eq!(layer_of_name(b"0", 1), Some(0));
        assert_eq!(layer_of_name(b"399", 400), Some(399));
        for name in ["1", "00", "01", "+0", "-1", "", " 0", "0 ", "4294967296", "99999999999999999999999"] {
            assert_eq!(layer_of_name(name.as_bytes(), 1), None, "{name}");
        }
    }
}
