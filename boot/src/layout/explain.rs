//! `fim-layout explain`: what each layout does, in the order in which they are made, and what it costs.

use std::fmt::Write;
use std::path::Path;

use runtime::sandbox::layout::{Entry, Source, What};

use super::check;
use crate::{Failure, Invocation, cli};

/// Prints the plan.
///
/// # Errors
/// Layouts that a start would refuse.
pub(super) fn run(invocation: &Invocation) -> Result<i32, Failure> {
    let (planned, places) = check::planned(invocation)?;
    let planned = planned?;
    let mut text = String::new();
    for (index, entry) in planned.entries.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {}", index + 1, entry.name);
        let _ = writeln!(text, "  {}", told(entry, &places.root));
        if entry.replace {
            let _ = writeln!(text, "  takes the place of an object of another type");
        }
        let _ = writeln!(text, "  cost: {}", cost(&entry.what));
    }
    let memory = planned.entries.iter().filter(|entry| entry.what == What::Tmpfs).count();
    let _ = writeln!(text, "{} mounts for each start, {memory} of them file systems in memory", planned.entries.len());
    cli::print(&text).map(|()| 0)
}

fn told(entry: &Entry, root: &Path) -> String {
    let read_only = |source: &Source| if source.base == root { ", read-only" } else { "" };
    match &entry.what {
        What::Symlink(to) => format!("symlink to {}; what that leads to is not made", to.display()),
        What::Directory(source) => format!(
            "bind of {} ({}){}; a directory is made there when there is none",
            source.name,
            source.path().display(),
            read_only(source)
        ),
        What::File(source) => format!(
            "bind-file of {} ({}){}; an empty file is made there when there is none",
            source.name,
            source.path().display(),
            read_only(source)
        ),
        What::Tmpfs => "tmpfs, empty at each start, gone with the instance".to_owned(),
    }
}

fn cost(what: &What) -> &'static str {
    match what {
        What::Symlink(_) => "one mount of a symbolic link",
        What::Directory(_) => "one mount, and one more for each layout within it",
        What::File(_) => "one mount",
        What::Tmpfs => "one file system, and the memory of what is written to it",
    }
}
