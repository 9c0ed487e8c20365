//! `fim-layer reset`: the changes of the writable layer are dropped.

use std::path::Path;

use runtime::commit::{self, Intent};
use runtime::error::chain;

use crate::agreement::agreed;
use crate::interrupt::Interrupt;
use crate::launch::exclusive::{self, Exclusive};
use crate::{Failure, Invocation, Message, cli};

/// Resets.
///
/// # Errors
/// When instances run, when nobody has agreed, and when the writable layer cannot be replaced.
pub(super) fn run(invocation: &Invocation, yes: bool) -> Result<i32, Failure> {
    let Some(alone) = exclusive::take(invocation, "reset")? else { return unchanged() };
    // What is in it can be seen with the IDs of its files only.
    let look = || is_empty(&alone.data.path.join("root")).map(|empty| String::from(if empty { "" } else { "changed" }));
    if alone.data.inside(look)?.end().map_err(Message::boxed)?.is_empty() {
        return unchanged();
    }
    let shown = alone.data.path.display();
    if !yes && !agreed(&format!("Drop all changes in {shown}?"), &format!("dropping the changes in {shown}"))? {
        return Err(Message::boxed("nothing was dropped"));
    }
    empty(&alone)?;
    cli::print("Dropped the changes of the writable layer\n")?;
    Ok(0)
}

/// Puts an empty writable layer into the place of the one there is.
///
/// # Errors
/// When that cannot be done; the next start goes on once it has begun.
pub(crate) fn empty(alone: &Exclusive) -> Result<(), Failure> {
    let _interrupt = Interrupt::hold()?;
    let fresh = || commit::make_fresh(&alone.data.path).map(|()| String::new()).map_err(|error| chain(&error));
    alone.data.inside(fresh)?.end().map_err(Message::boxed)?;
    Intent::Reset.begin(&alone.data.path)?;
    commit::swap(&alone.data.path)?;
    alone.clean();
    Ok(())
}

fn unchanged() -> Result<i32, Failure> {
    cli::print("The writable layer has no changes\n").map(|()| 0)
}

fn is_empty(root: &Path) -> Result<bool, String> {
    let unread = |error| format!("cannot list {}: {error}", root.display());
    Ok(std::fs::read_dir(root).map_err(unread)?.next().is_none())
}
