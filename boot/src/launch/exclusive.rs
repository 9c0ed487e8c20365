//! The writable data for one command alone: no instance uses it, and none starts before the command has ended.
//!
//! The command holds the session lock, as a mount server would, with its own mark in it. A start that meets the mark says
//! so and waits.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime::commit::{self, Interrupted};
use runtime::sandbox::inside::{self, Inside};
use runtime::session::lock;
use runtime::session::record::Record;
use runtime::session::registry::Registry;
use runtime::sys::process;

use super::facts::{self, Caller};
use super::rung::{self, Rung};
use crate::{Failure, Invocation, Message, report};

/// First line of the session lock while a command holds it; the process ID follows.
const MARK: &str = "fim-command 1\n";

/// A data directory.
pub(crate) struct Data {
    /// The directory.
    pub path: PathBuf,
    /// Which IDs its files have.
    pub rung: Rung,
    /// Whose it is.
    pub caller: Caller,
}

/// A data directory that nobody else uses.
pub(crate) struct Exclusive {
    /// The directory.
    pub data: Data,
    session: lock::Held,
}

/// The data directory of the image, which others may be using; `None` when there is none.
///
/// # Errors
/// When it is somebody else's.
pub(crate) fn look(invocation: &Invocation) -> Result<Option<Data>, Failure> {
    let caller = facts::caller();
    let Some(path) = super::data::owned_by(invocation, &caller)? else { return Ok(None) };
    let rung = rung::recorded(&path, &caller, facts::is_privileged(&caller))?;
    Ok(Some(Data { path, rung, caller }))
}

/// Takes the data directory of the image; `None` when there is none. What an earlier command left undone is done first.
/// `purpose` is what the command does, for messages.
///
/// # Errors
/// When instances use it, naming them; when it is somebody else's.
pub(crate) fn take(invocation: &Invocation, purpose: &str) -> Result<Option<Exclusive>, Failure> {
    let Some(data) = look(invocation)? else { return Ok(None) };
    let session = hold(&data.path)?.map_err(|ids| {
        let shown = data.path.display();
        Message::boxed(format!(
            "cannot {purpose}: instances use {shown}: {ids}; end them first, with fim-instance stop ID"
        ))
    })?;
    let alone = Exclusive { session, data };
    recover(&alone.data.path, &alone.data.rung, &alone.data.caller, &invocation.path)?;
    Ok(Some(alone))
}

/// Takes the session lock and marks it; the inner error has the IDs of the instances that use the data.
pub(crate) fn hold(data: &Path) -> Result<Result<lock::Held, String>, Failure> {
    loop {
        let starting = lock::wait(data, lock::START)?;
        let theirs = match lock::attempt(data, lock::SESSION)? {
            Ok(held) => {
                let mark = format!("{MARK}{}\n", std::process::id());
                let file = held.file();
                let marked = file.set_len(0).and_then(|()| file.write_all_at(mark.as_bytes(), 0));
                marked.map_err(|error| Message::boxed(format!("cannot mark {}: {error}", held.path().display())))?;
                return Ok(Ok(held));
            }
            Err(theirs) => theirs,
        };
        if is_command(&theirs) {
            drop(starting);
            wait_for_command(&theirs, data)?;
            continue;
        }
        // Empty while a session begins or ends, which is without the start lock.
        let Ok(record) = Record::read(&theirs, &data.join(lock::SESSION)) else {
            drop(starting);
            drop(lock::wait(data, lock::SESSION)?);
            continue;
        };
        let live = Registry::new(&record.directory).live()?;
        if !live.is_empty() {
            let ids: Vec<String> = live.iter().map(|instance| instance.id.to_string()).collect();
            return Ok(Err(ids.join(" ")));
        }
        wait_for_end(&record, starting);
    }
}

/// Waits for the end of a session whose last instance has gone, or until an instance has begun in it. While the start lock
/// is held no start is half-way, and the mount server, which needs it for its end, is not gone.
pub(super) fn wait_for_end(record: &Record, starting: lock::Held) {
    let changes = watch(&record.directory.join("instances"));
    drop(starting);
    wait_for_change(record, changes.as_ref());
}

/// Reports each instance that begins.
fn watch(instances: &Path) -> Option<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).ok()?;
    inotify.add_watch(instances, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE_SELF).ok()?;
    Some(inotify)
}

/// Waits until the session's mount server has ended, or an instance has begun.
fn wait_for_change(record: &Record, changes: Option<&Inotify>) {
    let Ok(server) = process::pidfd_open(record.server) else { return };
    if !record.server_is_alive() {
        return;
    }
    let fds = [Some(server.as_fd()), changes.map(AsFd::as_fd)].into_iter().flatten();
    let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let _ = poll(&mut fds, PollTimeout::NONE);
}

/// The process ID in the mark of a command that has the data directory for itself.
fn command(theirs: &File) -> Option<String> {
    let mut mark = [0; 64];
    let read = theirs.read_at(&mut mark, 0).unwrap_or(0);
    let process = mark[..read].strip_prefix(MARK.as_bytes())?;
    Some(String::from_utf8_lossy(process).trim_end().to_owned())
}

/// Whether a session lock is held by a command.
pub(super) fn is_command(theirs: &File) -> bool {
    command(theirs).is_some()
}

/// Says that a command has the data directory for itself, and waits for its end. The start lock is not held meanwhile.
pub(super) fn wait_for_command(theirs: &File, data: &Path) -> Result<(), Failure> {
    if let Some(process) = command(theirs) {
        report(&format!("note: waiting for the command (process {process}) that changes {}", data.display()));
    }
    drop(lock::wait(data, lock::SESSION)?);
    Ok(())
}

/// Goes on where a command was interrupted, if one was. The caller holds the session lock.
///
/// # Errors
/// When the data directory cannot be brought into a state in which it can be used.
pub(crate) fn recover(data: &Path, rung: &Rung, caller: &Caller, image: &Path) -> Result<(), Failure> {
    if !commit::interrupted(data) {
        return Ok(());
    }
    match commit::recover(data, image)? {
        Interrupted::Nothing => {}
        Interrupted::GivenUp => {
            report(&"note: a commit was interrupted before its layer was saved; the changes are kept")
        }
        Interrupted::Completed => {
            report(&"note: a commit or reset was interrupted and has been completed");
            clean(data, rung, caller);
        }
    }
    Ok(())
}

/// Removes the writable layer that was, as far as that can be done now.
fn clean(data: &Path, rung: &Rung, caller: &Caller) {
    let remove =
        || commit::remove_committed(data).map(|()| String::new()).map_err(|error| runtime::error::chain(&error));
    let removed = inside::start(&rung.session(caller), rung.helpers(caller).as_ref(), remove)
        .map_err(|error| error.to_string())
        .and_then(Inside::end)
        .and_then(|_| commit::clean(data).map_err(|error| runtime::error::chain(&error)));
    if let Err(why) = removed {
        report(&format!(
            "warning: what is left of the former writable layer was not removed: {why}; it is tried again"
        ));
    }
}

impl Data {
    /// Begins work on the files in a child that has their IDs.
    ///
    /// # Errors
    /// When that is not possible on this host now.
    pub(crate) fn inside(&self, work: impl FnOnce() -> Result<String, String>) -> Result<Inside, Failure> {
        let helpers = self.rung.helpers(&self.caller);
        inside::start(&self.rung.session(&self.caller), helpers.as_ref(), work)
            .map_err(|error| Message::boxed(format!("cannot use the IDs of {}: {error}", self.path.display())))
    }
}

impl Exclusive {
    /// Removes the writable layer that was; what cannot be removed now is later.
    pub(crate) fn clean(&self) {
        clean(&self.data.path, &self.data.rung, &self.data.caller);
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // The lock, which goes next, is what counts; the mark would only puzzle who looks at the file.
        let _ = self.session.file().set_len(0);
    }
}

/// Whether `data` holds something: the writable layer, or what a command that was interrupted has made of it.
pub(super) fn is_used(data: &Path) -> bool {
    data.join("root").is_dir() || commit::interrupted(data)
}
