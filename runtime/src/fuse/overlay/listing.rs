//! The entries of a merged directory.
//!
//! An open directory lists what was there when its reading began (or began anew, `rewinddir(3)`): an offset is a place
//! in that list, so that nothing is left out or told twice however names come and go meanwhile.

use std::collections::HashSet;
use std::sync::Arc;

use fuser::FileType;
use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::super::attr;
use super::marks::Meaning;
use super::node::{Node, Place};
use super::stack::{Overlay, Resolved};
use super::upper::Found;

/// One name in a directory.
pub(super) struct Entry {
    pub(super) name: Box<[u8]>,
    pub(super) kind: FileType,
    pub(super) number: u64,
    /// Where the topmost layer has it, for what lies in layers only.
    pub(super) lower: Option<Place>,
}

/// Whether a name is one of the two that every directory has.
pub(super) fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

fn file_type(kind: SFlag) -> FileType {
    match kind {
        SFlag::S_IFDIR => FileType::Directory,
        SFlag::S_IFLNK => FileType::Symlink,
        SFlag::S_IFBLK => FileType::BlockDevice,
        SFlag::S_IFCHR => FileType::CharDevice,
        SFlag::S_IFIFO => FileType::NamedPipe,
        SFlag::S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

impl Overlay {
    /// The entries of a directory as of now, `.` and `..` first.
    pub(super) fn list(&self, node: &Arc<Node>) -> Result<Vec<Entry>, Errno> {
        let (is_upper, gone, lower) = {
            let state = node.state();
            (state.upper.is_some(), state.gone, Arc::clone(&state.lower))
        };
        let parent = node.place().map_or(node.number, |(parent, _)| parent.number);
        let dot = |name: &[u8], number| Entry { name: name.into(), kind: FileType::Directory, number, lower: None };
        let mut entries = vec![dot(b".", node.number), dot(b"..", parent)];
        if gone {
            return Ok(entries);
        }
        let mut hidden: HashSet<Box<[u8]>> = HashSet::new();
        if is_upper {
            let directory = self.directory(node)?;
            let merges = !lower.is_empty();
            let mut found = Vec::new();
            self.upper.entries(&directory, &mut |meaning, kind, ino| match meaning {
                Meaning::Entry(name) => found.push((name.into_boxed_slice(), kind, ino)),
                Meaning::Whiteout(name) if merges => drop(hidden.insert(name.into())),
                Meaning::Whiteout(_) | Meaning::Opaque | Meaning::Nothing => {}
            })?;
            let table = self.table();
            for (name, kind, ino) in found {
                if merges {
                    hidden.insert(name.clone());
                }
                let number = table.number(Some(ino), None);
                entries.push(Entry { name, kind: file_type(kind), number, lower: None });
            }
        }
        for (depth, directory) in lower.iter().enumerate() {
            let archive = &self.blocks.layers()[directory.layer];
            let last = depth + 1 == lower.len();
            let mut whiteouts = Ok(());
            let inode = self.inode(*directory)?;
            let marked = self.holds_marked(*directory, &inode)?;
            let listed = archive.read_dir(&inode, 0, &mut |entry| {
                let place = Place { layer: directory.layer, inode: entry.inode };
                let name = entry.name.into_boxed_slice();
                if hidden.contains(&name) {
                    return true;
                }
                match self.is_lower_whiteout(entry.kind, place, || Ok(marked)) {
                    Ok(true) => {
                        hidden.insert(name);
                        return true;
                    }
                    Ok(false) => {}
                    Err(errno) => {
                        whiteouts = Err(errno);
                        return false;
                    }
                }
                if !last {
                    hidden.insert(name.clone());
                }
                let kind = attr::file_type(entry.kind);
                entries.push(Entry { name, kind, number: place.number(), lower: Some(place) });
                true
            });
            listed.map_err(|error| self.damaged(directory.layer, &error))?;
            whiteouts?;
        }
        Ok(entries)
    }

    /// What is at a name that was listed, perhaps some time ago. What nobody has changed since needs no search through
    /// the layers.
    pub(super) fn resolve_listed(&self, parent: &Arc<Node>, entry: &Entry) -> Result<Option<Resolved>, Errno> {
        let (is_upper, gone, sources) = {
            let state = parent.state();
            (state.upper.is_some(), state.gone, state.lower.len())
        };
        let is_directory = entry.kind == FileType::Directory;
        let Some(place) = entry.lower.filter(|_| !gone && sources > 0 && (!is_directory || sources == 1)) else {
            return self.resolve(parent, &entry.name);
        };
        if is_upper && !matches!(self.upper.find(&*self.directory(parent)?, &entry.name)?, Found::Nothing) {
            return self.resolve(parent, &entry.name);
        }
        Ok(Some(Resolved { upper: None, lower: vec![place], is_directory }))
    }
}
