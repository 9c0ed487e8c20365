//! The commands that read and change the configuration of an image: one module for each, and here what they share.
//!
//! Each finds out everything that is wrong with its words before it touches the image, and prints only after the change
//! is on the medium.

pub mod bind;
pub mod boot;
pub mod env;
mod explain;
pub mod overlay;
pub mod remote;
pub mod sets;
pub mod switch;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use runtime::image::{self, Config, NamedBit};
use runtime::installation::{Own, Setting};

use crate::launch::stacking::{REPLACED, Stacking};
use crate::launch::{data, facts};
use crate::{Failure, Invocation, Message, cli, report};

/// The operation of a command, in lower case, and the words after it.
///
/// # Errors
/// `missing`, the text that scripts know for a command without an operation.
pub(crate) fn operation<'a>(
    command: &str,
    words: &'a [OsString],
    missing: &str,
) -> Result<(String, &'a [OsString]), Failure> {
    let (operation, rest) =
        words.split_first().ok_or_else(|| Message::boxed(format!("{missing}; see fim-help {command}")))?;
    Ok((operation.to_string_lossy().to_lowercase(), rest))
}

/// The error for an operation that a command does not know.
pub(crate) fn invalid_operation(command: &str, operation: &str) -> Failure {
    Message::boxed(format!("Invalid {command} operation '{}'; see fim-help {command}", operation.escape_debug()))
}

/// Refuses words that a command does not take.
///
/// # Errors
/// When there is one.
pub(crate) fn no_more(command: &str, rest: &[OsString]) -> Result<(), Failure> {
    if rest.is_empty() { Ok(()) } else { Err(cli::trailing_arguments(command, &rest.iter().collect::<Vec<_>>())) }
}

/// Whether `--json`, the only word that `list` and `show` take, was given.
///
/// # Errors
/// Any other word.
pub(crate) fn json_flag(command: &str, rest: &[OsString]) -> Result<bool, Failure> {
    let given = rest.first().is_some_and(|word| word == "--json");
    no_more(command, &rest[usize::from(given)..])?;
    Ok(given)
}

/// Changes one setting of the installation: in the image, or in the data of the key, whose own it is from then on. What
/// `change` returns is what there is to be said about it.
///
/// # Errors
/// What `change` returns, and an image or data that cannot be changed; nothing is changed then.
pub(crate) fn change<T>(
    invocation: &Invocation,
    setting: Setting,
    change: impl FnOnce(&mut Config) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if invocation.installation.key.is_none() {
        return image::update(&invocation.path, change);
    }
    change_own(invocation, setting, change)
}

/// Changes a setting in the data of the installation, whose own it is from then on.
///
/// # Errors
/// What `change` returns, and data that cannot be changed; nothing is changed then.
pub(crate) fn change_own<T>(
    invocation: &Invocation,
    setting: Setting,
    change: impl FnOnce(&mut Config) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let inherited = invocation.inherited.as_ref().unwrap_or(&invocation.image.config);
    Own::update(&data::prepare_of(invocation, &facts::caller(), invocation.installation.key.as_ref())?, |own| {
        let mut config = own.over(inherited);
        let value = change(&mut config)?;
        own.set(setting, &config);
        Ok(value)
    })
}

/// The word that gives a key's own setting up.
const INHERIT: &str = "inherit";

/// Runs `inherit`, which every command about a setting has: the key follows the image again. `None` when these words
/// are another operation.
///
/// # Errors
/// Words behind it, no key, and data that cannot be changed.
pub(crate) fn inherit(invocation: &Invocation, command: &str, words: &[OsString]) -> Result<Option<i32>, Failure> {
    // What every installation keeps for itself is given up by its own command.
    let Some(setting) = Setting::from_name(command).filter(|setting| *setting != Setting::Content) else {
        return Ok(None);
    };
    let Some((word, rest)) = words.split_first().filter(|(word, _)| word.eq_ignore_ascii_case(INHERIT)) else {
        return Ok(None);
    };
    no_more(command, rest)?;
    if invocation.installation.key.is_none() {
        return Err(Message::boxed(format!(
            "'{}' is for installations with an instance key; this is the default one, whose settings are the image's own",
            word.to_string_lossy()
        )));
    }
    give_up(invocation, setting).map(|()| Some(0))
}

/// Has a setting of the installation follow the image again.
///
/// # Errors
/// When the data cannot be changed.
pub(crate) fn give_up(invocation: &Invocation, setting: Setting) -> Result<(), Failure> {
    if let Some(data) = data::existing(invocation, &facts::caller()) {
        Own::update(&data, |own| Ok::<_, Failure>(own.inherit(setting)))?;
    }
    Ok(())
}

/// What would stack the layers of a start by this caller. Says so when casefold replaces what was chosen.
pub(crate) fn stacking(config: &Config) -> Stacking {
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let variable = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str());
    let stacking = Stacking::of(config, variable);
    if stacking.replaced {
        report(&format!("warning: {REPLACED}"));
    }
    stacking
}

/// Prints a JSON value in the shape that scripts know.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<i32, Failure> {
    cli::print(&format!("{value:#}\n")).map(|()| 0)
}

/// Bytes as text for JSON and messages; what is not UTF-8 shows as U+FFFD.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of a word.
pub(crate) fn bytes(word: &OsStr) -> Vec<u8> {
    word.as_bytes().to_vec()
}
