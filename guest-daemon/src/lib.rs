//! The guest daemon: PID 1 of an instance. It builds the instance around itself, starts and reaps processes, and ends
//! the instance when its command, its starter or its mount server ends.

#![forbid(unsafe_code)]

mod command;
mod request;
mod supervise;
mod terminal;

use std::fs::File;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use runtime::control::{FromGuest, ToGuest};
use runtime::instance::Start;
use runtime::sandbox::{self, apply};
use runtime::session::pipe;
use runtime::sys::mount::{self, Detached};
use runtime::sys::{process, title};

/// What can go wrong before the command runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// Named pipes of the session.
    #[error(transparent)]
    Session(#[from] runtime::session::Error),
    /// Anything else, with what was tried.
    #[error("cannot {0}")]
    System(&'static str, #[source] std::io::Error),
}

impl Error {
    pub(crate) fn system<E: Into<std::io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System(action, error.into())
    }
}

/// Runs as PID 1 of a fresh PID namespace until the instance ends; returns the exit code of the process.
#[must_use]
pub fn run(start: &Start) -> i32 {
    match build(start).and_then(|built| supervise::run(start, built)) {
        Ok(()) => 0,
        Err(error) => {
            let text = runtime::error::chain(&error);
            // A starter that has gone needs no message.
            let _ = start.channel.send(&FromGuest::Failed(text).encode(), None);
            runtime::error::FAILURE
        }
    }
}

/// What PID 1 has when the instance stands.
struct Built {
    terminal: Option<runtime::spawn::Terminal>,
    /// The instance's directory as a mount of its own: from a plain descriptor `..` would lead to the host.
    pipes: Detached,
    /// Requests are announced here.
    doorbell: File,
    /// Whether the process behind the gate has stayed to answer calls.
    emulated: bool,
}

fn build(start: &Start) -> Result<Built, Error> {
    // 1. Nothing outlives the starter. It may have died before this was armed, which its closed channel tells.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Error::system("arm the parent-death signal"))?;
    let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&start.channel), PollFlags::empty())];
    if poll(&mut fds, PollTimeout::ZERO).map_err(Error::system("look for the starter"))? != 0 {
        return Err(Error::System("go on without the starter", std::io::ErrorKind::BrokenPipe.into()));
    }
    // 2. What a guest can read of this process must not tell the host's paths.
    title::set("fim-guest", b"fim: guest daemon");
    nix::unistd::setsid().map_err(Error::system("start a session of processes"))?;
    // 3. The network needs nothing of the session's mounts, which may be in the making while this runs.
    apply::network(&start.plan)?;
    if !told_to_build(start)? {
        std::process::exit(0);
    }
    // 4. A copy of the session's mount namespace, in which the host and the session's root can be seen.
    setns(&start.server, CloneFlags::CLONE_NEWNS)
        .and_then(|()| unshare(CloneFlags::CLONE_NEWNS))
        .map_err(Error::system("join the session's mounts"))?;
    let pipes = mount::clone_tree(&start.directory, false).map_err(Error::system("keep the instance's pipes"))?;
    let doorbell = pipe::listener(&start.directory.join(pipe::GUEST))?;
    // The caller's creation mask is the command's, not that of the mount points and files made here.
    let mask = process::set_umask(apply::MASK);
    // 5. Mounts and root: with every capability over the session's user namespace.
    apply::enter(&start.plan, &start.root, start.points.as_ref())?;
    process::set_umask(mask);
    // Every signal that reaches PID 1 comes through a descriptor or is ignored. The user may type from here on.
    SigSet::all().thread_block().map_err(Error::system("block signals"))?;
    let terminal = terminal::open(&start.terminal, &start.channel)?;
    // 6. A user namespace of the instance's own comes last, so that every mount above is locked for the guest.
    unshare(CloneFlags::CLONE_NEWUSER).map_err(Error::system("make the instance's user namespace"))?;
    start.gate.ask_for_maps().map_err(Error::system("have the instance's IDs mapped"))?;
    // 7. Nothing in the instance may look into this process (its descriptors reach out of the instance).
    prctl::set_dumpable(false).map_err(Error::system("close this process to others"))?;
    let calls = apply::seal(&start.plan, start.emulate_root)?;
    if start.emulate_root {
        // The process that wrote the maps stays and answers.
        File::open("/proc/self/ns/mnt")
            .and_then(|mounts| start.gate.hand_over(calls.as_ref(), &mounts))
            .map_err(Error::system("have root emulated"))?;
    }
    Ok(Built { terminal, pipes, doorbell, emulated: calls.is_some() })
}

/// Waits until the session's root is mounted; false when the starter has given up.
fn told_to_build(start: &Start) -> Result<bool, Error> {
    let message = start.channel.receive().map_err(Error::system("hear from the starter"))?;
    Ok(message.is_some_and(|(bytes, _)| ToGuest::decode(&bytes) == Some(ToGuest::Build)))
}
