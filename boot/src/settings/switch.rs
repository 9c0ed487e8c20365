//! `fim-notify` and `fim-casefold`: settings that are on or off.

use std::ffi::OsString;

use runtime::image::Config;
use runtime::installation::Setting;

use super::{change, no_more};
use crate::{Failure, Invocation, Message, report};

/// Runs `fim-notify` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn notify(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let on = on_or_off("notify", words)?;
    store(invocation, Setting::Notify, on, |config| &mut config.notify)
}

/// Runs `fim-casefold` with the words after it; returns its exit code.
///
/// # Errors
/// As [`notify`].
pub fn casefold(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let on = on_or_off("casefold", words)?;
    let code = store(invocation, Setting::Casefold, on, |config| &mut config.casefold)?;
    if on {
        report(&"note: casefold is stored in the image, but this version of fim looks names up with regard to case");
    }
    Ok(code)
}

fn store(
    invocation: &Invocation,
    setting: Setting,
    on: bool,
    field: fn(&mut Config) -> &mut bool,
) -> Result<i32, Failure> {
    change(invocation, setting, |config| {
        *field(config) = on;
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
