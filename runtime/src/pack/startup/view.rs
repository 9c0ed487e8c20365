//! A tree that is looked into while it is packed, and names looked up in it as a process inside would.

/// Most symbolic links on the way to one file, as in Linux (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What a name stands for; links are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file with its size in bytes.
    File(u64),
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    Other,
}

/// The names of a tree. Paths are relative to its root, without `.`, `..` and doubled slashes; the root is empty.
pub(crate) trait Names {
    /// What is at `path`, whose parents are directories.
    fn entry(&self, path: &[u8]) -> Option<Entry>;
}

/// A tree that can be read.
pub(in crate::pack) trait View: Names {
    /// The names in the directory at `path`, sorted.
    fn names(&self, path: &[u8]) -> Vec<Vec<u8>>;
    /// Up to `len` bytes of the regular file at `path` from `offset` on; fewer at its end only.
    fn read(&self, path: &[u8], offset: u64, len: usize) -> Option<Vec<u8>>;
}

/// Follows `path` (from the root, whether or not it begins with `/`) to what is no link. `..` of the root is the root.
pub(crate) fn resolve(view: &dyn Names, path: &[u8]) -> Option<(Vec<u8>, Entry)> {
    let mut rest: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
    let (mut real, mut entry, mut links) = (Vec::<u8>::new(), Entry::Directory, 0);
    while let Some(part) = rest.pop() {
        if entry != Entry::Directory {
            return None;
        }
        if part == b".." {
            real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            entry = Entry::Directory;
            continue;
        }
        let next = joined(&real, &part);
        entry = view.entry(&next)?;
        match &entry {
            Entry::Symlink(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                if target.first() == Some(&b'/') {
                    real.clear();
                }
                rest.extend(parts(target).rev().map(<[u8]>::to_vec));
                entry = Entry::Directory;
            }
            _ => real = next,
        }
    }
    Some((real, entry))
}

/// A regular file.
#[derive(Debug)]
pub(super) struct File {
    /// Its path without links.
    pub path: Vec<u8>,
    /// The path that led to it, relative to the root.
    pub opened: Vec<u8>,
    /// Bytes.
    pub size: u64,
}

/// The regular file that `path` leads to.
pub(super) fn file(names: &dyn Names, path: &[u8]) -> Option<File> {
    match resolve(names, path)? {
        (real, Entry::File(size)) => {
            let opened = path.strip_prefix(b"/").unwrap_or(path).to_vec();
            Some(File { path: real, opened, size })
        }
        _ => None,
    }
}

pub(super) fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}
