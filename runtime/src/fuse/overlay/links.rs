//! All names of the hard links of a layer: a file that is changed through one of them must be changed for all.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use crate::squashfs::{Archive, Error, FileKind, InodeRef};

/// Most directories one below another; a damaged layer may contain itself.
const DEPTH: usize = 512;

/// A path from the root of a layer.
pub(super) type Path = Vec<Box<[u8]>>;

/// The names, found by one walk through a layer when the first of its hard links is changed.
pub(super) struct Links(Vec<OnceLock<HashMap<InodeRef, Vec<Path>>>>);

impl Links {
    pub(super) fn new(layers: usize) -> Self {
        Self((0..layers).map(|_| OnceLock::new()).collect())
    }

    /// Every name of an inode that has several.
    pub(super) fn names(&self, layer: usize, archive: &Archive, inode: InodeRef) -> Result<&[Path], Error> {
        let Some(known) = self.0.get(layer) else { return Ok(&[]) };
        let all = match known.get() {
            Some(all) => all,
            None => {
                let found = find(archive)?;
                known.get_or_init(|| found)
            }
        };
        Ok(all.get(&inode).map_or(&[], Vec::as_slice))
    }
}

fn find(archive: &Archive) -> Result<HashMap<InodeRef, Vec<Path>>, Error> {
    let mut links: HashMap<InodeRef, Vec<Path>> = HashMap::new();
    let mut seen = HashSet::from([archive.root()]);
    let mut open: Vec<(InodeRef, Path)> = vec![(archive.root(), Vec::new())];
    while let Some((directory, path)) = open.pop() {
        let mut entries = Vec::new();
        archive.read_dir(&archive.inode(directory)?, 0, &mut |entry| {
            entries.push(entry);
            true
        })?;
        for entry in entries {
            let path = || {
                let mut path = path.clone();
                path.push(entry.name.clone().into());
                path
            };
            if entry.kind == FileKind::Directory {
                if path().len() < DEPTH && seen.insert(entry.inode) {
                    open.push((entry.inode, path()));
                }
            } else if archive.inode(entry.inode)?.nlink > 1 {
                links.entry(entry.inode).or_default().push(path());
            }
        }
    }
    Ok(links)
}
