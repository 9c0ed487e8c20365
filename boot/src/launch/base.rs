//! Whether the writable layer was made on the layers that the image has: a new version of an application has others.
//!
//! Nothing happens to the writable layer without the user's word. On a terminal the start asks; elsewhere it keeps the
//! layer on top of the new ones, and says so each time until the user has decided.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use runtime::base::Base;
use runtime::image::Config;

use super::facts::Facts;
use crate::layer::rebase::{self, Choice};
use crate::{Failure, Invocation, Message, report};

/// Whether the writable layer in `data` was made on other layers than these. What is not recorded, or unchanged, was made
/// on these, and that is recorded. The caller holds the session lock.
///
/// # Errors
/// When the record cannot be read or written.
pub(super) fn is_other(data: &Path, config: &Config) -> Result<bool, Failure> {
    let base = Base::of(config);
    match Base::read(data)? {
        Some(recorded) if recorded == base => return Ok(false),
        Some(_) if !is_unchanged(&data.join("root"))? => return Ok(true),
        _ => {}
    }
    base.note(data)?;
    Ok(false)
}

/// Whether nobody has changed anything: there is nothing but what every start makes where the image lacks it, empty
/// directories to mount on and the caller's entries in the account files.
fn is_unchanged(root: &Path) -> Result<bool, Failure> {
    for name in names(root)? {
        let path = root.join(&name);
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        let ours: &[&str] = if name == "etc" { &["passwd", "group"] } else { &[] };
        if !is_directory || names(&path)?.iter().any(|name| !ours.iter().any(|ours| name == *ours)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn names(directory: &Path) -> Result<Vec<OsString>, Failure> {
    let entries = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    entries.map_err(|error: io::Error| Message::boxed(format!("cannot list {}: {error}", directory.display())))
}

/// Has the user decide, or keeps the writable layer for this start. No lock is held.
///
/// # Errors
/// When what the user has decided cannot be done.
pub(super) fn decide(invocation: &Invocation, facts: &Facts, asks: bool, data: &Path) -> Result<(), Failure> {
    let shown = data.display();
    let found = format!("the writable layer in {shown} was made on other layers than this image has (a new version?)");
    if !asks || !facts.foreground || !facts.terminals[0] || !facts.terminals[2] {
        report(&format!("warning: {found}; it is kept on top of them: fim-layer rebase keep, commit or reset decides"));
        return Ok(());
    }
    report(&found);
    rebase::apply(invocation, ask()?).map(drop)
}

/// Asks on the terminal. Who just presses return keeps everything.
fn ask() -> Result<Choice, Failure> {
    loop {
        let mut stderr = io::stderr();
        write!(stderr, "Keep it on top, commit it as a layer of its own, or reset it? [KEEP/commit/reset] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer)? == 0 {
            return Err(Message::boxed("nobody answered; nothing was changed"));
        }
        match answer.trim().to_lowercase().as_str() {
            "" => return Ok(Choice::Keep),
            word => {
                if let Some(choice) = Choice::of(word) {
                    return Ok(choice);
                }
            }
        }
    }
}
