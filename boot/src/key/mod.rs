//! `fim-key`: installations of one image file, told apart by an instance key.

mod add;
mod change;
mod keys;
mod list;
mod select;

use std::ffi::OsString;

use runtime::installation::Key;

pub(crate) use keys::LOCK;
pub(crate) use list::configurations;
pub(crate) use select::{choose, declared, links, own_image, redirect, settle};

use crate::cli::help;
use crate::cli::spec;
use crate::settings::{invalid_operation, json_flag, no_more, operation};
use crate::{Failure, Invocation, Message, cli};

/// Runs `fim-key` with the words after it; returns its exit code. A `run` that is in order was dealt with before the
/// installation was known.
///
/// # Errors
/// Wrong words; keys that are none, are missing, exist or are in use; nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let missing = "Missing op for 'fim-key' (<add|list|rename|clone|reset|remove|revert|run>)";
    let (operation, rest) = operation("key", words, missing)?;
    match operation.as_str() {
        "run" if rest.first().is_some_and(|word| word == "--help" || word == "-h") => {
            let spec = spec::find("fim-key".as_ref()).ok_or_else(|| invalid_operation("key", "run"))?;
            cli::print(&help::topic(spec)).map(|()| 0)
        }
        "run" => {
            let (key, _) = key(rest, &operation)?;
            Err(Message::boxed(format!("fim-key run {key} stands behind another one; name one key")))
        }
        "list" => list::run(invocation, json_flag("key", rest)?),
        "add" => {
            let (key, rest) = key(rest, &operation)?;
            add::run(invocation, &key, rest)
        }
        "rename" => {
            let (old, rest) = key(rest, &operation)?;
            let new = last_key(rest, &operation)?;
            change::rename(invocation, &old, &new)
        }
        "clone" => {
            // The installation that this is about is the first of the two when there is one only.
            let (first, rest) = key(rest, &operation)?;
            match rest {
                [] => change::clone(invocation, invocation.installation.key.as_ref(), &first),
                rest => change::clone(invocation, Some(&first), &last_key(rest, &operation)?),
            }
        }
        "reset" => change::reset(invocation, &last_key(rest, &operation)?),
        "revert" if rest.is_empty() => change::revert(invocation, invocation.installation.key.as_ref()),
        "revert" => change::revert(invocation, Some(&last_key(rest, &operation)?)),
        "remove" => {
            let (key, rest) = key(rest, &operation)?;
            let force = rest.first().is_some_and(|word| word == "--force");
            no_more("key", &rest[usize::from(force)..])?;
            change::remove(invocation, &key, force)
        }
        other => Err(invalid_operation("key", other)),
    }
}

/// The key that `words` begin with, and what follows it.
fn key<'a>(words: &'a [OsString], operation: &str) -> Result<(Key, &'a [OsString]), Failure> {
    let (word, rest) = words.split_first().ok_or_else(|| {
        Message::boxed(format!("Missing key for '{operation}': fim-key {operation} KEY; see fim-help key"))
    })?;
    Ok((Key::parse(word)?, rest))
}

/// The key that is all that `words` hold.
fn last_key(words: &[OsString], operation: &str) -> Result<Key, Failure> {
    let (key, rest) = key(words, operation)?;
    no_more("key", rest)?;
    Ok(key)
}
