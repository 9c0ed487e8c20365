//! The host daemon: one process a session. It keeps the registry of live instances clean and ends with the session.
//! The registry's files are the truth, so that it may be killed at any time: the next start begins another one.

#![forbid(unsafe_code)]

mod portal;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::host::{self, Start};
use runtime::request;
use runtime::session::registry::Registry;
use runtime::session::{Error, lock};
use runtime::sys::process;
use runtime::wire::{Doorbells, Ring};

use portal::Portals;

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
    let mut portals = Portals::new();
    adopt(registry, &mut instances, &mut portals)?;
    let mut doorbells = Doorbells::default();
    loop {
        let ids: Vec<u64> = instances.keys().copied().collect();
        let events: Vec<bool> = {
            let fds = [server.as_fd(), doorbell.as_fd()].into_iter().chain(instances.values().map(AsFd::as_fd));
            let fds = fds.chain(portals.watch());
            let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                continue;
            }
            fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()
        };
        if events[0] {
            return Ok(());
        }
        portals.turn(&events[2 + ids.len()..]);
        for (id, ended) in ids.iter().zip(&events[2..]) {
            if *ended {
                instances.remove(id);
                portals.close(*id);
                registry.remove(*id)?;
            }
        }
        if events[1] {
            let mut bytes = [0; 4096];
            if let Ok(len) = doorbell.read(&mut bytes) {
                // Whatever else it says, a ring means that the registry may have changed.
                adopt(registry, &mut instances, &mut portals)?;
                for ring in doorbells.feed(&bytes[..len]) {
                    route(ring, registry, &instances);
                }
            }
        }
    }
}

/// Watches those live instances that are not watched yet.
fn adopt(registry: &Registry, instances: &mut BTreeMap<u64, OwnedFd>, portals: &mut Portals) -> Result<(), Error> {
    for instance in registry.live()? {
        if instances.contains_key(&instance.id) {
            continue;
        }
        match process::pidfd_open(instance.pid) {
            // The process may have ended and its number be somebody else's since the record was read.
            Ok(pidfd) if instance.is_alive() => {
                portals.adopt(registry, &instance);
                instances.insert(instance.id, pidfd);
            }
            _ => {
                portals.answer(registry, instance.id);
                registry.remove(instance.id)?;
            }
        }
    }
    Ok(())
}

/// Passes a request on to the guest daemon of its instance. What cannot be passed on is answered, if its client is
/// still there to hear it.
fn route(ring: Ring, registry: &Registry, instances: &BTreeMap<u64, OwnedFd>) {
    let Ring::Exec { instance, request } = ring else { return };
    let directory = registry.directory(instance);
    let reason = if instances.contains_key(&instance) {
        match host::ring_guest(&directory, ring) {
            Ok(true) => return,
            Ok(false) => format!("instance {instance} is ending"),
            Err(error) => runtime::error::chain(&error),
        }
    } else {
        format!("instance {instance} has ended")
    };
    // The client may have gone, or its pipes with the instance: it sees either by itself.
    let _ = request::refuse(&directory, request, &reason);
}

/// Removes what a mount server that was killed could not. A session that lives again is left alone.
fn bury(data: &Path, registry: &Registry) {
    if let Ok(_starting) = lock::wait(data, lock::START)
        && let Ok(Ok(_held)) = lock::attempt(data, lock::SESSION)
    {
        registry.remove_all();
    }
}
