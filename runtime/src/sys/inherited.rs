//! What the process was started with, recorded before the Rust runtime changes it: std opens /dev/null on closed
//! standard streams and ignores SIGPIPE before `main` runs, and neither can be told afterwards.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bits 0 to 2: the standard stream of that number was closed. Bit 3: SIGPIPE was ignored.
static RECORDED: AtomicU8 = AtomicU8::new(0);
const SIGPIPE_IGNORED: u8 = 1 << 3;

// SAFETY: the loader calls every function of this section once, before main, with one thread (ELF gABI, "Initialization
// and Termination Functions"). The function takes no argument, so that those which glibc passes are not looked at.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    let mut bits = 0;
    for fd in 0..3 {
        // SAFETY: asks only whether the number is open; nothing owns descriptors yet.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            bits |= 1 << fd;
        }
    }
    if super::process::is_ignored(libc::SIGPIPE) {
        bits |= SIGPIPE_IGNORED;
    }
    RECORDED.store(bits, Ordering::Relaxed);
}

/// Which of the standard streams were closed.
#[must_use]
pub fn closed_streams() -> [bool; 3] {
    let bits = RECORDED.load(Ordering::Relaxed);
    [0, 1, 2].map(|fd| bits & (1 << fd) != 0)
}

/// The path that was executed, before symlinks were resolved (AT_EXECFN, getauxval(3)).
#[must_use]
pub fn executed_path() -> Option<PathBuf> {
    // SAFETY: without memory of ours. The kernel puts the address of a string there, which is on the stack that the
    // process began with and lives as long as the process; 0 means that there is none.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if address.is_null() {
        return None;
    }
    // SAFETY: as above.
    let path = unsafe { CStr::from_ptr(address) };
    Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Whether SIGPIPE was ignored.
#[must_use]
pub fn ignored_sigpipe() -> bool {
    RECORDED.load(Ordering::Relaxed) & SIGPIPE_IGNORED != 0
}
