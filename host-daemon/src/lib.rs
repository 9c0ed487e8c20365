//! The host daemon: one process a session. It keeps the registry of live instances clean and ends with the session.
//! The registry's files are the truth, so that it may be killed at any time: the next start begins another one.

#![forbid(unsafe_code)]

mod portal;
pub mod ports;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::host::{self, Start};
use runtime::request;
use runtime::session::registry::Registry;
use runtime::session::{ephemeral, lock};
use runtime::sys::{descriptor, process};
use runtime::wire::{self, Doorbells, Ring};

use portal::Portals;

/// Runs until the mount server of the session has ended; returns the exit code of the process.
#[must_use]
pub fn run(start: Start) -> i32 {
    // One an instance or more.
    descriptor::raise_limit();
    let registry = Registry::new(&start.directory);
    watch(&start.directory, start.doorbell, &start.server, &registry);
    bury(&start.data, &registry);
    0
}

/// Watches every live instance and removes it from the registry when it has ended.
fn watch(start_directory: &Path, mut doorbell: File, server: &OwnedFd, registry: &Registry) {
    let mut instances: BTreeMap<u64, OwnedFd> = BTreeMap::new();
    let mut portals = Portals::new();
    adopt(registry, &mut instances, &mut portals);
    let mut notes = Notes { path: start_directory.join("host.log"), garbage: 0 };
    // What a daemon before this one had read from its pipe and not passed on when it was killed. Their clients may not
    // have seen it gone; a request that is rung twice runs once.
    for &instance in instances.keys() {
        let unserved = request::unserved(&registry.directory(instance)).into_iter().flatten();
        for refused in unserved.filter_map(|request| route(Ring::Exec { instance, request }, registry)) {
            notes.add(&refused);
        }
    }
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
            return;
        }
        portals.turn(&events[2 + ids.len()..]);
        for (id, ended) in ids.iter().zip(&events[2..]) {
            if *ended {
                instances.remove(id);
                portals.close(*id);
                // What cannot be removed is passed over by every reader: its starter is dead.
                let _ = registry.remove(*id);
            }
        }
        if events[1] {
            let mut bytes = [0; 4096];
            if let Ok(len) = doorbell.read(&mut bytes) {
                // Whatever else it says, a ring means that the registry may have changed.
                adopt(registry, &mut instances, &mut portals);
                for ring in doorbells.feed(&bytes[..len]) {
                    if let Some(refused) = route(ring, registry) {
                        notes.add(&refused);
                    }
                }
                notes.count(doorbells.garbage);
            }
        }
    }
}

/// Watches those live instances that are not watched yet. Readers of the registry look for themselves who lives, so
/// that what cannot be done here is done at the next ring.
fn adopt(registry: &Registry, instances: &mut BTreeMap<u64, OwnedFd>, portals: &mut Portals) {
    let unknown = |id: &u64| !instances.contains_key(id);
    let new: Vec<u64> = registry.ids().unwrap_or_default().into_iter().filter(unknown).collect();
    for instance in new.into_iter().filter_map(|id| registry.instance(id)) {
        match process::pidfd_open(instance.pid) {
            // The process may have ended and its number be somebody else's since the record was read.
            Ok(pidfd) if instance.is_alive() => {
                portals.adopt(registry, &instance);
                instances.insert(instance.id, pidfd);
            }
            Ok(_) | Err(Errno::ESRCH) => {
                portals.answer(registry, instance.id);
                // A starter that is dead is passed over by every reader.
                let _ = registry.remove(instance.id);
            }
            // Out of descriptors: the instance lives all the same.
            Err(_) => {}
        }
    }
}

/// Passes a request on to the guest daemon of its instance. What cannot be passed on is answered, if its client is
/// still there to hear it; returns what was said.
fn route(ring: Ring, registry: &Registry) -> Option<String> {
    let (instance, request) = match ring {
        Ring::Exec { instance, request } | Ring::Foreign { instance, request, .. } => (instance, request),
        _ => return None,
    };
    let directory = registry.directory(instance);
    let reason = match ring {
        Ring::Foreign { version, .. } => wire::body::Error::Version(version).to_string(),
        _ => match host::ring_guest(&directory, ring) {
            Ok(true) => return None,
            Ok(false) => format!("instance {instance} has ended"),
            Err(error) => runtime::error::chain(&error),
        },
    };
    // The client may have gone, or its pipes with the instance: it sees either by itself.
    let _ = request::refuse(&directory, request, &reason);
    Some(reason)
}

/// The daemon's own log: what it had to refuse, in a file that stays small.
struct Notes {
    path: PathBuf,
    /// Bytes of garbage that were noted.
    garbage: u64,
}

impl Notes {
    /// Longest the file gets, in bytes.
    const LIMIT: u64 = 64 * 1024;

    fn add(&self, text: &str) {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = File::options().append(true).create(true).mode(0o600).custom_flags(flags).open(&self.path);
        if let Ok(mut file) = file
            && file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < Self::LIMIT)
        {
            // A full file system loses notes, nothing else.
            let _ = writeln!(file, "{text}");
        }
    }

    /// Notes garbage that has come since the last call.
    fn count(&mut self, garbage: u64) {
        if garbage > self.garbage {
            self.add(&format!("passed over {} bytes that are no message", garbage - self.garbage));
            self.garbage = garbage;
        }
    }
}

/// Removes what a mount server that was killed could not. A session that lives again is left alone.
fn bury(data: &Path, registry: &Registry) {
    if !registry.exists() {
        return;
    }
    if let Ok(_starting) = lock::wait(data, lock::START)
        && let Ok(Ok(_held)) = lock::attempt(data, lock::SESSION)
    {
        registry.remove_all();
        if ephemeral::is_of(data, registry.session()) {
            ephemeral::remove(data);
        }
    }
}
