//! Which files were read, in the order in which they were first read.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::node::Node;
use crate::squashfs::InodeRef;

/// Most files that are told apart. Many times what any start reads, and a bound on what a long run makes of it.
const MOST: usize = 1 << 16;

/// The files that the kernel has asked contents of. What it has in its page cache it does not ask for again.
#[derive(Default)]
pub(super) struct Recording(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    known: HashSet<u64>,
    order: Vec<u64>,
}

impl Recording {
    /// Notes that the file with this node number is read.
    pub(super) fn note(&self, node: u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.order.len() < MOST && seen.known.insert(node) {
            seen.order.push(node);
        }
    }

    /// The files so far: the index of the layer, and the inode.
    pub(super) fn files(&self) -> Vec<(usize, InodeRef)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = |&number: &u64| match Node::from_number(number)? {
            Node::Inode { layer, inode } => Some((layer, inode)),
            Node::Root | Node::Merged(_) => None,
        };
        seen.order.iter().filter_map(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::number;
    use super::*;

    #[test]
    fn the_order_is_that_of_first_reads() {
        let recording = Recording::default();
        let files = [(1, InodeRef(7)), (0, InodeRef(9)), (0, InodeRef(7))];
        for (layer, inode) in [files[0], files[1], files[0], files[2], files[1]] {
            recording.note(number(layer, inode));
        }
        recording.note(Node::Root.number());
        assert_eq!(recording.files(), files);
    }

    #[test]
    fn there_is_a_bound() {
        let recording = Recording::default();
        (0..MOST as u64 + 10).for_each(|inode| recording.note(number(0, InodeRef(inode))));
        assert_eq!(recording.files().len(), MOST);
    }
}
