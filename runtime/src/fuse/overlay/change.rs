//! Changes of names: making, linking, removing and renaming.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::FileAttr;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat, mknodat};
use nix::unistd::symlinkat;

use super::node::{Identity, Node};
use super::stack::{Overlay, Resolved};
use super::upper::{Found, kind};

/// What is made.
pub(super) enum Make<'a> {
    File,
    Directory,
    Symlink(&'a [u8]),
    Node(SFlag, u64),
}

/// Who makes it, as seen in the session's user namespace, and with which permission bits.
pub(super) struct Maker {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Overlay {
    /// Makes an object that does not exist; a file stays open, for it will be written.
    pub(super) fn make(
        &self,
        parent: &Arc<Node>,
        name: &[u8],
        what: &Make<'_>,
        maker: &Maker,
    ) -> Result<FileAttr, Errno> {
        self.copy_up(parent, 0)?;
        let _alone = self.alone();
        let directory = self.directory(parent)?;
        let is_hidden = match self.upper.find(&directory, name)? {
            Found::Whiteout => true,
            Found::Nothing => false,
            Found::Entry(_) => return Err(Errno::EEXIST),
        };
        if parent.state().gone {
            return Err(Errno::ENOENT);
        }
        if self.casefold {
            self.is_free(parent, name)?;
        } else if !is_hidden && self.has_below(parent, name)? {
            return Err(Errno::EEXIST);
        }
        let stored = self.upper.marks.stored(name);
        // Over a whiteout, it is completed elsewhere: there is no moment at which the layers show through.
        let staged = is_hidden.then(|| self.upper.stage());
        let (at, own) = staged.as_ref().map_or((&*directory, &stored[..]), |staged| staged.at());
        let file = Self::make_at(at, own, what, maker.mode)?;
        let mut stat = fstatat(at, own, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if (stat.st_uid, stat.st_gid) != (maker.uid, maker.gid) {
            // The group of a directory that hands it on (S_ISGID) has been taken by the kernel.
            let inherits = nix::sys::stat::fstat(&directory)?.st_mode & libc::S_ISGID != 0;
            self.upper.give(at, own, (maker.uid, if inherits { stat.st_gid } else { maker.gid }))?;
            stat = fstatat(at, own, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        if is_hidden && matches!(what, Make::Directory) {
            self.upper.set_opaque(&self.upper.open_directory(at, own)?)?;
        }
        if let Some(staged) = staged {
            staged.publish(&directory, name)?;
        }
        self.appeared(parent, name);
        let is_directory = matches!(what, Make::Directory);
        let identity = Identity { is_directory, upper: Some(stat.st_ino), lower: Vec::new() };
        let node = self.table().enter(parent, name, identity, 1);
        let resolved = Resolved { upper: Some(stat), lower: Vec::new(), is_directory };
        if let Some(file) = file {
            self.opened(&node, file);
        }
        self.attributes(node.number, &resolved)
    }

    fn make_at(at: &std::os::fd::OwnedFd, name: &[u8], what: &Make<'_>, mode: u32) -> Result<Option<File>, Errno> {
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        match what {
            Make::File => {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                return openat(at, name, flags, mode).map(|file| Some(File::from(file)));
            }
            Make::Directory => mkdirat(at, name, mode)?,
            Make::Symlink(target) => symlinkat(std::ffi::OsStr::from_bytes(target), at, name)?,
            // It would be a whiteout.
            Make::Node(kind, 0) if *kind == SFlag::S_IFCHR => return Err(Errno::EPERM),
            Make::Node(kind, device) => mknodat(at, name, *kind, mode, *device)?,
        }
        Ok(None)
    }

    /// Gives a file another name.
    pub(super) fn link(&self, node: &Arc<Node>, parent: &Arc<Node>, name: &[u8]) -> Result<FileAttr, Errno> {
        self.copy_up(node, u64::MAX)?;
        self.copy_up(parent, 0)?;
        let _alone = self.alone();
        self.is_free(parent, name)?;
        let (from, old) = self.at(node)?;
        self.upper.link((&from, &old), (&*self.directory(parent)?, name))?;
        self.appeared(parent, name);
        let ino = node.state().upper;
        let identity = Identity { is_directory: false, upper: ino, lower: Vec::new() };
        self.table().enter(parent, name, identity, 1);
        self.attributes_of(node)
    }

    /// unlink(2) and rmdir(2).
    pub(super) fn remove(&self, parent: &Arc<Node>, name: &[u8], is_directory: bool) -> Result<(), Errno> {
        self.copy_up(parent, 0)?;
        let _alone = self.alone();
        let (name, found) = self.actual(parent, name)?;
        match (is_directory, found.is_directory) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
        // No reference of the kernel's: it has one if it wants one.
        let node = self.table().enter(parent, &name, found.identity(), 0);
        if is_directory && self.list(&node)?.len() > 2 {
            return Err(Errno::ENOTEMPTY);
        }
        let hide = self.has_below(parent, &name)?;
        let directory = self.directory(parent)?;
        let held = self.held(parent, &name, &node, &found)?;
        match found.upper {
            None => self.upper.hide(&directory, &name)?,
            Some(_) if is_directory => self.upper.remove_directory(&directory, &name, hide)?,
            Some(_) => self.upper.remove(&directory, &name, hide)?,
        }
        self.vanished(parent, &name);
        self.lose(parent, &name, &node, &found, held);
        let number = node.number;
        drop(node);
        self.forget(number, 0);
        Ok(())
    }

    /// The file that is about to lose its last known name: whoever has it open goes on with it, and no request has told
    /// whether somebody has.
    fn held(
        &self,
        parent: &Arc<Node>,
        name: &[u8],
        node: &Arc<Node>,
        found: &Resolved,
    ) -> Result<Option<Arc<File>>, Errno> {
        let is_file = found.upper.is_some_and(|stat| kind(stat.st_mode) == SFlag::S_IFREG);
        if is_file && node.outlives(parent, name) { self.upper_file(node, true).map(Some) } else { Ok(None) }
    }

    /// Notes that a node has this name no more; `held` is as [`Self::held`] has found it.
    fn lose(&self, parent: &Arc<Node>, name: &[u8], node: &Arc<Node>, found: &Resolved, held: Option<Arc<File>>) {
        let mut state = node.state();
        state.names.retain(|own| !own.is(parent, name));
        if let Some(file) = held {
            state.file = Some((file, true));
        }
        drop(state);
        let links = match (&found.upper, found.lower.first()) {
            (Some(stat), _) => stat.st_nlink,
            (None, Some(&place)) => self.inode(place).map_or(1, |inode| u64::from(inode.nlink)),
            (None, None) => 1,
        };
        if node.is_directory || links < 2 {
            self.table().bury(node);
            node.state().directory = None;
        }
    }

    /// renameat2(2) without flags, or that takes no name away (`RENAME_NOREPLACE`).
    pub(super) fn rename(
        &self,
        from: (&Arc<Node>, &[u8]),
        to: (&Arc<Node>, &[u8]),
        no_replace: bool,
    ) -> Result<(), Errno> {
        let node = self.raise(from)?;
        self.copy_up(to.0, 0)?;
        let _alone = self.alone();
        let (old, found) = self.actual(from.0, from.1)?;
        let target = self.find(to.0, to.1)?;
        if no_replace && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if let Some((new, target)) = &target {
            let replaced = self.table().enter(to.0, new, target.identity(), 0);
            if Arc::ptr_eq(&replaced, &node) {
                return Ok(());
            }
            match (found.is_directory, target.is_directory) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if self.list(&replaced)?.len() > 2 => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        let (source, destination) = (self.directory(from.0)?, self.directory(to.0)?);
        let replaced = match &target {
            Some((new, target)) => {
                let replaced = self.table().enter(to.0, new, target.identity(), 0);
                let held = self.held(to.0, new, &replaced, target)?;
                Some((replaced, held))
            }
            None => None,
        };
        if let Some((new, target)) = &target
            && **new != *to.1
        {
            // What is replaced has another case, and another name to be hidden.
            let hide = self.has_below(to.0, new)?;
            match target.upper {
                None => self.upper.hide(&destination, new)?,
                Some(_) if target.is_directory => self.upper.remove_directory(&destination, new, hide)?,
                Some(_) => self.upper.remove(&destination, new, hide)?,
            }
        }
        if found.is_directory && self.has_below(to.0, to.1)? {
            self.upper.set_opaque(&*self.directory(&node)?)?;
        }
        let hide = self.has_below(from.0, &old)?;
        self.upper.rename((&source, &old), (&destination, to.1), hide)?;
        if let (Some((new, target)), Some((replaced, held))) = (&target, replaced) {
            self.vanished(to.0, new);
            self.lose(to.0, new, &replaced, target, held);
            let number = replaced.number;
            drop(replaced);
            self.forget(number, 0);
        }
        self.moved(&node, (from.0, &old), to);
        Ok(())
    }

    /// Brings what is to be moved, whole, into the upper directory.
    fn raise(&self, (parent, name): (&Arc<Node>, &[u8])) -> Result<Arc<Node>, Errno> {
        let node = {
            let _still = self.still();
            let (name, found) = self.actual(parent, name)?;
            self.table().enter(parent, &name, found.identity(), 0)
        };
        self.copy_up_tree(&node)?;
        Ok(node)
    }

    fn moved(&self, node: &Arc<Node>, from: (&Arc<Node>, &[u8]), to: (&Arc<Node>, &[u8])) {
        self.vanished(from.0, from.1);
        self.appeared(to.0, to.1);
        for own in &mut node.state().names {
            if own.is(from.0, from.1) {
                own.parent = Arc::clone(to.0);
                own.name = to.1.into();
            }
        }
    }

    /// renameat2(2) with `RENAME_EXCHANGE`.
    pub(super) fn exchange(&self, one: (&Arc<Node>, &[u8]), other: (&Arc<Node>, &[u8])) -> Result<(), Errno> {
        let nodes = (self.raise(one)?, self.raise(other)?);
        let _alone = self.alone();
        let names = (self.actual(one.0, one.1)?.0, self.actual(other.0, other.1)?.0);
        let directories = (self.directory(one.0)?, self.directory(other.0)?);
        for (node, parent, name) in [(&nodes.0, other.0, &names.1), (&nodes.1, one.0, &names.0)] {
            if node.is_directory && self.has_below(parent, name)? {
                self.upper.set_opaque(&*self.directory(node)?)?;
            }
        }
        self.upper.exchange((&directories.0, &names.0), (&directories.1, &names.1))?;
        let (first, second) = ((one.0, &*names.0), (other.0, &*names.1));
        self.moved(&nodes.0, first, second);
        self.moved(&nodes.1, second, first);
        // Each name is there as before.
        self.appeared(one.0, &names.0);
        self.appeared(other.0, &names.1);
        Ok(())
    }
}
