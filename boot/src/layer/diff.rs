//! `fim-layer diff`: what the writable layer changes.

use std::os::unix::ffi::OsStrExt;

use runtime::commit::{self, Change, Scan};
use runtime::error::chain;
use runtime::squashfs::Archive;
use serde_json::json;

use crate::launch::exclusive::{self, Data};
use crate::settings::{print_json, text};
use crate::stack;
use crate::{Failure, Invocation, Message, cli};

/// Prints the changes.
///
/// # Errors
/// When something cannot be read, for instance because an instance has just removed it.
pub(super) fn run(invocation: &Invocation, json: bool) -> Result<i32, Failure> {
    let Some(data) = exclusive::look(invocation)? else { return print(&[], json) };
    let layers = stack::archives(&invocation.image, &data.caller, Some(&data.path))?;
    // The files are read by a child that has their IDs, which therefore prints.
    let work = || {
        let changes = changes(&data, &layers).map_err(|error| chain(&error))?;
        print(&changes, json).map(|_| String::new()).map_err(|error| chain(error.as_ref()))
    };
    data.inside(work)?.end().map_err(Message::boxed)?;
    Ok(0)
}

fn changes(data: &Data, layers: &[Archive]) -> Result<Vec<Change>, commit::Error> {
    commit::diff(&Scan::run(&data.path, data.rung.owners())?, layers)
}

fn print(changes: &[Change], json: bool) -> Result<i32, Failure> {
    if json {
        let one = |change: &Change| {
            json!({
                "before": change.before,
                "change": change.changed.letter().to_string(),
                "path": text(change.path.as_os_str().as_bytes()),
                "size": change.size,
            })
        };
        return print_json(&changes.iter().map(one).collect());
    }
    let mut lines = Vec::new();
    for Change { changed, path, size, before } in changes {
        let letter = changed.letter();
        lines.extend_from_slice(format!("{letter}:{size}:{before}:").as_bytes());
        lines.extend(escaped(path.as_os_str().as_bytes()));
        lines.push(b'\n');
    }
    cli::print_bytes(&lines).map(|()| 0)
}

/// The path on one line: control characters and the backslash are written as `\xNN`.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    for &byte in path {
        if byte.is_ascii_control() || byte == b'\\' {
            line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        } else {
            line.push(byte);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_path_stays_on_its_line() {
        assert_eq!(escaped(b"/a \xc3\xa9\n\\"), b"/a \xc3\xa9\\x0a\\x5c");
    }
}
