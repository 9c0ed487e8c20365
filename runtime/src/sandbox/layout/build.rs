//! Making layouts, with the guest's root as the root of this process and every capability over its mounts.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlink, readlinkat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::symlinkat;

use super::placed::{Meeting, Placed};
use super::{Entry, Error, Kept, Kind, Layouts, Source, What};
use crate::sandbox::apply;
use crate::sandbox::plan::Fresh;
use crate::sandbox::points::{self, Journal};
use crate::sys::mount::{self, Detached};
use crate::sys::status::Status;

/// Where the symlinks lie that are mounted, on the instance's own tmpfs.
pub(super) const LINKS: &str = "/run/fim/layout";

/// A path is opened, not what is there.
pub(super) const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// How often a walk that a rename disturbed is begun anew (openat2(2), `EAGAIN`).
const ATTEMPTS: u32 = 64;

/// Puts layouts in place. Mount points that the root lacks are written down in `journal`.
///
/// # Errors
/// The first layout that cannot be made.
pub fn place(layouts: &Layouts, journal: Option<&Journal>) -> Result<(), Error> {
    let Some(first) = layouts.entries.first() else { return Ok(()) };
    let mut builder = Builder::new(layouts, journal, first)?;
    layouts.entries.iter().try_for_each(|entry| builder.entry(entry))?;
    builder.close(first)
}

/// A directory that is open.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// Its real path in the guest.
    pub(super) path: PathBuf,
    /// The mount that it is seen through.
    pub(super) mount: u64,
}

pub(super) struct Builder<'a> {
    pub(super) layouts: &'a Layouts,
    pub(super) journal: Option<&'a Journal>,
    pub(super) placed: Placed,
    /// The root, the view of it, and the files of the installation: what layouts may lie on.
    pub(super) mounts: Vec<u64>,
    /// Those that targets lie in, by the path that was asked for.
    pub(super) directories: HashMap<PathBuf, Rc<Directory>>,
    /// Those that sources lie in.
    pub(super) bases: HashMap<PathBuf, Rc<OwnedFd>>,
    /// The root without anything that lies on it.
    bare: OnceCell<Detached>,
    /// Where symlinks are made.
    pub(super) links: Option<OwnedFd>,
    /// How many there are.
    link_count: u32,
    /// Directories that were made anew, which nothing is added to in the end.
    pub(super) rebuilt: Vec<OwnedFd>,
}

/// For `map_err`: a step of a layout.
pub(super) fn step(entry: &Entry, action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Error {
    let (name, path) = (entry.name.clone(), path.into());
    move |source| Error::Step { name, action, path, source }
}

pub(super) fn io_step(entry: &Entry, action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let wrap = step(entry, action, path);
    move |error| wrap(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Opens a path below a directory, which nothing on the way leads out of.
fn walk(base: impl AsFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new().flags(PATH | flags).resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..ATTEMPTS {
        result = openat2(&base, path, how);
        if result.as_ref().err() != Some(&Errno::EAGAIN) {
            break;
        }
    }
    result
}

/// Opens a name in a directory, whatever it is.
pub(super) fn name_in(directory: impl AsFd, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    openat(directory, name, PATH | OFlag::O_NOFOLLOW | flags, Mode::empty())
}

/// The real path of something open.
fn real_path(fd: impl AsFd) -> nix::Result<PathBuf> {
    readlink(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).as_str()).map(PathBuf::from)
}

pub(super) fn mount_of(fd: impl AsFd) -> nix::Result<u64> {
    Status::of(fd, 0, libc::STATX_MNT_ID).map(|status| status.stx_mnt_id)
}

/// What is made where something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Directory,
    /// A file that is a mount point.
    Point,
    File,
}

impl Made {
    /// What a mount of a directory, or of something else, is mounted on.
    pub(super) fn point(is_directory: bool) -> Self {
        if is_directory { Self::Directory } else { Self::Point }
    }
}

/// Makes an empty object; one that is there is fine.
pub(super) fn create(directory: impl AsFd, name: &OsStr, what: Made) -> nix::Result<()> {
    let file = |mode: u32| {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&directory, name, flags, Mode::from_bits_truncate(mode)).map(drop)
    };
    let made = match what {
        Made::Directory => mkdirat(&directory, name, Mode::from_bits_truncate(0o755)),
        Made::Point => file(points::MODE),
        Made::File => file(0o644),
    };
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

impl<'a> Builder<'a> {
    fn new(layouts: &'a Layouts, journal: Option<&'a Journal>, first: &Entry) -> Result<Self, Error> {
        let root = openat(AT_FDCWD, "/", PATH | OFlag::O_DIRECTORY, Mode::empty()).map_err(step(first, "open", "/"))?;
        let view = walk(&root, &layouts.view, OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT).map_err(step(
            first,
            "open",
            &layouts.view,
        ))?;
        let id = |fd: &OwnedFd| mount_of(fd).map_err(step(first, "examine", "/"));
        let (mount, seen) = (id(&root)?, id(&view)?);
        let mut mounts = vec![mount, seen];
        for path in &layouts.data {
            let data = walk(&root, path, OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT);
            mounts.push(id(&data.map_err(step(first, "open", path))?)?);
        }
        let directory = Directory { fd: root, path: "/".into(), mount };
        Ok(Self {
            layouts,
            journal,
            placed: Placed::new(&layouts.view, &layouts.data),
            mounts,
            directories: HashMap::from([("/".into(), Rc::new(directory))]),
            bases: HashMap::from([(layouts.view.clone(), Rc::new(view))]),
            bare: OnceCell::new(),
            links: None,
            link_count: 0,
            rebuilt: Vec::new(),
        })
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        let (Some(parent), Some(name)) = (entry.target.parent(), entry.target.file_name()) else {
            return Err(step(entry, "replace", "/")(Errno::EBUSY));
        };
        // First of all what appears, for making the place may cover where it is taken from.
        let (mount, shows) = self.appearance(entry)?;
        let directory = self.directory(entry, parent)?;
        let path = directory.path.join(name);
        self.may_be(entry, &directory, &path)?;
        let Some(point) = self.point(entry, &directory, name, &path)? else { return Ok(()) };
        let mount = match mount {
            Some(mount) => mount,
            None => {
                // As an empty directory in its place would be.
                let mode = fstat(&point).map_or(0o755, |stat| stat.st_mode & 0o7777);
                let fresh = apply::fresh(&Fresh::Tmpfs { mode, exec: true });
                fresh.map_err(step(entry, "make the file system for", &path))?
            }
        };
        mount::attach(mount, point).map_err(step(entry, "mount at", &path))?;
        self.placed.add(path, &entry.name, shows);
        Ok(())
    }

    /// What appears, as a mount, and the path of the root that it shows when it shows a directory of that; no mount for an
    /// empty file system.
    fn appearance(&mut self, entry: &Entry) -> Result<(Option<Detached>, Option<PathBuf>), Error> {
        let (source, is_directory) = match &entry.what {
            What::Tmpfs => return Ok((None, None)),
            What::Symlink(to) => {
                let link = self.link(to).map_err(step(entry, "make the symlink for", &entry.target))?;
                return Ok((Some(link), None));
            }
            What::Directory(source) => (source, true),
            What::File(source) => (source, false),
        };
        let fd = self.source(entry, source, is_directory)?;
        let mount = mount::clone_descriptor(&fd, is_directory).map_err(step(entry, "bind", source.path()))?;
        let shows = if is_directory && source.base == self.layouts.view {
            self.placed.in_root(&real_path(&fd).map_err(step(entry, "examine", source.path()))?)
        } else {
            None
        };
        Ok((Some(mount), shows))
    }

    /// Refuses a real path where a layout may not be.
    fn may_be(&self, entry: &Entry, directory: &Directory, path: &Path) -> Result<(), Error> {
        let name = || entry.name.clone();
        let path_buf = || path.to_owned();
        // Files of the installation and the application have names of their own, which lie in a place that is kept.
        let kept = Kept::find(self.layouts.kept, path).filter(|_| !self.placed.is_own(&directory.path));
        if let Some(kept) = kept {
            return Err(Error::Kept { name: name(), path: path_buf(), reason: kept.reason });
        }
        if !self.mounts.contains(&directory.mount) && !self.placed.covers(&directory.path) {
            return Err(Error::Shared { name: name(), path: path_buf() });
        }
        match self.placed.meets(path) {
            None => Ok(()),
            Some(Meeting::Same(other)) => Err(Error::Twice { name: name(), other: other.to_owned(), path: path_buf() }),
            Some(Meeting::Above(other)) => {
                Err(Error::Hides { name: name(), other: other.to_owned(), path: path_buf() })
            }
        }
    }

    /// The directory at a path of the guest, made where it is missing.
    fn directory(&mut self, entry: &Entry, path: &Path) -> Result<Rc<Directory>, Error> {
        if let Some(known) = self.directories.get(path) {
            return Ok(Rc::clone(known));
        }
        let root = self.root(entry)?;
        let directory = match walk(&root.fd, path, OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT) {
            Ok(fd) => {
                let mount = mount_of(&fd).map_err(step(entry, "examine", path))?;
                Directory { path: real_path(&fd).map_err(step(entry, "examine", path))?, mount, fd }
            }
            Err(Errno::ENOENT) => {
                let (Some(up), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(step(entry, "open", path)(Errno::ENOENT));
                };
                let up = self.directory(entry, up)?;
                self.may_be(entry, &up, &up.path.join(name))?;
                self.make(entry, &up, name, Made::Directory)?
            }
            Err(errno) => return Err(step(entry, "open the directory", path)(errno)),
        };
        let directory = Rc::new(directory);
        self.directories.insert(path.to_owned(), Rc::clone(&directory));
        Ok(directory)
    }

    fn root(&self, entry: &Entry) -> Result<Rc<Directory>, Error> {
        self.directories.get(Path::new("/")).cloned().ok_or_else(|| step(entry, "open", "/")(Errno::ENOENT))
    }

    /// Makes an empty object, and opens it. In the root, it is written down first.
    fn make(&self, entry: &Entry, up: &Directory, name: &OsStr, what: Made) -> Result<Directory, Error> {
        let is_directory = what == Made::Directory;
        let path = up.path.join(name);
        let in_root = self.placed.in_root(&up.path);
        if let (Some(journal), Some(place)) = (self.journal, &in_root) {
            journal.record(&place.join(name)).map_err(io_step(entry, "write down the mount point", &path))?;
        }
        let made = match (create(&up.fd, name, what), in_root) {
            // Seen through a read-only mount of the root.
            (Err(Errno::EROFS), Some(place)) => self.bare(entry).and_then(|bare| {
                let links = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
                walk(bare, &place, OFlag::O_DIRECTORY, links)
                    .and_then(|up| create(up, name, what))
                    .map_err(step(entry, "make", &path))
            }),
            (made, _) => made.map_err(step(entry, "make", &path)),
        };
        made?;
        let flags = if is_directory { OFlag::O_DIRECTORY } else { OFlag::empty() };
        match name_in(&up.fd, name, flags) {
            Ok(fd) if is_directory || !is_link(&fd) => Ok(Directory { fd, path, mount: up.mount }),
            Ok(_) | Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Error::Dangling { name: entry.name.clone(), path }),
            Err(errno) => Err(step(entry, "open", &path)(errno)),
        }
    }

    /// The root without what lies on it, which can be written.
    pub(super) fn bare(&self, entry: &Entry) -> Result<&Detached, Error> {
        if self.bare.get().is_none() {
            let bare = mount::clone_tree(Path::new("/"), false).map_err(step(entry, "bind", "/"))?;
            // It is empty: nobody else has this cell.
            let _ = self.bare.set(bare);
        }
        self.bare.get().ok_or_else(|| step(entry, "bind", "/")(Errno::EBUSY))
    }

    /// What the layout is mounted on; `None` when what it makes is there already.
    fn point(
        &mut self,
        entry: &Entry,
        directory: &Rc<Directory>,
        name: &OsStr,
        path: &Path,
    ) -> Result<Option<OwnedFd>, Error> {
        let wanted = entry.what.kind();
        let root_path = self.placed.in_root(path);
        // A link to the very object that has this place in the root.
        let own =
            matches!(&entry.what, What::Symlink(to) if root_path.is_some() && self.placed.in_root(to) == root_path);
        let fd = match name_in(&directory.fd, name, OFlag::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) if own => return Ok(None),
            Err(Errno::ENOENT) => {
                return self
                    .make(entry, directory, name, Made::point(wanted == Kind::Directory))
                    .map(|made| Some(made.fd));
            }
            Err(errno) => return Err(step(entry, "open", path)(errno)),
        };
        let stat = fstat(&fd).map_err(step(entry, "examine", path))?;
        let existing = Kind::of_mode(stat.st_mode);
        if entry.what.fits(existing) || own && existing == Kind::File {
            return Ok(Some(fd));
        }
        if own
            || matches!(&entry.what, What::Symlink(to) if readlinkat(&fd, "").is_ok_and(|held| held == to.as_os_str()))
        {
            return Ok(None);
        }
        // A mount point of the session's, or of another instance.
        if existing == Kind::File
            && stat.st_size == 0
            && stat.st_mode & 0o7777 == points::MODE
            && wanted == Kind::Symlink
        {
            return Ok(Some(fd));
        }
        if !entry.replace {
            return Err(Error::Type { name: entry.name.clone(), existing, wanted });
        }
        if (existing == Kind::Directory) == (wanted == Kind::Directory) {
            return Ok(Some(fd));
        }
        // The kernel mounts directories on directories only, and everything else on everything else.
        let directory = self.rebuild(entry, directory, name)?;
        self.make(entry, &directory, name, Made::point(wanted == Kind::Directory)).map(|made| Some(made.fd))
    }

    /// Opens what is to appear, made where it is missing.
    fn source(&mut self, entry: &Entry, source: &Source, is_directory: bool) -> Result<OwnedFd, Error> {
        let base = self.base(entry, &source.base)?;
        // Links of the application's files lead where they would with these as the root; those of data stay within.
        let inside =
            if source.base == self.layouts.view { ResolveFlag::RESOLVE_IN_ROOT } else { ResolveFlag::RESOLVE_BENEATH };
        let failed = |errno: Errno| match errno {
            Errno::EXDEV => {
                Error::Outside { name: entry.name.clone(), source_name: source.name.clone(), base: source.base.clone() }
            }
            errno => step(entry, "open the source", source.path())(errno),
        };
        let fd = match walk(&base, &source.rest, OFlag::empty(), inside) {
            Err(Errno::ENOENT) => self.make_source(entry, source, &base, inside, is_directory)?,
            other => other.map_err(failed)?,
        };
        let existing =
            fstat(&fd).map(|stat| Kind::of_mode(stat.st_mode)).map_err(step(entry, "examine", source.path()))?;
        if (existing == Kind::Directory) != is_directory {
            let wanted = if is_directory { Kind::Directory } else { Kind::File };
            return Err(Error::Source { name: entry.name.clone(), source_name: source.name.clone(), existing, wanted });
        }
        Ok(fd)
    }

    fn make_source(
        &self,
        entry: &Entry,
        source: &Source,
        base: &OwnedFd,
        inside: ResolveFlag,
        is_directory: bool,
    ) -> Result<OwnedFd, Error> {
        let opened = |fd: OwnedFd| {
            let path = real_path(&fd).map_err(step(entry, "examine", source.path()))?;
            Ok::<_, Error>(Directory { fd, path, mount: 0 })
        };
        let mut up = opened(base.try_clone().map_err(io_step(entry, "open", &source.base))?)?;
        let mut so_far = PathBuf::new();
        for name in &source.rest {
            so_far.push(name);
            let is_last = so_far == source.rest;
            up = match walk(base, &so_far, OFlag::empty(), inside) {
                Ok(fd) => opened(fd)?,
                Err(Errno::ENOENT) => {
                    let what = if is_directory || !is_last { Made::Directory } else { Made::File };
                    self.make(entry, &up, name, what)?
                }
                Err(errno) => return Err(step(entry, "open the source", source.base.join(&so_far))(errno)),
            };
        }
        Ok(up.fd)
    }

    fn base(&mut self, entry: &Entry, path: &Path) -> Result<Rc<OwnedFd>, Error> {
        if let Some(known) = self.bases.get(path) {
            return Ok(Rc::clone(known));
        }
        let root = self.root(entry)?;
        let fd =
            walk(&root.fd, path, OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let fd = Rc::new(fd.map_err(step(entry, "open", path))?);
        self.bases.insert(path.to_owned(), Rc::clone(&fd));
        Ok(fd)
    }

    /// A mount of a symlink.
    fn link(&mut self, to: &Path) -> nix::Result<Detached> {
        let directory = match self.links.take() {
            Some(directory) => directory,
            None => {
                create(AT_FDCWD, OsStr::new(LINKS), Made::Directory)?;
                openat(AT_FDCWD, LINKS, PATH | OFlag::O_DIRECTORY, Mode::empty())?
            }
        };
        let name = self.link_count.to_string();
        symlinkat(to, &directory, name.as_str())?;
        self.link_count += 1;
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let mount = mount::clone_link(&directory, &name)?;
        self.links = Some(directory);
        Ok(mount)
    }
}

fn is_link(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| Kind::of_mode(stat.st_mode) == Kind::Symlink)
}
