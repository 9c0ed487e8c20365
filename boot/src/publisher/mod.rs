//! Publishers: their keys, and the signatures that they put into images.

mod pair;
mod sign;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use runtime::image::{self, Config};
use runtime::publisher::{InvalidKey, MAX_FILE, PublicKey, Standing, verified_publisher};

use crate::{Failure, Invocation, Message, report};

pub(crate) use pair::{command as pair_command, run as pair};
pub(crate) use sign::{command as sign_command, run as sign, version};

/// The public key in a file.
///
/// # Errors
/// A file that cannot be read, or holds none.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let (text, _) = read(path)?;
    PublicKey::parse(&text).map_err(|error| no_key(path, "public", error))
}

/// Says so when what has just been changed was covered by a signature; `invocation` has the image as it was.
pub(crate) fn tell_of_change(invocation: &Invocation) {
    if let Some(key) = verified_publisher(&invocation.image) {
        report(&format!(
            "note: the image was signed by {key} and counts as unsigned from now on; fim-sign --key FILE signs it anew"
        ));
    }
}

/// Changes what the image declares, for every installation, and tells when a signature has covered that.
///
/// # Errors
/// What `change` returns, and an image that cannot be changed; it is as it was then.
pub(crate) fn declare<T>(
    invocation: &Invocation,
    change: impl FnOnce(&mut Config) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut changed = false;
    let value = image::update(&invocation.path, |config| {
        let before = config.declared.clone();
        let value = change(config)?;
        changed = before != config.declared;
        Ok::<_, Failure>(value)
    })?;
    if changed {
        tell_of_change(invocation);
    }
    Ok(value)
}

/// What is known of the publisher, for a line of text.
pub(crate) fn describe(standing: Standing) -> String {
    match standing {
        Standing::Unsigned => "none".to_owned(),
        Standing::Signed(key) => key.to_string(),
        Standing::Changed(key) => format!("none; the image was changed after {key} had signed it"),
    }
}

/// The text of a key's file, and its mode.
fn read(path: &Path) -> Result<(String, u32), Failure> {
    use std::os::unix::fs::MetadataExt;
    let failed = |why: String| Message::boxed(format!("cannot read the key {}: {why}", path.display()));
    // A named pipe must not be waited for.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| failed(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    // What is not UTF-8 is no key, and is told so.
    Ok((String::from_utf8_lossy(&bytes).into_owned(), metadata.mode()))
}

fn no_key(path: &Path, kind: &str, error: InvalidKey) -> Failure {
    Message::boxed(format!("{} is no {kind} key: {error}; fim key-pair FILE makes a pair", path.display()))
}

/// The file of the public key that belongs to a secret one.
fn public_file(secret: &Path) -> PathBuf {
    let mut name = secret.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}
