//! `fim-layer add`.

use std::path::Path;

use crate::{Failure, Invocation, Message};

/// Runs it; returns the exit code.
///
/// # Errors
/// Always: this version does not do it yet.
pub(super) fn run(_invocation: &Invocation, _file: &Path) -> Result<i32, Failure> {
    Err(Message::boxed("fim-layer add is not in this version of fim"))
}
