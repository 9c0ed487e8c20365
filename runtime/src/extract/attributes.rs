//! Owner, extended attributes, mode and time of what was created.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use xattr::FileExt;

use super::error::{Counters, Error, is_refusal};
use super::merge::{Layers, Part, as_path, damaged};
use crate::fuse::OWNER_XATTR;
use crate::squashfs::{FileKind, Inode};

/// The part of a mode that lends rights.
const SET_ID: u16 = 0o6000;

/// What overlayfs noted for itself; merging has used it up.
const OVERLAY: [&[u8]; 2] = [b"user.overlay.", b"trusted.overlay."];

/// Whether an attribute is one that overlayfs noted for itself. `user.overlay.overlay.x` is the guest's own
/// `user.overlay.x`, escaped.
pub(crate) fn is_overlays_own(name: &[u8]) -> bool {
    let rest = OVERLAY.iter().find_map(|prefix| name.strip_prefix(*prefix));
    rest.is_some_and(|rest| !rest.starts_with(b"overlay."))
}

/// Something that was just created.
pub(super) enum Made<'a> {
    /// A regular file or a directory.
    Open(&'a File),
    /// An entry of a directory of ours, which is not followed.
    Named(BorrowedFd<'a>, &'a OsStr),
}

/// What all files have in common while they get their attributes.
pub(super) struct Restorer<'a> {
    pub layers: Layers<'a>,
    pub omitted: &'a Counters,
    /// Directory that is extracted to, for messages.
    pub into: &'a Path,
    /// Every file is to be the caller's. Its owner is noted in an attribute, as in a mounted image with one user.
    pub own: bool,
}

impl Restorer<'_> {
    /// Gives `made` what `part` has, in the order that keeps everything: a change of owner clears capabilities and
    /// set-uid bits, attributes need a mode that can be written, and the time comes last.
    pub(super) fn restore(&self, made: &Made<'_>, part: &Part, path: &[u8]) -> Result<(), Error> {
        let inode = &part.inode;
        let owned = self.owner(made, inode, path)?;
        self.attributes(made, part, path)?;
        self.mode(made, inode, owned, path)?;
        let time = self.layers.time(part, path)?;
        let time = TimeSpec::new(time.seconds.into(), time.nanoseconds.into());
        let set = match made {
            Made::Open(file) => futimens(file, &time, &time),
            Made::Named(dir, name) => utimensat(dir, *name, &time, &time, UtimensatFlags::NoFollowSymlink),
        };
        set.map_err(Error::write("set the time of", self.shown(path)))
    }

    fn owner(&self, made: &Made<'_>, inode: &Inode, path: &[u8]) -> Result<bool, Error> {
        if self.own {
            return Ok(false);
        }
        let (uid, gid) = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
        let changed = match made {
            Made::Open(file) => fchown(file, uid, gid),
            Made::Named(dir, name) => fchownat(dir, *name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW),
        };
        match changed {
            Ok(()) => Ok(true),
            Err(errno) if is_refusal(Some(errno as i32)) => {
                self.omitted.owner();
                Ok(false)
            }
            Err(errno) => Err(Error::write("set the owner of", self.shown(path))(errno)),
        }
    }

    fn attributes(&self, made: &Made<'_>, part: &Part, path: &[u8]) -> Result<(), Error> {
        let inode = &part.inode;
        let mut attributes = self.layers.archives[part.layer].xattrs(inode).map_err(damaged(part.layer, path))?;
        let carries_user = matches!(inode.kind.file_kind(), FileKind::File | FileKind::Directory);
        if self.own && carries_user && (inode.uid, inode.gid) != (0, 0) {
            attributes.retain(|(name, _)| name != OWNER_XATTR.as_bytes());
            attributes.push((OWNER_XATTR.into(), format!("{}:{}", inode.uid, inode.gid).into()));
        }
        for (name, value) in attributes {
            let own = is_overlays_own(&name);
            if own && !self.layers.whiteouts {
                continue;
            }
            // Without those of a user, another overlay would show what is hidden; those of root mean nothing to it.
            let needed = own && name.starts_with(b"user.");
            match set_attribute(made, OsStr::from_bytes(&name), &value) {
                Err(error) if !needed && is_refusal(error.raw_os_error()) => self.omitted.attribute(),
                other => other.map_err(Error::write("set an extended attribute of", self.shown(path)))?,
            }
        }
        Ok(())
    }

    fn mode(&self, made: &Made<'_>, inode: &Inode, owned: bool, path: &[u8]) -> Result<(), Error> {
        let mut bits = inode.mode_perm;
        // A set-uid program of somebody else must not become one of the caller's. On directories the bits lend nothing.
        if !owned && bits & SET_ID != 0 && inode.kind.file_kind() != FileKind::Directory {
            bits &= !SET_ID;
            self.omitted.set_id();
        }
        let mode = Mode::from_bits_truncate(bits.into());
        let set = match made {
            Made::Open(file) => fchmod(file, mode),
            // A link has no mode of its own.
            Made::Named(..) if inode.kind.file_kind() == FileKind::Symlink => Ok(()),
            // Not followed in effect: the entry was just created and is no link. The flag is younger than our kernels.
            Made::Named(dir, name) => fchmodat(dir, *name, mode, FchmodatFlags::FollowSymlink),
        };
        set.map_err(Error::write("set the mode of", self.shown(path)))
    }

    /// Where `path` of the tree is extracted to.
    pub(super) fn shown(&self, path: &[u8]) -> PathBuf {
        self.into.join(as_path(path))
    }
}

fn set_attribute(made: &Made<'_>, name: &OsStr, value: &[u8]) -> io::Result<()> {
    match made {
        Made::Open(file) => file.set_xattr(name, value),
        Made::Named(dir, entry) => {
            // There is no system call that takes a directory and a name before Linux 6.13; `set` does not follow.
            let path = Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string()).join(entry);
            xattr::set(path, name, value)
        }
    }
}
