//! `fim-layer squash`.

use super::level::Level;
use super::operation::Stack;
use crate::{Failure, Invocation, Message};

/// Runs it; returns the exit code.
///
/// # Errors
/// Always: this version does not do it yet.
pub(super) fn run(_invocation: &Invocation, _stack: Stack, _level: Level) -> Result<i32, Failure> {
    Err(Message::boxed("fim-layer squash is not in this version of fim"))
}
