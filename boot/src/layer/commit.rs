//! `fim-layer commit`.

use super::level::Level;
use super::operation::Target;
use crate::{Failure, Invocation, Message};

/// Runs it; returns the exit code.
///
/// # Errors
/// Always: this version does not do it yet.
pub(super) fn run(_invocation: &Invocation, _target: &Target, _level: Level) -> Result<i32, Failure> {
    Err(Message::boxed("fim-layer commit is not in this version of fim"))
}
