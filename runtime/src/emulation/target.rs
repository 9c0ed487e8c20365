//! The process whose call waits: its memory, and its view of the file system.
//!
//! Everything here is reached through `/proc/THREAD/…` of the supervisor's own PID namespace. Whatever was opened is
//! used only after the kernel has confirmed that the call still waits, for then the number still names that thread.
//! The guest may change its memory and its directories at any time: what is read here decides about nothing but the
//! guest's own files, by paths that are walked inside the guest's own root and never through a magic link of proc.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use super::Handles;
use super::identity::Program;
use crate::sys::notifier::{Listener, Notification};

/// Longest path, its zero byte included (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The working directory.
    Directory,
    /// A descriptor.
    Descriptor(i32),
}

impl Base {
    /// The first argument of the `…at` calls.
    #[must_use]
    pub fn at(argument: u64) -> Self {
        match argument as i32 {
            libc::AT_FDCWD => Self::Directory,
            fd => Self::Descriptor(fd),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Directory => "cwd".to_owned(),
            Self::Descriptor(fd) => format!("fd/{fd}"),
        }
    }
}

/// The object of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where its path begins, or the object itself.
    pub base: Base,
    /// Address of its path; `None` when the object is the base itself.
    pub path: Option<u64>,
    /// Whether a symlink at the end is followed.
    pub follow: bool,
    /// Whether an empty path means the base itself.
    pub empty: bool,
}

impl Place {
    /// A path of the calls without a base.
    #[must_use]
    pub fn path(address: u64, follow: bool) -> Self {
        Self { base: Base::Directory, path: Some(address), follow, empty: false }
    }

    /// A path below a base, with the `AT_*` flags of the call.
    ///
    /// # Errors
    /// `EINVAL` for a flag that is none of `known`.
    pub fn at(base: u64, address: u64, flags: u64, known: i32) -> nix::Result<Self> {
        let flags = flags as i32;
        if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | known) != 0 {
            return Err(Errno::EINVAL);
        }
        let empty = flags & libc::AT_EMPTY_PATH != 0;
        // Linux 6.11 takes a null path for an empty one.
        let path = (address != 0 || !empty).then_some(address);
        Ok(Self { base: Base::at(base), path, follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0, empty })
    }

    /// An open descriptor.
    #[must_use]
    pub fn descriptor(fd: u64) -> Self {
        Self { base: Base::Descriptor(fd as i32), path: None, follow: false, empty: true }
    }
}

/// The process.
pub(super) struct Target<'a> {
    pub(super) handles: &'a Handles,
    pub(super) listener: &'a Listener,
    pub(super) call: &'a Notification,
}

impl Target<'_> {
    /// Opens `/proc/THREAD/name` and makes sure that the thread is the one that waits.
    fn open(&self, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let path = format!("{}/{name}", self.call.thread);
        let fd = openat(&self.handles.processes, path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())?;
        if self.listener.waits(self.call.id) { Ok(fd) } else { Err(Errno::ESRCH) }
    }

    fn memory(&self, flags: OFlag) -> nix::Result<File> {
        self.open("mem", flags).map(File::from)
    }

    /// Reads bytes at an address; fewer than asked for where the memory ends.
    ///
    /// # Errors
    /// `EFAULT`, `ESRCH`.
    pub(super) fn read(&self, address: u64, len: usize) -> nix::Result<Vec<u8>> {
        let memory = self.memory(OFlag::O_RDONLY)?;
        let mut bytes = vec![0; len];
        let read = memory.read_at(&mut bytes, address).map_err(|_| Errno::EFAULT)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Writes bytes at an address.
    ///
    /// # Errors
    /// `EFAULT`, `ESRCH`.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> nix::Result<()> {
        self.memory(OFlag::O_WRONLY)?.write_all_at(bytes, address).map_err(|_| Errno::EFAULT)
    }

    /// Reads a path.
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`, `ESRCH`.
    pub(super) fn path(&self, address: u64) -> nix::Result<CString> {
        let memory = self.memory(OFlag::O_RDONLY)?;
        // Most paths are short; a read stops where the memory ends.
        let mut bytes = Vec::new();
        for len in [256, PATH_MAX - 256] {
            let from = bytes.len();
            bytes.resize(from + len, 0);
            let read = memory.read_at(&mut bytes[from..], address + from as u64).map_err(|_| Errno::EFAULT)?;
            bytes.truncate(from + read);
            if let Ok(path) = CStr::from_bytes_until_nul(&bytes) {
                return Ok(path.to_owned());
            }
        }
        Err(if bytes.len() == PATH_MAX { Errno::ENAMETOOLONG } else { Errno::EFAULT })
    }

    /// The file creation mask.
    ///
    /// # Errors
    /// `ESRCH`, `EIO` when the kernel does not tell it.
    pub(super) fn umask(&self) -> nix::Result<u32> {
        let status = File::from(self.open("status", OFlag::O_RDONLY)?);
        let text = std::io::read_to_string(status).map_err(|_| Errno::ESRCH)?;
        let mask = text.lines().find_map(|line| line.strip_prefix("Umask:")).map(str::trim);
        mask.and_then(|mask| u32::from_str_radix(mask, 8).ok()).ok_or(Errno::EIO)
    }

    /// What tells the program that runs now from the next (field 28 of proc_pid_stat(5)).
    ///
    /// # Errors
    /// `ESRCH`, `EIO` when the kernel does not tell it.
    pub(super) fn program(&self) -> nix::Result<Program> {
        let stat = File::from(self.open("stat", OFlag::O_RDONLY)?);
        let mut bytes = Vec::new();
        (&stat).read_to_end(&mut bytes).map_err(|_| Errno::ESRCH)?;
        // The name stands in parentheses and may hold anything; the field behind the last ')' is the third.
        let end = bytes.iter().rposition(|&byte| byte == b')').ok_or(Errno::EIO)?;
        let field = bytes[end + 1..].split(|&byte| byte == b' ').filter(|field| !field.is_empty()).nth(25);
        field.and_then(|field| std::str::from_utf8(field).ok()?.parse().ok()).ok_or(Errno::EIO)
    }

    /// Opens the object of a call as a path, which neither reads nor changes it.
    ///
    /// # Errors
    /// As open(2), and `ELOOP` where the way leads through a magic link of proc.
    pub(super) fn object(&self, place: &Place) -> nix::Result<OwnedFd> {
        let Some(address) = place.path else { return self.base(place.base) };
        let path = self.path(address)?;
        if path.is_empty() {
            return if place.empty { self.base(place.base) } else { Err(Errno::ENOENT) };
        }
        if place.follow
            && let Some(fd) = own_descriptor(&path)
        {
            return self.base(Base::Descriptor(fd));
        }
        let last = if place.follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        self.walk(place.base, &path, last)
    }

    /// The directory in which a path ends, and the last name. A path that ends in no name of its own (`/`, `.`, `..`)
    /// is nothing that could be made.
    ///
    /// # Errors
    /// As [`Target::object`]; `EINVAL` for such a path.
    pub(super) fn parent(&self, base: Base, address: u64) -> nix::Result<(OwnedFd, CString)> {
        let path = self.path(address)?;
        let bytes = path.to_bytes();
        let at = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        let (directory, name) = bytes.split_at(at);
        if matches!(name, b"" | b"." | b"..") {
            return Err(Errno::EINVAL);
        }
        let directory = CString::new(if directory.is_empty() { b"." } else { directory }).map_err(|_| Errno::EINVAL)?;
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        Ok((self.walk(base, &directory, OFlag::O_DIRECTORY)?, name))
    }

    fn base(&self, base: Base) -> nix::Result<OwnedFd> {
        self.open(&base.name(), OFlag::O_PATH)
    }

    /// Walks a path as the process would, from its own root and directory. The calling thread shares neither with any
    /// other; it stays in the directory of its descriptors.
    fn walk(&self, base: Base, path: &CStr, last: OFlag) -> nix::Result<OwnedFd> {
        let root = self.open("root", OFlag::O_PATH)?;
        let start = if path.to_bytes().starts_with(b"/") { None } else { Some(self.base(base)?) };
        let how =
            OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | last).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let walked = fchdir(&root)
            .and_then(|()| chroot("."))
            .and_then(|()| start.as_ref().map_or(Ok(()), |start| fchdir(start.as_fd())))
            .and_then(|()| openat2(AT_FDCWD, path, how));
        fchdir(&self.handles.descriptors)?;
        walked
    }
}

/// The number in `/proc/self/fd/NUMBER`, the way to an open file that libraries take where a call needs a path.
fn own_descriptor(path: &CStr) -> Option<i32> {
    let path = std::ffi::OsStr::from_bytes(path.to_bytes()).to_str()?;
    let number = ["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"]
        .iter()
        .find_map(|directory| path.strip_prefix(directory))?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_descriptors() {
        assert_eq!(own_descriptor(c"/proc/self/fd/12"), Some(12));
        assert_eq!(own_descriptor(c"/dev/fd/0"), Some(0));
        for path in
            [c"/proc/self/fd/", c"/proc/self/fd/1/x", c"/proc/1/fd/3", c"/proc/self/fd/-1", c"/x/proc/self/fd/1"]
        {
            assert_eq!(own_descriptor(path), None, "{path:?}");
        }
    }

    #[test]
    fn places() {
        let at = Place::at(libc::AT_FDCWD as u32 as u64, 16, libc::AT_SYMLINK_NOFOLLOW as u64, 0);
        assert_eq!(at, Ok(Place { base: Base::Directory, path: Some(16), follow: false, empty: false }));
        let null = Place::at(5, 0, libc::AT_EMPTY_PATH as u64, 0);
        assert_eq!(null, Ok(Place { base: Base::Descriptor(5), path: None, follow: true, empty: true }));
        assert_eq!(Place::at(5, 0, 0x40_0000, 0), Err(Errno::EINVAL));
        assert!(Place::at(5, 0, libc::AT_NO_AUTOMOUNT as u64, libc::AT_NO_AUTOMOUNT).is_ok());
    }
}
