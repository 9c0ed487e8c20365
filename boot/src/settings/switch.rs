//! `fim-notify` and `fim-casefold`: settings that are on or off.

use std::ffi::OsString;

use runtime::installation::Setting;

use super::{change, no_more};
use crate::{Failure, Invocation, Message};

/// Runs `fim-notify` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn notify(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let on = on_or_off("notify", words)?;
    change(invocation, Setting::Notify, |config| {
        config.notify = on;
        Ok(0)
    })
}

/// Runs `fim-casefold` with the words after it; returns its exit code.
///
/// # Errors
/// As [`notify`].
pub fn casefold(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let on = on_or_off("casefold", words)?;
    change(invocation, Setting::Casefold, |config| {
        config.casefold = on;
        super::stacking(config);
        Ok(0)
    })
}

fn on_or_off(command: &str, words: &[OsString]) -> Result<bool, Failure> {
    let Some((word, rest)) = words.split_first() else {
        return Err(Message::boxed(format!(
            "Incorrect number of arguments for 'fim-{command}' (<on|off>); see fim-help {command}"
        )));
    };
    no_more(command, rest)?;
    match word.to_string_lossy().to_lowercase().as_str() {
        "on" => Ok(true),
        // The third word is FlatImage's name for neither.
        "off" | "none" => Ok(false),
        other => Err(Message::boxed(format!("Invalid {command} operation '{}'; use on or off", other.escape_debug()))),
    }
}
