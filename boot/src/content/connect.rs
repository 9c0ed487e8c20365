//! `fim-content connect` and `disconnect`: which producer serves a plug. That is the installation's own, unless it is
//! embedded in the image.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use runtime::image::declared::{Connection, Plug, Slot};
use runtime::image::{self, Config};
use runtime::installation::Setting;

use super::declare::no_plug;
use super::producer::Producer;
use crate::launch::facts;
use crate::settings::{change_own, give_up};
use crate::{Failure, Invocation, Message, cli};

/// Stores in the image instead of the data directory.
const EMBED: &str = "--embed";

/// The words without `--embed`, and whether it was there.
fn embeds(words: &[OsString]) -> (Vec<&OsString>, bool) {
    (words.iter().filter(|word| *word != EMBED).collect(), words.iter().any(|word| word == EMBED))
}

/// The plug that is meant.
fn plug(invocation: &Invocation, word: &OsStr) -> Result<Plug, Failure> {
    let plugs = &invocation.image.config.declared.plugs;
    let found = plugs.iter().find(|plug| plug.name.as_bytes() == word.as_bytes());
    found.cloned().ok_or_else(|| no_plug(&word.to_string_lossy(), plugs))
}

/// A file and a slot behind a colon. A file whose own name has a colon is that file.
fn file_and_slot(word: &OsStr) -> (PathBuf, Option<String>) {
    let whole = PathBuf::from(word);
    let bytes = word.as_bytes();
    let colon = bytes.iter().rposition(|&byte| byte == b':').filter(|_| !whole.exists());
    let parts = colon.and_then(|at| Some((&bytes[..at], std::str::from_utf8(&bytes[at + 1..]).ok()?)));
    match parts {
        Some((file, slot)) if !file.is_empty() => (PathBuf::from(OsStr::from_bytes(file)), Some(slot.to_owned())),
        _ => (whole, None),
    }
}

/// `fim-content connect`.
pub(super) fn connect(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (words, embed) = embeds(words);
    let [name, file] = words[..] else {
        return Err(Message::boxed(
            "Incorrect number of arguments for 'connect' (<plug> <file[:slot]> [--embed]); see fim-help content",
        ));
    };
    let plug = plug(invocation, name)?;
    let (file, slot) = file_and_slot(file);
    let producer = Producer::open(&file, &facts::caller())?;
    let slot = producer.slot(&plug, slot.as_deref()).map_err(|unfit| {
        let shown = producer.path.display();
        Message::boxed(format!("the producer {shown} does not fit the plug '{}': {unfit}", plug.name))
    })?;
    store(invocation, &plug, &producer, &slot, embed)?;
    cli::print(&format!("{} is connected to {}:{}\n", plug.name, producer.path.display(), slot.name)).map(|()| 0)
}

/// Remembers that the user wants this slot for the plug, as the producer is now.
///
/// # Errors
/// When it cannot be stored.
pub(super) fn store(
    invocation: &Invocation,
    plug: &Plug,
    producer: &Producer,
    slot: &Slot,
    embed: bool,
) -> Result<(), Failure> {
    let connection = Connection {
        plug: plug.name.clone(),
        file: producer.path.as_os_str().as_bytes().to_vec(),
        slot: slot.name.clone(),
        identity: producer.identity(slot),
    };
    change(invocation, embed, |config| {
        let connections = &mut config.declared.connections;
        let same = |other: &&mut Connection| {
            (&other.plug, &other.file, &other.slot) == (&connection.plug, &connection.file, &connection.slot)
        };
        match connections.iter_mut().find(same) {
            // Its place among others stays.
            Some(known) => *known = connection.clone(),
            None => connections.push(connection.clone()),
        }
        Ok(())
    })
}

fn change(
    invocation: &Invocation,
    embed: bool,
    change: impl Fn(&mut Config) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if embed { image::update(&invocation.path, change) } else { change_own(invocation, Setting::Content, change) }
}

/// `fim-content disconnect`.
pub(super) fn disconnect(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (words, embed) = embeds(words);
    let (name, file) = match words[..] {
        [name] => (name, None),
        [name, file] => (name, Some(file_and_slot(file))),
        _ => {
            return Err(Message::boxed(
                "Incorrect number of arguments for 'disconnect' (<plug> [file[:slot]] [--embed]); see fim-help content",
            ));
        }
    };
    let name = name.to_string_lossy();
    // A producer that is gone can be disconnected, too; relative paths are from here.
    let file = file.map(|(file, slot)| (std::path::absolute(&file).unwrap_or(file), slot));
    let is_meant = |connection: &Connection| {
        let same = |(file, slot): &(PathBuf, Option<String>)| {
            file.as_os_str().as_bytes() == connection.file && slot.as_ref().is_none_or(|slot| *slot == connection.slot)
        };
        connection.plug == name && file.as_ref().is_none_or(same)
    };
    let without = |config: &mut Config| {
        let connections = &mut config.declared.connections;
        let before = connections.len();
        connections.retain(|connection| !is_meant(connection));
        if connections.len() < before {
            return Ok(());
        }
        let to = file.as_ref().map(|(file, _)| format!(" to {}", file.display())).unwrap_or_default();
        Err(Message::boxed(format!(
            "the plug '{}' is not connected{to}; fim-content connections lists what is",
            name.escape_debug()
        )))
    };
    // Nothing is made for what is an error.
    let config = &invocation.image.config;
    let before = if embed { invocation.inherited.as_ref().unwrap_or(config) } else { config };
    without(&mut before.clone())?;
    change(invocation, embed, without)?;
    Ok(0)
}

/// `fim-content inherit`.
pub(super) fn inherit(invocation: &Invocation) -> Result<(), Failure> {
    give_up(invocation, Setting::Content)
}
