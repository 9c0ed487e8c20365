//! The tree that one tar, or several on top of each other, stand for.

use super::header::{Archive, Member, Type};
use super::whiteout::{Meaning, meaning};
use super::{Bytes, Scratch, components, describe};
use crate::pack::contents::Planned;
use crate::pack::startup::{Entry, Names, resolve};
use crate::pack::{Error, Progress};
use crate::source::FileRange;
use crate::squashfs::write::{Kind, Metadata, NodeId, Tree, TreeError};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// How an archive treats what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacking {
    /// It is the only one: an entry that leads through a link, or replaces a directory that is not empty, is refused.
    Alone,
    /// It is the layer of a container image: whiteouts take away what lower layers have, links that earlier entries
    /// made are followed inside the tree, and anything can be replaced.
    Layer,
}

/// Grows a tree from archives.
pub struct Builder {
    planned: Planned<Bytes>,
    stacking: Stacking,
    /// What messages call the archive that is being added.
    path: PathBuf,
    /// Whether an entry `./` gave the root's metadata.
    root_given: bool,
}

impl Builder {
    pub fn new(stacking: Stacking) -> Self {
        Self { planned: Planned::new(), stacking, path: PathBuf::new(), root_given: false }
    }

    /// Adds the entries of the archive in `range`, which is called `path` in messages. Holes count as unpacked.
    pub fn archive(
        &mut self,
        range: &FileRange,
        path: &Path,
        scratch: &mut Scratch,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        path.clone_into(&mut self.path);
        if self.stacking == Stacking::Layer {
            // They concern lower layers only, wherever they stand in this one.
            self.each(range, progress, &mut |builder, member| builder.whiteout(&member))?;
        }
        self.each(range, progress, &mut |builder, member| {
            if !scratch.allow(member.size - member.stored) {
                let (path, entry) = (builder.path.clone(), member.path.escape_ascii().to_string());
                return Err(Error::TooLarge { path, entry, limit: scratch.limit() });
            }
            if builder.is_entry(&member)? { builder.entry(member, range) } else { Ok(()) }
        })
    }

    /// The tree, its root as new as what is in it unless an entry said otherwise.
    pub fn finish(mut self) -> Planned<Bytes> {
        if !self.root_given {
            let tree = &mut self.planned.tree;
            let root = Metadata { mtime: tree.newest(None), ..tree.metadata(Tree::ROOT) };
            // It has the owner it had.
            let _ = tree.set_metadata(Tree::ROOT, root);
        }
        self.planned
    }

    fn each(
        &mut self,
        range: &FileRange,
        progress: &mut dyn Progress,
        take: &mut dyn FnMut(&mut Self, Member) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut archive = Archive::new(range.clone());
        let mut after = String::new();
        loop {
            if progress.stopped() {
                return Err(Error::Interrupted);
            }
            let next = archive.next().map_err(|error| Error::Tar {
                path: self.path.clone(),
                after: after.clone(),
                reason: describe(&error),
            });
            let Some(member) = next? else { return Ok(()) };
            after = member.path.escape_ascii().to_string();
            take(self, member)?;
        }
    }

    fn refuse(&self, member: &Member, reason: impl Into<String>) -> Error {
        let entry = member.path.escape_ascii().to_string();
        Error::TarEntry { path: self.path.clone(), entry, reason: reason.into() }
    }

    fn unstorable(&self, member: &Member) -> impl FnOnce(TreeError) -> Error {
        let path = self.path.join(OsString::from_vec(member.path.clone()));
        move |source| Error::Unstorable { path, source }
    }

    fn meaning<'m>(&self, member: &'m Member) -> Result<(Vec<&'m [u8]>, Meaning<'m>), Error> {
        let parts = components(&member.path).map_err(|reason| self.refuse(member, reason))?;
        let meaning = meaning(&parts).map_err(|reason| self.refuse(member, reason))?;
        Ok((parts, meaning))
    }

    fn is_entry(&self, member: &Member) -> Result<bool, Error> {
        Ok(self.stacking == Stacking::Alone || self.meaning(member)?.1 == Meaning::Entry)
    }

    /// Takes away what a whiteout names.
    fn whiteout(&mut self, member: &Member) -> Result<(), Error> {
        let (parts, meaning) = self.meaning(member)?;
        let gone = match meaning {
            Meaning::Entry | Meaning::Ignored => return Ok(()),
            Meaning::Gone(name) => Some(name),
            Meaning::Opaque => None,
        };
        let mut directory = Tree::ROOT;
        for part in &parts[..parts.len() - 1] {
            // Nothing there: nothing to take away.
            let Some(next) = self.step(directory, part) else { return Ok(()) };
            directory = next;
        }
        let tree = &mut self.planned.tree;
        let names = match gone {
            Some(name) => vec![name.to_vec()],
            None => tree.children(directory).map(|(name, _)| name.to_vec()).collect(),
        };
        for name in names {
            tree.remove(directory, &name);
        }
        Ok(())
    }

    /// The directory `part` of `directory`, through links where they are followed.
    fn step(&self, directory: NodeId, part: &[u8]) -> Option<NodeId> {
        let tree = &self.planned.tree;
        let found = tree.get(directory, part)?;
        if tree.is_directory(found) {
            return Some(found);
        }
        if self.stacking == Stacking::Alone {
            return None;
        }
        let (real, _) = resolve(&Inside(tree), &self.path_of(directory, part)?)?;
        let parts = components(&real).ok()?;
        let target = parts.iter().try_fold(Tree::ROOT, |id, part| tree.get(id, part))?;
        tree.is_directory(target).then_some(target)
    }

    /// The path of `name` in `directory`.
    fn path_of(&self, mut directory: NodeId, name: &[u8]) -> Option<Vec<u8>> {
        let mut path = name.to_vec();
        while directory != Tree::ROOT {
            let parent = self.planned.tree.parent(directory)?;
            let (name, _) = self.planned.tree.children(parent).find(|(_, id)| *id == directory)?;
            path = [name, b"/", &path].concat();
            directory = parent;
        }
        Some(path)
    }

    /// Where a member goes: directory and name; no name for the root itself. Missing directories on the way are
    /// made, 0755 and owned by root, with the time of the member.
    fn place<'m>(&mut self, member: &'m Member) -> Result<(NodeId, Option<&'m [u8]>), Error> {
        let parts = components(&member.path).map_err(|reason| self.refuse(member, reason))?;
        let Some((&name, parents)) = parts.split_last() else {
            let is_directory = member.kind == Type::Directory;
            let place = is_directory.then_some((Tree::ROOT, None));
            return place.ok_or_else(|| self.refuse(member, "it has no name"));
        };
        let mut directory = Tree::ROOT;
        for &part in parents {
            directory = match (self.step(directory, part), self.planned.tree.get(directory, part)) {
                (Some(id), _) => id,
                (None, Some(id)) => {
                    let what = match self.planned.tree.kind(id) {
                        Some(Kind::Symlink(_)) => "a symbolic link",
                        _ => "not a directory",
                    };
                    let part = part.escape_ascii().to_string();
                    return Err(self.refuse(member, format!("an earlier entry makes {part:?} on its way {what}")));
                }
                (None, None) => {
                    let metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: member.mtime };
                    let made = self.planned.tree.add(directory, part, metadata, Kind::Directory);
                    made.map_err(self.unstorable(member))?
                }
            };
        }
        Ok((directory, Some(name)))
    }

    fn entry(&mut self, member: Member, range: &FileRange) -> Result<(), Error> {
        let (parent, name) = self.place(&member)?;
        let (uid, gid) = (member.uid, member.gid);
        let metadata = Metadata { mode: member.mode, uid, gid, mtime: member.mtime };
        let tree = &mut self.planned.tree;
        let old = name.map_or(Some(Tree::ROOT), |name| tree.get(parent, name));
        let old_directory = old.filter(|&id| tree.is_directory(id));
        if member.kind == Type::Directory
            && let Some(id) = old_directory
        {
            self.root_given |= id == Tree::ROOT;
            let done = tree.set_metadata(id, metadata);
            tree.set_xattrs(id, member.xattrs.clone());
            return done.map_err(self.unstorable(&member));
        }
        // `place` gives no name for a directory only, which was handled above.
        let Some(name) = name else { return Err(self.refuse(&member, "it has no name")) };
        if old_directory.is_some_and(|id| tree.children(id).next().is_some()) {
            if self.stacking == Stacking::Alone {
                return Err(self.refuse(&member, "an earlier entry makes it a directory that is not empty"));
            }
            // A hard link to something in it would be to nothing.
            tree.remove(parent, name);
        }
        let (major, minor) = member.device;
        let kind = match member.kind {
            Type::Link => return self.link(parent, name, &member),
            Type::Directory => Kind::Directory,
            Type::File => Kind::File(None),
            Type::Symlink => Kind::Symlink(member.link.clone().into()),
            Type::Block => Kind::BlockDevice { major, minor },
            Type::Char => Kind::CharDevice { major, minor },
            Type::Fifo => Kind::Fifo,
        };
        let id = self.planned.tree.add(parent, name, metadata, kind).map_err(self.unstorable(&member))?;
        self.planned.tree.set_xattrs(id, member.xattrs);
        if member.kind == Type::File {
            let Member { at, size, data, .. } = member;
            self.planned.files.insert(id, Bytes { range: range.clone(), at, size, data });
        }
        Ok(())
    }

    fn link(&mut self, parent: NodeId, name: &[u8], member: &Member) -> Result<(), Error> {
        let target = member.link.escape_ascii().to_string();
        let parts = components(&member.link)
            .map_err(|_| self.refuse(member, format!("it is a hard link to {target:?}, outside the archive")))?;
        let found = parts.split_last().and_then(|(last, parents)| {
            let directory = parents.iter().try_fold(Tree::ROOT, |id, part| self.step(id, part))?;
            self.planned.tree.get(directory, last)
        });
        match found {
            None => Err(self.refuse(member, format!("it is a hard link to {target:?}, which no earlier entry has"))),
            Some(id) if self.planned.tree.is_directory(id) => {
                Err(self.refuse(member, format!("it is a hard link to the directory {target:?}")))
            }
            Some(id) => self.planned.tree.link(parent, name, id).map_err(self.unstorable(member)),
        }
    }
}

/// A tree whose links are followed while it grows.
struct Inside<'a>(&'a Tree);

impl Names for Inside<'_> {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        let parts = components(path).ok()?;
        let id = parts.iter().try_fold(Tree::ROOT, |id, part| self.0.get(id, part))?;
        Some(match self.0.kind(id) {
            None => Entry::Directory,
            Some(Kind::Symlink(target)) => Entry::Symlink(target.to_vec()),
            Some(_) => Entry::Other,
        })
    }
}
