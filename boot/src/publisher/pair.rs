//! `fim key-pair`: a publisher's key pair.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;

use runtime::publisher::SecretKey;

use super::public_file;
use crate::draft::{Draft, Use};
use crate::settings::no_more;
use crate::{Failure, Message, cli};

/// What to do about a file that is there.
const FIX: &str = "a key is never overwritten; choose another name";

/// Runs `fim-key-pair` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and as for [`run`].
pub(crate) fn command(words: &[OsString]) -> Result<i32, Failure> {
    let missing = || Message::boxed("Missing file for 'fim-key-pair' (<file>); see fim-help key-pair");
    let (file, rest) = words.split_first().ok_or_else(missing)?;
    no_more("key-pair", rest)?;
    run(Path::new(file))
}

/// Makes the files `file` and `file.pub`, and prints the public key.
///
/// # Errors
/// When one of them exists or cannot be made; neither is there then.
pub(crate) fn run(file: &Path) -> Result<i32, Failure> {
    let public = public_file(file);
    for path in [file, &public] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Message::boxed(format!("{} exists; {FIX}", path.display())));
        }
    }
    let key = SecretKey::generate()?;
    let (mut secret, mut shared) =
        (Draft::create(file, Use { mode: 0o600, fix: FIX })?, Draft::create(&public, Use { mode: 0o644, fix: FIX })?);
    let written = secret
        .file
        .write_all(key.line().as_bytes())
        .and_then(|()| shared.file.write_all(key.public().line().as_bytes()));
    written.map_err(|error| Message::boxed(format!("cannot write the key {}: {error}", file.display())))?;
    secret.complete(false)?;
    if let Err(error) = shared.complete(false) {
        // One without the other would only be in the way of the next try.
        let _ = fs::remove_file(file);
        return Err(error);
    }
    cli::print(&format!("{}\n", key.public())).map(|()| 0)
}
