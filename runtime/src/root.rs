//! The root of a start as it would be, looked at without a mount: the merged layers with the writable layer above.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::extract::merge::{Archives, Layers, Node, OPAQUE};
use crate::pack::startup::{Entry, Names, resolve};
use crate::sandbox::layout::Kind as Object;
use crate::sandbox::points;
use crate::squashfs::{Archive, Kind};

/// A root.
pub struct Root<'a> {
    layers: Layers<'a>,
    /// The writable layer.
    upper: Option<PathBuf>,
    /// Mount points in it, which instances have made and a session removes.
    points: HashSet<PathBuf>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An object. Links on the way were followed, not the object itself when it is one.
    Object {
        /// Its path without links.
        path: PathBuf,
        /// What it is.
        kind: Object,
        /// What it holds, when it is a link.
        link: Option<PathBuf>,
    },
    /// Nothing, and it can be made.
    Nothing {
        /// Where it would be, without links.
        path: PathBuf,
    },
    /// Something on the way is no directory.
    NoDirectory(PathBuf),
    /// A link on the way leads to nothing.
    Dangling(PathBuf),
}

impl<'a> Root<'a> {
    /// The root of `layers`, bottom first, with that of a data directory above.
    ///
    /// # Errors
    /// When the list of mount points cannot be read.
    pub fn new(layers: &'a [Archive], data: Option<&Path>) -> io::Result<Self> {
        let points = data.map(points::recorded).transpose()?.unwrap_or_default().into_iter().collect();
        let layers = Layers { archives: Archives::from(layers), whiteouts: false };
        Ok(Self { layers, upper: data.map(|data| data.join("root")), points })
    }

    /// What is at an absolute path.
    #[must_use]
    pub fn look(&self, path: &Path) -> Found {
        let Some(parent) = path.parent() else {
            return Found::Object { path: path.to_owned(), kind: Object::Directory, link: None };
        };
        let name = path.file_name().unwrap_or_default();
        let as_path = |real: &[u8]| Path::new("/").join(OsStr::from_bytes(real));
        match resolve(self, parent.as_os_str().as_bytes()) {
            Some((real, Entry::Directory)) => {
                let path = as_path(&real).join(name);
                match self.entry(path.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default()) {
                    Some(Entry::Symlink(to)) => {
                        Found::Object { path, kind: Object::Symlink, link: Some(OsStr::from_bytes(&to).into()) }
                    }
                    Some(entry) => Found::Object { path, kind: kind(&entry), link: None },
                    None => Found::Nothing { path },
                }
            }
            Some((real, _)) => Found::NoDirectory(as_path(&real)),
            None => match self.look(parent) {
                Found::Nothing { path } => Found::Nothing { path: path.join(name) },
                Found::Object { path, kind: Object::Symlink, .. } => Found::Dangling(path),
                Found::Object { path, .. } => Found::NoDirectory(path),
                other => other,
            },
        }
    }

    /// What a path leads to, all links followed.
    #[must_use]
    pub fn follow(&self, path: &Path) -> Option<Object> {
        resolve(self, path.as_os_str().as_bytes()).map(|(_, entry)| kind(&entry))
    }

    /// What the writable layer has at a path; an error when the layers below count.
    fn upper(&self, path: &Path) -> Result<Option<Entry>, ()> {
        let upper = self.upper.as_ref().ok_or(())?;
        let (mut place, mut so_far, mut opaque) = (upper.clone(), PathBuf::new(), false);
        let below = |opaque: bool| if opaque { Ok(None) } else { Err(()) };
        let parts: Vec<&OsStr> = path.iter().collect();
        for (index, part) in parts.iter().enumerate() {
            place.push(part);
            so_far.push(part);
            let Ok(metadata) = fs::symlink_metadata(&place) else { return below(opaque) };
            let file_type = metadata.file_type();
            if file_type.is_char_device() && metadata.rdev() == 0 {
                return Ok(None);
            }
            if self.points.contains(&so_far) && is_empty(&place, &metadata) {
                return below(opaque);
            }
            let is_last = index + 1 == parts.len();
            if !file_type.is_dir() {
                return Ok(is_last.then(|| leaf(&place, &metadata)));
            }
            opaque |= OPAQUE.iter().any(|name| {
                xattr::get(&place, OsStr::from_bytes(name)).is_ok_and(|value| value.as_deref() == Some(b"y"))
            });
        }
        Ok(Some(Entry::Directory))
    }

    fn below(&self, path: &Path) -> Option<Entry> {
        let mut parts = self.layers.root().ok()?;
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            match self.layers.child(path.as_os_str().as_bytes(), &parts, name.as_bytes()).ok()?? {
                Node::Directory { parts: next, .. } => parts = next,
                Node::Leaf(part) if names.peek().is_none() => {
                    return Some(match part.inode.kind {
                        Kind::File { size, .. } => Entry::File(size),
                        Kind::Symlink { target } => Entry::Symlink(target),
                        _ => Entry::Other,
                    });
                }
                Node::Leaf(_) | Node::Whiteout(_) => return None,
            }
        }
        Some(Entry::Directory)
    }
}

impl Names for Root<'_> {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        let path = Path::new(OsStr::from_bytes(path));
        self.upper(path).unwrap_or_else(|()| self.below(path))
    }
}

fn is_empty(path: &Path, metadata: &fs::Metadata) -> bool {
    match metadata.is_dir() {
        true => fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()),
        false => metadata.is_file() && metadata.len() == 0,
    }
}

fn leaf(path: &Path, metadata: &fs::Metadata) -> Entry {
    match fs::read_link(path) {
        Ok(target) => Entry::Symlink(target.as_os_str().as_bytes().to_vec()),
        Err(_) if metadata.is_file() => Entry::File(metadata.len()),
        Err(_) => Entry::Other,
    }
}

fn kind(entry: &Entry) -> Object {
    match entry {
        Entry::Directory => Object::Directory,
        Entry::File(_) => Object::File,
        Entry::Symlink(_) => Object::Symlink,
        Entry::Other => Object::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_where_something_can_be_made() {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("root");
        fs::create_dir_all(root.join("usr/lib/empty")).unwrap();
        fs::write(root.join("usr/lib/file"), "x").unwrap();
        fs::write(root.join("point"), "").unwrap();
        fs::write(data.path().join(points::FILE), b"/point\0/usr/lib/file\0").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/gone", root.join("dangling")).unwrap();
        let view = Root::new(&[], Some(data.path())).unwrap();
        let object = |path: &str, kind| Found::Object { path: path.into(), kind, link: None };
        let link =
            |path: &str, to: &str| Found::Object { path: path.into(), kind: Object::Symlink, link: Some(to.into()) };
        for (path, found) in [
            ("/", object("/", Object::Directory)),
            ("/lib", link("/lib", "usr/lib")),
            ("/lib/file", object("/usr/lib/file", Object::File)),
            ("/lib/empty", object("/usr/lib/empty", Object::Directory)),
            ("/lib/new/er", Found::Nothing { path: "/usr/lib/new/er".into() }),
            ("/point", Found::Nothing { path: "/point".into() }),
            ("/lib/file/x", Found::NoDirectory("/usr/lib/file".into())),
            ("/lib/file/x/y", Found::NoDirectory("/usr/lib/file".into())),
            ("/dangling/x/y", Found::Dangling("/dangling".into())),
        ] {
            assert_eq!(view.look(Path::new(path)), found, "{path}");
        }
        assert_eq!(view.follow(Path::new("/lib")), Some(Object::Directory));
        assert_eq!(view.follow(Path::new("/dangling")), None);
    }
}
