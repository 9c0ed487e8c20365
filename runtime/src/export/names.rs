//! Names looked up in the merged layers, without listing any directory.

use crate::extract::merge::is_whiteout;
use crate::pack::startup::{Entry, Names, shell};
use crate::squashfs::{Archive, Inode, Kind};

/// The interactive shell that the merged `layers`, bottom first, have: a path relative to the root.
#[must_use]
pub fn find_shell(layers: &[Archive]) -> Option<&'static [u8]> {
    shell(&Merged(layers))
}

struct Merged<'a>(&'a [Archive]);

impl Names for Merged<'_> {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        // What is damaged is found by those who read it.
        let found = self.0.iter().rev().find_map(|layer| inode(layer, path).ok().flatten());
        Some(match found.filter(|inode| !is_whiteout(inode))?.kind {
            Kind::Directory { .. } => Entry::Directory,
            Kind::File { size, .. } => Entry::File(size),
            Kind::Symlink { target } => Entry::Symlink(target),
            _ => Entry::Other,
        })
    }
}

/// What one layer has at a path; links on the way are not followed.
fn inode(layer: &Archive, path: &[u8]) -> Result<Option<Inode>, crate::squashfs::Error> {
    let mut inode = layer.inode(layer.root())?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if !matches!(inode.kind, Kind::Directory { .. }) {
            return Ok(None);
        }
        let Some(entry) = layer.lookup(&inode, name)? else { return Ok(None) };
        inode = layer.inode(entry.inode)?;
    }
    Ok(Some(inode))
}
