//! The host daemon: one process a session. It keeps the registry of live instances clean and ends with the session.
//! The registry's files are the truth, so that it may be killed at any time: the next start begins another one.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::host::Start;
use runtime::session::registry::Registry;
use runtime::session::{Error, lock};
use runtime::sys::process;

/// Runs until the mount server of the session has ended; returns the exit code of the process.
#[must_use]
pub fn run(start: Start) -> i32 {
    let registry = Registry::new(&start.directory);
    let watched = watch(start.doorbell, &start.server, &registry);
    if watched.is_ok() {
        bury(&start.data, &registry);
    }
    i32::from(watched.is_err())
}

/// Watches every live instance and removes it from the registry when it has ended.
fn watch(mut doorbell: File, server: &OwnedFd, registry: &Registry) -> Result<(), Error> {
    let mut instances: BTreeMap<u64, OwnedFd> = BTreeMap::new();
    adopt(registry, &mut instances)?;
    loop {
        let ids: Vec<u64> = instances.keys().copied().collect();
        let events: Vec<bool> = {
            let fds = [server.as_fd(), doorbell.as_fd()].into_iter().chain(instances.values().map(AsFd::as_fd));
            let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                continue;
            }
            fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()
        };
        if events[0] {
            return Ok(());
        }
        for (id, ended) in ids.iter().zip(&events[2..]) {
            if *ended {
                instances.remove(id);
                registry.remove(*id)?;
            }
        }
        if events[1] {
            // Any number of rings, whole or torn, mean the same: look again.
            let mut rings = [0; 4096];
            if doorbell.read(&mut rings).is_ok() {
                adopt(registry, &mut instances)?;
            }
        }
    }
}

/// Watches those live instances that are not watched yet.
fn adopt(registry: &Registry, instances: &mut BTreeMap<u64, OwnedFd>) -> Result<(), Error> {
    for instance in registry.live()? {
        if instances.contains_key(&instance.id) {
            continue;
        }
        match process::pidfd_open(instance.pid) {
            // The process may have ended and its number be somebody else's since the record was read.
            Ok(pidfd) if instance.is_alive() => drop(instances.insert(instance.id, pidfd)),
            _ => registry.remove(instance.id)?,
        }
    }
    Ok(())
}

/// Removes what a mount server that was killed could not. A session that lives again is left alone.
fn bury(data: &Path, registry: &Registry) {
    if let Ok(_starting) = lock::wait(data, lock::START)
        && let Ok(Ok(_held)) = lock::attempt(data, lock::SESSION)
    {
        registry.remove_all();
    }
}
