//! What the writable layer changes against the layers below it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::scan::{Scan, is_label};
use super::{Error, place};
use crate::extract::attributes::is_overlays_own;
use crate::extract::merge::{Layers, Node, Part, damaged, joined};
use crate::squashfs::write::{Kind as New, NodeId, Tree, Xattrs};
use crate::squashfs::{Archive, Kind, device_parts};

/// In which way a path has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// No layer has it.
    Added,
    /// It has another content, type, mode, owner, time or attribute.
    Modified,
    /// It is gone, and so is everything below it.
    Deleted,
}

impl Changed {
    /// The letter of a listing.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Modified => 'M',
            Self::Deleted => 'D',
        }
    }
}

/// One path that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In which way.
    pub changed: Changed,
    /// The path in the guest.
    pub path: PathBuf,
    /// Bytes of the regular file that is there now; 0 for anything else.
    pub size: u64,
    /// Bytes of the regular file that the layers have.
    pub before: u64,
}

/// Compares a writable layer with the layers below it, bottom first. Sorted bytewise, directories before what is in them.
///
/// # Errors
/// When a layer is damaged, or a file that looks unchanged cannot be read.
pub fn diff(upper: &Scan, layers: &[Archive]) -> Result<Vec<Change>, Error> {
    let layers = Layers { archives: layers.into(), whiteouts: false };
    let mut comparison = Comparison { upper, layers, changes: Vec::new() };
    let below = if comparison.layers.archives.is_empty() { Vec::new() } else { comparison.layers.root()? };
    comparison.directory(below)?;
    comparison.changes.sort_by(|one, other| one.path.as_os_str().cmp(other.path.as_os_str()));
    Ok(comparison.changes)
}

struct Comparison<'a> {
    upper: &'a Scan,
    layers: Layers<'a>,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn directory(&mut self, root: Vec<Part>) -> Result<(), Error> {
        let tree = &self.upper.planned.tree;
        let mut stack = vec![(Tree::ROOT, Vec::new(), root)];
        while let Some((id, path, parts)) = stack.pop() {
            let mut below = if parts.is_empty() { BTreeMap::new() } else { self.layers.children(&path, &parts)? };
            for (name, child) in tree.children(id) {
                let (path, known) = (joined(&path, name), below.remove(name));
                let before = known.as_ref().map_or(0, size_below);
                match tree.kind(child) {
                    Some(New::CharDevice { major: 0, minor: 0 }) => {
                        if known.is_some() {
                            self.note(Changed::Deleted, &path, 0, before);
                        }
                    }
                    Some(_) => {
                        let size = self.size(child);
                        match known {
                            None => self.note(Changed::Added, &path, size, 0),
                            Some(Node::Leaf(part)) if self.is_same(child, &path, &part)? => {}
                            Some(_) => self.note(Changed::Modified, &path, size, before),
                        }
                    }
                    None => {
                        let parts = match known {
                            Some(Node::Directory { parts, .. }) => {
                                if let Some(top) = parts.first()
                                    && !self.is_alike(child, &path, top)?
                                {
                                    self.note(Changed::Modified, &path, 0, 0);
                                }
                                parts
                            }
                            Some(Node::Leaf(_) | Node::Whiteout(_)) => {
                                self.note(Changed::Modified, &path, 0, before);
                                Vec::new()
                            }
                            None => {
                                self.note(Changed::Added, &path, 0, 0);
                                Vec::new()
                            }
                        };
                        stack.push((child, path, parts));
                    }
                }
            }
            if self.upper.opaque.contains(&id) {
                for (name, node) in below {
                    self.note(Changed::Deleted, &joined(&path, &name), 0, size_below(&node));
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, changed: Changed, path: &[u8], size: u64, before: u64) {
        let path = Path::new("/").join(OsStr::from_bytes(path));
        self.changes.push(Change { changed, path, size, before });
    }

    fn size(&self, id: NodeId) -> u64 {
        self.upper.planned.files.get(&id).map_or(0, crate::pack::contents::Pending::size)
    }

    /// Whether mode, owner, time and attributes are the same.
    fn is_alike(&self, id: NodeId, path: &[u8], part: &Part) -> Result<bool, Error> {
        let (tree, inode) = (&self.upper.planned.tree, &part.inode);
        if tree.metadata(id) != self.layers.metadata(part, path)? {
            return Ok(false);
        }
        let theirs = self.layers.archives[part.layer].xattrs(inode).map_err(damaged(part.layer, path))?;
        let theirs = theirs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Ok(visible(tree.xattrs(id).to_vec()) == visible(theirs))
    }

    fn is_same(&self, id: NodeId, path: &[u8], part: &Part) -> Result<bool, Error> {
        let same_kind = match (self.upper.planned.tree.kind(id), &part.inode.kind) {
            (Some(New::File(_)), Kind::File { size, .. }) => self.size(id) == *size,
            (Some(New::Symlink(target)), Kind::Symlink { target: theirs }) => **target == **theirs,
            (Some(&New::BlockDevice { major, minor }), Kind::BlockDevice { rdev })
            | (Some(&New::CharDevice { major, minor }), Kind::CharDevice { rdev }) => {
                device_parts(*rdev) == (major, minor)
            }
            (Some(New::Fifo), Kind::Fifo) => true,
            _ => false,
        };
        Ok(same_kind && self.is_alike(id, path, part)? && self.has_same_content(path, part)?)
    }

    fn has_same_content(&self, path: &[u8], part: &Part) -> Result<bool, Error> {
        let Kind::File { size, .. } = part.inode.kind else { return Ok(true) };
        let shown = self.upper.root.join(self.upper.marks.stored_path(Path::new(OsStr::from_bytes(path))));
        let file = File::open(&shown).map_err(Error::io("open", &shown))?;
        let archive = &self.layers.archives[part.layer];
        let (mut ours, mut theirs, mut at) = (vec![0; place::PIECE], vec![0; place::PIECE], 0);
        while at < size {
            let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(place::PIECE);
            file.read_exact_at(&mut ours[..len], at).map_err(Error::io("read", &shown))?;
            archive.read_at(&part.inode, at, &mut theirs[..len]).map_err(damaged(part.layer, path))?;
            if ours[..len] != theirs[..len] {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }
}

fn size_below(node: &Node) -> u64 {
    match node {
        Node::Leaf(Part { inode, .. }) => match inode.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        },
        Node::Directory { .. } | Node::Whiteout(_) => 0,
    }
}

/// The attributes that the guest can see, sorted.
fn visible(mut xattrs: Xattrs) -> Xattrs {
    xattrs.retain(|(name, _)| !is_overlays_own(name) && !is_label(name));
    xattrs.sort();
    xattrs
}
