//! Root emulation for a caller with one ID: `fim-root` with files of many owners and processes of many users, where
//! the kernel knows one.
//!
//! The calls that set, give and tell IDs wait for an answer (a seccomp user notifier), which comes from a supervisor
//! outside of the instance. Owners are kept where the files are: in the attribute `user.fim.owner`, or in the ledger of
//! the data directory for what carries none. Users are kept by the supervisor. `docs/ARCHITECTURE.md` tells why so, and
//! `docs/SECURITY.md` what the supervisor can be made to do.

pub mod calls;
mod files;
mod filter;
pub mod identity;
mod ids;
mod layout;
pub mod ledger;
mod making;
pub mod owner;
mod target;
mod unmarked;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

use self::calls::Name;
use self::identity::Identities;
use self::ledger::Ledger;
use self::target::Target;
use self::unmarked::Unmarked;
use crate::sys::notifier::{self, Listener, Notification};
use crate::sys::process;
use crate::sys::status::Status;

/// Threads that answer: one that waits for a slow file system must not stop the others.
const THREADS: usize = 4;

/// Puts the calling process, and all it will start, under emulation. Nothing that is answered returns until
/// [`Emulator::begin`] has begun. `None` where another program answers calls of this process already (that of a
/// container that fim runs in): the kernel allows one, and users and owners stay as they are there.
///
/// # Errors
/// When the kernel has no user notifier.
pub fn install() -> nix::Result<Option<Listener>> {
    match notifier::install(&filter::program()) {
        Err(Errno::EBUSY) => Ok(None),
        other => other.map(Some),
    }
}

/// What the supervisor needs of the host, opened while the host is visible.
#[derive(Debug)]
pub struct Emulator {
    handles: Handles,
    ledger: Ledger,
}

/// Directories of the supervisor's own proc, and of the host.
#[derive(Debug)]
struct Handles {
    /// `/proc`, in which a thread that waits has its number.
    processes: OwnedFd,
    /// `/proc/self/fd`: the way to an object that is open as a path only.
    descriptors: OwnedFd,
    /// The writable layer, in which objects have the numbers that stay.
    upper: OwnedFd,
}

/// The file systems whose owners are remembered, by the IDs of their mounts, which the guest can neither unmount nor
/// make anew.
#[derive(Debug)]
struct Mounts {
    root: u64,
    passing: Vec<u64>,
}

struct Supervisor {
    listener: Listener,
    handles: Handles,
    mounts: Mounts,
    identities: Mutex<Identities>,
    ledger: Mutex<Ledger>,
    unmarked: Mutex<Unmarked>,
}

/// What becomes of a call.
#[derive(Debug)]
enum Answer {
    /// The kernel does it.
    CarryOn,
    /// It returns this.
    Return(i64),
    /// It returns a descriptor of this file.
    File { file: OwnedFd, close_on_exec: bool },
}

impl Emulator {
    /// Opens what lies on the host: the ledger of a data directory, and proc.
    ///
    /// # Errors
    /// I/O errors.
    pub fn prepare(data: &Path) -> io::Result<Self> {
        let directory = |path: &Path| open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let handles = Handles {
            processes: directory(Path::new("/proc"))?,
            descriptors: directory(Path::new("/proc/self/fd"))?,
            upper: directory(&data.join("root"))?,
        };
        Ok(Self { handles, ledger: Ledger::open(data)? })
    }

    /// Begins to answer. The caller has one thread, and every capability over the user namespace that `mounts`, the
    /// instance's mount namespace, belongs to. `passing` are the mount points of the file systems that the instance has
    /// made for itself.
    ///
    /// # Errors
    /// When the mounts cannot be joined, or no thread can be made.
    pub fn begin(self, listener: Listener, mounts: impl AsFd, passing: &[PathBuf]) -> io::Result<Answering> {
        // From here on the host's files are out of reach of any path.
        setns(mounts, CloneFlags::CLONE_NEWNS)?;
        process::set_umask(0);
        listener.prefer_one_processor();
        let root = mount_id(Path::new("/"))?;
        let passing = passing.iter().filter_map(|path| mount_id(path).ok()).filter(|&id| id != root).collect();
        let supervisor = Arc::new(Supervisor {
            listener,
            handles: self.handles,
            mounts: Mounts { root, passing },
            identities: Mutex::default(),
            ledger: Mutex::new(self.ledger),
            unmarked: Mutex::default(),
        });
        for _ in 0..THREADS {
            let supervisor = Arc::clone(&supervisor);
            std::thread::Builder::new().spawn(move || supervisor.work())?;
        }
        Ok(Answering(supervisor))
    }
}

/// A supervisor at work.
pub struct Answering(Arc<Supervisor>);

impl Answering {
    /// Waits until no process of the instance is left: the listener hangs up then.
    pub fn wait(&self) {
        loop {
            let mut fds = [PollFd::new(self.0.listener.as_fd(), PollFlags::empty())];
            if poll(&mut fds, PollTimeout::NONE) != Err(Errno::EINTR) {
                return;
            }
        }
    }
}

/// The mount that a path leads to; a symlink leads nowhere.
fn mount_id(path: &Path) -> nix::Result<u64> {
    let file = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    Status::of(file, 0, libc::STATX_MNT_ID).map(|status| status.stx_mnt_id)
}

impl Supervisor {
    fn work(&self) {
        // Root and working directory of this thread follow those of whoever asks.
        let prepared = unshare(CloneFlags::CLONE_FS).and_then(|()| fchdir(&self.handles.descriptors));
        if let Err(errno) = prepared {
            log::error!("cannot answer calls of the instance: {}", errno.desc());
            return;
        }
        loop {
            match self.listener.receive() {
                Ok(call) => self.answer(&call),
                // Its process was killed before it could be looked at.
                Err(Errno::ENOENT | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn answer(&self, call: &Notification) {
        match self.decide(call) {
            Ok(Answer::CarryOn) => self.listener.carry_on(call.id),
            Ok(Answer::Return(value)) => self.listener.answer(call.id, Ok(value)),
            Ok(Answer::File { file, close_on_exec }) => {
                if let Err(errno) = self.listener.answer_with(call.id, &file, close_on_exec) {
                    self.listener.answer(call.id, Err(errno));
                }
            }
            Err(errno) => self.listener.answer(call.id, Err(errno)),
        }
    }

    fn decide(&self, call: &Notification) -> nix::Result<Answer> {
        let target = Target { handles: &self.handles, listener: &self.listener, call };
        let Some((name, abi)) = calls::find(call.architecture, call.number) else { return Ok(Answer::CarryOn) };
        use Name::*;
        match name {
            Stat | Lstat | Fstat | Fstatat | Statx => self.show(&target, name, abi),
            Chown | Lchown | Fchown | Fchownat => self.change_owner(&target, name, abi),
            Open | Openat | Mkdir | Mkdirat | Symlink | Symlinkat | Mknod | Mknodat => self.make(&target, name),
            Setuid | Setgid | Setreuid | Setregid | Setresuid | Setresgid | Setfsuid | Setfsgid => {
                self.become_other(&target, name, abi)
            }
            Setgroups => self.set_groups(&target, abi),
            Prctl => self.keep_capabilities(&target),
            Getuid | Geteuid | Getgid | Getegid | Getresuid | Getresgid | Getgroups => self.tell(&target, name, abi),
        }
    }
}
