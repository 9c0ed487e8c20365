//! FICLONE: a file that shares its blocks with another.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes `dst` share all blocks of `src`, where the file system can (ioctl_ficlone(2): btrfs, XFS, bcachefs).
///
/// # Errors
/// `EOPNOTSUPP`, `EXDEV`, `EINVAL` and `ENOTTY` say that this file system cannot; `dst` is unchanged then.
pub fn clone_file(dst: &File, src: &File) -> io::Result<()> {
    const FICLONE: libc::c_ulong = nix::request_code_write!(0x94, 9, size_of::<libc::c_int>());
    // SAFETY: the request takes a file descriptor by value and touches no memory of this process. Both
    // descriptors stay open for the call because the files are borrowed.
    let result = unsafe { libc::ioctl(dst.as_raw_fd(), FICLONE as _, src.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
