//! `fim-key rename|clone|reset|remove`: each changes all or nothing, and only what no instance uses.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use runtime::copy::Copier;
use runtime::emulation::ledger;
use runtime::image::NamedBit;
use runtime::image::declared::HookKind;
use runtime::installation::belongs_to;
use runtime::installation::revision::Revision;
use runtime::installation::{IMAGE, Key, link_name};
use runtime::session::service::SERVICES;

use super::declared;
use super::keys::{self, Idle, Keys, Link, no_such};
use crate::launch::facts::{self, Caller};
use crate::launch::{data, exclusive, hooks, rung};
use crate::{Failure, Invocation, Message, alias, cli, report};

/// What of a data directory is a session's, or the data of others. Owners that are remembered go by objects, and are taken
/// over with them.
const LEFT_OUT: [&str; 11] = [
    hooks::LOCK,
    SERVICES,
    "work",
    "start.lock",
    "session.lock",
    "settings.lock",
    "mount-points",
    "errors.log",
    ledger::NAME,
    "keys",
    belongs_to::RECORD,
];

fn failed<'a>(action: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Failure + 'a {
    move |error| Message::boxed(format!("cannot {action} {}: {error}", path.display()))
}

/// Gives an installation another key.
pub(super) fn rename(invocation: &Invocation, old: &Key, new: &Key) -> Result<i32, Failure> {
    let keys = Keys::lock(invocation, Some(old))?;
    let idle = keys.idle(old)?;
    keys.must_be_new(new)?;
    let to = idle.data.with_file_name(new.as_str());
    fs::rename(&idle.data, &to).map_err(failed("rename", &idle.data))?;
    if keys.link_state(old) == Link::Ours {
        let link = keys.link(old);
        if let Err(error) = fs::rename(&link, keys.link(new)) {
            fs::rename(&to, &idle.data).map_err(failed("rename back", &to))?;
            return Err(failed("rename the link", &link)(error));
        }
    }
    if let Err(error) = alias::follow(invocation, &keys.caller, old, Some(new)) {
        let why = runtime::error::chain(error.as_ref());
        report(&format!("warning: not all aliases of '{old}' are those of '{new}' now: {why}; see fim-alias list"));
    }
    Ok(0)
}

/// Makes an installation with the data and settings of another; `None` is the default one.
pub(super) fn clone(invocation: &Invocation, from: Option<&Key>, to: &Key) -> Result<i32, Failure> {
    let keys = Keys::lock(invocation, from)?;
    let idle = source(&keys, from)?;
    keys.must_be_new(to)?;
    let draft = keys.draft(to);
    let made = copy(&keys, &idle, &draft).and_then(|()| {
        let place = draft.with_file_name(to.as_str());
        fs::rename(&draft, &place).map_err(failed("rename", &draft))
    });
    if let Err(error) = made {
        if draft.exists() {
            keys.delete(&draft)?;
        }
        return Err(error);
    }
    if let Err(error) = keys.make_link(to) {
        let link = keys.link(to);
        report(&format!(
            "note: there is no link {} ({error}); fim-key run {to} starts this installation",
            link.display()
        ));
    }
    Ok(0)
}

fn source(keys: &Keys<'_>, from: Option<&Key>) -> Result<Idle, Failure> {
    from.map_or_else(|| default(keys.invocation, &keys.caller, "clone"), |key| keys.idle(key))
}

/// The data of the default installation, with nothing running on it.
fn default(invocation: &Invocation, caller: &Caller, action: &str) -> Result<Idle, Failure> {
    let data = data::existing_of(invocation, caller, None).ok_or_else(|| {
        Message::boxed(format!("the default installation has no data to {action} yet; start it once"))
    })?;
    keys::idle(&data, "the default installation")
}

fn copy(keys: &Keys<'_>, from: &Idle, to: &Path) -> Result<(), Failure> {
    fs::create_dir(to).map_err(failed("make the directory", to))?;
    let rung = rung::recorded(&from.data, &keys.caller, facts::is_privileged(&keys.caller))?;
    exclusive::recover(&from.data, &rung, &keys.caller, &keys.invocation.path)?;
    keys.inside(&rung, || {
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", from.data.display());
        let mut copier = Copier::between(&from.data, to).map_err(unreadable)?;
        for entry in fs::read_dir(&from.data).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            if !LEFT_OUT.iter().any(|left| *left == name) {
                copier.copy(&from.data.join(&name), &to.join(&name)).map_err(|error| runtime::error::chain(&error))?;
            }
        }
        fs::create_dir(to.join("work")).map_err(|error| format!("cannot make a directory in {}: {error}", to.display()))
    })
}

/// Brings an installation back to what was packed. Its link, and its own image, stay.
pub(super) fn reset(invocation: &Invocation, key: &Key) -> Result<i32, Failure> {
    let keys = Keys::lock(invocation, Some(key))?;
    let idle = keys.idle(key)?;
    let removed = set_aside(&keys, &idle, key)?;
    data::prepare_of(invocation, &keys.caller, Some(key))?;
    if removed.join(IMAGE).exists() {
        fs::rename(removed.join(IMAGE), idle.data.join(IMAGE)).map_err(failed("rename", &removed.join(IMAGE)))?;
    }
    keys.delete(&removed)?;
    Ok(0)
}

/// Removes an installation with its data, its settings, its aliases and its link. With `force`, without its hook.
pub(super) fn remove(invocation: &Invocation, key: &Key, force: bool) -> Result<i32, Failure> {
    if !force {
        run_remove_hook(invocation, key)?;
    }
    let removed = {
        let keys = Keys::lock(invocation, Some(key).filter(|key| !has_link(invocation, key)))?;
        let link = keys.link_state(key) == Link::Ours;
        let removed = match keys.data(key) {
            Some(_) => {
                let idle = keys.idle(key)?;
                Some(set_aside(&keys, &idle, key)?)
            }
            None if link => None,
            None => return Err(no_such(key)),
        };
        alias::follow(invocation, &keys.caller, key, None)?;
        if link {
            let link = keys.link(key);
            fs::remove_file(&link).map_err(failed("remove the link", &link))?;
        }
        removed.map(|removed| keys.delete(&removed)).transpose()
    };
    removed?;
    let mut line = invocation.installation.with_key(Some(key.clone())).instance_name();
    line.push(" removed\n");
    cli::print_bytes(line.as_encoded_bytes()).map(|()| 0)
}

/// Runs the hook that the image has for its removal, as the installation, when nothing else runs on it.
fn run_remove_hook(invocation: &Invocation, key: &Key) -> Result<(), Failure> {
    let Some(data) = data::existing_of(invocation, &facts::caller(), Some(key)) else { return Ok(()) };
    // An image that is no more has no hook.
    let hooks = declared(invocation, Some(data)).map(|declared| declared.hooks).unwrap_or_default();
    if !hooks.iter().any(|hook| hook.kind == HookKind::Remove) {
        return Ok(());
    }
    drop(Keys::lock(invocation, Some(key))?.idle(key)?);
    let mut command = Command::new(&invocation.path);
    command.args(["fim-key", "run", key.as_str(), "fim-hook", "run", HookKind::Remove.name()]);
    let status = command.env_remove("FIM_INSTANCE_KEY").status().map_err(failed("start", &invocation.path))?;
    if status.success() {
        return Ok(());
    }
    Err(Message::boxed(format!(
        "the instance key '{key}' was not removed, for its remove hook has failed; fim-key remove {key} --force does without it"
    )))
}

/// Has an installation use the files of the revision before again; `None` is the default installation.
pub(super) fn revert(invocation: &Invocation, key: Option<&Key>) -> Result<i32, Failure> {
    let keys = key.map(|key| Keys::lock(invocation, Some(key))).transpose()?;
    let idle = match (&keys, key) {
        (Some(keys), Some(key)) => keys.idle(key)?,
        _ => default(invocation, &facts::caller(), "revert")?,
    };
    let failed = |error: io::Error| failed("change the revision in", &idle.data)(error);
    let revision = Revision::read(&idle.data).map_err(failed)?;
    let (previous, revision) = revision
        .and_then(|revision| Some((revision.previous(&idle.data)?, revision)))
        .ok_or_else(|| Message::boxed("there are no files of an earlier revision to go back to"))?;
    Revision { current: previous, ..revision }.write(&idle.data).map_err(failed)?;
    let name = invocation.installation.with_key(key.cloned()).instance_name();
    cli::print_bytes(&[name.as_encoded_bytes(), format!(" reverted to revision {previous}\n").as_bytes()].concat())
        .map(|()| 0)
}

/// Whether a key has a link though it may have no data yet.
fn has_link(invocation: &Invocation, key: &Key) -> bool {
    let name = link_name(invocation.path.file_name().unwrap_or_default(), key);
    fs::symlink_metadata(invocation.path.with_file_name(name)).is_ok_and(|metadata| metadata.is_symlink())
}

/// Takes the data of a key out of use at once.
fn set_aside(keys: &Keys<'_>, idle: &Idle, key: &Key) -> Result<std::path::PathBuf, Failure> {
    let aside = Keys::removed(&idle.data, key);
    if aside.exists() {
        keys.delete(&aside)?;
    }
    fs::rename(&idle.data, &aside).map_err(failed("remove", &idle.data))?;
    Ok(aside)
}
