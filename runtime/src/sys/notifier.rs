//! System calls that wait for another process's answer (seccomp_unotify(2)).

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;
use seccompiler::sock_filter;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` of linux/seccomp.h: the answering thread runs on the asking one's processor.
const SYNC_WAKE_UP: u64 = 1;

/// Where the calls of every process under one filter arrive.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// Names the call as long as it waits.
    pub id: u64,
    /// The thread that made it, in the PID namespace of whoever listens.
    pub thread: Pid,
    /// `AUDIT_ARCH_*` of the call (linux/audit.h).
    pub architecture: u32,
    /// Its number, which depends on the architecture.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Installs a filter for the calling thread and all it will start; its calls with `SECCOMP_RET_USER_NOTIF` arrive at
/// the listener. The thread has no_new_privs set.
///
/// # Errors
/// `EBUSY` when the thread is under a filter with a listener already, `EINVAL` before Linux 5.0.
pub fn install(program: &[sock_filter]) -> nix::Result<Listener> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    let wanted = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let install = |flags: libc::c_ulong| {
        // SAFETY: `filter` names `len` instructions that live across the call and that the kernel only reads;
        // seccompiler's instruction has the layout of linux/filter.h, as libc's has.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
        })
    };
    // A call that is being answered must not be begun again for each signal; Linux 5.19 knows how.
    let fd = match install(wanted) {
        Err(Errno::EINVAL) => install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?,
        other => other?,
    };
    // SAFETY: `fd` was just returned by the kernel as a fresh descriptor.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

impl Listener {
    /// Asks the kernel to answer on the asking thread's processor, which halves the time of an answer (Linux 6.6).
    pub fn prefer_one_processor(&self) {
        // SAFETY: the flags are passed by value. A kernel that does not know the request refuses it, to no harm.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
    }

    /// Waits for a call.
    ///
    /// # Errors
    /// `ENOENT` when the one that was there has gone, `EINTR`.
    pub fn receive(&self) -> nix::Result<Notification> {
        // SAFETY: all-zero is a valid seccomp_notif, and what the kernel asks for.
        let mut raw: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the kernel writes one seccomp_notif of the size that the request's number holds.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) })?;
        Ok(Notification {
            id: raw.id,
            thread: Pid::from_raw(raw.pid as libc::pid_t),
            architecture: raw.data.arch,
            number: i64::from(raw.data.nr),
            arguments: raw.data.args,
        })
    }

    /// Whether the call still waits. What was opened by the number of its thread before is then that thread's: no
    /// other process can have taken the number.
    #[must_use]
    pub fn waits(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one u64 that lives across the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
        result == 0
    }

    /// Has the kernel go on with the call as if there were no filter.
    pub fn carry_on(&self, id: u64) {
        self.send(id, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    /// Makes the call return this.
    pub fn answer(&self, id: u64, result: nix::Result<i64>) {
        match result {
            Ok(value) => self.send(id, value, 0, 0),
            Err(errno) => self.send(id, 0, -(errno as i32), 0),
        }
    }

    fn send(&self, id: u64, val: i64, error: i32, flags: u32) {
        let response = libc::seccomp_notif_resp { id, val, error, flags };
        // A call whose process was killed meanwhile needs no answer.
        // SAFETY: the kernel reads one seccomp_notif_resp that lives across the call.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
    }

    /// Makes the call return a copy of `file` as a new descriptor of the calling process.
    ///
    /// # Errors
    /// `EMFILE` at the process's limit, `ENOENT` when it has gone, `EINVAL` before Linux 5.14.
    pub fn answer_with(&self, id: u64, file: impl AsFd, close_on_exec: bool) -> nix::Result<()> {
        let addition = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: file.as_fd().as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the kernel reads one seccomp_notif_addfd that lives across the call; the descriptor is borrowed for it.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const addition) };
        Errno::result(result).map(drop)
    }
}
