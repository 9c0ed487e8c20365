//! Whether a layer can be used from end to end: before it becomes part of an image, which vouches for its bytes.

use std::collections::{HashMap, HashSet};

use super::error::Error;
use super::merge::{Layers, Node, Part, contradiction, damaged, joined};
use crate::progress::Progress;
use crate::squashfs::{Archive, Block, FileKind, Kind, Stored};

/// What a sound layer holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Inodes, the root included.
    pub inodes: u64,
    /// Bytes in regular files; hard links count once.
    pub unpacked: u64,
}

/// Reads everything in `layer`: every directory, inode, attribute and block. Each block is unpacked once, however many
/// files share it.
///
/// # Errors
/// The first thing that cannot be read or cannot be, or that `progress` wants no more.
pub fn check(layer: &Archive, progress: &mut dyn Progress) -> Result<Checked, Error> {
    let layers = Layers { archives: std::slice::from_ref(layer).into(), whiteouts: true };
    let mut check = Check { layer, blocks: HashMap::new(), progress };
    let mut checked = Checked::default();
    let mut seen = HashSet::new();
    let mut stack = vec![(Vec::new(), layers.root()?)];
    while let Some((path, parts)) = stack.pop() {
        for part in &parts {
            if !seen.insert(part.at) {
                return Err(contradiction(0, &path, "the directory has two places in the tree"));
            }
            checked.inodes += 1;
            check.attributes(part, &path)?;
        }
        for (name, node) in layers.children(&path, &parts)? {
            let path = joined(&path, &name);
            match node {
                Node::Directory { parts, .. } => stack.push((path, parts)),
                Node::Leaf(part) | Node::Whiteout(part) if seen.insert(part.at) => {
                    checked.inodes += 1;
                    checked.unpacked = checked.unpacked.saturating_add(check.leaf(&part, &path)?);
                }
                // One more name of a file.
                Node::Leaf(_) | Node::Whiteout(_) => {}
            }
        }
    }
    Ok(checked)
}

struct Check<'a, 'p> {
    layer: &'a Archive,
    /// Blocks that can be unpacked, and to how many bytes.
    blocks: HashMap<Stored, usize>,
    progress: &'p mut dyn Progress,
}

impl Check<'_, '_> {
    fn attributes(&self, part: &Part, path: &[u8]) -> Result<(), Error> {
        self.layer.xattrs(&part.inode).map(drop).map_err(damaged(0, path))
    }

    /// Returns the bytes of a regular file.
    fn leaf(&mut self, part: &Part, path: &[u8]) -> Result<u64, Error> {
        self.attributes(part, path)?;
        let Kind::File { size, .. } = part.inode.kind else {
            let is_directory = part.inode.kind.file_kind() == FileKind::Directory;
            return if is_directory { Err(contradiction(0, path, "it is a directory")) } else { Ok(0) };
        };
        for index in 0..part.inode.block_count() {
            if self.progress.stopped() {
                return Err(Error::Interrupted);
            }
            if let Block::Stored { stored, skip, len } =
                self.layer.block(&part.inode, index).map_err(damaged(0, path))?
            {
                let unpacked = self.unpacked(stored, path)?;
                if skip.checked_add(len).is_none_or(|end| end > unpacked) {
                    return Err(contradiction(0, path, "a block is shorter than the file that uses it"));
                }
            }
        }
        self.progress.advance(0, 1);
        Ok(size)
    }

    fn unpacked(&mut self, stored: Stored, path: &[u8]) -> Result<usize, Error> {
        if let Some(unpacked) = self.blocks.get(&stored) {
            return Ok(*unpacked);
        }
        let unpacked = self.layer.load(stored).map_err(damaged(0, path))?.len();
        self.progress.advance(stored.size.into(), 0);
        self.blocks.insert(stored, unpacked);
        Ok(unpacked)
    }
}
