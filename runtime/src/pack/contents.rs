//! A tree whose names are known gets its contents: first those that a start reads, then all others in the order of
//! their paths.

use super::growth::Growth;
use super::startup::{self, Entry, Names, View};
use super::{Error, Options, Progress, Summary};
use crate::squashfs::write::{ContentWriter, Kind, NodeId, Tree, Writer};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes read at a time; a multiple of every block size.
pub(super) const READ_SIZE: usize = 1 << 20;

/// A regular file whose content is still to be read.
pub(crate) trait Pending {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Bytes that it takes where it is, holes left out.
    fn stored(&self) -> u64;
}

/// Where the contents of regular files come from. Paths are relative to the root of the tree.
pub(crate) trait Contents {
    /// What is known of a file before it is read.
    type File: Pending;

    /// Up to `len` bytes from `offset` on, fewer at the end only; `None` when they cannot be read now. What is wrong
    /// then is an error when the file is packed.
    fn peek(&self, file: &Self::File, path: &Path, offset: u64, len: usize) -> Option<Vec<u8>>;

    /// Moves the whole content into `out` and reports every byte, in at most `buffer` at a time.
    fn copy(
        &self,
        file: &Self::File,
        path: &Path,
        out: &mut ContentWriter<'_>,
        buffer: &mut [u8],
        progress: &mut dyn Progress,
    ) -> Result<(), Error>;
}

/// A tree and the files in it that have no content yet.
#[derive(Clone)]
pub(crate) struct Planned<F> {
    pub tree: Tree,
    pub files: HashMap<NodeId, F>,
}

impl<F: Pending> Planned<F> {
    pub fn new() -> Self {
        Self { tree: Tree::new(), files: HashMap::new() }
    }

    /// Reads all contents and ends the archive.
    pub fn pack<C: Contents<File = F>>(
        mut self,
        contents: &C,
        mut writer: Writer,
        options: &Options,
        progress: &mut dyn Progress,
    ) -> Result<Summary, Error> {
        let newest = self.tree.newest(options.epoch.limit());
        // Replaced files are in the map, too, but have no name.
        let live: Vec<NodeId> = self.tree.named_files().collect();
        self.files.retain(|id, _| live.binary_search(id).is_ok());
        let bytes = self.files.values().map(Pending::size).sum();
        progress.total(Some(bytes), Some(self.files.len() as u64));

        let view = PlannedView { planned: &self, contents };
        let shell = startup::shell(&view).is_some();
        let (mut first, mut opened) = (Vec::new(), Vec::new());
        if let Some(startup) = &options.startup {
            let mut growth = Growth::new(&options.squashfs, |path, offset, len| view.read(path, offset, len));
            let budget = startup::budget(self.files.values().map(Pending::stored).sum());
            for found in startup::find(&view, startup, budget, &mut |path, size| growth.estimate(path, size)) {
                first.push(found.path);
                opened.push(found.opened);
            }
        }
        let mut buffer = vec![0; READ_SIZE];
        let mut put = |planned: &mut Self, id, path: &Path, uncompressed| -> Result<(), Error> {
            // A second name of a file, or none at all.
            let Some(file) = planned.files.remove(&id) else { return Ok(()) };
            let mut content = writer.content(uncompressed);
            contents.copy(&file, path, &mut content, &mut buffer, progress)?;
            planned.tree.set_content(id, content.end()?);
            progress.advance(0, 1);
            Ok(())
        };
        for path in &first {
            if let Some(id) = lookup(&self.tree, path) {
                put(&mut self, id, path, true)?;
            }
        }
        let mut stack = vec![(Tree::ROOT, PathBuf::new())];
        while let Some((id, path)) = stack.pop() {
            if self.tree.is_directory(id) {
                let children = self.tree.children(id).rev();
                stack.extend(children.map(|(name, child)| (child, path.join(OsStr::from_bytes(name)))));
            } else {
                put(&mut self, id, &path, false)?;
            }
        }
        let mtime = options.epoch.limit().unwrap_or(newest.seconds);
        Ok(Summary { shell: Some(shell), startup: opened, ..writer.finish(&self.tree, mtime)?.into() })
    }
}

/// The node at `path`, links not followed.
fn lookup(tree: &Tree, path: &Path) -> Option<NodeId> {
    path.components().try_fold(Tree::ROOT, |id, part| tree.get(id, part.as_os_str().as_bytes()))
}

/// A planned tree for the search of the start-up set.
pub(crate) struct PlannedView<'a, C: Contents> {
    pub planned: &'a Planned<C::File>,
    pub contents: &'a C,
}

impl<C: Contents> Names for PlannedView<'_, C> {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        let id = lookup(&self.planned.tree, Path::new(OsStr::from_bytes(path)))?;
        Some(match self.planned.tree.kind(id) {
            None => Entry::Directory,
            Some(Kind::File(_)) => Entry::File(self.planned.files.get(&id)?.size()),
            Some(Kind::Symlink(target)) => Entry::Symlink(target.to_vec()),
            Some(_) => Entry::Other,
        })
    }
}

impl<C: Contents> View for PlannedView<'_, C> {
    fn names(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let id = lookup(&self.planned.tree, Path::new(OsStr::from_bytes(path)));
        id.into_iter().flat_map(|id| self.planned.tree.children(id)).map(|(name, _)| name.to_vec()).collect()
    }

    fn read(&self, path: &[u8], offset: u64, len: usize) -> Option<Vec<u8>> {
        let path = Path::new(OsStr::from_bytes(path));
        let file = self.planned.files.get(&lookup(&self.planned.tree, path)?)?;
        self.contents.peek(file, path, offset, len)
    }
}
