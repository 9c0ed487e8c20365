//! Copy-up: what is to be changed is first brought from its layer into the upper directory, complete and at once.
//!
//! An object is put together in the staging directory and gets its name when nothing is missing, as the kernel's
//! overlayfs does it. Other than there, all names of a hard link come up with the first.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, symlinkat};

use super::super::{attr, xattr as stored};
use super::listing;
use super::node::{Name, Node, Place};
use super::stack::{Overlay, Resolved};
use super::upper::{Staged, errno, path};
use super::xattrs::is_private;
use crate::squashfs::{Extent, Inode, Kind, Time, device_parts};

/// Bytes that are copied at a time.
const CHUNK: u32 = 1 << 20;

fn spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds.into(), time.nanoseconds.into())
}

impl Overlay {
    /// Brings a node, and the directories on the way to it, into the upper directory. Of a file, no more than `limit`
    /// bytes are needed.
    pub(super) fn copy_up(&self, node: &Arc<Node>, limit: u64) -> Result<(), Errno> {
        if node.state().upper.is_some() {
            return Ok(());
        }
        let _copying = node.copying.lock().unwrap_or_else(PoisonError::into_inner);
        if node.state().upper.is_some() {
            return Ok(());
        }
        let place = *node.state().lower.first().ok_or(Errno::ENOENT)?;
        let inode = self.inode(place)?;
        let mut others = self.other_names(node, place, &inode)?;
        if node.place().is_none() {
            // Opened by a name that is gone; another still leads to it.
            node.state().names.extend(others.pop());
        }
        match node.place() {
            Some((parent, _)) => self.copy_up(&parent, 0)?,
            // Somebody has it open; nobody will find it.
            None if matches!(inode.kind, Kind::File { .. }) => {}
            None => return Err(Errno::ENOENT),
        }
        let staged = self.upper.stage();
        let (ino, file) = self.fill(&staged, place, &inode, limit)?;
        let alone = self.alone();
        if node.place().is_none() {
            let file = file.ok_or(Errno::ENOENT)?;
            self.table().rise(node, ino);
            self.opened(node, file);
            return Ok(());
        }
        // It may have been moved meanwhile.
        let (directory, name) = self.at(node)?;
        self.table().rise(node, ino);
        if let Err(errno) = staged.publish(&directory, &name) {
            node.state().upper = None;
            return Err(errno);
        }
        if let Some(file) = file {
            self.opened(node, file);
        }
        for Name { parent, name: other } in others {
            // Unless somebody has put something else there.
            if matches!(self.resolve(&parent, &other)?, Some(Resolved { upper: None, lower, .. }) if lower[..] == [place])
            {
                self.upper.link((&*directory, &name[..]), (&*self.directory(&parent)?, &other[..]))?;
            }
        }
        drop(alone);
        Ok(())
    }

    /// Makes the copy: contents first, and the time last. Returns its inode number; a file stays open.
    fn fill(&self, staged: &Staged<'_>, place: Place, inode: &Inode, limit: u64) -> Result<(u64, Option<File>), Errno> {
        let (staging, name) = staged.at();
        let device = |rdev: u32| {
            let (major, minor) = device_parts(rdev);
            libc::makedev(major, minor)
        };
        let node = |kind, rdev| mknodat(staging, name, kind, Mode::S_IRUSR, rdev);
        match &inode.kind {
            Kind::File { size, .. } => {
                return self.copy_file(staged, place, inode, (*size).min(limit));
            }
            Kind::Directory { .. } => mkdirat(staging, name, Mode::S_IRWXU)?,
            Kind::Symlink { target, .. } => {
                symlinkat(OsStr::from_bytes(target), staging, name)?;
            }
            Kind::BlockDevice { rdev } => node(SFlag::S_IFBLK, device(*rdev))?,
            Kind::CharDevice { rdev } => node(SFlag::S_IFCHR, device(*rdev))?,
            Kind::Fifo => node(SFlag::S_IFIFO, 0)?,
            Kind::Socket => node(SFlag::S_IFSOCK, 0)?,
        }
        let changed = self.blocks.time(place.layer, inode);
        let shown = attr::of_inode(0, inode, changed, &self.owners);
        let made = fstatat(staging, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if (made.st_uid, made.st_gid) != (shown.uid, shown.gid) {
            self.upper.give(staging, name, (shown.uid, shown.gid))?;
        }
        if !matches!(inode.kind, Kind::Symlink { .. }) {
            staged.set_mode(u32::from(inode.mode_perm))?;
        }
        self.copy_attributes(staging, name, place, inode)?;
        let time = spec(changed);
        utimensat(staging, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok((made.st_ino, None))
    }

    /// As [`Self::fill`], of a file.
    fn copy_file(
        &self,
        staged: &Staged<'_>,
        place: Place,
        inode: &Inode,
        size: u64,
    ) -> Result<(u64, Option<File>), Errno> {
        let (staging, name) = staged.at();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(u32::from(inode.mode_perm));
        let file = File::from(openat(staging, name, flags, mode & !(Mode::S_ISUID | Mode::S_ISGID))?);
        self.copy_contents(&file, place, inode, size)?;
        let changed = self.blocks.time(place.layer, inode);
        let shown = attr::of_inode(0, inode, changed, &self.owners);
        let made = fstat(&file)?;
        if (made.st_uid, made.st_gid) != (shown.uid, shown.gid) {
            fchown(&file, Some(Uid::from_raw(shown.uid)), Some(Gid::from_raw(shown.gid)))?;
        }
        if made.st_mode & 0o7777 != mode.bits() {
            fchmod(&file, mode)?;
        }
        self.copy_attributes(staging, name, place, inode)?;
        let time = spec(changed);
        futimens(&file, &time, &time)?;
        // A crash must not leave a name whose contents never came to the medium: the layer's are hidden by then.
        if size > 0 {
            nix::unistd::fdatasync(&file)?;
        }
        Ok((made.st_ino, Some(file)))
    }

    fn copy_contents(&self, file: &File, place: Place, inode: &Inode, size: u64) -> Result<(), Errno> {
        let (inode, mut joined) = (Arc::new(inode.clone()), Vec::new());
        let archive = &self.blocks.layers()[place.layer];
        let next = |from: u64, wanted| {
            let found = archive.next_extent(&inode, from, wanted).map_err(|error| self.damaged(place.layer, &error))?;
            Ok::<_, Errno>(found.unwrap_or(size).min(size))
        };
        let mut copied = 0;
        // Holes stay holes.
        loop {
            let mut offset = next(copied, Extent::Data)?;
            let end = next(offset, Extent::Hole)?;
            if offset >= end {
                break;
            }
            while offset < end {
                let len = u32::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
                let answer = self.reader.read(place.number(), place.layer, &inode, offset, len, &mut joined);
                let answer = answer.map_err(|_| Errno::EIO)?;
                let bytes = answer.as_slice();
                if bytes.is_empty() {
                    return Err(Errno::EIO);
                }
                file.write_all_at(bytes, offset).map_err(|error| errno(&error))?;
                offset += bytes.len() as u64;
            }
            copied = end;
        }
        if copied == size { Ok(()) } else { file.set_len(size).map_err(|error| errno(&error)) }
    }

    fn copy_attributes(&self, staging: &OwnedFd, name: &[u8], place: Place, inode: &Inode) -> Result<(), Errno> {
        let archive = &self.blocks.layers()[place.layer];
        let damaged = |error| self.damaged(place.layer, &error);
        let names = stored::names(archive, inode, &self.owners).map_err(damaged)?;
        for key in names.split(|&byte| byte == 0).filter(|key| !key.is_empty() && !is_private(key)) {
            let Some(value) = stored::value(archive, inode, &self.owners, key).map_err(damaged)? else { continue };
            match xattr::set(path(staging, name), OsStr::from_bytes(key), &value).map_err(|error| errno(&error)) {
                // The file system has none, or the attribute is for real root only.
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EPERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// The other names of a hard link that still lead to the layer, with their directories in the upper directory.
    fn other_names(&self, node: &Node, place: Place, inode: &Inode) -> Result<Vec<Name>, Errno> {
        if node.is_directory || inode.nlink < 2 {
            return Ok(Vec::new());
        }
        let archive = &self.blocks.layers()[place.layer];
        let paths = self.links.names(place.layer, archive, place.inode);
        let paths = paths.map_err(|error| self.damaged(place.layer, &error))?;
        let own = node.place();
        let mut names = Vec::new();
        for path in paths {
            let Some((name, parents)) = path.split_last() else { continue };
            let Some(parent) = self.walk(parents)? else { continue };
            if own.as_ref().is_some_and(|(own, last)| Arc::ptr_eq(own, &parent) && **last == **name) {
                continue;
            }
            let found = {
                let _still = self.still();
                self.resolve(&parent, name)?
            };
            if matches!(found, Some(Resolved { upper: None, lower, .. }) if lower[..] == [place]) {
                self.copy_up(&parent, 0)?;
                names.push(Name { parent, name: name.clone() });
            }
        }
        Ok(names)
    }

    /// The directory at a path; `None` where there is none.
    fn walk(&self, path: &[Box<[u8]>]) -> Result<Option<Arc<Node>>, Errno> {
        let mut node = self.node(fuser::INodeNo(super::node::ROOT))?;
        for name in path {
            let _still = self.still();
            let Some(resolved) = self.resolve(&node, name)?.filter(|resolved| resolved.is_directory) else {
                return Ok(None);
            };
            node = self.table().enter(&node, name, resolved.identity(), 0);
        }
        Ok(Some(node))
    }

    /// Brings a directory and all that is in it into the upper directory, and makes it opaque: from then on it can be
    /// moved.
    pub(super) fn copy_up_tree(&self, node: &Arc<Node>) -> Result<(), Errno> {
        self.copy_up(node, u64::MAX)?;
        if !node.is_directory || node.state().lower.is_empty() {
            return Ok(());
        }
        let entries = {
            let _still = self.still();
            self.list(node)?
        };
        for entry in entries.iter().filter(|entry| !listing::is_dot(&entry.name)) {
            let child = {
                let _still = self.still();
                let Some(resolved) = self.resolve(node, &entry.name)? else { continue };
                if resolved.upper.is_some() && resolved.lower.is_empty() {
                    continue;
                }
                self.table().enter(node, &entry.name, resolved.identity(), 1)
            };
            let copied = self.copy_up_tree(&child);
            let number = child.number;
            drop(child);
            self.forget(number, 1);
            copied?;
        }
        let _alone = self.alone();
        let directory = self.directory(node)?;
        self.upper.set_opaque(&directory)?;
        node.state().lower = Arc::from([]);
        self.upper.clear_whiteouts(&directory)
    }
}
