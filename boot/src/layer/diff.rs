//! `fim-layer diff`.

use crate::{Failure, Invocation, Message};

/// Runs it; returns the exit code.
///
/// # Errors
/// Always: this version does not do it yet.
pub(super) fn run(_invocation: &Invocation, _json: bool) -> Result<i32, Failure> {
    Err(Message::boxed("fim-layer diff is not in this version of fim"))
}
