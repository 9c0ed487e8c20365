//! The file-descriptor mount API (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)): a mount is prepared as a
//! descriptor while the host is still visible and attached once the guest's root is in place, so that no target path
//! is ever resolved outside the guest.

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// `mount_attr` attribute bits (linux/mount.h).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits and file capabilities are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Programs cannot be executed.
    pub const NOEXEC: u64 = 0x8;
}

const AT_RECURSIVE: c_uint = 0x8000;
const OPEN_TREE_CLONE: c_uint = 1;
const OPEN_TREE_CLOEXEC: c_uint = libc::O_CLOEXEC as c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;

/// A mount that is attached nowhere yet; dropping it undoes it.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn c_path(path: &Path) -> nix::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn new_descriptor(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: `fd` was just returned by the kernel as a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A new instance of a file system type, detached. `options` with a `None` value are flags.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN over the mount namespace (and, for proc and sysfs in a user namespace, when the
/// caller's own instance is partly covered), `EINVAL` for an unknown option, `ENODEV` for an unknown type.
pub fn new_filesystem(kind: &CStr, options: &[(&CStr, Option<&CStr>)], attributes: u64) -> nix::Result<Detached> {
    // SAFETY: `kind` is a NUL-terminated string that lives across the call.
    let context = new_descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let configure = |command: c_uint, key: *const c_char, value: *const c_char| {
        // SAFETY: key and value are null or NUL-terminated strings that outlive the call.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0 as c_int)
        })
    };
    for (key, value) in options {
        match value {
            Some(value) => configure(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?,
            None => configure(FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null())?,
        };
    }
    configure(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: integers only.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as c_uint) };
    new_descriptor(mount).map(Detached)
}

/// A detached copy of the mount at `path` (a bind), with everything mounted below it when `recursive`.
///
/// # Errors
/// `ENOENT`, `EACCES`, `EPERM` without CAP_SYS_ADMIN over the mount namespace, `EINVAL` for a locked subtree that is
/// copied without `recursive`.
pub fn clone_tree(path: &Path, recursive: bool) -> nix::Result<Detached> {
    let path = c_path(path)?;
    clone_at(libc::AT_FDCWD, &path, recursive, 0)
}

/// Like [`clone_tree`], of what an open descriptor names.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_descriptor(of: impl AsFd, recursive: bool) -> nix::Result<Detached> {
    clone_at(of.as_fd().as_raw_fd(), c"", recursive, libc::AT_EMPTY_PATH as c_uint)
}

/// Like [`clone_descriptor`], of the symlink `name` itself in an open directory. A mount of a symlink is followed as one.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_link(directory: impl AsFd, name: &CStr) -> nix::Result<Detached> {
    clone_at(directory.as_fd().as_raw_fd(), name, false, libc::AT_SYMLINK_NOFOLLOW as c_uint)
}

fn clone_at(directory: RawFd, path: &CStr, recursive: bool, extra: c_uint) -> nix::Result<Detached> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | extra | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is a NUL-terminated string that lives across the call.
    new_descriptor(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) }).map(Detached)
}

/// Attaches a detached mount at `target`, an open descriptor of the mount point.
///
/// # Errors
/// `ENOTDIR` for a directory on a file or the reverse, `EINVAL` when the target lies outside the caller's namespace.
pub fn attach(mount: Detached, target: impl AsFd) -> nix::Result<()> {
    const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
    // SAFETY: both paths are the empty string, both descriptors are borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.0.as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes (see [`attr`]) on the mount of an open descriptor, and on everything below it when `recursive`.
///
/// # Errors
/// `ENOSYS` before Linux 5.12, `EPERM` for attributes that the host has locked.
pub fn set_attributes(mount: impl AsFd, set: u64, recursive: bool) -> nix::Result<()> {
    change(mount.as_fd().as_raw_fd(), MountAttr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 }, recursive)
}

/// Makes a detached mount (and, when `recursive`, all below it) receive later mounts of the host, never send any.
///
/// # Errors
/// `ENOSYS` before Linux 5.12.
pub fn make_slave(mount: &Detached, recursive: bool) -> nix::Result<()> {
    let propagation = libc::MS_SLAVE;
    change(mount.0.as_raw_fd(), MountAttr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 }, recursive)
}

fn change(fd: RawFd, attributes: MountAttr, recursive: bool) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH as c_uint | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr reads one mount_attr of the size given; the path is the empty string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            &raw const attributes,
            std::mem::size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}
