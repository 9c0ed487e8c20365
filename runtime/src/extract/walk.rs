//! Creates every name of the merged tree.
//!
//! Why nothing is ever written outside: the target is a new directory that only the caller can enter. In it, every
//! name is created exactly once and exclusively (a merged directory has each name once, and the reader lets no name
//! be `.`, `..` or hold a `/`), and a directory is entered only after this walk has made it with mkdir(2). A path
//! of names that were all made as directories cannot lead through a symbolic link.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmodat, makedev, mkdirat, mknodat};
use nix::unistd::{linkat, symlinkat};

use super::attributes::{Made, Restorer};
use super::content::Job;
use super::error::{Error, is_refusal};
use super::merge::{Node, Part, contradiction, is_whiteout, joined};
use crate::squashfs::{InodeRef, Kind, device_parts};

/// Mode of everything until it is finished.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// The creating half of an extraction.
pub(super) struct Walk<'a> {
    restorer: &'a Restorer<'a>,
    root: File,
    /// Directories made so far, in order, with what their attributes come from.
    directories: Vec<(Vec<u8>, Part)>,
    /// Directories of layers that have been listed. Each belongs to one place, so a second visit is a loop.
    entered: HashSet<(usize, InodeRef)>,
    /// Path of files that have more names.
    links: HashMap<(usize, InodeRef), Vec<u8>>,
}

impl<'a> Walk<'a> {
    /// A walk into the empty directory `root`.
    pub(super) fn new(restorer: &'a Restorer<'a>, root: File) -> Self {
        Self { restorer, root, directories: Vec::new(), entered: HashSet::new(), links: HashMap::new() }
    }

    /// Creates everything, and gives `enqueue` the files whose content is to be written.
    pub(super) fn run(&mut self, enqueue: &mut dyn FnMut(Job) -> Result<(), Error>) -> Result<(), Error> {
        let mut stack = vec![(Vec::new(), self.restorer.layers.root()?)];
        while let Some((path, parts)) = stack.pop() {
            for part in &parts {
                if !self.entered.insert((part.layer, part.at)) {
                    return Err(contradiction(part.layer, &path, "the directory has two places in the tree"));
                }
            }
            let children = self.restorer.layers.children(&path, &parts)?;
            let dir = self.open_directory(&path)?;
            // The top one gives the attributes.
            if let Some(top) = parts.into_iter().next() {
                self.directories.push((path.clone(), top));
            }
            for (name, node) in children.into_iter().rev() {
                let path = joined(&path, &name);
                match node {
                    Node::Directory { parts, .. } => {
                        let made = mkdirat(&dir, OsStr::from_bytes(&name), Mode::S_IRWXU);
                        made.map_err(Error::write("make the directory", self.restorer.shown(&path)))?;
                        stack.push((path, parts));
                    }
                    Node::Leaf(part) | Node::Whiteout(part) => {
                        if let Some(job) = self.leaf(&dir, OsStr::from_bytes(&name), path, part)? {
                            enqueue(job)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives the directories their attributes, children first: nothing more is created in them.
    pub(super) fn finish(&self) -> Result<(), Error> {
        for (path, part) in self.directories.iter().rev() {
            self.restorer.restore(&Made::Open(&self.open_directory(path)?), part, path)?;
        }
        Ok(())
    }

    /// Makes every directory one that can be emptied again.
    pub(super) fn unlock(&self) {
        for (path, _) in &self.directories {
            // What fails here shows when the directory is removed.
            let _ = fchmodat(&self.root, as_os(path), Mode::S_IRWXU, nix::sys::stat::FchmodatFlags::FollowSymlink);
        }
    }

    fn open_directory(&self, path: &[u8]) -> Result<File, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&self.root, as_os(path), flags, Mode::empty());
        opened.map(File::from).map_err(Error::write("enter", self.restorer.shown(path)))
    }

    /// Creates anything but a directory; a new regular file is returned.
    fn leaf(&mut self, dir: &File, name: &OsStr, path: Vec<u8>, part: Part) -> Result<Option<Job>, Error> {
        let failed = |action| Error::write(action, self.restorer.shown(&path));
        let key = (part.layer, part.at);
        if let Some(first) = self.links.get(&key) {
            let linked = linkat(&self.root, as_os(first), dir, name, AtFlags::empty());
            linked.map_err(failed("make the hard link"))?;
            return Ok(None);
        }
        match &part.inode.kind {
            Kind::File { .. } => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let file = File::from(openat(dir, name, flags, PRIVATE).map_err(failed("create"))?);
                self.remember(key, &part, &path);
                return Ok(Some(Job { file, part, path }));
            }
            Kind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), dir, name).map_err(failed("make the symbolic link"))?;
            }
            Kind::BlockDevice { rdev } | Kind::CharDevice { rdev } => {
                let block = matches!(part.inode.kind, Kind::BlockDevice { .. });
                let kind = if block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
                let (major, minor) = device_parts(*rdev);
                let device = makedev(major.into(), minor.into());
                match mknodat(dir, name, kind, PRIVATE, device) {
                    Err(errno) if !is_whiteout(&part.inode) && is_refusal(Some(errno as i32)) => {
                        self.restorer.omitted.device();
                        return Ok(None);
                    }
                    made => made.map_err(failed("make the device node"))?,
                }
            }
            Kind::Fifo => mknodat(dir, name, SFlag::S_IFIFO, PRIVATE, 0).map_err(failed("make the named pipe"))?,
            Kind::Socket => mknodat(dir, name, SFlag::S_IFSOCK, PRIVATE, 0).map_err(failed("make the socket"))?,
            Kind::Directory { .. } => return Err(contradiction(part.layer, &path, "it is a directory")),
        }
        self.remember(key, &part, &path);
        self.restorer.restore(&Made::Named(dir.as_fd(), name), &part, &path)?;
        Ok(None)
    }

    fn remember(&mut self, key: (usize, InodeRef), part: &Part, path: &[u8]) {
        if part.inode.nlink > 1 {
            self.links.insert(key, path.to_vec());
        }
    }
}

/// A path relative to the root, which is empty here and `.` for the kernel.
fn as_os(path: &[u8]) -> &OsStr {
    if path.is_empty() { Path::new(".").as_os_str() } else { OsStr::from_bytes(path) }
}
