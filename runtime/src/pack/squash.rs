//! Several squashfs layers become one: what an overlay of them shows, without what higher ones cover. Where others stay
//! below them, it also covers what they cover.

use super::contents::{Contents, Pending, Planned};
use super::{Error, Options, Progress, Summary};
use crate::extract;
use crate::extract::attributes::is_overlays_own;
use crate::extract::content::Shared;
use crate::extract::merge::{Layers, Node, OPAQUE, Part, contradiction, damaged, joined};
use crate::squashfs::write::{ContentWriter, Kind as New, Metadata, NodeId, Tree, Writer, Xattr};
use crate::squashfs::{Archive, Block, InodeRef, Kind, device_parts};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Packs the merged `layers`, bottom first, of the source called `path`. With `whiteouts`, the result keeps covering what
/// is below them.
pub fn pack(
    path: &Path,
    layers: &[Archive],
    whiteouts: bool,
    writer: Writer,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Summary, Error> {
    let merged = Merged { path, layers: Layers { archives: layers.into(), whiteouts }, shared: Shared::default() };
    merged.plan()?.pack(&merged, writer, options, progress)
}

/// As [`pack`], into `out`, which is empty.
///
/// # Errors
/// When a layer is damaged or `out` cannot be written; `out` then holds garbage.
pub fn squash(
    path: &Path,
    layers: &[Archive],
    whiteouts: bool,
    out: &File,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Summary, Error> {
    pack(path, layers, whiteouts, Writer::new(out, 0, &options.squashfs)?, options, progress)
}

/// What a directory covers of layers that stay below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Covers {
    /// Everything.
    pub opaque: bool,
    /// The names of its whiteouts.
    pub whiteouts: bool,
}

impl Covers {
    /// The attributes that say so to overlayfs. The kernel looks for whiteouts in a directory with nothing below it only
    /// where it has noted an origin, be it unknown (`ovl_get_inode`, fs/overlayfs/inode.c).
    pub(crate) fn marks(self) -> impl Iterator<Item = Xattr> {
        let opaque = self.opaque.then(|| (OPAQUE[0].into(), b"y"[..].into()));
        let origin = self.whiteouts.then(|| (b"user.overlay.origin"[..].into(), b""[..].into()));
        opaque.into_iter().chain(origin)
    }
}

struct Merged<'a> {
    path: &'a Path,
    layers: Layers<'a>,
    shared: Shared,
}

/// A regular file of one layer.
impl Pending for Part {
    fn size(&self) -> u64 {
        match self.inode.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }

    fn stored(&self) -> u64 {
        self.size()
    }
}

impl Merged<'_> {
    fn failed(&self) -> impl Fn(extract::Error) -> Error {
        |source| Error::Merge { path: self.path.to_owned(), source }
    }

    /// The merged names.
    fn plan(&self) -> Result<Planned<Part>, Error> {
        let mut planned = Planned::new();
        // Each directory of a layer belongs to one place, so a second visit is a loop.
        let (mut entered, mut links) = (HashSet::new(), HashMap::new());
        let (parts, closed) = self.layers.root_closed().map_err(self.failed())?;
        let mut stack = vec![(Tree::ROOT, Vec::new(), parts, closed)];
        while let Some((id, path, parts, closed)) = stack.pop() {
            let mut covers = Covers { opaque: closed && self.layers.whiteouts, whiteouts: false };
            for part in &parts {
                if !entered.insert((part.layer, part.at)) {
                    let twice = contradiction(part.layer, &path, "the directory has two places in the tree");
                    return Err(self.failed()(twice));
                }
            }
            for (name, node) in self.layers.children(&path, &parts).map_err(self.failed())? {
                let path = joined(&path, &name);
                match node {
                    Node::Directory { parts, closed } => {
                        // There is a first part, or it would be no directory.
                        let Some(top) = parts.first() else { continue };
                        let child = self.add(&mut planned, id, &name, &path, top, New::Directory)?;
                        stack.push((child, path, parts, closed));
                    }
                    Node::Whiteout(_) => {
                        covers.whiteouts = true;
                        let device = New::CharDevice { major: 0, minor: 0 };
                        let added = planned.tree.add(id, &name, Metadata::default(), device);
                        added.map_err(self.unstorable(&path))?;
                    }
                    Node::Leaf(part) => self.leaf(&mut planned, &mut links, id, &name, &path, part)?,
                }
            }
            if let Some(top) = parts.first().filter(|_| id == Tree::ROOT || covers != Covers::default()) {
                self.describe(&mut planned.tree, id, &path, top, covers)?;
            }
        }
        Ok(planned)
    }

    fn leaf(
        &self,
        planned: &mut Planned<Part>,
        links: &mut HashMap<(usize, InodeRef), NodeId>,
        parent: NodeId,
        name: &[u8],
        path: &[u8],
        part: Part,
    ) -> Result<(), Error> {
        let key = (part.layer, part.at);
        if let Some(&first) = links.get(&key) {
            return planned.tree.link(parent, name, first).map_err(self.unstorable(path));
        }
        let kind = match &part.inode.kind {
            Kind::File { .. } => New::File(None),
            Kind::Symlink { target } => New::Symlink(target.clone().into()),
            Kind::BlockDevice { rdev } => {
                let (major, minor) = device_parts(*rdev);
                New::BlockDevice { major, minor }
            }
            Kind::CharDevice { rdev } => {
                let (major, minor) = device_parts(*rdev);
                New::CharDevice { major, minor }
            }
            Kind::Fifo => New::Fifo,
            Kind::Socket => New::Socket,
            Kind::Directory { .. } => return Err(self.failed()(contradiction(part.layer, path, "it is a directory"))),
        };
        let is_file = matches!(kind, New::File(_));
        let id = self.add(planned, parent, name, path, &part, kind)?;
        if part.inode.nlink > 1 {
            links.insert(key, id);
        }
        if is_file {
            planned.files.insert(id, part);
        }
        Ok(())
    }

    fn add(
        &self,
        planned: &mut Planned<Part>,
        parent: NodeId,
        name: &[u8],
        path: &[u8],
        part: &Part,
        kind: New,
    ) -> Result<NodeId, Error> {
        let added = planned.tree.add(parent, name, Metadata::default(), kind);
        let id = added.map_err(self.unstorable(path))?;
        self.describe(&mut planned.tree, id, path, part, Covers::default())?;
        Ok(id)
    }

    fn describe(&self, tree: &mut Tree, id: NodeId, path: &[u8], part: &Part, covers: Covers) -> Result<(), Error> {
        let attributes = self.layers.archives[part.layer].xattrs(&part.inode).map_err(damaged(part.layer, path));
        let attributes = attributes.map_err(self.failed())?.into_iter().filter(|(name, _)| !is_overlays_own(name));
        let attributes = attributes.map(|(name, value)| (name.into(), value.into()));
        tree.set_xattrs(id, attributes.chain(covers.marks()).collect());
        let metadata = self.layers.metadata(part, path).map_err(self.failed())?;
        tree.set_metadata(id, metadata).map_err(self.unstorable(path))
    }

    fn unstorable(&self, path: &[u8]) -> impl FnOnce(crate::squashfs::write::TreeError) -> Error {
        let path = self.path.join(std::ffi::OsStr::from_bytes(path));
        move |source| Error::Unstorable { path, source }
    }
}

impl Contents for Merged<'_> {
    type File = Part;

    fn peek(&self, part: &Part, _: &Path, offset: u64, len: usize) -> Option<Vec<u8>> {
        let len = usize::try_from(part.size().checked_sub(offset)?).unwrap_or(len).min(len);
        let mut bytes = vec![0; len];
        self.layers.archives[part.layer].read_at(&part.inode, offset, &mut bytes).ok()?;
        Some(bytes)
    }

    fn copy(
        &self,
        part: &Part,
        path: &Path,
        out: &mut ContentWriter<'_>,
        _: &mut [u8],
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let archive = &self.layers.archives[part.layer];
        let damaged = |error| self.failed()(damaged(part.layer, path.as_os_str().as_bytes())(error));
        for index in 0..part.inode.block_count() {
            if progress.stopped() {
                return Err(Error::Interrupted);
            }
            let block = archive.block(&part.inode, index).map_err(damaged)?;
            match block {
                Block::Hole { len } => out.hole(len as u64)?,
                Block::Stored { stored, skip, len } => {
                    let bytes = self.shared.load(part.layer, archive, stored, len).map_err(damaged)?;
                    out.write(stored.part(&bytes, skip, len).map_err(damaged)?)?;
                }
            }
            progress.advance(block.len() as u64, 0);
        }
        Ok(())
    }
}
