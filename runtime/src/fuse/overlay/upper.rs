//! The upper directory: the one place where the overlay changes anything.
//!
//! Everything is reached by an open directory and one name in it, and no link is followed: what a guest puts there
//! cannot lead out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmodat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, unlinkat};
use std::os::unix::ffi::OsStrExt;

use super::marks::{Marks, Meaning, OPAQUE_FILE, OPAQUE_XATTR};

/// Directory in the overlay's work directory in which objects are completed before they get their name.
const STAGING: &str = "staging";

/// What the upper directory says of a name.
pub(super) enum Found {
    /// There is this.
    Entry(FileStat),
    /// What the layers have is gone.
    Whiteout,
    /// It has no say.
    Nothing,
}

/// An open upper directory.
pub(super) struct Upper {
    pub(super) root: std::sync::Arc<OwnedFd>,
    staging: OwnedFd,
    pub(super) marks: Marks,
    staged: AtomicU64,
}

/// The type in a mode.
pub(super) fn kind(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// A name in an open directory as a path, for calls that know no directories.
pub(super) fn path(directory: impl AsFd, name: &[u8]) -> PathBuf {
    let directory = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    Path::new(&directory).join(std::ffi::OsStr::from_bytes(name))
}

/// The number in an I/O error.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Upper {
    /// Opens `root`, with `work` on the same file system, and removes what a killed server left there.
    ///
    /// # Errors
    /// As open(2) and mkdir(2).
    pub(super) fn open(root: &Path, work: &Path, marks: Marks) -> nix::Result<Self> {
        let root = nix::fcntl::open(root, directory_flags(), Mode::empty())?;
        let work = nix::fcntl::open(work, directory_flags(), Mode::empty())?;
        remove_tree(&work, STAGING.as_bytes())?;
        mkdirat(&work, STAGING, Mode::S_IRWXU)?;
        let staging = openat(&work, STAGING, directory_flags(), Mode::empty())?;
        Ok(Self { root: std::sync::Arc::new(root), staging, marks, staged: AtomicU64::new(0) })
    }

    /// What is known of a name of the guest.
    pub(super) fn find(&self, directory: &OwnedFd, name: &[u8]) -> nix::Result<Found> {
        match self.stat(directory, name) {
            Ok(stat) if self.marks == Marks::Kernel && is_whiteout(&stat) => Ok(Found::Whiteout),
            Ok(stat) => Ok(Found::Entry(stat)),
            Err(Errno::ENOENT) if self.marks == Marks::Plain => {
                match fstatat(directory, &self.marks.whiteout(name)[..], AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Ok(_) => Ok(Found::Whiteout),
                    // A name as long as can be has no whiteout.
                    Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(Found::Nothing),
                    Err(errno) => Err(errno),
                }
            }
            Err(Errno::ENOENT) => Ok(Found::Nothing),
            Err(errno) => Err(errno),
        }
    }

    /// lstat(2) of a name of the guest.
    pub(super) fn stat(&self, directory: &OwnedFd, name: &[u8]) -> nix::Result<FileStat> {
        fstatat(directory, &self.marks.stored(name)[..], AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    pub(super) fn open_directory(&self, parent: &OwnedFd, name: &[u8]) -> nix::Result<OwnedFd> {
        openat(parent, &self.marks.stored(name)[..], directory_flags(), Mode::empty())
    }

    /// Opens a file of the guest; it is not made.
    pub(super) fn open_file(&self, parent: &OwnedFd, name: &[u8], flags: OFlag) -> nix::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        openat(parent, &self.marks.stored(name)[..], flags, Mode::empty()).map(File::from)
    }

    /// Whether a directory hides those of the layers.
    pub(super) fn is_opaque(&self, directory: &OwnedFd) -> bool {
        match self.marks {
            Marks::Kernel => {
                let value = xattr::get_deref(path(directory, b"."), OPAQUE_XATTR);
                matches!(value.as_ref().map(Option::as_deref), Ok(Some(b"y")))
            }
            Marks::Plain => fstatat(directory, OPAQUE_FILE, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok(),
        }
    }

    /// Makes a directory hide those of the layers.
    pub(super) fn set_opaque(&self, directory: &OwnedFd) -> nix::Result<()> {
        match self.marks {
            Marks::Kernel => xattr::set_deref(path(directory, b"."), OPAQUE_XATTR, b"y").map_err(|error| errno(&error)),
            Marks::Plain => touch_again(directory, OPAQUE_FILE),
        }
    }

    /// Removes the whiteouts of a directory that is opaque: they mean nothing there, and the kernel's overlay would list
    /// them.
    pub(super) fn clear_whiteouts(&self, directory: &OwnedFd) -> nix::Result<()> {
        let mut names = Vec::new();
        self.entries(directory, &mut |meaning, _, _| {
            if let Meaning::Whiteout(name) = meaning {
                names.push(name);
            }
        })?;
        names.iter().try_for_each(|name| self.unhide(directory, name))
    }

    /// Says that a name of the layers is gone. Nothing has the name; an entry of plain marks hides its whiteout.
    pub(super) fn hide(&self, directory: &OwnedFd, name: &[u8]) -> nix::Result<()> {
        let whiteout = self.marks.whiteout(name);
        match self.marks {
            Marks::Kernel => mknodat(directory, &whiteout[..], SFlag::S_IFCHR, Mode::empty(), 0),
            Marks::Plain => touch_again(directory, &whiteout),
        }
    }

    /// Takes back that a name is gone.
    fn unhide(&self, directory: &OwnedFd, name: &[u8]) -> nix::Result<()> {
        match unlinkat(directory, &self.marks.whiteout(name)[..], UnlinkatFlags::NoRemoveDir) {
            // Too long a name has no whiteout.
            Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(()),
            other => other,
        }
    }

    /// A new name in the staging directory.
    pub(super) fn stage(&self) -> Staged<'_> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        Staged { upper: self, name: number.to_string().into_bytes(), published: false }
    }

    /// Removes an entry, which is no directory, and leaves a whiteout if `hide`.
    pub(super) fn remove(&self, directory: &OwnedFd, name: &[u8], hide: bool) -> nix::Result<()> {
        let stored = self.marks.stored(name);
        match (hide, self.marks) {
            (true, Marks::Kernel) => {
                let staged = self.stage();
                mknodat(&self.staging, &staged.name[..], SFlag::S_IFCHR, Mode::empty(), 0)?;
                staged.replace(directory, &stored)
            }
            (true, Marks::Plain) => {
                self.hide(directory, name)?;
                unlinkat(directory, &stored[..], UnlinkatFlags::NoRemoveDir)
            }
            (false, _) => unlinkat(directory, &stored[..], UnlinkatFlags::NoRemoveDir),
        }
    }

    /// Removes a directory, in which nothing but marks is left, and leaves a whiteout if `hide`.
    pub(super) fn remove_directory(&self, directory: &OwnedFd, name: &[u8], hide: bool) -> nix::Result<()> {
        let stored = self.marks.stored(name);
        let staged = self.stage();
        match (hide, self.marks) {
            (true, Marks::Kernel) => {
                mknodat(&self.staging, &staged.name[..], SFlag::S_IFCHR, Mode::empty(), 0)?;
                exchange(&self.staging, &staged.name, directory, &stored)?;
            }
            (hide, _) => {
                if hide {
                    self.hide(directory, name)?;
                }
                renameat(directory, &stored[..], &self.staging, &staged.name[..])?;
            }
        }
        remove_tree(&self.staging, &staged.name)
    }

    /// Gives an entry another place, where nothing but a whiteout, or an object that can be replaced, may be; leaves a
    /// whiteout at the old one if `hide`.
    pub(super) fn rename(&self, from: (&OwnedFd, &[u8]), to: (&OwnedFd, &[u8]), hide: bool) -> nix::Result<()> {
        let (old, new) = (self.marks.stored(from.1), self.marks.stored(to.1));
        if self.marks == Marks::Plain {
            if hide {
                self.hide(from.0, from.1)?;
            }
            self.make_room(to.0, &new)?;
            renameat(from.0, &old[..], to.0, &new[..])?;
            return self.unhide(to.0, to.1);
        }
        let is_directory = kind(fstatat(from.0, &old[..], AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode) == SFlag::S_IFDIR;
        match fstatat(to.0, &new[..], AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if is_directory || kind(stat.st_mode) == SFlag::S_IFDIR => {
                // What was there, a whiteout or a directory with nothing but whiteouts, comes to the old place first.
                exchange(from.0, &old, to.0, &new)?;
                match (hide, is_whiteout(&stat)) {
                    (true, true) => Ok(()),
                    (false, true) => unlinkat(from.0, &old[..], UnlinkatFlags::NoRemoveDir),
                    (hide, false) => self.remove_directory(from.0, from.1, hide),
                }
            }
            Err(errno) if errno != Errno::ENOENT => Err(errno),
            _ if hide => match renameat2(from.0, &old[..], to.0, &new[..], RenameFlags::RENAME_WHITEOUT) {
                Err(Errno::EINVAL) => {
                    renameat(from.0, &old[..], to.0, &new[..])?;
                    self.hide(from.0, from.1)
                }
                other => other,
            },
            _ => renameat(from.0, &old[..], to.0, &new[..]),
        }
    }

    /// Moves a directory that may have marks in it out of the way of a rename.
    fn make_room(&self, directory: &OwnedFd, stored: &[u8]) -> nix::Result<()> {
        match fstatat(directory, stored, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if kind(stat.st_mode) == SFlag::S_IFDIR => {
                let staged = self.stage();
                renameat(directory, stored, &self.staging, &staged.name[..])?;
                remove_tree(&self.staging, &staged.name)
            }
            _ => Ok(()),
        }
    }

    /// Exchanges two entries.
    pub(super) fn exchange(&self, one: (&OwnedFd, &[u8]), other: (&OwnedFd, &[u8])) -> nix::Result<()> {
        exchange(one.0, &self.marks.stored(one.1), other.0, &self.marks.stored(other.1))
    }

    /// Gives a file another name, where nothing but a whiteout may be.
    pub(super) fn link(&self, from: (&OwnedFd, &[u8]), to: (&OwnedFd, &[u8])) -> nix::Result<()> {
        let (old, new) = (self.marks.stored(from.1), self.marks.stored(to.1));
        match linkat(from.0, &old[..], to.0, &new[..], LinkatFlags::empty()) {
            Err(Errno::EEXIST) if self.marks == Marks::Kernel => {
                let staged = self.stage();
                linkat(from.0, &old[..], &self.staging, &staged.name[..], LinkatFlags::empty())?;
                staged.publish(to.0, to.1)
            }
            Ok(()) if self.marks == Marks::Plain => self.unhide(to.0, to.1),
            other => other,
        }
    }

    /// The entries of a directory: meaning, type where the file system tells it, and inode number.
    pub(super) fn entries(&self, directory: &OwnedFd, each: &mut dyn FnMut(Meaning, SFlag, u64)) -> nix::Result<()> {
        let own = openat(directory, ".", directory_flags(), Mode::empty())?;
        let mut listing = nix::dir::Dir::from_fd(own)?;
        for entry in listing.iter() {
            let entry = entry?;
            let stored = entry.file_name().to_bytes();
            if matches!(stored, b"." | b"..") {
                continue;
            }
            let mut meaning = self.marks.meaning(stored);
            let mut kind = entry.file_type().map_or(SFlag::empty(), flag);
            if kind.is_empty() || (self.marks == Marks::Kernel && kind == SFlag::S_IFCHR) {
                let Ok(stat) = fstatat(directory, stored, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
                kind = self::kind(stat.st_mode);
                if self.marks == Marks::Kernel && is_whiteout(&stat) {
                    meaning = Meaning::Whiteout(stored.to_vec());
                }
            }
            each(meaning, kind, entry.ino());
        }
        Ok(())
    }

    /// lchown(2) of a stored name.
    pub(super) fn give(&self, directory: &OwnedFd, stored: &[u8], owner: (u32, u32)) -> nix::Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        fchownat(directory, stored, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}

fn flag(kind: nix::dir::Type) -> SFlag {
    use nix::dir::Type;
    match kind {
        Type::Fifo => SFlag::S_IFIFO,
        Type::CharacterDevice => SFlag::S_IFCHR,
        Type::Directory => SFlag::S_IFDIR,
        Type::BlockDevice => SFlag::S_IFBLK,
        Type::File => SFlag::S_IFREG,
        Type::Symlink => SFlag::S_IFLNK,
        Type::Socket => SFlag::S_IFSOCK,
    }
}

fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat.st_mode) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Makes an empty file unless it exists.
fn touch_again(directory: &OwnedFd, name: &[u8]) -> nix::Result<()> {
    match mknodat(directory, name, SFlag::S_IFREG, Mode::S_IRUSR | Mode::S_IWUSR, 0) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

fn exchange(one: &OwnedFd, old: &[u8], other: &OwnedFd, new: &[u8]) -> nix::Result<()> {
    renameat2(one, old, other, new, RenameFlags::RENAME_EXCHANGE)
}

/// Removes an object and all below it; what does not exist is fine.
fn remove_tree(directory: &OwnedFd, name: &[u8]) -> nix::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(Errno::ENOENT) => return Ok(()),
        other => return other,
    }
    match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
        other => return other,
    }
    let inner = openat(directory, name, directory_flags(), Mode::empty())?;
    let mut listing = nix::dir::Dir::from_fd(inner.try_clone().map_err(|error| errno(&error))?)?;
    let names: Vec<Vec<u8>> =
        listing.iter().filter_map(|entry| Some(entry.ok()?.file_name().to_bytes().to_vec())).collect();
    for name in names.iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
        remove_tree(&inner, name)?;
    }
    unlinkat(directory, name, UnlinkatFlags::RemoveDir)
}

/// Whether the file system of `directory` can hold the marks of the kernel's overlay; tried there, and nothing is left.
///
/// # Errors
/// When nothing at all can be made there.
pub fn takes_kernel_marks(directory: &Path) -> io::Result<bool> {
    let directory = nix::fcntl::open(directory, directory_flags(), Mode::empty())?;
    let probe = &b"probe"[..];
    remove_tree(&directory, probe)?;
    mkdirat(&directory, probe, Mode::S_IRWXU)?;
    let inner = openat(&directory, probe, directory_flags(), Mode::empty())?;
    let node = mknodat(&inner, &b"whiteout"[..], SFlag::S_IFCHR, Mode::empty(), 0);
    let attribute = xattr::set(path(&directory, probe), OPAQUE_XATTR, b"y");
    let exchanged =
        mkdirat(&inner, &b"other"[..], Mode::S_IRWXU).and_then(|()| exchange(&inner, b"whiteout", &inner, b"other"));
    remove_tree(&directory, probe)?;
    Ok(node.is_ok() && attribute.is_ok() && exchanged.is_ok())
}

/// An object that is being completed; it is removed again unless it gets its name.
pub(super) struct Staged<'a> {
    upper: &'a Upper,
    name: Vec<u8>,
    published: bool,
}

impl Staged<'_> {
    /// Where it lies.
    pub(super) fn at(&self) -> (&OwnedFd, &[u8]) {
        (&self.upper.staging, &self.name)
    }

    pub(super) fn set_mode(&self, mode: u32) -> nix::Result<()> {
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        fchmodat(&self.upper.staging, &self.name[..], mode, nix::sys::stat::FchmodatFlags::FollowSymlink)
    }

    /// Gives it a name of the guest, at which nothing but a whiteout may be.
    pub(super) fn publish(mut self, directory: &OwnedFd, name: &[u8]) -> nix::Result<()> {
        let stored = self.upper.marks.stored(name);
        let staging = &self.upper.staging;
        if self.upper.marks == Marks::Plain {
            renameat(staging, &self.name[..], directory, &stored[..])?;
            self.published = true;
            return self.upper.unhide(directory, name);
        }
        match renameat2(staging, &self.name[..], directory, &stored[..], RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            // The whiteout comes here and goes with this name.
            Err(Errno::EEXIST) => exchange(staging, &self.name, directory, &stored),
            Err(errno) => Err(errno),
        }
    }

    /// Gives it a stored name, whose object it replaces.
    fn replace(mut self, directory: &OwnedFd, stored: &[u8]) -> nix::Result<()> {
        renameat(&self.upper.staging, &self.name[..], directory, stored)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is removed when the next session begins.
            let _ = remove_tree(&self.upper.staging, &self.name);
        }
    }
}
