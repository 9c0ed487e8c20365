//! `fim-data`: where what an image writes is kept, how much it is, and how to be rid of it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtime::emulation::ledger;
use runtime::error::chain;
use runtime::installation::{belongs_to, revision};
use runtime::sandbox::points;
use runtime::{base, mount_server};
use serde_json::json;

use crate::agreement::agreed;
use crate::fetch;
use crate::launch::exclusive::{self, Exclusive};
use crate::launch::{data, facts, rung};
use crate::layer::reset;
use crate::settings::{invalid_operation, json_flag, no_more, operation, print_json, text};
use crate::stack::MANAGED;
use crate::{Failure, Invocation, Message, cli};

/// What `clear` removes, besides the writable layer. Locks stay: whoever waits for one must not find another.
const OURS: [&str; 10] = [
    MANAGED,
    rung::NAME,
    ledger::NAME,
    points::FILE,
    base::NAME,
    mount_server::JOURNAL,
    revision::FILES,
    revision::RECORD,
    belongs_to::RECORD,
    fetch::NAME,
];

/// Runs `fim-data` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words; data that is somebody else's, or in use, or cannot be read or removed.
pub(crate) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("data", words, "Missing op for 'fim-data' (<path|size|clear>)")?;
    match operation.as_str() {
        "path" => {
            no_more("data", rest)?;
            let mut line = place(invocation)?.into_os_string();
            line.push("\n");
            cli::print_bytes(line.as_bytes()).map(|()| 0)
        }
        "size" => {
            let as_json = json_flag("data", rest)?;
            show_size(invocation, as_json)
        }
        "clear" => {
            let yes = rest.first().is_some_and(|word| word == "--yes");
            no_more("data", &rest[usize::from(yes)..])?;
            clear(invocation, yes)
        }
        other => Err(invalid_operation("data", other)),
    }
}

/// Where the data is, or would be.
fn place(invocation: &Invocation) -> Result<PathBuf, Failure> {
    data::place(invocation, &facts::caller())?
        .ok_or_else(|| Message::boxed("there is no place for data: HOME is not set; set FIM_DIR_DATA"))
}

fn show_size(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let place = place(invocation)?;
    let all = size(invocation, &place)?;
    if !as_json {
        return cli::print(&format!("{all}\n")).map(|()| 0);
    }
    let layers = size(invocation, &place.join(MANAGED))?;
    let root = size(invocation, &place.join("root"))?;
    let path = text(place.as_os_str().as_bytes());
    print_json(&json!({ "bytes": all, "layers": layers, "path": path, "writable": root }))
}

/// Bytes that the files at `path` take; 0 when there is nothing.
fn size(invocation: &Invocation, path: &Path) -> Result<u64, Failure> {
    let failed = |error: &dyn std::fmt::Display| Message::boxed(format!("cannot measure {}: {error}", path.display()));
    match measure(path, &mut HashSet::new()) {
        // Directories of IDs that only the image's own users have.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let owned = exclusive::look(invocation)?.ok_or_else(|| failed(&error))?;
            let inside = || {
                let measured = measure(path, &mut HashSet::new());
                measured.map(|bytes| bytes.to_string()).map_err(|error| error.to_string())
            };
            let answer = owned.inside(inside)?.end().map_err(|error| failed(&error))?;
            answer.trim().parse().map_err(|error| failed(&error))
        }
        measured => measured.map_err(|error| failed(&error)),
    }
}

fn measure(path: &Path, seen: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        metadata => metadata?,
    };
    // Hard links take their space once.
    let mut bytes = if seen.insert((metadata.dev(), metadata.ino())) { metadata.blocks() * 512 } else { 0 };
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += measure(&entry?.path(), seen)?;
        }
    }
    Ok(bytes)
}

fn clear(invocation: &Invocation, yes: bool) -> Result<i32, Failure> {
    let Some(alone) = exclusive::take(invocation, "clear the data")? else {
        return cli::print("There is no data\n").map(|()| 0);
    };
    let shown = alone.data.path.display();
    let loss = format!("removing the writable layer and all managed layers in {shown}");
    if !yes && !agreed(&format!("Remove the writable layer and all managed layers in {shown}?"), &loss)? {
        return Err(Message::boxed("nothing was removed"));
    }
    // In one step, or the next start would show half of it.
    reset::empty(&alone)?;
    remove(&alone, &[&["root", "work"][..], &OURS].concat())?;
    cli::print(&format!("Removed the data in {shown}\n")).map(|()| 0)
}

/// Removes what has these names in a data directory, whoever owns it there.
///
/// # Errors
/// What cannot be removed.
pub(crate) fn remove(alone: &Exclusive, names: &[&str]) -> Result<(), Failure> {
    let directory = &alone.data.path;
    let work = || names.iter().try_for_each(|name| gone(&directory.join(name))).map(|()| String::new());
    alone.data.inside(work)?.end().map(drop).map_err(Message::boxed)
}

fn gone(path: &Path) -> Result<(), String> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {}", path.display(), chain(&error)))
        }
        _ => Ok(()),
    }
}
