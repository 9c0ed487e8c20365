//! `fim-layer list`: the stack of a start, bottom first.

use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use crate::launch::{data, facts};
use crate::settings::{print_json, text};
use crate::stack::{self, External};
use crate::{Failure, Invocation, cli};

/// Prints the stack.
///
/// # Errors
/// As a start: a layer file that cannot be used is not hidden.
pub(super) fn run(invocation: &Invocation, json: bool) -> Result<i32, Failure> {
    let image = &invocation.image;
    let external = external(invocation)?;
    let embedded: Vec<_> = image.root_layers().map(|position| &image.config.layers[position]).collect();
    if json {
        let inside = embedded.iter().enumerate().map(|(index, entry)| {
            json!({
                "digest": entry.digest.to_string(),
                "index": index,
                "kind": "embedded",
                "offset": entry.offset,
                "path": text(invocation.path.as_os_str().as_bytes()),
                "size": entry.size,
            })
        });
        let outside = external.iter().enumerate().map(|(at, layer)| {
            json!({
                "index": embedded.len() + at,
                "kind": if layer.managed { "managed" } else { "external" },
                "offset": 0,
                "path": text(layer.path.as_os_str().as_bytes()),
                "size": layer.len,
            })
        });
        return print_json(&inside.chain(outside).collect());
    }
    let mut lines = Vec::new();
    let mut line = |index: usize, offset: u64, size: u64, path: &std::path::Path| {
        lines.extend_from_slice(format!("{index}:{offset}:{size}:").as_bytes());
        lines.extend_from_slice(path.as_os_str().as_bytes());
        lines.push(b'\n');
    };
    for (index, entry) in embedded.iter().enumerate() {
        line(index, entry.offset, entry.size, &invocation.path);
    }
    for (at, layer) in external.iter().enumerate() {
        line(embedded.len() + at, 0, layer.len, &layer.path);
    }
    cli::print_bytes(&lines).map(|()| 0)
}

/// The layers outside of the image, which a start would stack on its own.
///
/// # Errors
/// As [`stack::external`].
pub(super) fn external(invocation: &Invocation) -> Result<Vec<External>, Failure> {
    let caller = facts::caller();
    let data = data::existing(invocation, &caller);
    stack::external(&invocation.image, &caller, data.as_deref())
}
