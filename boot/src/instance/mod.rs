//! `fim-instance`: what can be done with live instances.

pub(crate) mod client;
mod exec;
mod list;
pub(crate) mod logs;
pub(crate) mod session;
mod stats;
pub(crate) mod stop;
mod streams;
mod usage;
mod wait;

use std::ffi::{OsStr, OsString};

use runtime::session::registry::Instance;

use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles};

/// Runs `fim-instance` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, instances that do not live, requests that cannot be served.
pub fn run(invocation: &Invocation, words: &[OsString], roles: Roles, build: Build) -> Result<i32, Failure> {
    let Some(operation) = words.first() else {
        return Err(Message::boxed(
            "Missing op for 'fim-instance' (<exec|list>); also stop, kill, wait, logs, stats: see fim-help instance",
        ));
    };
    let rest = &words[1..];
    match operation.to_string_lossy().to_lowercase().as_str() {
        "list" => list::run(invocation, only_flag(rest, "--json")?),
        "stats" => stats::run(invocation, only_flag(rest, "--json")?),
        "stop" => {
            let (id, rest) = id(rest)?;
            stop::stop(invocation, id, rest)
        }
        "kill" => {
            let (id, rest) = id(rest)?;
            stop::kill(invocation, id, rest)
        }
        "wait" => {
            let (id, rest) = id(rest)?;
            none_left(rest)?;
            wait::run(invocation, id)
        }
        "logs" => {
            let (id, rest) = id(rest)?;
            logs::run(invocation, id, only_flag(rest, "--follow")?)
        }
        "exec" => {
            let (id, rest) = id(rest)?;
            if rest.is_empty() {
                return Err(Message::boxed(
                    "Missing 'cmd' argument for 'fim-instance'; name a command: fim-instance exec ID COMMAND [ARGUMENT...]",
                ));
            }
            exec::run(invocation, id, rest, roles, build)
        }
        other => Err(Message::boxed(format!("Invalid instance operation '{other}'; see fim-help instance"))),
    }
}

/// Whether these words need no copy of the program to run from, which is a third of the time that a short operation
/// takes. One that may go on for long must not keep the image file busy.
#[must_use]
pub fn is_brief(words: &[OsString]) -> bool {
    let word = words.first().map(|word| word.to_string_lossy().to_lowercase());
    matches!(word.as_deref(), Some("list" | "kill" | "stop"))
}

/// Whether the one flag that may stand there does.
fn only_flag(words: &[OsString], flag: &str) -> Result<bool, Failure> {
    let given = words.first().is_some_and(|word| word == flag);
    none_left(&words[usize::from(given)..])?;
    Ok(given)
}

fn none_left(words: &[OsString]) -> Result<(), Failure> {
    if words.is_empty() { Ok(()) } else { Err(trailing_arguments(words)) }
}

fn trailing_arguments<'a>(words: impl IntoIterator<Item = &'a OsString>) -> Failure {
    let list: String = words.into_iter().map(|word| format!("'{}',", word.to_string_lossy())).collect();
    Message::boxed(format!("Trailing arguments for fim-instance: [{list}]; remove them, or see fim-help instance"))
}

/// The command of an instance as words to show.
fn words(instance: &Instance) -> Vec<String> {
    instance.command.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The ID that begins `words`, and what follows it.
fn id(words: &[OsString]) -> Result<(u64, &[OsString]), Failure> {
    let Some((word, rest)) = words.split_first() else {
        return Err(Message::boxed("Missing 'id' argument for 'fim-instance'; fim-instance list shows them"));
    };
    parse_id(word).map(|id| (id, rest))
}

fn parse_id(word: &OsStr) -> Result<u64, Failure> {
    let text = word.to_string_lossy();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Message::boxed(format!(
            "Id argument must be a digit, not '{text}'; fim-instance list shows the IDs"
        )));
    }
    // A number too large for any instance is out of bounds like any other that nobody has.
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let parse = |word: &str| parse_id(OsStr::new(word)).map_err(|error| error.to_string());
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("12"), Ok(12));
        assert_eq!(parse("99999999999999999999999999"), Ok(u64::MAX));
        for bad in ["-1", "", "x", "1x", "1 ", "+1", "0x1"] {
            assert!(parse(bad).unwrap_err().starts_with("Id argument must be a digit"), "{bad}");
        }
    }
}
