//! Finding the live session of an image without being part of it. Creates nothing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use runtime::session::lock;
use runtime::session::record::Record;
use runtime::session::registry::{Instance, Registry};
use runtime::sys::process;

use crate::launch::{data, facts};
use crate::{Failure, Invocation, Message};

/// A live session as an outsider sees it.
pub(crate) struct Session {
    pub(crate) record: Record,
    pub(crate) registry: Registry,
    pub(crate) data: PathBuf,
}

/// The live session of this image and user, if any.
pub(crate) fn find(invocation: &Invocation) -> Option<Session> {
    Session::of(data::existing(invocation, &facts::caller())?)
}

impl Session {
    /// The live session on a data directory, if any.
    pub(crate) fn of(data: PathBuf) -> Option<Self> {
        let path = data.join(lock::SESSION);
        let record = Record::read(&File::open(&path).ok()?, &path).ok()?;
        let registry = Registry::new(&record.directory);
        record.server_is_alive().then_some(Self { record, registry, data })
    }

    /// The live instance with this ID.
    pub(crate) fn instance(&self, id: u64) -> Result<Instance, Failure> {
        if let Some(instance) = self.registry.instance(id) {
            return Ok(instance);
        }
        let ids: Vec<String> = self.registry.live()?.iter().map(|instance| instance.id.to_string()).collect();
        if ids.is_empty() {
            return Err(none());
        }
        Err(Message::boxed(format!(
            "Instance index out of bounds: no instance {id} is running; these are: {}",
            ids.join(" ")
        )))
    }
}

impl Session {
    /// The live instance with this ID and a descriptor that names exactly its starter, readable when it has ended.
    pub(crate) fn hold(&self, id: u64) -> Result<(Instance, OwnedFd), Failure> {
        let instance = self.instance(id)?;
        let starter = match process::pidfd_open(instance.pid) {
            Ok(starter) => starter,
            Err(Errno::ESRCH) => return Err(ended(id)),
            Err(errno) => return Err(Message::boxed(format!("cannot watch instance {id}: {}", errno.desc()))),
        };
        // The number may have become another process's since the record was read.
        if instance.is_alive() { Ok((instance, starter)) } else { Err(ended(id)) }
    }
}

/// The error for an instance that was there a moment ago.
pub(crate) fn ended(id: u64) -> Failure {
    Message::boxed(format!("instance {id} has ended"))
}

/// The session that must live.
pub(crate) fn require(invocation: &Invocation) -> Result<Session, Failure> {
    find(invocation).ok_or_else(none)
}

fn none() -> Failure {
    Message::boxed("No instances are running of this image; start one with fim-exec")
}
