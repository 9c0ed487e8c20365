//! The objects that the kernel knows, and where each lies at present.
//!
//! A node keeps its number for as long as the kernel refers to it, also when it is copied up: a program that holds a
//! file open, or compares inode numbers, never sees it change. What was never seen gets the inode number of the upper
//! directory's file system, or the number that the layers' own mount would give ([`crate::fuse::node`]).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::node::number as lower_number;
use super::fold::Index;
use crate::squashfs::InodeRef;

/// The root (`FUSE_ROOT_ID`).
pub(super) const ROOT: u64 = 1;
/// Numbers of the upper directory's file system are used as they are below this; those of the layers begin here.
const UPPER_END: u64 = 1 << 48;
/// First number for what has none of its own to show.
const FRESH: u64 = 1 << 60;

/// An inode of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) inode: InodeRef,
}

impl Place {
    pub(super) fn number(self) -> u64 {
        lower_number(self.layer, self.inode)
    }
}

/// One name of a node.
pub(super) struct Name {
    pub(super) parent: Arc<Node>,
    pub(super) name: Box<[u8]>,
}

impl Name {
    pub(super) fn is(&self, parent: &Arc<Node>, name: &[u8]) -> bool {
        Arc::ptr_eq(&self.parent, parent) && *self.name == *name
    }
}

/// An object that the kernel knows.
pub(super) struct Node {
    pub(super) number: u64,
    pub(super) is_directory: bool,
    /// Held by whoever copies it up.
    pub(super) copying: Mutex<()>,
    state: Mutex<State>,
}

/// Where a node lies at present.
#[derive(Default)]
pub(super) struct State {
    /// References of the kernel.
    lookups: u64,
    /// Names that were looked up; one at least unless it is gone.
    pub(super) names: Vec<Name>,
    /// Inode number in the upper directory's file system.
    pub(super) upper: Option<u64>,
    /// Inodes of the layers, the topmost first: those that a directory merges, or the one of anything else.
    pub(super) lower: Arc<[Place]>,
    /// Whether its last name was removed.
    pub(super) gone: bool,
    /// The file of the upper directory, when it is open, and whether that is for writing. Of what has no name any more it
    /// stays open: there is no other way to it.
    pub(super) file: Option<(Arc<File>, bool)>,
    /// The directory of the upper directory, when it is open.
    pub(super) directory: Option<Arc<OwnedFd>>,
    /// Names by their folded form, once somebody has asked.
    pub(super) index: Option<Index>,
}

impl Node {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what can be opened again.
    pub(super) fn close(&self) {
        let mut state = self.state();
        let file = if state.names.is_empty() { None } else { state.file.take() };
        let directory = state.directory.take();
        drop(state);
        drop((file, directory));
    }

    /// Whether the kernel may have it open when this name goes, and no other leads to it.
    pub(super) fn outlives(&self, parent: &Arc<Self>, name: &[u8]) -> bool {
        let state = self.state();
        state.lookups > 0 && state.names.iter().all(|own| own.is(parent, name))
    }

    /// Its parent and name; `None` for the root and for what is gone.
    pub(super) fn place(&self) -> Option<(Arc<Self>, Vec<u8>)> {
        self.state().names.first().map(|name| (Arc::clone(&name.parent), name.name.to_vec()))
    }
}

/// What a node is found by.
pub(super) struct Identity {
    pub(super) is_directory: bool,
    /// Inode number in the upper directory's file system.
    pub(super) upper: Option<u64>,
    pub(super) lower: Vec<Place>,
}

impl Identity {
    fn number(&self) -> u64 {
        match (self.upper, self.lower.first()) {
            (Some(ino), _) if ino > ROOT && ino < UPPER_END => ino,
            (None, Some(place)) => place.number(),
            _ => 0,
        }
    }
}

/// All nodes. Its lock is taken before that of a node, never after.
pub(super) struct Table {
    nodes: HashMap<u64, Arc<Node>>,
    /// Numbers of nodes whose number is not that of the upper directory's file system.
    aliases: HashMap<u64, u64>,
    fresh: u64,
}

impl Table {
    /// A table with the root.
    pub(super) fn new(upper: u64, lower: Vec<Place>) -> Self {
        let state = State { lookups: 1, upper: Some(upper), lower: lower.into(), ..State::default() };
        let root = Node { number: ROOT, is_directory: true, copying: Mutex::default(), state: Mutex::new(state) };
        Self { nodes: HashMap::from([(ROOT, Arc::new(root))]), aliases: HashMap::from([(upper, ROOT)]), fresh: FRESH }
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Node>> {
        self.nodes.get(&number).cloned()
    }

    fn known(&self, identity: &Identity) -> Option<&Arc<Node>> {
        let alias = identity.upper.and_then(|ino| self.aliases.get(&ino).copied());
        let node = self.nodes.get(&alias.unwrap_or_else(|| identity.number()))?;
        (!node.state().gone && node.is_directory == identity.is_directory).then_some(node)
    }

    /// The number that an object has, or would get, for listings.
    pub(super) fn number(&self, upper: Option<u64>, lower: Option<Place>) -> u64 {
        match (upper, lower) {
            (Some(ino), _) => self.aliases.get(&ino).copied().unwrap_or(ino),
            (None, Some(place)) => place.number(),
            (None, None) => 0,
        }
    }

    /// The node of an object that was found as `name` of `parent`, with `lookups` more references of the kernel.
    pub(super) fn enter(&mut self, parent: &Arc<Node>, name: &[u8], identity: Identity, lookups: u64) -> Arc<Node> {
        let node = match self.known(&identity) {
            Some(node) => Arc::clone(node),
            None => self.insert(identity),
        };
        let mut state = node.state();
        state.lookups += lookups;
        if !state.names.iter().any(|known| known.is(parent, name)) {
            if node.is_directory {
                // A directory has one name; the one before was given up without our noticing.
                state.names.clear();
            }
            state.names.push(Name { parent: Arc::clone(parent), name: name.into() });
        }
        drop(state);
        node
    }

    fn insert(&mut self, identity: Identity) -> Arc<Node> {
        let mut number = identity.number();
        if number == 0 || self.nodes.contains_key(&number) {
            // An inode number that was given again while the kernel still refers to the node that had it.
            self.fresh += 1;
            number = self.fresh;
        }
        if let Some(ino) = identity.upper.filter(|&ino| ino != number) {
            self.aliases.insert(ino, number);
        }
        let Identity { is_directory, upper, lower } = identity;
        let state = State { upper, lower: lower.into(), ..State::default() };
        let node = Arc::new(Node { number, is_directory, copying: Mutex::default(), state: Mutex::new(state) });
        self.nodes.insert(number, Arc::clone(&node));
        node
    }

    /// Notes that a node lies in the upper directory from now on, `ino` being its number there.
    pub(super) fn rise(&mut self, node: &Node, ino: u64) {
        if ino != node.number {
            self.aliases.insert(ino, node.number);
        }
        node.state().upper = Some(ino);
    }

    /// Notes that the last name of a node is gone: who gets its inode number next is another.
    pub(super) fn bury(&mut self, node: &Node) {
        let mut state = node.state();
        state.gone = true;
        state.names.clear();
        let upper = state.upper;
        drop(state);
        self.drop_alias(upper, node.number);
    }

    fn drop_alias(&mut self, upper: Option<u64>, number: u64) {
        if let Some(ino) = upper
            && self.aliases.get(&ino) == Some(&number)
        {
            self.aliases.remove(&ino);
        }
    }

    /// Takes back references of the kernel, and forgets the node and its parents when nobody refers to them. Returns what
    /// was forgotten, for it may have files to close, which takes its time.
    #[must_use]
    pub(super) fn forget(&mut self, number: u64, lookups: u64) -> Vec<Arc<Node>> {
        let mut forgotten = Vec::new();
        let Some(node) = self.get(number) else { return forgotten };
        {
            let mut state = node.state();
            state.lookups = state.lookups.saturating_sub(lookups);
        }
        let mut next = vec![node];
        while let Some(node) = next.pop() {
            let mut state = node.state();
            // Two references: the table's and this one. Whoever else has one is about to use the node.
            if node.number == ROOT || state.lookups > 0 || Arc::strong_count(&node) > 2 {
                continue;
            }
            let names = std::mem::take(&mut state.names);
            let upper = state.upper;
            drop(state);
            self.nodes.remove(&node.number);
            self.drop_alias(upper, node.number);
            next.extend(names.into_iter().map(|name| name.parent));
            forgotten.push(node);
        }
        forgotten
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper(ino: u64) -> Identity {
        Identity { is_directory: false, upper: Some(ino), lower: Vec::new() }
    }

    fn place(inode: u64) -> Place {
        Place { layer: 0, inode: InodeRef(inode) }
    }

    #[test]
    fn a_node_keeps_its_number_when_it_is_copied_up_and_gets_another_later() {
        let mut table = Table::new(2, Vec::new());
        let root = table.get(ROOT).unwrap();
        let lower = || Identity { is_directory: false, upper: None, lower: vec![place(7)] };
        let node = table.enter(&root, b"a", lower(), 1);
        assert_eq!(node.number, place(7).number());
        table.rise(&node, 50);
        assert_eq!(table.enter(&root, b"a", upper(50), 1).number, node.number);
        let number = node.number;
        drop(node);
        assert_eq!(table.forget(number, 2).len(), 1);
        assert_eq!(table.len(), 1);
        assert_eq!(table.enter(&root, b"a", upper(50), 1).number, 50);
    }

    #[test]
    fn an_inode_number_that_is_used_again_is_another_node() {
        let mut table = Table::new(2, Vec::new());
        let root = table.get(ROOT).unwrap();
        let first = table.enter(&root, b"a", upper(50), 1);
        table.bury(&first);
        let second = table.enter(&root, b"b", upper(50), 1);
        assert_ne!(first.number, second.number);
        assert_eq!(table.enter(&root, b"b", upper(50), 1).number, second.number);
    }

    #[test]
    fn parents_are_kept_as_long_as_a_child_is_known() {
        let mut table = Table::new(2, Vec::new());
        let root = table.get(ROOT).unwrap();
        let directory = Identity { is_directory: true, upper: Some(10), lower: Vec::new() };
        let parent = table.enter(&root, b"d", directory, 1);
        drop(table.enter(&parent, b"f", upper(11), 1));
        drop(parent);
        assert!(table.forget(10, 1).is_empty());
        assert_eq!(table.len(), 3);
        assert_eq!(table.forget(11, 1).len(), 2);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn numbers_that_do_not_fit_are_replaced() {
        let mut table = Table::new(2, Vec::new());
        let root = table.get(ROOT).unwrap();
        for ino in [1, UPPER_END, u64::MAX] {
            let node = table.enter(&root, &ino.to_le_bytes(), upper(ino), 1);
            assert!(node.number > FRESH && table.number(Some(ino), None) == node.number);
        }
    }
}
