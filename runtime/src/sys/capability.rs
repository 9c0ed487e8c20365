//! Capabilities of the calling thread (capabilities(7)).

use nix::errno::Errno;

/// Highest capability number asked for; the kernel answers EINVAL past its own last one.
const LAST_POSSIBLE: libc::c_ulong = 63;
/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability for good: bounding, ambient, permitted, effective and inheritable sets are empty
/// afterwards, so that not even a set-user-ID-root or file-capability program regains one.
///
/// # Errors
/// `EPERM` when the bounding set may not be changed (no CAP_SETPCAP).
pub fn drop_all() -> nix::Result<()> {
    for capability in 0..=LAST_POSSIBLE {
        // SAFETY: integers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(result) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: integers only.
    let ambient = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    Errno::result(ambient)?;
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads a header and two data structs, both of which live across the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Whether the calling thread has this capability in its effective set.
#[must_use]
pub fn has(capability: u32) -> bool {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads a header and writes two data structs, both of which live across the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    result == 0 && data.get(capability as usize / 32).is_some_and(|word| word.effective & (1 << (capability % 32)) != 0)
}

/// `CAP_SYS_ADMIN` of linux/capability.h.
pub const SYS_ADMIN: u32 = 21;
