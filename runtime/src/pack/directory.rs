//! A directory tree becomes a squashfs: first every name is found, then every content read.

use super::growth::Growth;
use super::startup::{self, Entry, View};
use super::{Error, Options, Progress, Summary, clamp_time};
use crate::squashfs::write::{Content, Kind, Metadata, NodeId, Tree, Writer, Xattrs};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, minor};
use nix::unistd::{Whence, lseek};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes read at a time; a multiple of every block size.
const READ_SIZE: usize = 1 << 20;

/// What shows that a file is still the one that was found.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
    mtime: (i64, i64),
}

impl Seen {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.size(), mtime: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// Packs the tree under `root`, whatever is mounted in it included, as `find` would list it.
pub fn pack(root: &Path, mut writer: Writer, options: &Options, progress: &mut dyn Progress) -> Result<Summary, Error> {
    let mut scan = Scan::run(root)?;
    let mtime = scan.tree.newest(options.epoch.limit());
    let bytes = scan.seen.values().map(|seen| seen.size).sum();
    progress.total(Some(bytes), Some(scan.seen.len() as u64));

    let view = Scanned { root, tree: &scan.tree, seen: &scan.seen };
    let shell = startup::has_shell(&view);
    let mut first = options.first.clone();
    if let Some(startup) = &options.startup {
        let mut growth = Growth::new(&options.squashfs, |path, offset, len| view.read(path, offset, len));
        let budget = startup::budget(scan.stored);
        first.extend(startup::find(&view, startup, budget, &mut |path, size| growth.estimate(path, size)));
    }
    let mut contents =
        Contents { root, writer: &mut writer, seen: &mut scan.seen, buffer: vec![0; READ_SIZE], progress };
    for path in &first {
        // Joining an absolute path would leave the root.
        let path = path.strip_prefix("/").unwrap_or(path);
        if let Some(id) = lookup(&scan.tree, path) {
            contents.file(&mut scan.tree, id, path, true)?;
        }
    }
    let mut stack = vec![(Tree::ROOT, PathBuf::new())];
    while let Some((id, path)) = stack.pop() {
        if scan.tree.is_directory(id) {
            let children = scan.tree.children(id).rev();
            stack.extend(children.map(|(name, child)| (child, path.join(OsStr::from_bytes(name)))));
        } else {
            contents.file(&mut scan.tree, id, &path, false)?;
        }
    }
    let mtime = options.epoch.limit().unwrap_or(mtime);
    Ok(Summary { shell: Some(shell), ..writer.finish(&scan.tree, mtime)?.into() })
}

fn lookup(tree: &Tree, path: &Path) -> Option<NodeId> {
    path.components().try_fold(Tree::ROOT, |id, part| tree.get(id, part.as_os_str().as_bytes()))
}

/// Every name under a root, without contents.
struct Scan {
    tree: Tree,
    /// Regular files whose content is still to be read.
    seen: HashMap<NodeId, Seen>,
    /// Files with more than one name, by device and inode.
    links: HashMap<(u64, u64), NodeId>,
    /// Bytes that the regular files take on their file system.
    stored: u64,
}

impl Scan {
    fn run(root: &Path) -> Result<Self, Error> {
        let mut scan = Self { tree: Tree::new(), seen: HashMap::new(), links: HashMap::new(), stored: 0 };
        let metadata = fs::metadata(root).map_err(Error::read("read", root))?;
        let owner = scan.tree.set_metadata(Tree::ROOT, metadata_of(&metadata));
        owner.map_err(|source| Error::Unstorable { path: root.to_owned(), source })?;
        // With the slash, attributes of a root that is a symbolic link are those of the directory.
        scan.tree.set_xattrs(Tree::ROOT, xattrs(&root.join(""))?);
        let mut stack = vec![(Tree::ROOT, root.to_owned())];
        while let Some((id, path)) = stack.pop() {
            for entry in fs::read_dir(&path).map_err(Error::read("list", &path))? {
                let entry = entry.map_err(Error::read("list", &path))?;
                let child = entry.path();
                let metadata = entry.metadata().map_err(Error::read("read", &child))?;
                let node = scan.entry(id, &entry.file_name(), &child, &metadata)?;
                if metadata.is_dir() {
                    stack.push((node, child));
                }
            }
        }
        Ok(scan)
    }

    fn entry(&mut self, parent: NodeId, name: &OsStr, path: &Path, metadata: &fs::Metadata) -> Result<NodeId, Error> {
        let unstorable = |source| Error::Unstorable { path: path.to_owned(), source };
        let identity = (metadata.dev(), metadata.ino());
        let several = !metadata.is_dir() && metadata.nlink() > 1;
        if let Some(&known) = self.links.get(&identity).filter(|_| several) {
            self.tree.link(parent, name.as_bytes(), known).map_err(unstorable)?;
            return Ok(known);
        }
        let kind = kind_of(path, metadata)?;
        let is_file = matches!(kind, Kind::File(_));
        let id = self.tree.add(parent, name.as_bytes(), metadata_of(metadata), kind).map_err(unstorable)?;
        self.tree.set_xattrs(id, xattrs(path)?);
        if several {
            self.links.insert(identity, id);
        }
        if is_file {
            self.seen.insert(id, Seen::of(metadata));
            self.stored += metadata.size().min(metadata.blocks().saturating_mul(512));
        }
        Ok(id)
    }
}

/// The scanned tree for the search of the start-up set. What changes meanwhile is noticed when it is packed.
struct Scanned<'a> {
    root: &'a Path,
    tree: &'a Tree,
    seen: &'a HashMap<NodeId, Seen>,
}

impl View for Scanned<'_> {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        let id = lookup(self.tree, Path::new(OsStr::from_bytes(path)))?;
        Some(match self.tree.kind(id) {
            None => Entry::Directory,
            Some(Kind::File(_)) => Entry::File(self.seen.get(&id)?.size),
            Some(Kind::Symlink(target)) => Entry::Symlink(target.to_vec()),
            Some(_) => Entry::Other,
        })
    }

    fn names(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let id = lookup(self.tree, Path::new(OsStr::from_bytes(path)));
        id.into_iter().flat_map(|id| self.tree.children(id)).map(|(name, _)| name.to_vec()).collect()
    }

    fn read(&self, path: &[u8], offset: u64, len: usize) -> Option<Vec<u8>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let path = self.root.join(OsStr::from_bytes(path));
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        let size = file.metadata().ok()?.len();
        let len = usize::try_from(size.checked_sub(offset)?).unwrap_or(len).min(len);
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

fn metadata_of(metadata: &fs::Metadata) -> Metadata {
    Metadata {
        mode: (metadata.mode() & 0o7777) as u16,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: clamp_time(metadata.mtime()),
    }
}

fn kind_of(path: &Path, metadata: &fs::Metadata) -> Result<Kind, Error> {
    let kind = metadata.file_type();
    // A device number outside 32 bits is refused by the tree like any other that does not fit.
    let part = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
    let (major, minor) = (part(major(metadata.rdev())), part(minor(metadata.rdev())));
    Ok(if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        Kind::File(None)
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(Error::read("read the link", path))?;
        Kind::Symlink(OsString::from(target).into_vec().into())
    } else if kind.is_block_device() {
        Kind::BlockDevice { major, minor }
    } else if kind.is_char_device() {
        Kind::CharDevice { major, minor }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Socket
    })
}

/// The extended attributes of `path` itself; none where the file system has no such thing.
fn xattrs(path: &Path) -> Result<Xattrs, Error> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(Error::read("list the attributes of", path)(error)),
    };
    let mut found = Vec::new();
    for name in names {
        // An access control list cannot be stored, so it need not be readable either.
        if name.as_bytes().starts_with(b"system.") {
            continue;
        }
        if let Some(value) = xattr::get(path, &name).map_err(Error::read("read an attribute of", path))? {
            found.push((name.into_vec().into(), value.into()));
        }
    }
    Ok(found)
}

/// Reads files into a writer.
struct Contents<'a> {
    root: &'a Path,
    writer: &'a mut Writer,
    seen: &'a mut HashMap<NodeId, Seen>,
    buffer: Vec<u8>,
    progress: &'a mut dyn Progress,
}

impl Contents<'_> {
    /// Reads the file at `path` under the root, unless that was done or it is no regular file.
    fn file(&mut self, tree: &mut Tree, id: NodeId, path: &Path, uncompressed: bool) -> Result<(), Error> {
        if let Some(seen) = self.seen.remove(&id) {
            let content = self.read(&self.root.join(path), seen, uncompressed)?;
            tree.set_content(id, content);
        }
        Ok(())
    }

    fn read(&mut self, path: &Path, seen: Seen, uncompressed: bool) -> Result<Content, Error> {
        // Without blocking and without following, should it have become a named pipe or a link.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(Error::read("open", path))?;
        let unchanged = |file: &File| {
            let metadata = file.metadata().map_err(Error::read("read", path))?;
            let same = metadata.is_file() && Seen::of(&metadata) == seen;
            if same { Ok(metadata) } else { Err(Error::Changed { path: path.to_owned() }) }
        };
        let metadata = unchanged(&file)?;
        let has_holes = metadata.blocks().saturating_mul(512) < seen.size;
        let mut content = self.writer.content(uncompressed);
        let mut at = 0;
        while at < seen.size {
            let data = if has_holes { next_data(&file, at, seen.size) } else { at..seen.size };
            content.hole(data.start - at)?;
            self.progress.advance(data.start - at, 0);
            at = data.start;
            while at < data.end {
                let room = usize::try_from(data.end - at).unwrap_or(READ_SIZE).min(READ_SIZE);
                let count = match file.read_at(&mut self.buffer[..room], at) {
                    Ok(0) => return Err(Error::Changed { path: path.to_owned() }),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    other => other.map_err(Error::read("read", path))?,
                };
                if self.progress.stopped() {
                    return Err(Error::Interrupted);
                }
                content.write(&self.buffer[..count])?;
                at += count as u64;
                self.progress.advance(count as u64, 0);
            }
        }
        let content = content.end()?;
        unchanged(&file)?;
        self.progress.advance(0, 1);
        Ok(content)
    }
}

/// The next range of `file` at or behind `at` that may hold something else than zeros; empty at the end when
/// there is none. Where the file system cannot tell, everything may.
fn next_data(file: &File, at: u64, size: u64) -> std::ops::Range<u64> {
    let seek = |at: u64, whence| i64::try_from(at).map_err(|_| Errno::EOVERFLOW).and_then(|at| lseek(file, at, whence));
    let start = match seek(at, Whence::SeekData) {
        Ok(start) => (start as u64).clamp(at, size),
        // No data up to the end.
        Err(Errno::ENXIO) => size,
        Err(_) => return at..size,
    };
    let end = if start == size { size } else { seek(start, Whence::SeekHole).map_or(size, |end| end as u64) };
    // A hole at `start` itself means that the file changes right now: read on, the check at the end sees it.
    start..if end > start { end.min(size) } else { size }
}
