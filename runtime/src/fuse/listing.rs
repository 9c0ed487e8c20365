//! The entries of directories, with the offsets that `telldir(3)` gives out.
//!
//! ```text
//! 0          before `.`
//! 1          after `.`
//! 2          after `..`
//! 2 + cookie after the entry of the layer's directory that has this cookie (cookies begin with 1)
//! ```

use std::sync::Arc;

use fuser::FileType;

use super::attr;
use super::merged::Name;
use super::node::{self, Node};
use crate::squashfs::{Archive, Error, Inode, InodeRef, Kind};

/// Offset after `..`.
const DOTS: u64 = 2;

/// One name in a directory.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: FileType,
    /// Node number.
    pub(super) node: u64,
    /// Layer and inode; `None` for `.` and `..`.
    pub(super) inode: Option<(usize, InodeRef)>,
    /// Offset after this entry.
    pub(super) next: u64,
}

/// Takes entries until it returns false.
pub(super) type Each<'a> = dyn FnMut(Entry<'_>) -> bool + 'a;

/// The entries of the root from `offset` on: one for each layer.
pub(super) fn root(layers: &[Arc<Archive>], offset: u64, each: &mut Each<'_>) {
    let own = Node::Root.number();
    if !dots(own, own, offset, each) {
        return;
    }
    let passed = usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX);
    for (layer, archive) in layers.iter().enumerate().skip(passed) {
        let inode = archive.root();
        let name = layer.to_string();
        let entry = Entry {
            name: name.as_bytes(),
            kind: FileType::Directory,
            node: node::number(layer, inode),
            inode: Some((layer, inode)),
            next: DOTS + layer as u64 + 1,
        };
        if !each(entry) {
            return;
        }
    }
}

/// The entries of the directory `inode`, whose node number is `own`, from `offset` on.
pub(super) fn directory(
    archive: &Archive,
    layer: usize,
    own: u64,
    inode: &Inode,
    offset: u64,
    each: &mut Each<'_>,
) -> Result<(), Error> {
    if offset < DOTS && !dots(own, parent(archive, layer, own, inode)?, offset, each) {
        return Ok(());
    }
    archive.read_dir(inode, offset.saturating_sub(DOTS), &mut |entry| {
        each(Entry {
            name: &entry.name,
            kind: attr::file_type(entry.kind),
            node: node::number(layer, entry.inode),
            inode: Some((layer, entry.inode)),
            next: entry.cookie.saturating_add(DOTS),
        })
    })
}

/// These names of a directory of merged layers, whose node number is `own`, from `offset` on.
pub(super) fn merged(names: &[Name], own: u64, offset: u64, each: &mut Each<'_>) {
    // The kernel takes only the type of `..`.
    if !dots(own, own, offset, each) {
        return;
    }
    let passed = usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX);
    for (index, name) in names.iter().enumerate().skip(passed) {
        let entry = Entry {
            name: &name.name,
            kind: attr::file_type(name.kind),
            node: name.node,
            inode: Some((name.layer, name.inode)),
            next: DOTS + index as u64 + 1,
        };
        if !each(entry) {
            return;
        }
    }
}

/// The node number of `..`; the directory's own where the layer does not tell.
fn parent(archive: &Archive, layer: usize, own: u64, inode: &Inode) -> Result<u64, Error> {
    if own == node::number(layer, archive.root()) {
        return Ok(Node::Root.number());
    }
    let Kind::Directory { parent, .. } = inode.kind else { return Ok(own) };
    Ok(archive.inode_by_number(parent)?.map_or(own, |parent| node::number(layer, parent)))
}

fn dots(own: u64, parent: u64, offset: u64, each: &mut Each<'_>) -> bool {
    let entry = |name, node, next| Entry { name, kind: FileType::Directory, node, inode: None, next };
    (offset > 0 || each(entry(b".", own, 1))) && (offset >= DOTS || each(entry(b"..", parent, DOTS)))
}
