//! `fim-layer`: one module for each operation.

mod add;
mod commit;
mod create;
mod diff;
mod embedded;
mod extract;
mod level;
mod list;
mod operation;
pub(crate) mod rebase;
mod remove;
pub(crate) mod reset;
mod squash;

use std::ffi::OsString;

use operation::Operation;

use crate::{Failure, Invocation};

/// Runs `fim-layer` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and whatever keeps the operation from being done; nothing is changed then.
pub(crate) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    match Operation::parse(words)? {
        Operation::Create { directory, file, level } => create::run(&directory, &file, level),
        Operation::Add { file } => add::run(invocation, &file),
        Operation::Commit { target, level } => commit::run(invocation, &target, level),
        Operation::List { json } => list::run(invocation, json),
        Operation::Remove { index } => remove::run(invocation, index),
        Operation::Extract { index, directory } => extract::run(invocation, index, &directory),
        Operation::Diff { json } => diff::run(invocation, json),
        Operation::Squash { stack, level } => squash::run(invocation, stack, level),
        Operation::Reset { yes } => reset::run(invocation, yes),
        Operation::Rebase { choice } => rebase::apply(invocation, choice),
    }
}
