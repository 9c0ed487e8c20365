//! The layers of a producer as one tree, in which paths of slots are followed as a process inside would follow them: links
//! lead nowhere else than to other places of the same tree.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::extract;
use crate::extract::merge::{Layers, Node, Part};
use crate::pack::startup::{Entry, Names, resolve};
use crate::squashfs::{Archive, Kind as InodeKind};

/// What a path of a slot leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else: a file, a socket, a pipe.
    File,
}

/// A path that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// There is nothing, or a link leads in circles.
    #[error("there is no such file in the producer")]
    Missing,
    /// The producer cannot be read.
    #[error("the producer is damaged: {0}")]
    Damaged(String),
}

/// Layers, bottom first, as one tree.
pub struct Tree<'a> {
    layers: Layers<'a>,
    /// What could not be read on the way of the last path.
    damage: RefCell<Option<String>>,
}

impl<'a> Tree<'a> {
    /// The tree of these layers.
    #[must_use]
    pub fn new(layers: &'a [Archive]) -> Self {
        Self { layers: Layers { archives: layers.into(), whiteouts: false }, damage: RefCell::default() }
    }

    /// Where `path`, relative to the root, leads: a path without links, and what is there.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn follow(&self, path: &Path) -> Result<(PathBuf, Kind), Lost> {
        self.damage.replace(None);
        let found = resolve(self, path.as_os_str().as_bytes());
        if let Some(damage) = self.damage.take() {
            return Err(Lost::Damaged(damage));
        }
        let (real, entry) = found.ok_or(Lost::Missing)?;
        let kind = if entry == Entry::Directory { Kind::Directory } else { Kind::File };
        Ok((PathBuf::from(OsString::from_vec(real)), kind))
    }

    fn look_up(&self, path: &[u8]) -> Result<Option<Entry>, extract::Error> {
        let mut parts: Vec<Part> = self.layers.root()?;
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            match self.layers.child(path, &parts, name)? {
                Some(Node::Directory { parts: next, .. }) => parts = next,
                Some(Node::Leaf(part)) if names.peek().is_none() => return Ok(Some(entry(part.inode.kind))),
                _ => return Ok(None),
            }
        }
        Ok(Some(Entry::Directory))
    }
}

fn entry(kind: InodeKind) -> Entry {
    match kind {
        InodeKind::Directory { .. } => Entry::Directory,
        InodeKind::File { size, .. } => Entry::File(size),
        InodeKind::Symlink { target, .. } => Entry::Symlink(target),
        _ => Entry::Other,
    }
}

impl Names for Tree<'_> {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        self.look_up(path).unwrap_or_else(|error| {
            self.damage.replace(Some(crate::error::chain(&error)));
            None
        })
    }
}

impl std::fmt::Debug for Tree<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("layers", &self.layers.archives.len()).finish_non_exhaustive()
    }
}
