//! Making, joining and ending processes: fork, clone, pidfd, setns, exec.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{io, mem};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Pid};

/// Which side of a fork the caller is on.
#[derive(Debug)]
pub enum Side {
    /// The new process.
    Child,
    /// The caller, with the child's process ID as seen from the caller's PID namespace.
    Parent(Pid),
}

/// Number of threads of the calling process.
///
/// # Errors
/// When /proc is not mounted.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// fork(2). The child continues with a copy of everything, so the caller must have one thread only: the
/// program forks its roles before it starts any thread.
///
/// # Errors
/// `EAGAIN` at a process limit, `ENOMEM`.
pub fn fork() -> nix::Result<Side> {
    // SAFETY: only async-signal-safe calls may follow a fork of a process with several threads. Every caller is a
    // role that has not started a thread yet (the mount server and the pack workers start theirs last and never
    // fork), so the child may run any code.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Side::Child),
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
    }
}

/// Like [`fork`], in new namespaces, as a child of the caller's *parent* (CLONE_PARENT): the caller can end and
/// the new process is still waited for by the one that stays.
///
/// # Errors
/// As clone3(2): `EPERM` without capabilities for the namespaces, `ENOSPC` past their limit, `EAGAIN`.
pub fn clone_sibling(namespaces: CloneFlags) -> nix::Result<Side> {
    // SAFETY: all-zero is a valid clone_args (clone3(2)); the fields that matter are set below.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    let flags = (namespaces.bits() as u64) | libc::CLONE_PARENT as u64;
    args.flags = flags;
    // SAFETY: without CLONE_VM and with no stack given this behaves as fork(2); `args` lives across the call and its
    // size is passed. The single-thread argument of `fork` above holds here too. glibc's cached thread id is stale in
    // the child, which matters only to raise(3) and thread creation; the child (PID 1 of an instance) does neither.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, mem::size_of::<libc::clone_args>()) };
    let pid = match Errno::result(pid) {
        // Filters that have to see the flags, ours among them, say that there is no clone3.
        // SAFETY: as above; clone(2) takes no stack, no place for an ID and no thread area here.
        Err(Errno::ENOSYS) => Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?,
        other => other?,
    };
    match pid {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(Pid::from_raw(pid as libc::pid_t))),
    }
}

/// What happened to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It ended with this exit code.
    Exited(i32),
    /// It was ended by this signal, which may be a real-time one.
    Killed(i32),
    /// It was stopped by this signal.
    Stopped(i32),
}

/// Collects one child that has ended or was stopped; `None` when there is none just now.
///
/// nix's `waitpid` answers EINVAL for a real-time signal after the kernel has given the status away, so that it would
/// be lost.
#[must_use]
pub fn next_change() -> Option<(Pid, Change)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the status, and any child may be collected by this process's only
        // thread that waits.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
        if pid <= 0 {
            return None;
        }
        let change = if libc::WIFEXITED(status) {
            Change::Exited(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Change::Killed(libc::WTERMSIG(status))
        } else if libc::WIFSTOPPED(status) {
            Change::Stopped(libc::WSTOPSIG(status))
        } else {
            continue;
        };
        return Some((Pid::from_raw(pid), change));
    }
}

/// Whether the caller, PID 1 of a PID namespace, is its only process (kill(2): `ESRCH` for all others).
#[must_use]
pub fn is_alone() -> bool {
    // SAFETY: integers only; signal 0 is not sent.
    let result = unsafe { libc::kill(-1, 0) };
    Errno::result(result) == Err(Errno::ESRCH)
}

/// pidfd_open(2): a descriptor that names exactly this process and becomes readable when it ends.
///
/// # Errors
/// `ESRCH` when no such process exists.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: plain integer arguments; the result is a new descriptor that nobody else owns.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: `fd` was just returned by the kernel as a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A number that names the process of a pidfd until the next boot and is never given to another: the inode of its
/// pidfd. `None` before Linux 6.9, where all pidfds share one.
#[must_use]
pub fn pidfd_unique(pidfd: impl AsFd) -> Option<u64> {
    /// `PID_FS_MAGIC` of magic.h.
    const PIDFS: libc::c_long = 0x5049_4446;
    let kind = nix::sys::statfs::fstatfs(&pidfd).ok()?.filesystem_type().0;
    let inode = nix::sys::stat::fstat(pidfd).ok()?.st_ino;
    (kind == PIDFS).then_some(inode)
}

/// Whether the process of a pidfd has ended, also where nobody has collected it yet.
#[must_use]
pub fn pidfd_has_ended(pidfd: impl AsFd) -> bool {
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// pidfd_send_signal(2).
///
/// # Errors
/// `ESRCH` when the process has ended, `EPERM`.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    let null: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo asks the kernel to fill it as kill(2) does; the descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, null, 0 as libc::c_uint)
    };
    Errno::result(result).map(drop)
}

/// Replaces the program by the one behind `program` (execveat(2) with AT_EMPTY_PATH). It starts with SIGPIPE as this
/// one did.
///
/// # Errors
/// Returns only on failure: `EACCES` where executing the descriptor is forbidden, `ENOENT`, `E2BIG`.
pub fn exec_descriptor(program: impl AsFd, argv: &[CString], env: &[CString]) -> Errno {
    if !super::inherited::ignored_sigpipe() {
        default_signal(libc::SIGPIPE);
    }
    match nix::unistd::fexecve(program, argv, env) {
        Ok(never) => match never {},
        Err(errno) => {
            // This program goes on, and takes EPIPE as an answer.
            ignore_signal(libc::SIGPIPE);
            errno
        }
    }
}

/// Bytes that hold /proc/PID/stat: some fifty numbers of at most 20 digits and a name (proc_pid_stat(5)).
pub(super) const STAT_LIMIT: usize = 2048;

/// Reads /proc/PID/stat by one system call: the kernel makes its text anew for every part that is asked for.
pub(super) fn read_stat(process: impl std::fmt::Display, buffer: &mut [u8; STAT_LIMIT]) -> io::Result<&[u8]> {
    use std::io::Read;
    let len = std::fs::File::open(format!("/proc/{process}/stat"))?.read(buffer)?;
    Ok(&buffer[..len])
}

/// Start time of a process in clock ticks since boot (field 22 of proc_pid_stat(5)): together with the process ID
/// it names one process for ever. `None` for one that has ended, also where nobody has collected it yet.
#[must_use]
pub fn start_time(pid: Pid) -> Option<u64> {
    let mut buffer = [0; STAT_LIMIT];
    let stat = read_stat(pid, &mut buffer).ok()?;
    // The command name stands in parentheses and may hold anything; fields are counted from the last ')'.
    let rest = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
    let mut fields = rest.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    if matches!(fields.next()?, b"Z" | b"X") {
        return None;
    }
    std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()
}

/// The children of a process, as far as its only or main thread has made them (proc_pid_children(5)).
#[must_use]
pub fn children(pid: Pid) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect()
}

/// How many processors the calling thread may run on. The standard library would also read the quota of the control
/// group from several files.
#[must_use]
pub fn processors() -> usize {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0));
    set.map_or(1, |set| (0..nix::sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count())
}

/// Sets the file creation mask and returns the one before.
pub fn set_umask(mask: libc::mode_t) -> libc::mode_t {
    // SAFETY: umask(2) takes an integer and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Has the program of `command` start with no signal blocked, whatever the caller has blocked.
pub fn unblock_signals(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only async-signal-safe functions may be called; sigprocmask(2) is one, and nothing
    // is allocated.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::signal::SigSet::empty().thread_set_mask()?));
    }
}

/// Resets every signal to its default action and unblocks all of them: a command must not inherit what its starter
/// blocked or ignored for its own purposes.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler; numbers that cannot be set answer EINVAL, which does not matter.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let none = nix::sys::signal::SigSet::empty();
    // Changing the mask of the calling thread cannot fail with valid arguments.
    let _ = none.thread_set_mask();
}

/// Signals that the caller's parent left ignored (a `nohup` start, for instance).
#[must_use]
pub fn ignored_signals() -> Vec<i32> {
    let others = (1..=64).filter(|&signal| signal != libc::SIGPIPE && is_ignored(signal));
    // The Rust runtime ignores SIGPIPE in this program; what the parent did about it was recorded before.
    others.chain(super::inherited::ignored_sigpipe().then_some(libc::SIGPIPE)).collect()
}

/// Whether this process ignores the signal.
pub(super) fn is_ignored(signal: i32) -> bool {
    // SAFETY: all-zero is a valid sigaction to be written over by the kernel; a null new action only reads.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `action` is a valid place for the old action.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Ignores a signal.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives a signal its default action back.
pub fn default_signal(signal: i32) {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Has the signals of which a process dies with a core kill it without one.
///
/// The kernel closes nothing before the core is written, and begins with that when every thread has ended. A thread that
/// waits for an answer of another one of the same process never does.
pub fn die_without_core() {
    extern "C" fn die(_: libc::c_int) {
        // SAFETY: both may be called in a signal handler and take integers only.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    // signal(7), the default action "Core".
    for signal in [
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGQUIT,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ] {
        // SAFETY: all-zero is a valid sigaction; the fields that matter are set below.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = die as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // A thread that has used up its stack has another one for this.
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: the handler lives as long as the program and calls what a handler may call.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// kill(2) with any signal number, real-time ones included. A target that has gone is as good as signalled.
pub fn kill(target: Pid, signal: i32) {
    // SAFETY: integers only; a wrong number answers EINVAL.
    unsafe { libc::kill(target.as_raw(), signal) };
}

/// A soft limit of a process, by the number of any of its threads (prlimit(2)).
///
/// # Errors
/// `ESRCH`, `EPERM`.
pub fn soft_limit(pid: Pid, resource: libc::__rlimit_resource_t) -> nix::Result<u64> {
    limits(pid, resource, None).map(|limits| limits.rlim_cur)
}

/// Changes a soft limit of a process and leaves its hard limit.
///
/// # Errors
/// `ESRCH`, `EPERM`; `EINVAL` above the hard limit.
pub fn set_soft_limit(pid: Pid, resource: libc::__rlimit_resource_t, value: u64) -> nix::Result<()> {
    let hard = limits(pid, resource, None)?.rlim_max;
    limits(pid, resource, Some(libc::rlimit64 { rlim_cur: value, rlim_max: hard })).map(drop)
}

fn limits(pid: Pid, resource: libc::__rlimit_resource_t, new: Option<libc::rlimit64>) -> nix::Result<libc::rlimit64> {
    let new: *const libc::rlimit64 = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the new limits are null or live across the call; the old ones are written to a valid place.
    let result = unsafe { libc::prlimit64(pid.as_raw(), resource, new, &raw mut old) };
    Errno::result(result).map(|_| old)
}
