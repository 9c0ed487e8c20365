//! `fim-layer rebase`.

use super::operation::Choice;
use crate::{Failure, Invocation, Message};

/// Runs it; returns the exit code.
///
/// # Errors
/// Always: this version does not do it yet.
pub(super) fn run(_invocation: &Invocation, _choice: Choice) -> Result<i32, Failure> {
    Err(Message::boxed("fim-layer rebase is not in this version of fim"))
}
