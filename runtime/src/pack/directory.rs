//! A directory tree becomes a squashfs: first every name is found, then every content read.

use super::contents::{Contents, Pending, Planned};
use super::{Error, Options, Progress, Summary, clamp_time};
use crate::squashfs::write::{ContentWriter, Kind, Metadata, NodeId, Tree, Writer, Xattrs};
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

/// What shows that a file is still the one that was found.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
    mtime: (i64, i64),
}

/// A regular file that was found.
pub(crate) struct Found {
    seen: Seen,
    /// Bytes that it takes on its file system.
    stored: u64,
}

impl Found {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        let stored = metadata.size().min(metadata.blocks().saturating_mul(512));
        Self { seen: Seen::of(metadata), stored }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seen.size == 0
    }
}

impl Pending for Found {
    fn size(&self) -> u64 {
        self.seen.size
    }

    fn stored(&self) -> u64 {
        self.stored
    }
}

impl Seen {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.size(), mtime: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// Packs the tree under `root`, whatever is mounted in it included, as `find` would list it.
pub fn pack(root: &Path, writer: Writer, options: &Options, progress: &mut dyn Progress) -> Result<Summary, Error> {
    Scan::run(root)?.planned.pack(&Files { root, stored: &Path::to_path_buf }, writer, options, progress)
}

/// Every name under a root, without contents.
struct Scan {
    planned: Planned<Found>,
    /// Files with more than one name, by device and inode.
    links: HashMap<(u64, u64), NodeId>,
}

impl Scan {
    fn run(root: &Path) -> Result<Self, Error> {
        let mut scan = Self { planned: Planned::new(), links: HashMap::new() };
        let metadata = fs::metadata(root).map_err(Error::read("read", root))?;
        let owner = scan.planned.tree.set_metadata(Tree::ROOT, metadata_of(&metadata));
        owner.map_err(|source| Error::Unstorable { path: root.to_owned(), source })?;
        // With the slash, attributes of a root that is a symbolic link are those of the directory.
        scan.planned.tree.set_xattrs(Tree::ROOT, xattrs(&root.join(""))?.0);
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
            self.planned.tree.link(parent, name.as_bytes(), known).map_err(unstorable)?;
            return Ok(known);
        }
        let kind = kind_of(path, metadata)?;
        let is_file = matches!(kind, Kind::File(_));
        let id = self.planned.tree.add(parent, name.as_bytes(), metadata_of(metadata), kind).map_err(unstorable)?;
        self.planned.tree.set_xattrs(id, xattrs(path)?.0);
        if several {
            self.links.insert(identity, id);
        }
        if is_file {
            self.planned.files.insert(id, Found::of(metadata));
        }
        Ok(id)
    }
}

pub(crate) fn metadata_of(metadata: &fs::Metadata) -> Metadata {
    Metadata {
        mode: (metadata.mode() & 0o7777) as u16,
        uid: metadata.uid(),
        gid: metadata.gid(),
        // The kernel tells 0 to 999,999,999.
        mtime: clamp_time(metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or_default()),
    }
}

pub(crate) fn kind_of(path: &Path, metadata: &fs::Metadata) -> Result<Kind, Error> {
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

/// The extended attributes of `path` itself, without access control lists, and whether it has one; none where the file
/// system has no such thing.
pub(crate) fn xattrs(path: &Path) -> Result<(Xattrs, bool), Error> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok((Vec::new(), false)),
        Err(error) => return Err(Error::read("list the attributes of", path)(error)),
    };
    let (mut found, mut restricted) = (Vec::new(), false);
    for name in names {
        // An access control list cannot be stored, so it need not be readable either.
        if name.as_bytes().starts_with(b"system.") {
            restricted |= name.as_bytes().starts_with(b"system.posix_acl_");
            continue;
        }
        if let Some(value) = xattr::get(path, &name).map_err(Error::read("read an attribute of", path))? {
            found.push((name.into_vec().into(), value.into()));
        }
    }
    Ok((found, restricted))
}

/// Reads what was scanned.
pub(crate) struct Files<'a> {
    pub root: &'a Path,
    /// The path below `root` at which a path is found.
    pub stored: &'a dyn Fn(&Path) -> PathBuf,
}

impl Files<'_> {
    fn place(&self, path: &Path) -> PathBuf {
        self.root.join((self.stored)(path))
    }

    /// Opens without blocking and without following, should it have become a named pipe or a link.
    fn open(&self, path: &Path) -> std::io::Result<File> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags).open(self.place(path))
    }
}

impl Contents for Files<'_> {
    type File = Found;

    fn peek(&self, found: &Found, path: &Path, offset: u64, len: usize) -> Option<Vec<u8>> {
        let len = usize::try_from(found.seen.size.checked_sub(offset)?).unwrap_or(len).min(len);
        let mut bytes = vec![0; len];
        self.open(path).ok()?.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }

    fn copy(
        &self,
        Found { seen, .. }: &Found,
        path: &Path,
        out: &mut ContentWriter<'_>,
        buffer: &mut [u8],
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let shown = &self.place(path);
        let file = self.open(path).map_err(Error::read("open", shown))?;
        let unchanged = |file: &File| {
            let metadata = file.metadata().map_err(Error::read("read", shown))?;
            let same = metadata.is_file() && Seen::of(&metadata) == *seen;
            if same { Ok(metadata) } else { Err(Error::Changed { path: shown.clone() }) }
        };
        let metadata = unchanged(&file)?;
        let has_holes = metadata.blocks().saturating_mul(512) < seen.size;
        let mut at = 0;
        while at < seen.size {
            let data = if has_holes { next_data(&file, at, seen.size) } else { at..seen.size };
            out.hole(data.start - at)?;
            progress.advance(data.start - at, 0);
            at = data.start;
            while at < data.end {
                let room = usize::try_from(data.end - at).unwrap_or(buffer.len()).min(buffer.len());
                let count = match file.read_at(&mut buffer[..room], at) {
                    Ok(0) => return Err(Error::Changed { path: shown.clone() }),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    other => other.map_err(Error::read("read", shown))?,
                };
                if progress.stopped() {
                    return Err(Error::Interrupted);
                }
                out.write(&buffer[..count])?;
                at += count as u64;
                progress.advance(count as u64, 0);
            }
        }
        unchanged(&file).map(drop)
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
