//! The keys of an image while they are changed: under a lock, and with nothing running.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtime::installation::{Key, link_name};
use runtime::sandbox::inside;
use runtime::session::lock::{self, Held};

use crate::launch::facts::{self, Caller};
use crate::launch::{data, exclusive, rung};
use crate::{Failure, Invocation, Message};

/// Lock in the directory of keys.
pub(crate) const LOCK: &str = "lock";
/// How names begin of what is just being made or removed; no key has such a name.
const DRAFT: &str = ".draft-";
const REMOVED: &str = ".removed-";

/// The keys of an image. While this lives nobody else changes which there are.
pub(super) struct Keys<'a> {
    pub(super) invocation: &'a Invocation,
    pub(super) caller: Caller,
    /// The directory that new ones are put in.
    directory: PathBuf,
    _held: Held,
}

/// A data directory that no session uses, and that none can begin to use while this lives.
pub(super) struct Idle {
    pub(super) data: PathBuf,
    session: Held,
}

/// What has the name that the link of a key would have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing.
    None,
    /// A link to the image.
    Ours,
    /// Something else; what.
    Other(String),
}

impl<'a> Keys<'a> {
    /// Waits for the lock. With `make`, the directory is made when there is none; without, that is an error about `key`.
    pub(super) fn lock(invocation: &'a Invocation, missing: Option<&Key>) -> Result<Self, Failure> {
        if let (Some(key), Some(_)) = (&invocation.installation.key, invocation.installation.keys()) {
            return Err(Message::boxed(format!(
                "the instance key '{key}' has an image of its own; use fim-key of the image that it was added to"
            )));
        }
        let caller = facts::caller();
        let places = data::claim_keys(invocation, &caller)?;
        let mut reasons = Vec::new();
        for directory in &places {
            if directory.is_dir() || missing.is_none() {
                match DirBuilder::new().mode(0o700).recursive(true).create(directory) {
                    Ok(()) => match lock::wait(directory, LOCK) {
                        Ok(held) => {
                            let keys = Self { invocation, caller, directory: directory.clone(), _held: held };
                            keys.sweep();
                            return Ok(keys);
                        }
                        Err(error) => reasons.push(runtime::error::chain(&error)),
                    },
                    Err(error) => reasons.push(format!("cannot make the directory {}: {error}", directory.display())),
                }
            }
        }
        match missing {
            Some(key) if reasons.is_empty() => Err(no_such(key)),
            _ => Err(Message::boxed(format!("no place for the data of instance keys: {}", reasons.join("; ")))),
        }
    }

    /// The data directory of a key, when it has one.
    pub(super) fn data(&self, key: &Key) -> Option<PathBuf> {
        data::existing_of(self.invocation, &self.caller, Some(key))
    }

    /// Path of the link that stands for a key.
    pub(super) fn link(&self, key: &Key) -> PathBuf {
        let image = &self.invocation.path;
        image.with_file_name(link_name(image.file_name().unwrap_or_default(), key))
    }

    /// What has the name of that link now.
    pub(super) fn link_state(&self, key: &Key) -> Link {
        let link = self.link(key);
        let Ok(metadata) = fs::symlink_metadata(&link) else { return Link::None };
        if !metadata.is_symlink() {
            let what = if metadata.is_dir() { "a directory" } else { "a file" };
            return Link::Other(format!("{} is {what}, not a link", link.display()));
        }
        if fs::canonicalize(&link).is_ok_and(|target| target == self.invocation.path) {
            return Link::Ours;
        }
        let target = fs::read_link(&link).unwrap_or_default();
        Link::Other(format!("{} is a link to {}, not to this image", link.display(), target.display()))
    }

    /// Makes the link, relative so that the directory can be moved.
    pub(super) fn make_link(&self, key: &Key) -> Result<(), io::Error> {
        std::os::unix::fs::symlink(self.invocation.path.file_name().unwrap_or_default(), self.link(key))
    }

    /// Refuses a key that is in use in any way.
    pub(super) fn must_be_new(&self, key: &Key) -> Result<(), Failure> {
        if self.data(key).is_some() || self.link_state(key) == Link::Ours {
            return Err(Message::boxed(format!(
                "the instance key '{key}' exists already; choose another, or remove it with fim-key remove {key}"
            )));
        }
        self.must_have_a_free_name(key)
    }

    /// Refuses a key whose link would take the name of something else.
    pub(super) fn must_have_a_free_name(&self, key: &Key) -> Result<(), Failure> {
        match self.link_state(key) {
            Link::Other(what) => {
                Err(Message::boxed(format!("the instance key '{key}' cannot have its link: {what}; move it away")))
            }
            Link::None | Link::Ours => Ok(()),
        }
    }

    /// The data of a key that must exist, with nothing running on it.
    pub(super) fn idle(&self, key: &Key) -> Result<Idle, Failure> {
        let data = self.data(key).ok_or_else(|| no_such(key))?;
        idle(&data, &format!("the instance key '{key}'"))
    }

    /// A place for what is being made.
    pub(super) fn draft(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{DRAFT}{key}"))
    }

    /// A place for what is being removed, on the file system of `data`.
    pub(super) fn removed(data: &Path, key: &Key) -> PathBuf {
        data.with_file_name(format!("{REMOVED}{key}"))
    }

    /// Removes what a killed `fim-key` has left.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(DRAFT) || name.starts_with(REMOVED)) {
                // What cannot go now may the next time.
                let _ = self.delete(&entry.path());
            }
        }
    }

    /// Deletes a data directory, or what there is of one.
    pub(super) fn delete(&self, data: &Path) -> Result<(), Failure> {
        let rung = rung::recorded(data, &self.caller, facts::is_privileged(&self.caller)).unwrap_or(rung::Rung::One);
        self.inside(&rung, || {
            // The kernel makes this one without any permission.
            let _ = fs::set_permissions(data.join("work/work"), Permissions::from_mode(0o700));
            fs::remove_dir_all(data).map_err(|error| format!("cannot remove {}: {error}", data.display()))
        })
    }

    /// Does what needs the rights over files of every owner that a data directory may have.
    pub(super) fn inside(&self, rung: &rung::Rung, work: impl FnOnce() -> Result<(), String>) -> Result<(), Failure> {
        let helpers = rung.helpers(&self.caller);
        let child = inside::start(&rung.session(&self.caller), helpers.as_ref(), || work().map(|()| String::new()))
            .map_err(|error| Message::boxed(format!("cannot use the IDs of the data directory: {error}")))?;
        child.end().map(drop).map_err(Message::boxed)
    }
}

/// Holds a data directory on which nothing runs.
///
/// # Errors
/// When instances run, naming them.
pub(super) fn idle(data: &Path, whose: &str) -> Result<Idle, Failure> {
    let session = exclusive::hold(data)?.map_err(|ids| {
        Message::boxed(format!("{whose} is in use by running instances ({ids}); end them first (fim-instance stop ID)"))
    })?;
    Ok(Idle { data: data.to_owned(), session })
}

impl Drop for Idle {
    fn drop(&mut self) {
        // The mark of a command.
        let _ = self.session.file().set_len(0);
    }
}

/// The error for a key that nobody has added or used.
pub(super) fn no_such(key: &Key) -> Failure {
    Message::boxed(format!("there is no instance key '{key}'; fim-key list shows those that there are"))
}
