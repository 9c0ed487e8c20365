//! Layers as directories, for hosts without FUSE: each is extracted once and kept by its digest.
//!
//! ```text
//! CACHE/               0700, owned by the user
//!     KEY/             the layer, complete; its name is given when it is
//!     KEY.part/        being extracted or removed, or left so by a process that was killed
//!     KEY.lock         held alone (flock) by whoever extracts or removes, shared by every mount server that uses it
//! ```
//!
//! A KEY is the layer's digest (of a layer file outside of an image: the digest of what tells it from other files), and
//! how owners were restored: `-own` when all files are the user's.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::extract::{self, extract_layer};
use crate::image::Digest;
use crate::progress::Progress;
use crate::session::directory::open_private;
use crate::session::lock::{self, Held};
use crate::squashfs::Archive;

/// The variable that names another place.
const VARIABLE: &str = "XDG_CACHE_HOME";
/// Ends the name of a layer whose files are all the user's.
const OWN: &str = "-own";
const PART: &str = "part";
const LOCK: &str = "lock";

/// What can go wrong with the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or a lock in it.
    #[error(transparent)]
    Files(#[from] crate::session::Error),
    /// A layer cannot be extracted.
    #[error(transparent)]
    Extract(#[from] extract::Error),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Files(crate::session::Error::io(action, path)(error))
}

/// The name of a layer in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    name: String,
    own: bool,
}

impl Key {
    /// The layer with this digest; `own` when all its files are the user's.
    #[must_use]
    pub fn new(digest: Digest, own: bool) -> Self {
        Self { name: format!("{digest}{}", if own { OWN } else { "" }), own }
    }

    fn parse(name: &str) -> Option<Self> {
        let own = name.ends_with(OWN);
        let digits = name.strip_suffix(OWN).unwrap_or(name);
        let hex = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self { name: name.to_owned(), own })
    }

    fn with(&self, ending: &str) -> String {
        format!("{}.{ending}", self.name)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// A layer that is extracted, and stays so while this lives.
#[derive(Debug)]
pub struct Extracted {
    /// Its root directory.
    pub tree: PathBuf,
    /// Shared with all who use it.
    pub lock: Held,
}

/// What [`Cache::obtain`] found.
#[derive(Debug)]
pub enum Obtained {
    /// The layer.
    There(Extracted),
    /// Nothing, and nobody else will extract it meanwhile.
    Missing(Vacant),
}

/// The right to extract a layer.
#[derive(Debug)]
pub struct Vacant {
    key: Key,
    lock: Held,
}

/// What lies in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Whether a session uses it, or a process extracts it just now.
    pub in_use: bool,
    /// Whether it can be used; if not, its extraction was interrupted, or is going on.
    pub complete: bool,
}

/// The cache of one user.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    /// The cache in the directory `path`, whose parents are made when they are missing.
    ///
    /// # Errors
    /// When it cannot be made, or is not a private directory of the user `uid`.
    pub fn open(path: PathBuf, uid: u32) -> Result<Self, Error> {
        if let Some(parent) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(failed("make the directory", parent))?;
        }
        open_private(&path, uid, VARIABLE)?;
        Ok(Self { path })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layer called `key`, or the right to extract it. Waits for whoever is extracting it.
    ///
    /// # Errors
    /// When the lock cannot be opened.
    pub fn obtain(&self, key: &Key) -> Result<Obtained, Error> {
        let (tree, name) = (self.path.join(&key.name), key.with(LOCK));
        loop {
            let lock = lock::share(&self.path, &name)?;
            // Whoever clears the cache takes the lock's name away.
            if lock.is_current() && is_directory(&tree) {
                return Ok(Obtained::There(Extracted { tree, lock }));
            }
            drop(lock);
            if let Ok(lock) = lock::attempt(&self.path, &name)?
                && lock.is_current()
                && !is_directory(&tree)
            {
                return Ok(Obtained::Missing(Vacant { key: key.clone(), lock }));
            }
        }
    }

    /// Extracts `layer` to its place. What is not complete never has the layer's name.
    ///
    /// # Errors
    /// When the layer is damaged, the file system refuses, or `progress` wants no more; nothing of it is left then.
    pub fn fill(&self, vacant: Vacant, layer: &Archive, progress: &mut dyn Progress) -> Result<Extracted, Error> {
        let Vacant { key, mut lock } = vacant;
        let (tree, part) = (self.path.join(&key.name), self.path.join(key.with(PART)));
        // Of a process that was killed.
        remove_tree(&part)?;
        extract_layer(layer, &part, key.own, progress)?;
        if let Err(error) = self.name(&part, &tree) {
            remove_tree(&part)?;
            return Err(error);
        }
        lock.downgrade()?;
        Ok(Extracted { tree, lock })
    }

    /// Gives what is complete its name.
    fn name(&self, part: &Path, tree: &Path) -> Result<(), Error> {
        // After a loss of power, a name without all of its contents would look usable.
        let directory = File::open(&self.path).map_err(failed("open", &self.path))?;
        nix::unistd::syncfs(&directory).map_err(|errno| failed("write back", part)(errno.into()))?;
        fs::rename(part, tree).map_err(failed("give the extracted layer the name", tree))
    }

    /// Everything in the cache, sorted by name.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for key in self.keys()? {
            let (tree, part) = (self.path.join(&key.name), self.path.join(key.with(PART)));
            // Opening the lock would make it; what has none is used by nobody.
            let locked = self.path.join(key.with(LOCK)).exists();
            let in_use = locked && lock::attempt(&self.path, &key.with(LOCK))?.is_err();
            let bytes = size(&tree) + size(&part);
            entries.push(Entry { key, bytes, in_use, complete: is_directory(&tree) });
        }
        Ok(entries)
    }

    /// Removes what nobody uses. Returns what was removed and what is in use.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear(&self) -> Result<(Vec<Entry>, Vec<Entry>), Error> {
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        for entry in self.entries()? {
            match lock::attempt(&self.path, &entry.key.with(LOCK))? {
                Ok(held) if held.is_current() => {
                    let (tree, part) = (self.path.join(&entry.key.name), self.path.join(entry.key.with(PART)));
                    remove_tree(&part)?;
                    // Half removed, it must not look usable.
                    if is_directory(&tree) {
                        fs::rename(&tree, &part).map_err(failed("rename", &tree))?;
                    }
                    remove_tree(&part)?;
                    fs::remove_file(held.path()).map_err(failed("remove", held.path()))?;
                    removed.push(entry);
                }
                _ => kept.push(entry),
            }
        }
        Ok((removed, kept))
    }

    fn keys(&self) -> Result<Vec<Key>, Error> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed("list", &self.path))? {
            let name = entry.map_err(failed("list", &self.path))?.file_name();
            let stem = name.to_str().map(|name| name.split('.').next().unwrap_or_default());
            keys.extend(stem.and_then(Key::parse));
        }
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        keys.dedup();
        Ok(keys)
    }
}

/// Whether `path` itself is a directory.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Bytes that the files below `path` take; 0 when there is nothing.
fn size(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let entries = if is_directory(path) { fs::read_dir(path).ok() } else { None };
    own + entries.into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum::<u64>()
}

/// Removes a tree of ours, of which some directories cannot be written; it need not exist.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            fs::remove_dir_all(path).map_err(failed("remove", path))
        }
        removed => removed.map_err(failed("remove", path)),
    }
}

/// Lets the user empty every directory below `path`.
fn unlock(path: &Path) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("open", path))?;
    for entry in fs::read_dir(path).map_err(failed("list", path))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_are_names_of_layers() {
        let key = Key::new(Digest([0xab; 32]), true);
        assert_eq!(Key::parse(&key.to_string()), Some(key.clone()));
        assert_eq!(key.to_string(), format!("{}-own", "ab".repeat(32)));
        for name in ["", "-own", "ab", &"AB".repeat(32), &format!("{key}-own"), &format!("{}/", "ab".repeat(32))] {
            assert_eq!(Key::parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_removed_all_the_same() {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        fs::create_dir_all(tree.join("closed/inner")).unwrap();
        fs::write(tree.join("closed/inner/file"), "x").unwrap();
        assert!(size(&tree) > 0);
        for closed in ["closed/inner", "closed", ""] {
            fs::set_permissions(tree.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
