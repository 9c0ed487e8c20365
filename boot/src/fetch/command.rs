//! `fim-remote fetch`: fetching what a start would ask for.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use runtime::image::Digest;
use runtime::publisher::verified_publisher;

use super::{Wanted, provider};
use crate::launch::{data, facts};
use crate::settings::no_more;
use crate::{Failure, Invocation, Message, cli};

/// The words behind `fetch`.
#[derive(Debug, PartialEq, Eq)]
struct Words {
    path: Vec<u8>,
    digest: Option<Digest>,
    yes: bool,
}

impl Words {
    fn parse(words: &[OsString]) -> Result<Self, Failure> {
        let missing = |what: &str| {
            Message::boxed(format!(
                "Missing {what} for 'fetch' operation: fim-remote fetch PATH [--digest HEX] [--yes]"
            ))
        };
        let (path, mut rest) = words.split_first().ok_or_else(|| missing("path"))?;
        let mut parsed = Self { path: path.as_bytes().to_vec(), digest: None, yes: false };
        while let Some((word, behind)) = rest.split_first() {
            match word.to_str() {
                Some("--yes") => parsed.yes = true,
                Some("--digest") => {
                    let (hex, behind) = behind.split_first().ok_or_else(|| missing("digest"))?;
                    let digest = hex.to_str().and_then(Digest::from_hex).ok_or_else(|| {
                        Message::boxed(format!(
                            "Invalid digest '{}': 64 hexadecimal digits are needed, as b3sum prints them",
                            hex.to_string_lossy().escape_debug()
                        ))
                    })?;
                    parsed.digest = Some(digest);
                    rest = behind;
                    continue;
                }
                _ => no_more("remote", rest)?,
            }
            rest = behind;
        }
        Ok(parsed)
    }
}

/// Fetches the image at a path below the remote URL, unless it is there already, and prints where it is kept.
///
/// # Errors
/// Wrong words, and as for [`provider`].
pub(crate) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let words = Words::parse(words)?;
    let config = &invocation.image.config;
    // What a start would check it by.
    let of_plug = || {
        let plug = config.declared.plugs.iter().find(|plug| plug.provider.as_ref() == Some(&words.path))?;
        plug.digest
    };
    let place = data::prepare_of(invocation, &facts::caller(), invocation.installation.key.as_ref())?;
    let file = provider(&Wanted {
        remote: config.remote.as_deref(),
        path: &words.path,
        digest: words.digest.or_else(of_plug),
        publisher: verified_publisher(&invocation.image),
        data: &place,
        agreed: words.yes,
    })?;
    let mut line = file.into_os_string();
    line.push("\n");
    cli::print_bytes(line.as_bytes()).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Words, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Words::parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_words_of_fetch() {
        let hex = "af".repeat(32);
        assert_eq!(parse(&["a/b"]), Ok(Words { path: b"a/b".into(), digest: None, yes: false }));
        let all = Words { path: b"a".into(), digest: Some(Digest([0xaf; 32])), yes: true };
        assert_eq!(parse(&["a", "--yes", "--digest", &hex]), Ok(all));
        for (words, why) in [
            (&[][..], "Missing path"),
            (&["a", "--digest"], "Missing digest"),
            (&["a", "--digest", "xy"], "Invalid digest 'xy'"),
            (&["a", "b"], "Trailing arguments for fim-remote: ['b',]"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }
}
