//! `fim-layer diff`: what the writable layer changes.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use runtime::commit::{self, Change, Scan};
use runtime::error::chain;
use runtime::source::{ByteSource, FileRange};
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
    let layers = layers(invocation, &data)?;
    // The files are read by a child that has their IDs, which therefore prints.
    let work = || {
        let changes = changes(&data, &layers).map_err(|error| chain(&error))?;
        print(&changes, json).map(|_| String::new()).map_err(|error| chain(error.as_ref()))
    };
    data.inside(work)?.end().map_err(Message::boxed)?;
    Ok(0)
}

/// The layers below the writable one, bottom first.
fn layers(invocation: &Invocation, data: &Data) -> Result<Vec<Archive>, Failure> {
    let image = &invocation.image;
    let open = |source: Arc<dyn ByteSource>, name: &dyn std::fmt::Display| {
        Archive::open(source).map_err(|error| Message::boxed(format!("cannot read {name}: {}", chain(&error))))
    };
    let mut layers = Vec::new();
    for index in image.root_layers() {
        let name = format!("layer {index} of {}", image.path.display());
        layers.push(open(Arc::new(image.layer_source(index)?), &name)?);
    }
    for layer in stack::external(image, &data.caller, Some(&data.path))? {
        let source = Arc::new(FileRange::new(Arc::clone(&layer.file), 0, layer.len));
        layers.push(open(source, &layer.path.display())?);
    }
    Ok(layers)
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
