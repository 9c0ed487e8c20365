//! Many layers as one directory, or as several: what an overlay of them would show.
//!
//! The kernel's overlay asks each of its lower directories for each name, and each question costs 15 to 60 µs on its way
//! here and back. Of a few layers it gets each; more are merged here, where a name costs about one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::node::{self, Node};
use crate::extract::Error;
use crate::extract::merge::{self, Layers, Part};
use crate::squashfs::{Archive, FileKind, InodeRef};

/// A directory: those of the layers that it merges, top first.
pub(super) struct Directory {
    pub(super) parts: Vec<Part>,
    names: OnceLock<Vec<Name>>,
}

/// One name of a directory.
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) kind: FileKind,
    /// Node number.
    pub(super) node: u64,
    pub(super) layer: usize,
    pub(super) inode: InodeRef,
}

/// The directories that somebody has looked at. They stay: a number stands for the same one for ever.
#[derive(Default)]
struct Table {
    directories: Vec<Arc<Directory>>,
    numbers: HashMap<Vec<(usize, InodeRef)>, usize>,
}

/// All layers as trees.
pub(super) struct Merged {
    layers: Vec<Arc<Archive>>,
    /// Which of them each tree has.
    trees: Vec<Range<usize>>,
    table: Mutex<Table>,
}

impl Merged {
    /// What the first `counts[0]` of `layers`, bottom first, show together, then the next ones.
    pub(super) fn new(layers: Vec<Arc<Archive>>, counts: &[usize]) -> Self {
        let mut first = 0;
        let tree = |count: &usize| {
            let range = first..(first + count).min(layers.len());
            first = range.end;
            range
        };
        Self { trees: counts.iter().map(tree).collect(), layers, table: Mutex::default() }
    }

    /// How many trees there are.
    pub(super) fn len(&self) -> usize {
        self.trees.len()
    }

    fn layers(&self) -> Layers<'_> {
        Layers { archives: self.layers.as_slice().into(), whiteouts: false }
    }

    /// The root directory of a tree, below its number.
    pub(super) fn root(&self, tree: usize) -> Result<Option<Name>, Error> {
        let Some(layers) = self.trees.get(tree) else { return Ok(None) };
        let (parts, closed) = self.layers().root_of(layers.clone())?;
        Ok(Some(self.named(tree.to_string().into_bytes(), merge::Node::Directory { parts, closed })))
    }

    /// The root directories of all trees.
    pub(super) fn roots(&self) -> Result<Vec<Name>, Error> {
        (0..self.len()).filter_map(|tree| self.root(tree).transpose()).collect()
    }

    /// The directory with this index, when it was ever given out.
    pub(super) fn get(&self, index: usize) -> Option<Arc<Directory>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).directories.get(index).cloned()
    }

    /// A name in a directory.
    pub(super) fn look_up(&self, directory: &Directory, name: &[u8]) -> Result<Option<Name>, Error> {
        let found = self.layers().child(name, &directory.parts, name)?;
        Ok(found.map(|found| self.named(name.to_vec(), found)))
    }

    /// All names in a directory, sorted bytewise.
    pub(super) fn names<'d>(&self, directory: &'d Directory) -> Result<&'d [Name], Error> {
        if let Some(names) = directory.names.get() {
            return Ok(names);
        }
        let children = self.layers().children(b"", &directory.parts)?;
        let names = children.into_iter().map(|(name, node)| self.named(name, node)).collect();
        Ok(directory.names.get_or_init(|| names))
    }

    fn named(&self, name: Vec<u8>, node: merge::Node) -> Name {
        match node {
            merge::Node::Leaf(part) | merge::Node::Whiteout(part) => {
                let (layer, inode) = (part.layer, part.at);
                Name { name, kind: part.inode.kind.file_kind(), node: node::number(layer, inode), layer, inode }
            }
            merge::Node::Directory { parts, .. } => {
                // Never empty: the first part is what made it a directory.
                let (layer, inode) = parts.first().map_or((0, InodeRef(0)), |part| (part.layer, part.at));
                let node = Node::Merged(self.number(parts)).number();
                Name { name, kind: FileKind::Directory, node, layer, inode }
            }
        }
    }

    fn number(&self, parts: Vec<Part>) -> usize {
        let key: Vec<(usize, InodeRef)> = parts.iter().map(|part| (part.layer, part.at)).collect();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Table { directories, numbers } = &mut *table;
        *numbers.entry(key).or_insert_with(|| {
            directories.push(Arc::new(Directory { parts, names: OnceLock::new() }));
            directories.len() - 1
        })
    }
}
