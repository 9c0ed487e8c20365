//! `fim-alias`: commands of an installation by names of their own on the host.
//!
//! A launcher says itself whose it is, so that there is nothing else to be kept: what is in the directory is what there is.

mod directory;
mod launcher;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use runtime::image::declared::{Alias, Declared};
use runtime::installation::Key;
use serde_json::json;

use directory::Directory;
use launcher::{Launcher, Owner};

use crate::launch::data;
use crate::launch::facts::{self, Caller};
use crate::settings::{bytes, invalid_operation, json_flag, no_more, operation, print_json, text};
use crate::{Failure, Invocation, Message, cli, key, publisher};

/// Whether a command line is about the launchers of this image's installations, also of one that has another image.
pub(crate) fn manages(args: &[OsString]) -> bool {
    let declares = |word: &OsString| word.eq_ignore_ascii_case("declare") || word.eq_ignore_ascii_case("undeclare");
    args.first().is_some_and(|word| word == "fim-alias") && !args.get(1).is_some_and(declares)
}

/// Runs `fim-alias` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, names that are taken, and files that cannot be written; nothing is changed then.
pub(crate) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let missing = "Missing op for 'fim-alias' (<add|list|remove|enable|declare|undeclare>)";
    let (operation, rest) = operation("alias", words, missing)?;
    match operation.as_str() {
        "add" => {
            let (name, rest) = name(rest, &operation)?;
            let words = rest.iter().map(|word| bytes(word)).collect();
            let launcher = Launcher { owner: owner(invocation)?, words, declared: None };
            add(&facts::caller(), &[(name.to_owned(), launcher)]).map(|()| 0)
        }
        "enable" => {
            no_more("alias", rest)?;
            let caller = facts::caller();
            enable(&caller, owner(invocation)?, &key::declared(invocation, data::existing(invocation, &caller))?)
                .map(|()| 0)
        }
        "list" => list(invocation, json_flag("alias", rest)?),
        "remove" => {
            let (name, rest) = name(rest, &operation)?;
            no_more("alias", rest)?;
            remove(invocation, name)
        }
        "declare" => {
            let (name, rest) = name(rest, &operation)?;
            declare(invocation, name, rest)
        }
        "undeclare" => {
            let (name, rest) = name(rest, &operation)?;
            no_more("alias", rest)?;
            undeclare(invocation, name)
        }
        other => Err(invalid_operation("alias", other)),
    }
}

fn name<'a>(words: &'a [OsString], operation: &str) -> Result<(&'a OsStr, &'a [OsString]), Failure> {
    let (name, rest) = words.split_first().ok_or_else(|| {
        Message::boxed(format!("Missing name for '{operation}': fim-alias {operation} NAME; see fim-help alias"))
    })?;
    Ok((name, rest))
}

/// The installation that a command line is about.
fn owner(invocation: &Invocation) -> Result<Owner, Failure> {
    if invocation.installation.keys().is_some() {
        return Err(Message::boxed(
            "this instance key has an image of its own; use fim-alias of the image that it was added to",
        ));
    }
    Ok(Owner { image: invocation.path.clone(), key: invocation.installation.key.clone() })
}

/// Makes launchers, all or none.
fn add(caller: &Caller, launchers: &[(OsString, Launcher)]) -> Result<(), Failure> {
    if launchers.is_empty() {
        return Ok(());
    }
    let directory = Directory::of(caller)?;
    launchers.iter().try_for_each(|(name, launcher)| directory.check(name, &launcher.owner))?;
    let before = directory.launchers();
    for (made, (name, launcher)) in launchers.iter().enumerate() {
        if let Err(error) = directory.put(name, launcher, None) {
            for (name, _) in &launchers[..made] {
                match before.get(name) {
                    Some(before) => directory.put(name, before, Some(&launcher.owner))?,
                    None => directory.remove(name)?,
                }
            }
            return Err(error);
        }
    }
    let line = |(name, launcher): &(OsString, Launcher)| format!("  - {} as {}\n", launcher.command(), name.display());
    cli::print(&format!("Added:\n{}", launchers.iter().map(line).collect::<String>()))?;
    directory.tell_unless_searched();
    Ok(())
}

/// Makes the launchers of everything that the image declares.
///
/// # Errors
/// A name that is taken, or cannot be written; none is made then.
fn enable(caller: &Caller, owner: Owner, declared: &Declared) -> Result<(), Failure> {
    let launcher = |alias: &Alias| {
        let declared = Some(alias.name.clone());
        (owner.launcher_name(&alias.name), Launcher { owner: owner.clone(), words: alias.words.clone(), declared })
    };
    add(caller, &declared.aliases.iter().map(launcher).collect::<Vec<_>>())
}

/// As `enable`, for a key that is just being added.
///
/// # Errors
/// As `enable`.
pub(crate) fn enable_key(
    invocation: &Invocation,
    caller: &Caller,
    key: &Key,
    declared: &Declared,
) -> Result<(), Failure> {
    let owner = Owner { image: invocation.path.clone(), key: Some(key.clone()) };
    enable(caller, owner, declared).map_err(|error| {
        let why = runtime::error::chain(error.as_ref());
        Message::boxed(format!("{why}; with --unaliased, no aliases are made"))
    })
}

/// Gives the launchers of one key to another, or removes them.
///
/// # Errors
/// Names that are taken, and files that cannot be written.
pub(crate) fn follow(invocation: &Invocation, caller: &Caller, old: &Key, new: Option<&Key>) -> Result<(), Failure> {
    // Without a place for them there are none.
    let Ok(directory) = Directory::of(caller) else { return Ok(()) };
    let owner = |key: &Key| Owner { image: invocation.path.clone(), key: Some(key.clone()) };
    let launchers = directory.launchers().into_iter().filter(|(_, launcher)| launcher.owner == owner(old));
    for (name, launcher) in launchers {
        let Some(new) = new else {
            directory.remove(&name)?;
            continue;
        };
        let moved = Launcher { owner: owner(new), ..launcher };
        let other = moved.declared.as_ref().map_or_else(|| name.clone(), |name| moved.owner.launcher_name(name));
        if other != name {
            directory.check(&other, &moved.owner)?;
        }
        directory.put(&other, &moved, Some(&owner(old)))?;
        if other != name {
            directory.remove(&name)?;
        }
    }
    Ok(())
}

/// Prints the launchers of all installations of the image.
fn list(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let directory = Directory::of(&facts::caller())?;
    let ours = |launcher: &Launcher| launcher.owner.image == invocation.path;
    let launchers: Vec<_> = directory.launchers().into_iter().filter(|(_, launcher)| ours(launcher)).collect();
    if as_json {
        let describe = |(name, launcher): &(OsString, Launcher)| {
            json!({
                "alias": name.to_string_lossy(),
                "command": launcher.words.iter().map(|word| text(word)).collect::<Vec<_>>(),
                "declared": launcher.declared,
                "instance": launcher.owner.name().to_string_lossy(),
                "key": launcher.owner.key.as_ref().map(Key::as_str),
                "path": directory.path.join(name).to_string_lossy(),
            })
        };
        return print_json(&launchers.iter().map(describe).collect());
    }
    if launchers.is_empty() {
        return Ok(0);
    }
    let note = |launcher: &Launcher| if launcher.declared.is_some() { "-" } else { "manual" };
    let mut rows = vec![["Command".to_owned(), "Alias".to_owned(), "Notes".to_owned()]];
    rows.extend(
        launchers.iter().map(|(name, launcher)| {
            [launcher.command(), name.to_string_lossy().into_owned(), note(launcher).to_owned()]
        }),
    );
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    let line = |[command, alias, notes]: &[String; 3]| format!("{command:first$}  {alias:second$}  {notes}\n");
    cli::print(&rows.iter().map(line).collect::<String>()).map(|()| 0)
}

fn remove(invocation: &Invocation, name: &OsStr) -> Result<i32, Failure> {
    let directory = Directory::of(&facts::caller())?;
    let launcher = directory.launchers().remove(name).filter(|launcher| launcher.owner.image == invocation.path);
    let launcher = launcher.ok_or_else(|| {
        Message::boxed(format!(
            "there is no alias '{}' of this image in {}; fim-alias list shows those that there are",
            name.to_string_lossy().escape_debug(),
            directory.path.display()
        ))
    })?;
    directory.remove(name)?;
    cli::print(&format!("Removed:\n  - {} as {}\n", launcher.command(), name.display())).map(|()| 0)
}

/// Adds a command to those that the image declares, or changes it.
fn declare(invocation: &Invocation, name: &OsStr, words: &[OsString]) -> Result<i32, Failure> {
    let plain = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
            && name.starts_with(|char: char| char.is_ascii_alphanumeric())
            && name.len() <= 64
    };
    let name = name.to_str().filter(plain).ok_or_else(|| {
        Message::boxed(format!(
            "Invalid alias '{}': 1 to 64 letters, digits and the signs . _ + - are needed, beginning with a letter or digit",
            name.to_string_lossy().escape_debug()
        ))
    })?;
    let alias = Alias { name: name.to_owned(), words: words.iter().map(|word| word.as_bytes().to_vec()).collect() };
    publisher::declare(invocation, |config| {
        match config.declared.aliases.iter_mut().find(|other| other.name == alias.name) {
            Some(other) => *other = alias,
            None => config.declared.aliases.push(alias),
        }
        Ok(0)
    })
}

fn undeclare(invocation: &Invocation, name: &OsStr) -> Result<i32, Failure> {
    publisher::declare(invocation, |config| {
        let before = config.declared.aliases.len();
        config.declared.aliases.retain(|alias| alias.name != name.to_string_lossy());
        if config.declared.aliases.len() == before {
            return Err(Message::boxed(format!(
                "the image declares no alias '{}'; fim-inspect shows those that it does",
                name.to_string_lossy().escape_debug()
            )));
        }
        Ok(0)
    })
}
