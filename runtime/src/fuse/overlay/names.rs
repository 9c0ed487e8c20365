//! Finding names: by their bytes, and without regard to case where the guest wants it so.

use std::sync::Arc;

use nix::errno::Errno;

use super::fold::Index;
use super::listing::is_dot;
use super::node::Node;
use super::stack::{Overlay, Resolved};

/// A name that something really has, and what it is.
pub(super) type Named = (Box<[u8]>, Resolved);

impl Overlay {
    /// What is at a name of a directory, and the name that it really has. An exact match comes before any other.
    pub(super) fn find(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Option<Named>, Errno> {
        let actual = if self.casefold { self.folded(parent, name)? } else { Some(name.into()) };
        let Some(actual) = actual else { return Ok(None) };
        Ok(self.resolve(parent, &actual)?.map(|resolved| (actual, resolved)))
    }

    /// This name of the directory, or one that is the same but for case; the directory is read once for all such questions.
    fn folded(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Option<Box<[u8]>>, Errno> {
        if let Some(index) = &parent.state().index {
            return Ok(index.find(name).map(Box::from));
        }
        let mut index = Index::default();
        for entry in self.list(parent)?.iter().filter(|entry| !is_dot(&entry.name)) {
            index.add(&entry.name);
        }
        let found = index.find(name).map(Box::from);
        // Names do not change meanwhile; another thread may have been as fast.
        parent.state().index.get_or_insert(index);
        Ok(found)
    }

    /// The name that something has really, for who is going to change it; `ENOENT` when there is nothing.
    pub(super) fn actual(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Named, Errno> {
        self.find(parent, name)?.ok_or(Errno::ENOENT)
    }

    /// Refuses a name that is taken.
    pub(super) fn is_free(&self, parent: &Arc<Node>, name: &[u8]) -> Result<(), Errno> {
        if parent.state().gone {
            return Err(Errno::ENOENT);
        }
        match self.find(parent, name)? {
            Some(_) => Err(Errno::EEXIST),
            None => Ok(()),
        }
    }

    pub(super) fn appeared(&self, parent: &Node, name: &[u8]) {
        if let Some(index) = &mut parent.state().index {
            index.add(name);
        }
    }

    pub(super) fn vanished(&self, parent: &Node, name: &[u8]) {
        if let Some(index) = &mut parent.state().index {
            index.remove(name);
        }
    }
}
