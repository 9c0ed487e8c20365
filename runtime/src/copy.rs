//! Exact copies of a user's trees: what an overlay keeps in its upper directory, and what programs have put beside it.
//!
//! The caller has the right to read all of it (for files of several owners, see [`crate::sandbox::inside`]), and nobody
//! changes the tree meanwhile. Links are never followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek};

use crate::emulation::ledger::{self, Ledger};
use crate::sys::clone_file::clone_file;
use crate::sys::status::Status;

/// A tree cannot be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy {} to {}", from.display(), to.display())]
pub struct Error {
    from: PathBuf,
    to: PathBuf,
    source: io::Error,
}

/// Copies trees of one data directory to another.
#[derive(Debug, Default)]
pub struct Copier {
    /// Where the first name of a file with several was copied to, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
    /// What the two directories remember of owners.
    owners: Option<(Ledger, Ledger)>,
}

impl Copier {
    /// For trees whose owners are remembered in one data directory, and are to be in the other.
    ///
    /// # Errors
    /// I/O errors.
    pub fn between(from: &Path, to: &Path) -> io::Result<Self> {
        if !from.join(ledger::NAME).exists() {
            return Ok(Self::default());
        }
        let (mut theirs, ours) = (Ledger::open(from)?, Ledger::open(to)?);
        let owners = if theirs.is_empty() { None } else { Some((theirs, ours)) };
        Ok(Self { owners, ..Self::default() })
    }

    /// Copies `from`, of whatever kind, to `to`, which does not exist: content, holes, names of one file, owners, modes,
    /// times and attributes.
    ///
    /// # Errors
    /// The first object that cannot be copied; what was copied before is left.
    pub fn copy(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let failed = |source: io::Error| Error { from: from.to_owned(), to: to.to_owned(), source };
        let metadata = fs::symlink_metadata(from).map_err(failed)?;
        if !metadata.is_dir() {
            return self.object(from, to, &metadata).map_err(failed);
        }
        DirBuilder::new().mode(0o700).create(to).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            self.copy(&from.join(&name), &to.join(&name))?;
        }
        attributes(from, to, &metadata).map_err(failed)
    }

    /// Copies anything but a directory.
    fn object(&mut self, from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        let inode = (metadata.dev(), metadata.ino());
        if metadata.nlink() > 1 {
            if let Some(first) = self.linked.get(&inode) {
                return fs::hard_link(first, to);
            }
            self.linked.insert(inode, to.to_owned());
        }
        if kind.is_file() {
            content(from, to, metadata.len())?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        } else {
            let node = match () {
                () if kind.is_fifo() => SFlag::S_IFIFO,
                () if kind.is_socket() => SFlag::S_IFSOCK,
                () if kind.is_block_device() => SFlag::S_IFBLK,
                () => SFlag::S_IFCHR,
            };
            mknod(to, node, Mode::from_bits_truncate(0o600), metadata.rdev())?;
        }
        attributes(from, to, metadata)?;
        if kind.is_file() { Ok(()) } else { self.remember(from, to) }
    }

    /// Takes over what is remembered of an object that carries no attribute.
    fn remember(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let Some((theirs, ours)) = &mut self.owners else { return Ok(()) };
        match theirs.get(&status(from)?, true) {
            Some(owner) => ours.set(&status(to)?, true, owner),
            None => Ok(()),
        }
    }
}

fn status(path: &Path) -> io::Result<Status> {
    let file = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    Ok(Status::of(&file, libc::AT_SYMLINK_NOFOLLOW, libc::STATX_BASIC_STATS | libc::STATX_BTIME)?)
}

/// Copies the bytes of a regular file; the holes stay.
fn content(from: &Path, to: &Path, len: u64) -> io::Result<()> {
    let source = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from)?;
    let copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    if clone_file(&copy, &source).is_ok() {
        return Ok(());
    }
    copy.set_len(len)?;
    let mut at = 0;
    loop {
        let start = match lseek(source.as_fd(), at, Whence::SeekData) {
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => return Ok(()),
            other => other?,
        };
        let end = lseek(source.as_fd(), start, Whence::SeekHole)?;
        lseek(source.as_fd(), start, Whence::SeekSet)?;
        lseek(copy.as_fd(), start, Whence::SeekSet)?;
        io::copy(&mut io::Read::take(&source, (end - start).unsigned_abs()), &mut &copy)?;
        at = end;
    }
}

/// Owner, attributes, mode and times, in the order that keeps everything: a change of owner clears capabilities and
/// set-uid bits, attributes need a mode that can be written, and the times come last.
fn attributes(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let ours = fs::symlink_metadata(to)?;
    if (ours.uid(), ours.gid()) != (metadata.uid(), metadata.gid()) {
        std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    if metadata.is_file() || metadata.is_dir() {
        for name in xattr::list(from)?.filter(|name| is_kept(name)) {
            if let Some(value) = xattr::get(from, &name)? {
                xattr::set(to, &name, &value)?;
            }
        }
    }
    if !metadata.is_symlink() {
        fs::set_permissions(to, Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    let (atime, mtime) = (
        TimeSpec::new(metadata.atime(), metadata.atime_nsec()),
        TimeSpec::new(metadata.mtime(), metadata.mtime_nsec()),
    );
    Ok(utimensat(AT_FDCWD, to, &atime, &mtime, UtimensatFlags::NoFollowSymlink)?)
}

/// Labels of security modules come from the place where a file lies.
fn is_kept(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b"security.") || name == b"security.capability"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_tree_is_copied_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("from"), base.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/file"), "content").unwrap();
        fs::set_permissions(from.join("a/file"), Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(from.join("a/file"), from.join("same")).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.write_all_at(b"end", (1 << 20) - 3).unwrap();
        xattr::set(from.join("a"), "user.fim.owner", b"33:44").unwrap();
        fs::set_permissions(from.join("a/b"), Permissions::from_mode(0o500)).unwrap();
        // What overlayfs leaves where something was deleted.
        let whiteout = mknod(&from.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0);
        let time = TimeSpec::new(1_000_000, 5);
        utimensat(AT_FDCWD, &from.join("a"), &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
        Copier::between(base.path(), base.path()).unwrap().copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("same")).unwrap(), b"content");
        let inode = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!(inode("same").ino(), inode("a/file").ino());
        assert_eq!((inode("a/file").mode() & 0o7777, inode("a/b").mode() & 0o7777), (0o640, 0o500));
        assert_eq!((inode("a").mtime(), inode("a").mtime_nsec()), (1_000_000, 5));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
        assert!(inode("pipe").file_type().is_fifo());
        assert_eq!(inode("sparse").len(), 1 << 20);
        assert!(inode("sparse").blocks() <= fs::metadata(from.join("sparse")).unwrap().blocks());
        assert_eq!(fs::read(to.join("sparse")).unwrap(), fs::read(from.join("sparse")).unwrap());
        assert_eq!(xattr::get(to.join("a"), "user.fim.owner").unwrap().as_deref(), Some(&b"33:44"[..]));
        if whiteout.is_ok() {
            assert_eq!((inode("gone").file_type().is_char_device(), inode("gone").rdev()), (true, 0));
        }
        let error = Copier::default().copy(&base.path().join("none"), &to.join("x")).unwrap_err().to_string();
        assert!(error.contains("cannot copy") && error.contains("none"), "{error}");
    }

    #[test]
    fn remembered_owners_go_along() {
        use crate::emulation::owner::Owner;
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("from"), base.path().join("to"));
        for data in [&from, &to] {
            fs::create_dir(data).unwrap();
        }
        std::os::unix::fs::symlink("x", from.join("link")).unwrap();
        let ann = Owner { uid: 1000, gid: 100, device: None };
        Ledger::open(&from).unwrap().set(&status(&from.join("link")).unwrap(), true, ann).unwrap();
        Copier::between(&from, &to).unwrap().copy(&from.join("link"), &to.join("link")).unwrap();
        let mut ours = Ledger::open(&to).unwrap();
        assert!(!ours.is_empty());
        assert_eq!(ours.get(&status(&to.join("link")).unwrap(), true), Some(ann));
    }
}
