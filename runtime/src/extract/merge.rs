//! One directory out of the directories of several layers, by the rules of overlayfs
//! (`Documentation/filesystems/overlayfs.rst`): a name of a higher layer covers those below; directories merge; a
//! whiteout (character device 0:0, or an empty file with an attribute that says so in a directory with an attribute that
//! says that there are such) covers and is not there itself; below an opaque directory nothing shows.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::{Index, Range};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::Error;
use crate::squashfs::write::Metadata;
use crate::squashfs::{self, Archive, FileKind, Inode, InodeRef, Kind, Time};

/// Attributes that mark an opaque directory, from overlays mounted by users and by root.
pub(crate) const OPAQUE: [&[u8]; 2] = [b"user.overlay.opaque", b"trusted.overlay.opaque"];

/// Attributes that mark an empty file as a whiteout, where the directory's mark of [`OPAQUE`] is [`HAS_MARKED`].
pub(crate) const WHITEOUT: [&[u8]; 2] = [b"user.overlay.whiteout", b"trusted.overlay.whiteout"];
pub(crate) const HAS_MARKED: &[u8] = b"x";

/// An inode of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Position of the layer, counted from the bottom.
    pub layer: usize,
    pub at: InodeRef,
    pub inode: Inode,
}

/// What a name stands for in the merged tree.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// Anything but a directory.
    Leaf(Part),
    /// A directory.
    Directory {
        /// Those that merge, top first.
        parts: Vec<Part>,
        /// Whether nothing of layers further below would merge.
        closed: bool,
    },
    /// A name that is taken away; only where whiteouts are shown.
    Whiteout(Part),
}

/// What is known of a name while the layers are gone through from the top.
enum Found {
    /// Covered by a whiteout.
    Nothing(Part),
    Leaf(Part),
    /// A directory that lower ones still merge into, or, when closed, do not.
    Directory {
        parts: Vec<Part>,
        closed: bool,
    },
}

/// Archives as whoever has them keeps them.
#[derive(Clone, Copy)]
pub(crate) enum Archives<'a> {
    /// For one thing.
    Own(&'a [Archive]),
    /// For several.
    Shared(&'a [Arc<Archive>]),
}

impl<'a> From<&'a [Archive]> for Archives<'a> {
    fn from(archives: &'a [Archive]) -> Self {
        Self::Own(archives)
    }
}

impl<'a> From<&'a [Arc<Archive>]> for Archives<'a> {
    fn from(archives: &'a [Arc<Archive>]) -> Self {
        Self::Shared(archives)
    }
}

impl Archives<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Own(archives) => archives.len(),
            Self::Shared(archives) => archives.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Index<usize> for Archives<'_> {
    type Output = Archive;

    fn index(&self, index: usize) -> &Archive {
        match self {
            Self::Own(archives) => &archives[index],
            Self::Shared(archives) => &archives[index],
        }
    }
}

/// The layers, bottom first.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    pub archives: Archives<'a>,
    /// Whiteouts are shown as what they are, for another overlay to understand.
    pub whiteouts: bool,
}

impl Layers<'_> {
    /// The merged root.
    pub(crate) fn root(&self) -> Result<Vec<Part>, Error> {
        self.root_closed().map(|(parts, _)| parts)
    }

    /// The merged root, and whether nothing of layers further below would merge.
    pub(crate) fn root_closed(&self) -> Result<(Vec<Part>, bool), Error> {
        self.root_of(0..self.archives.len())
    }

    /// As [`Layers::root_closed`], of some of the layers.
    pub(crate) fn root_of(&self, layers: Range<usize>) -> Result<(Vec<Part>, bool), Error> {
        let mut parts = Vec::new();
        for layer in layers.rev() {
            let part = self.part(layer, self.archives[layer].root(), b"")?;
            if !matches!(part.inode.kind, Kind::Directory { .. }) {
                return Err(contradiction(layer, b"", "the root is no directory"));
            }
            let opaque = self.is_opaque(&part, b"")?;
            parts.push(part);
            if opaque {
                return Ok((parts, true));
            }
        }
        Ok((parts, false))
    }

    /// The time of what is at `path`, to the nanosecond.
    pub(crate) fn time(&self, part: &Part, path: &[u8]) -> Result<Time, Error> {
        self.archives[part.layer].time(&part.inode).map_err(damaged(part.layer, path))
    }

    /// Mode, owner and time of what is at `path`, as a layer is written with them.
    pub(crate) fn metadata(&self, part: &Part, path: &[u8]) -> Result<Metadata, Error> {
        let inode = &part.inode;
        Ok(Metadata { mode: inode.mode_perm, uid: inode.uid, gid: inode.gid, mtime: self.time(part, path)? })
    }

    /// The entries of the merged directory at `path`, sorted bytewise.
    pub(crate) fn children(&self, path: &[u8], parts: &[Part]) -> Result<BTreeMap<Vec<u8>, Node>, Error> {
        let mut found: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
        for part in parts {
            let layer = part.layer;
            let marked = self.mark(part, path)?.is_some_and(|mark| mark == HAS_MARKED);
            let mut entries = Vec::new();
            let mut sorted = true;
            let mut last = Vec::new();
            let listed = self.archives[layer].read_dir(&part.inode, 0, &mut |entry| {
                // A name that stands twice would be created twice.
                sorted = last < entry.name;
                last.clone_from(&entry.name);
                entries.push(entry);
                sorted
            });
            listed.map_err(damaged(layer, path))?;
            if !sorted {
                return Err(contradiction(layer, &joined(path, &last), "the directory is not sorted"));
            }
            for entry in entries {
                if let Some(Found::Nothing(_) | Found::Leaf(_) | Found::Directory { closed: true, .. }) =
                    found.get(&entry.name)
                {
                    continue;
                }
                let path = joined(path, &entry.name);
                let child = self.part(layer, entry.inode, &path)?;
                if child.inode.kind.file_kind() != entry.kind {
                    return Err(contradiction(layer, &path, "the directory has another type for it than its inode"));
                }
                let whiteout = is_whiteout(&child.inode) || marked && self.is_marked(&child, &path)?;
                self.cover(&mut found, entry.name, child, whiteout, &path)?;
            }
        }
        Ok(found.into_iter().filter_map(|(name, found)| Some((name, self.shown(found)?))).collect())
    }

    /// What one name of the merged directory at `path` stands for.
    pub(crate) fn child(&self, path: &[u8], parts: &[Part], name: &[u8]) -> Result<Option<Node>, Error> {
        let mut found = BTreeMap::new();
        for part in parts {
            let entry = self.archives[part.layer].lookup(&part.inode, name).map_err(damaged(part.layer, path))?;
            let Some(entry) = entry else { continue };
            let child = self.part(part.layer, entry.inode, path)?;
            let suspect = is_whiteout(&child.inode) || matches!(child.inode.kind, Kind::File { size: 0, .. });
            let whiteout = suspect
                && (is_whiteout(&child.inode)
                    || self.mark(part, path)?.is_some_and(|mark| mark == HAS_MARKED)
                        && self.is_marked(&child, path)?);
            self.cover(&mut found, name.to_vec(), child, whiteout, path)?;
            if !matches!(found.get(name), Some(Found::Directory { closed: false, .. })) {
                break;
            }
        }
        Ok(found.remove(name).and_then(|found| self.shown(found)))
    }

    fn shown(&self, found: Found) -> Option<Node> {
        match found {
            Found::Nothing(part) => self.whiteouts.then_some(Node::Whiteout(part)),
            Found::Leaf(part) => Some(Node::Leaf(part)),
            Found::Directory { parts, closed } => Some(Node::Directory { parts, closed }),
        }
    }

    /// Adds what a lower layer has under a name that is free, or that is a directory so far.
    fn cover(
        &self,
        found: &mut BTreeMap<Vec<u8>, Found>,
        name: Vec<u8>,
        child: Part,
        whiteout: bool,
        path: &[u8],
    ) -> Result<(), Error> {
        let is_directory = child.inode.kind.file_kind() == FileKind::Directory;
        let opaque = is_directory && self.is_opaque(&child, path)?;
        match found.get_mut(&name) {
            Some(Found::Directory { parts, closed }) => {
                if is_directory {
                    parts.push(child);
                }
                *closed = !is_directory || opaque;
            }
            _ => {
                let first = if is_directory {
                    Found::Directory { parts: vec![child], closed: opaque }
                } else if whiteout {
                    Found::Nothing(child)
                } else {
                    Found::Leaf(child)
                };
                found.insert(name, first);
            }
        }
        Ok(())
    }

    fn part(&self, layer: usize, at: InodeRef, path: &[u8]) -> Result<Part, Error> {
        let inode = self.archives[layer].inode(at).map_err(damaged(layer, path))?;
        Ok(Part { layer, at, inode })
    }

    fn is_opaque(&self, part: &Part, path: &[u8]) -> Result<bool, Error> {
        Ok(self.mark(part, path)?.is_some_and(|mark| mark == b"y"))
    }

    /// What a directory says about those below it.
    fn mark(&self, part: &Part, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        mark(&self.archives[part.layer], &part.inode).map_err(damaged(part.layer, path))
    }

    /// Whether something in a directory with marked whiteouts is one.
    fn is_marked(&self, part: &Part, path: &[u8]) -> Result<bool, Error> {
        is_marked(&self.archives[part.layer], &part.inode).map_err(damaged(part.layer, path))
    }
}

/// What a directory of a layer says about those below it.
pub(crate) fn mark(archive: &Archive, inode: &Inode) -> Result<Option<Vec<u8>>, squashfs::Error> {
    if inode.xattr.is_none() {
        return Ok(None);
    }
    let attributes = archive.xattrs(inode)?;
    Ok(attributes.into_iter().find(|(name, _)| OPAQUE.contains(&name.as_slice())).map(|(_, value)| value))
}

/// Whether something in a directory whose [`mark`] is [`HAS_MARKED`] is a whiteout by its attribute.
pub(crate) fn is_marked(archive: &Archive, inode: &Inode) -> Result<bool, squashfs::Error> {
    if !matches!(inode.kind, Kind::File { size: 0, .. }) || inode.xattr.is_none() {
        return Ok(false);
    }
    Ok(archive.xattrs(inode)?.iter().any(|(name, _)| WHITEOUT.contains(&name.as_slice())))
}

/// Whether an inode takes away what lower layers have under its name.
pub(crate) fn is_whiteout(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::CharDevice { rdev: 0 })
}

/// The path of `name` in the directory at `path`; the root's is empty.
pub(crate) fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

pub(crate) fn as_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// For `map_err`: `layer` cannot be read at `path`.
pub(crate) fn damaged(layer: usize, path: &[u8]) -> impl FnOnce(squashfs::Error) -> Error {
    move |source| Error::Layer { layer, path: as_path(path), source }
}

pub(crate) fn contradiction(layer: usize, path: &[u8], reason: &str) -> Error {
    Error::Contradiction { layer, path: as_path(path), reason: reason.to_owned() }
}
