//! What a run of an image has read, as paths: the start-up set that no search would find.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Error;
use crate::extract::merge::joined;
use crate::image::Image;
use crate::source::ByteSource;
use crate::squashfs::{Archive, FileKind, InodeRef};

/// The paths, relative to the root of their layer, of the files in `read`, which names layers by their place among
/// those of the root and is in the order of first reads. Returns one list for each entry of the image's layer index. Of
/// several names of a file it has one.
///
/// # Errors
/// When a layer cannot be read or is damaged.
pub fn files_read(image: &Image, read: &[(usize, InodeRef)]) -> Result<Vec<Vec<Vec<u8>>>, Error> {
    let mut lists = vec![Vec::new(); image.config.layers.len()];
    for (place, index) in image.root_layers().enumerate() {
        let wanted: Vec<InodeRef> = read.iter().filter(|(layer, _)| *layer == place).map(|(_, inode)| *inode).collect();
        if wanted.is_empty() {
            continue;
        }
        let source: Arc<dyn ByteSource> =
            Arc::new(image.layer_source(index).map_err(Error::read("read", &image.path))?);
        let paths = Archive::open(source).and_then(|archive| paths(&archive, &wanted));
        let damaged = |error| Error::Squashfs { path: image.path.clone(), reason: crate::error::chain(&error) };
        lists[index] = paths.map_err(damaged)?;
    }
    Ok(lists)
}

/// The paths of the inodes in `wanted`, in their order, without those that have no name.
fn paths(archive: &Archive, wanted: &[InodeRef]) -> Result<Vec<Vec<u8>>, crate::squashfs::Error> {
    let mut found: HashMap<InodeRef, Option<Vec<u8>>> = wanted.iter().map(|inode| (*inode, None)).collect();
    // Each directory has one place in a tree, so a second visit would be a loop of a damaged layer.
    let mut entered = HashSet::from([archive.root()]);
    let mut stack = vec![(archive.root(), Vec::new())];
    let mut left = found.len();
    while let Some((directory, path)) = stack.pop().filter(|_| left > 0) {
        let inode = archive.inode(directory)?;
        archive.read_dir(&inode, 0, &mut |entry| {
            let path = joined(&path, &entry.name);
            if let Some(name) = found.get_mut(&entry.inode) {
                left -= usize::from(name.is_none());
                name.get_or_insert(path);
            } else if entry.kind == FileKind::Directory && entered.insert(entry.inode) {
                stack.push((entry.inode, path));
            }
            left > 0
        })?;
    }
    Ok(wanted.iter().filter_map(|inode| found.get_mut(inode)?.take()).collect())
}
