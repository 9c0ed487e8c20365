//! `fim-layout import`: layouts of a YAML file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use runtime::image::declared::Layout;

use super::{kind_named, made, yaml};
use crate::{Failure, Message};

/// Longest file in bytes; a snapcraft.yaml has some thousand.
const LIMIT: u64 = 1 << 20;

/// Reads all layouts of the file.
///
/// # Errors
/// When it cannot be read, or something in its block is wrong; the message names the line.
pub(super) fn read(path: &Path) -> Result<Vec<Layout>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Message::boxed(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes)).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(failed(&format!("it has more than {LIMIT} bytes; import the layout: block alone")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| failed(&error))?;
    let wrong =
        |text: &dyn std::fmt::Display| Message::boxed(format!("{}: {text}; nothing was imported", path.display()));
    let declarations = yaml::parse(text).map_err(|error| wrong(&error))?;
    let layout = |one: yaml::Declaration| {
        let unknown = || wrong(&format!("line {}: '{}' is unknown", one.line, one.kind));
        made(one.target.as_bytes(), kind_named(one.kind).ok_or_else(unknown)?, one.source.as_bytes(), false)
            .map_err(|error| wrong(&format!("line {}: {error}", one.line)))
    };
    declarations.into_iter().map(layout).collect()
}
