//! File descriptors as a set: what a new role keeps and what it closes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft and the hard limit of open files (`RLIMIT_NOFILE`) before [`raise_limit`].
static GIVEN: OnceLock<(u64, u64)> = OnceLock::new();

/// Lets this process have as many files open as its user may let it (getrlimit(2)).
pub fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok()
    {
        // Whoever raises it again, as a child does, was not given that.
        let _ = GIVEN.set((soft, hard));
    }
}

/// Takes back what [`raise_limit`] did, in this process or in the one it was forked from: for a role in which programs of
/// others run.
pub fn restore_limit() {
    if let Some((soft, hard)) = GIVEN.get() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard);
    }
}

fn close_range(first: u32, last: u32, flags: u32) -> nix::Result<()> {
    // SAFETY: integers only. Closing affects descriptors that no live OwnedFd of the role refers to (callers close
    // only right after fork, before they use anything but what they keep), or only sets the close-on-exec flag.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Marks every descriptor from 3 up close-on-exec, so that a command inherits 0, 1 and 2 only.
///
/// # Errors
/// `ENOSYS` before Linux 5.11.
pub fn close_on_exec_above_stderr() -> nix::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor but `keep`. Only for a process that has just been forked to become another role: handles
/// to other descriptors copied from the parent must be forgotten, not dropped.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_all_but(keep: &[RawFd]) -> nix::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Gives the calling thread a table of descriptors of its own, without any descriptor in it. Only for a thread that
/// has been given no handle to a descriptor.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn own_empty_table() -> nix::Result<()> {
    close_range(0, u32::MAX, libc::CLOSE_RANGE_UNSHARE)
}

/// Takes over a descriptor number handed on by an earlier stage of the program.
///
/// # Errors
/// `EBADF` when nothing is open there, `InvalidInput` for 0, 1 and 2.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: borrowed only to ask whether it is open; fcntl answers EBADF otherwise.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open (just checked) and was handed to this program image by number across exec, so
    // nothing in this process owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a descriptor survive exec.
///
/// # Errors
/// None in practice; fcntl(2).
pub fn keep_across_exec(fd: impl AsFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// Points 0, 1 and 2 at /dev/null.
///
/// # Errors
/// When /dev/null cannot be opened.
pub fn detach_standard_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Opens /dev/null on each of 0, 1 and 2 that is closed, so that a file opened later can never be mistaken for a
/// standard stream. Returns which ones the caller left closed; the Rust runtime may have filled those already.
///
/// # Errors
/// When /dev/null cannot be opened.
pub fn fill_standard_streams() -> io::Result<[bool; 3]> {
    for fd in 0..3 {
        // SAFETY: only asked whether it is open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if fcntl(borrowed, FcntlArg::F_GETFD) == Err(Errno::EBADF) {
            let null = File::options().read(true).write(true).open("/dev/null")?;
            // The lowest free number is `fd` itself, as all below it are open by now.
            debug_assert_eq!(null.as_raw_fd(), fd);
            std::mem::forget(null);
            // SAFETY: as above.
            fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
    }
    Ok(super::inherited::closed_streams())
}

/// Closes a standard stream of the calling process.
pub fn close_standard_stream(fd: RawFd) {
    debug_assert!((0..=2).contains(&fd));
    // SAFETY: used by a child just before exec, for a stream that the user had left closed.
    unsafe { libc::close(fd) };
}

/// Opens a path with O_PATH, without following a last symlink.
///
/// # Errors
/// As open(2).
pub fn open_path(path: &Path) -> nix::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
}
