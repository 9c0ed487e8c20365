//! `fim-hook`: commands that an image runs when it is installed, configured and removed.

use std::ffi::OsString;

use runtime::image::declared::{Hook, HookKind};
use runtime::image::{Config, NamedBit};
use serde_json::json;

use crate::launch::{facts, hooks};
use crate::settings::{bytes, invalid_operation, json_flag, no_more, operation, print_json, text};
use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles, cli, publisher};

/// Runs `fim-hook` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, an image that cannot be changed, and a hook that fails.
pub(crate) fn run(invocation: &Invocation, words: &[OsString], roles: Roles, build: Build) -> Result<i32, Failure> {
    let (operation, rest) = operation("hook", words, "Missing op for 'fim-hook' (<set|list|clear|run>)")?;
    match operation.as_str() {
        "set" => {
            let (kind, command) = kind(rest, &operation)?;
            if command.is_empty() {
                let kind = kind.name();
                return Err(Message::boxed(format!("Missing command for 'set': fim-hook set {kind} COMMAND...")));
            }
            let hook = Hook { kind, words: command.iter().map(|word| bytes(word)).collect() };
            publisher::declare(invocation, |config| {
                config.declared.hooks.retain(|other| other.kind != kind);
                config.declared.hooks.push(hook);
                Ok(0)
            })
        }
        "clear" => {
            let one = if rest.is_empty() { None } else { Some(last_kind(rest, &operation)?) };
            publisher::declare(invocation, |config| {
                config.declared.hooks.retain(|hook| one.is_some_and(|kind| kind != hook.kind));
                Ok(0)
            })
        }
        "list" => list(&invocation.image.config, json_flag("hook", rest)?),
        "run" => run_one(invocation, last_kind(rest, &operation)?, roles, build),
        other => Err(invalid_operation("hook", other)),
    }
}

fn kind<'a>(words: &'a [OsString], operation: &str) -> Result<(HookKind, &'a [OsString]), Failure> {
    let names = || HookKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let (word, rest) = words
        .split_first()
        .ok_or_else(|| Message::boxed(format!("Missing kind of hook for '{operation}' ({})", names())))?;
    let kind = word.to_str().and_then(HookKind::from_name).ok_or_else(|| {
        let word = word.to_string_lossy();
        Message::boxed(format!("Invalid kind of hook '{}'; there are {}", word.escape_debug(), names()))
    })?;
    Ok((kind, rest))
}

fn last_kind(words: &[OsString], operation: &str) -> Result<HookKind, Failure> {
    let (kind, rest) = kind(words, operation)?;
    no_more("hook", rest)?;
    Ok(kind)
}

fn list(config: &Config, as_json: bool) -> Result<i32, Failure> {
    let shown = |hook: &Hook| hook.words.iter().map(|word| text(word)).collect::<Vec<_>>();
    if as_json {
        let map: serde_json::Map<_, _> =
            config.declared.hooks.iter().map(|hook| (hook.kind.name().to_owned(), json!(shown(hook)))).collect();
        return print_json(&map.into());
    }
    let line = |hook: &Hook| format!("{}: {}\n", hook.kind.name(), shown(hook).join(" "));
    cli::print(&config.declared.hooks.iter().map(line).collect::<String>()).map(|()| 0)
}

/// Runs a hook of this installation when the user asks for it.
fn run_one(invocation: &Invocation, kind: HookKind, roles: Roles, build: Build) -> Result<i32, Failure> {
    if kind == HookKind::Install {
        return Err(Message::boxed(
            "the install hook runs by itself before the first command of an installation; fim-key reset KEY or fim-data clear has it run again",
        ));
    }
    if !invocation.image.config.declared.hooks.iter().any(|hook| hook.kind == kind) {
        let kind = kind.name();
        return Err(Message::boxed(format!(
            "the image has no {kind} hook; fim-hook set {kind} COMMAND... gives it one"
        )));
    }
    match kind {
        // What was never installed has nothing to be removed.
        HookKind::Remove if !hooks::is_installed(invocation) => Ok(0),
        // The first start configures anyway.
        HookKind::Configure if hooks::install(invocation, &facts::gather(invocation)?, roles, build)? => Ok(0),
        kind => hooks::run(invocation, kind, roles, build).map(|()| 0),
    }
}
