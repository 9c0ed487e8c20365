//! `fim-layer reset`: the changes of the writable layer are dropped.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use runtime::commit::{self, Intent};
use runtime::error::chain;

use crate::interrupt::Interrupt;
use crate::launch::exclusive;
use crate::{Failure, Invocation, Message, cli};

/// Resets.
///
/// # Errors
/// When instances run, when nobody has agreed, and when the writable layer cannot be replaced.
pub(super) fn run(invocation: &Invocation, yes: bool) -> Result<i32, Failure> {
    let Some(alone) = exclusive::take(invocation, "reset")? else { return unchanged() };
    if is_empty(&alone.data.path.join("root"))? {
        return unchanged();
    }
    if !yes && !agreed(&alone.data.path)? {
        return Err(Message::boxed("nothing was dropped"));
    }
    let interrupt = Interrupt::hold()?;
    let fresh = || commit::make_fresh(&alone.data.path).map(|()| String::new()).map_err(|error| chain(&error));
    alone.data.inside(fresh)?.end().map_err(Message::boxed)?;
    Intent::Reset.write(&alone.data.path)?;
    commit::swap(&alone.data.path)?;
    alone.clean();
    drop(interrupt);
    cli::print("Dropped the changes of the writable layer\n")?;
    Ok(0)
}

fn unchanged() -> Result<i32, Failure> {
    cli::print("The writable layer has no changes\n").map(|()| 0)
}

fn is_empty(root: &Path) -> Result<bool, Failure> {
    let unread = |error| Message::boxed(format!("cannot list {}: {error}", root.display()));
    Ok(std::fs::read_dir(root).map_err(unread)?.next().is_none())
}

/// Asks on the terminal.
fn agreed(data: &Path) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Message::boxed(format!("dropping the changes in {} cannot be undone; say --yes", data.display())));
    }
    let mut stderr = io::stderr();
    write!(stderr, "Drop all changes in {}? [y/N] ", data.display())?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
