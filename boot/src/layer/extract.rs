//! `fim-layer extract`.

use std::path::Path;

use crate::{Failure, Invocation, Message};

/// Runs it; returns the exit code.
///
/// # Errors
/// Always: this version does not do it yet.
pub(super) fn run(_invocation: &Invocation, _index: usize, _directory: &Path) -> Result<i32, Failure> {
    Err(Message::boxed("fim-layer extract is not in this version of fim"))
}
