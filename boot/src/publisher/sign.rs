//! `fim sign`: a publisher vouches for an image.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use runtime::image;
use runtime::publisher::{SecretKey, program_digest, sign};
use runtime::version::Version;

use super::{no_key, read};
use crate::settings::no_more;
use crate::{Failure, Message, cli, inspect, report};

/// Bits of a mode by which others than the owner may do something with a file.
const OTHERS: u32 = 0o077;

/// The words of `fim-sign`.
#[derive(Debug, PartialEq, Eq)]
struct Words {
    key: PathBuf,
    version: Option<String>,
}

impl Words {
    fn parse(mut words: &[OsString]) -> Result<Self, Failure> {
        let (mut key, mut given) = (None, None);
        while let Some((word, rest)) = words.split_first() {
            let value = || rest.first().ok_or_else(|| missing(&format!("a value for '{}'", word.to_string_lossy())));
            match word.to_str() {
                Some("--key") if key.is_none() => key = Some(PathBuf::from(value()?)),
                Some("--version") if given.is_none() => given = Some(version(&value()?.to_string_lossy())?),
                _ => return no_more("sign", words).and_then(|()| Err(missing("--key"))),
            }
            words = &rest[1..];
        }
        Ok(Self { key: key.ok_or_else(|| missing("--key"))?, version: given })
    }
}

fn missing(what: &str) -> Failure {
    Message::boxed(format!("Missing {what}: fim-sign --key FILE [--version VERSION]; see fim-help sign"))
}

/// Checks a version of an application, and returns it as it is stored.
///
/// # Errors
/// A text that is none.
pub(crate) fn version(text: &str) -> Result<String, runtime::version::InvalidVersion> {
    Version::parse(text).map(|version| version.as_str().to_owned())
}

/// Runs `fim-sign` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and as for [`run`].
pub(crate) fn command(image: &Path, words: &[OsString]) -> Result<i32, Failure> {
    let words = Words::parse(words)?;
    run(image, &words.key, words.version)
}

/// Signs the image with the secret key in a file, gives it a version when there is one, and prints the public key.
///
/// # Errors
/// A file that holds no secret key; an image that cannot be used or changed. It is as it was then.
pub(crate) fn run(path: &Path, key: &Path, version: Option<String>) -> Result<i32, Failure> {
    let (text, mode) = read(key)?;
    let secret = SecretKey::parse(&text).map_err(|error| no_key(key, "secret", error))?;
    if mode & OTHERS != 0 {
        report(&format!(
            "warning: others can use the secret key {} (mode {:04o}); try: chmod 600",
            key.display(),
            mode & 0o7777
        ));
    }
    let opened = inspect::open(path)?;
    let program = program_digest(&opened)
        .map_err(|error| Message::boxed(format!("cannot read the image {}: {error}", path.display())))?;
    image::update(path, |config| {
        if version.is_some() {
            config.declared.version = version;
        }
        config.declared.publisher = Some(sign(&opened.superblock.uuid, program, config, &secret));
        Ok::<_, image::Error>(())
    })?;
    cli::print(&format!("Signed by {}\n", secret.public())).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Words, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Words::parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_key_is_needed_and_the_version_is_not() {
        assert_eq!(parse(&["--key", "k"]), Ok(Words { key: "k".into(), version: None }));
        let both = Words { key: "k".into(), version: Some("1.2".into()) };
        assert_eq!(parse(&["--version", "1.2", "--key", "k"]), Ok(both));
        for (words, why) in [
            (&[][..], "Missing --key"),
            (&["--version", "1"], "Missing --key"),
            (&["--key"], "Missing a value for '--key'"),
            (&["--key", "k", "--version"], "Missing a value for '--version'"),
            (&["--key", "k", "--version", "1..2"], "Invalid version '1..2'"),
            (&["--key", "k", "--key", "l"], "Trailing arguments for fim-sign: ['--key','l',]"),
            (&["k"], "Trailing arguments for fim-sign: ['k',]"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }
}
