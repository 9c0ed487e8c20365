//! What the kernel says of an open object: statx(2) and stat(2) as the bytes that a program gets to see.

use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// The answer of statx(2).
#[derive(Clone, Copy)]
pub struct Status(libc::statx);

impl std::ops::Deref for Status {
    type Target = libc::statx;

    fn deref(&self) -> &libc::statx {
        &self.0
    }
}

impl std::ops::DerefMut for Status {
    fn deref_mut(&mut self) -> &mut libc::statx {
        &mut self.0
    }
}

impl Status {
    /// Of an open object, which may be open as a path only; `flags` are the `AT_STATX_*` of the question.
    ///
    /// # Errors
    /// As statx(2).
    pub fn of(fd: impl AsFd, flags: i32, mask: u32) -> nix::Result<Self> {
        // SAFETY: all-zero is a valid statx.
        let mut status: libc::statx = unsafe { mem::zeroed() };
        // SAFETY: the path is the empty string, the descriptor is borrowed for the call, and the kernel writes one statx.
        let result = unsafe {
            libc::statx(fd.as_fd().as_raw_fd(), c"".as_ptr(), flags | libc::AT_EMPTY_PATH, mask, &raw mut status)
        };
        Errno::result(result).map(|_| Self(status))
    }

    /// The bytes that statx(2) writes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        bytes_of(&self.0)
    }
}

/// stat(2) of an open object, which may be open as a path only.
///
/// # Errors
/// As fstatat(2).
pub fn stat(fd: impl AsFd) -> nix::Result<libc::stat> {
    // SAFETY: all-zero is a valid stat.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    let fd = fd.as_fd();
    // SAFETY: the path is the empty string, the descriptor is borrowed for the call, and the kernel writes one stat.
    let result = unsafe { libc::fstatat(fd.as_raw_fd(), c"".as_ptr(), &raw mut stat, libc::AT_EMPTY_PATH) };
    Errno::result(result).map(|_| stat)
}

/// The bytes that stat(2) of this machine writes; the structure of the C library is the kernel's own. `stat` comes
/// from [`stat`].
#[must_use]
pub fn stat_bytes(stat: &libc::stat) -> Vec<u8> {
    bytes_of(stat)
}

fn bytes_of<T: Copy>(value: &T) -> Vec<u8> {
    // SAFETY: `value` was made above from all-zero memory, so that each of its bytes, padding included, is
    // initialised; they are read for the length of the borrow.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), mem::size_of::<T>()) }.to_vec()
}
