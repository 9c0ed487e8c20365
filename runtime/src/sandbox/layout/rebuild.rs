//! Making a directory anew, without one of its names: what a directory that takes the place of a file needs, and the
//! reverse, for the kernel mounts neither on the other. What is in the directory is mounted into an empty one in memory, which
//! covers the old one. Nothing is changed on any medium.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, chdir, fchdir, pivot_root, symlinkat, unlinkat};

use super::build::{Builder, Directory, LINKS, Made, PATH, create, mount_of, name_in, step};
use super::{Entry, Error, Kind};
use crate::sandbox::apply;
use crate::sandbox::plan::Fresh;
use crate::sys::mount::{self, Detached, attr};

/// One name of the old directory.
enum Content {
    Symlink(OsString),
    Mount {
        mount: Detached,
        is_directory: bool,
        /// Whether layouts may lie on it.
        ours: bool,
    },
}

/// Takes a name out of a directory that was made anew.
fn take_out(directory: &Directory, name: &OsStr) -> nix::Result<()> {
    let is_directory = Kind::of_mode(fstat(name_in(&directory.fd, name, OFlag::empty())?)?.st_mode) == Kind::Directory;
    match umount2(&directory.path.join(name), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // A symlink, which is no mount.
        Err(Errno::EINVAL) => {}
        other => other?,
    }
    let flags = if is_directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
    unlinkat(&directory.fd, name, flags)
}

impl Builder<'_> {
    /// Makes a directory anew without `name`. Once all layouts are in place, no name can be added to it or taken away.
    pub(super) fn rebuild(&mut self, entry: &Entry, old: &Directory, name: &OsStr) -> Result<Rc<Directory>, Error> {
        let failed = |action| step(entry, action, &old.path);
        if let Some(rebuilt) = self.directories.get(&old.path).filter(|_| self.placed.is_rebuilt(&old.path)).cloned() {
            take_out(&rebuilt, name).map_err(step(entry, "replace", old.path.join(name)))?;
            return Ok(rebuilt);
        }
        // 1. What is in it, while it is seen.
        let contents = self.contents(old, name).map_err(failed("look through"))?;
        let mode = fstat(&old.fd).map_or(0o755, |stat| stat.st_mode & 0o7777);
        let fresh = apply::fresh(&Fresh::Tmpfs { mode, exec: true }).map_err(failed("make anew"))?;
        let fd = fresh.as_fd().try_clone_to_owned().map_err(|_| failed("make anew")(Errno::EMFILE))?;
        // 2. The new one in the place of the old one; the root's is elsewhere until it is complete.
        let is_root = old.path == Path::new("/");
        if is_root {
            self.bare(entry)?;
            create(AT_FDCWD, OsStr::new(LINKS), Made::Directory).map_err(failed("make anew"))?;
            let point = openat(AT_FDCWD, LINKS, PATH | OFlag::O_DIRECTORY, Mode::empty());
            mount::attach(fresh, point.map_err(failed("make anew"))?).map_err(failed("make anew"))?;
        } else {
            mount::attach(fresh, &old.fd).map_err(failed("make anew"))?;
        }
        // 3. What was in it.
        for (name, content) in contents {
            self.put(&fd, &name, content).map_err(step(entry, "keep", old.path.join(&name)))?;
        }
        // 4. What was open of the old one is open no more.
        if is_root {
            self.change_root(&fd).map_err(failed("make anew"))?;
        }
        self.directories.retain(|_, directory| !directory.path.starts_with(&old.path));
        self.placed.rebuild(&old.path);
        let mount = mount_of(&fd).map_err(failed("examine"))?;
        self.mounts.push(mount);
        self.rebuilt.push(fd.try_clone().map_err(|_| failed("make anew")(Errno::EMFILE))?);
        let directory = Rc::new(Directory { fd, path: old.path.clone(), mount });
        self.directories.insert(old.path.clone(), Rc::clone(&directory));
        Ok(directory)
    }

    /// No name is added to, or taken from, what was made anew: it would be gone with the instance.
    pub(super) fn close(&mut self, entry: &Entry) -> Result<(), Error> {
        self.rebuilt.iter().try_for_each(|fd| {
            mount::set_attributes(fd, attr::RDONLY, false).map_err(step(entry, "make read-only", PathBuf::new()))
        })
    }

    /// Everything in a directory but one name.
    fn contents(&self, old: &Directory, without: &OsStr) -> nix::Result<Vec<(OsString, Content)>> {
        let mut contents = Vec::new();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for found in Dir::openat(&old.fd, ".", flags, Mode::empty())?.iter() {
            let name = OsStr::from_bytes(found?.file_name().to_bytes()).to_owned();
            if name == "." || name == ".." || name == without {
                continue;
            }
            let fd = match name_in(&old.fd, &name, OFlag::empty()) {
                // Another instance has taken it away.
                Err(Errno::ENOENT) => continue,
                other => other?,
            };
            let kind = Kind::of_mode(fstat(&fd)?.st_mode);
            let mounted = mount_of(&fd)?;
            let content = if kind == Kind::Symlink && mounted == old.mount {
                Content::Symlink(readlinkat(&fd, "")?)
            } else {
                let is_directory = kind == Kind::Directory;
                let mount = match kind {
                    Kind::Symlink => {
                        mount::clone_link(&old.fd, &CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?)?
                    }
                    _ => mount::clone_descriptor(&fd, is_directory)?,
                };
                Content::Mount { mount, is_directory, ours: self.mounts.contains(&mounted) }
            };
            contents.push((name, content));
        }
        Ok(contents)
    }

    fn put(&mut self, directory: &OwnedFd, name: &OsStr, content: Content) -> nix::Result<()> {
        match content {
            Content::Symlink(to) => symlinkat(to.as_os_str(), directory, name),
            Content::Mount { mount, is_directory, ours } => {
                if ours {
                    self.mounts.push(mount_of(&mount)?);
                }
                create(directory, name, Made::point(is_directory))?;
                mount::attach(mount, name_in(directory, name, OFlag::empty())?)
            }
        }
    }

    /// Makes a directory that is mounted the root, in the place of the old one.
    fn change_root(&mut self, root: &OwnedFd) -> nix::Result<()> {
        fchdir(root)?;
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        // All of these were seen through the old one.
        self.bases.clear();
        self.links = None;
        let view = openat(AT_FDCWD, &self.layouts.view, PATH | OFlag::O_DIRECTORY, Mode::empty())?;
        self.mounts.push(mount_of(view)?);
        Ok(())
    }
}
