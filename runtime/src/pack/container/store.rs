//! Where the blobs of a container image lie: in a directory or in an archive.

use super::Problem;
use super::digest::Digest;
use crate::pack::tar::{Archive, Type, components};
use crate::source::{ByteSource, FileRange};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most symbolic links on the way to a file.
const LINKS_MAX: usize = 8;
/// Longest JSON document in bytes; the specification recommends to refuse above 4 MiB.
const JSON_MAX: u64 = 4 << 20;

/// The files of a container image.
pub enum Store {
    /// An image layout.
    Directory {
        /// Its path, for messages.
        path: PathBuf,
        /// The open directory.
        root: File,
    },
    /// A tar of an image layout, or what `docker save` writes.
    Archive {
        /// Its path, for messages.
        path: PathBuf,
        /// Its entries.
        entries: HashMap<Vec<u8>, Entry>,
    },
}

/// An entry of an archive.
#[derive(Clone)]
pub enum Entry {
    File(FileRange),
    /// A symbolic link to this path from the root of the archive.
    Link(Vec<u8>),
}

impl Store {
    /// The image layout in the directory `path`.
    pub fn directory(path: &Path) -> io::Result<Self> {
        Ok(Self::Directory { path: path.to_owned(), root: File::open(path)? })
    }

    /// What lies in the tar `range`. Names that lead outside are no entries of it.
    pub fn archive(path: &Path, range: &FileRange) -> io::Result<Self> {
        let mut entries = HashMap::new();
        let mut archive = Archive::new(range.clone());
        while let Some(member) = archive.next()? {
            let Ok(parts) = components(&member.path) else { continue };
            let name = parts.join(&b'/');
            let entry = match member.kind {
                Type::File if member.stored == member.size => Entry::File(range.part(member.at, member.size)),
                Type::Link => {
                    let target = components(&member.link).ok().and_then(|parts| entries.get(&parts.join(&b'/')));
                    let Some(target) = target else { continue };
                    Entry::clone(target)
                }
                Type::Symlink => match beside(&parts, &member.link) {
                    Some(target) => Entry::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            entries.insert(name, entry);
        }
        Ok(Self::Archive { path: path.to_owned(), entries })
    }

    /// The path of the image, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. } | Self::Archive { path, .. } => path,
        }
    }

    /// The file `name`; `None` when there is none.
    pub fn find(&self, name: &str) -> Result<Option<FileRange>, Problem> {
        match self {
            Self::Archive { entries, .. } => {
                let mut name = name.as_bytes();
                for _ in 0..LINKS_MAX {
                    match entries.get(name) {
                        Some(Entry::File(range)) => return Ok(Some(range.clone())),
                        Some(Entry::Link(target)) => name = target,
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
            Self::Directory { root, .. } => {
                // A named pipe must not make us wait, nor a link lead out of the directory.
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH);
                let opened = match openat2(root, name, how) {
                    Err(Errno::ENOENT) => return Ok(None),
                    Err(Errno::EXDEV) => return Err(Problem::of(name, "it is a link that leads out of the directory")),
                    other => other.map(File::from),
                };
                let range = opened.map_err(io::Error::from).and_then(|file| {
                    let regular = file.metadata()?.is_file();
                    if regular { FileRange::whole(Arc::new(file)) } else { Err(io::Error::other("no regular file")) }
                });
                range.map(Some).map_err(|error| Problem::of(name, format!("it cannot be read: {error}")))
            }
        }
    }

    /// The blob of this digest and length (where it is known), not checked yet.
    pub fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<FileRange, Problem> {
        let name = digest.path();
        let range = self.find(&name)?.ok_or_else(|| Problem::of(&name, "it is missing"))?;
        match size {
            Some(size) if size != range.len() => {
                let reason = format!("it has {} bytes where {size} are announced", range.len());
                Err(Problem::of(&name, reason))
            }
            _ => Ok(range),
        }
    }

    /// The JSON document in `range`, which is called `name`.
    pub fn json<T: serde::de::DeserializeOwned>(name: &str, range: &FileRange) -> Result<T, Problem> {
        if range.len() > JSON_MAX {
            return Err(Problem::of(name, format!("it has {} bytes, more than {JSON_MAX}", range.len())));
        }
        let mut bytes = vec![0; range.len() as usize];
        range.read_exact_at(&mut bytes, 0).map_err(|error| Problem::of(name, error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| Problem::of(name, format!("it is not as it should be: {error}")))
    }
}

/// Where the link `target` of the entry at `parts` leads, from the root of the archive.
fn beside(parts: &[&[u8]], target: &[u8]) -> Option<Vec<u8>> {
    let mut path: Vec<&[u8]> = parts[..parts.len().checked_sub(1)?].to_vec();
    if target.first() == Some(&b'/') {
        return None;
    }
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(path.pop()?),
            part => path.push(part),
        }
    }
    Some(path.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_places_inside() {
        let from: &[&[u8]] = &[b"a", b"layer.tar"];
        assert_eq!(beside(from, b"../b.tar"), Some(b"b.tar".to_vec()));
        assert_eq!(beside(from, b"./c/../d"), Some(b"a/d".to_vec()));
        assert_eq!(beside(from, b"../../etc"), None);
        assert_eq!(beside(from, b"/etc"), None);
        assert_eq!(beside(&[], b"x"), None);
    }
}
