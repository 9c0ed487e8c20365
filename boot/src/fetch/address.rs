//! Where a file lies that is fetched: the remote URL of the image, and a path below it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::percent::{escape, unescape};

/// The address of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A file of this host.
    File(PathBuf),
    /// An `http` or `https` URL of printable ASCII characters without blanks.
    Web(String),
}

/// Why an address cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error(
        "the remote URL '{}' is none that files can be fetched from: it must begin with https://, http:// or file:///",
        .0.escape_debug()
    )]
    Scheme(String),
    #[error("the remote URL '{}' names no host, or holds blanks or control characters", .0.escape_debug())]
    Url(String),
    #[error("the path '{}' cannot lie below a remote URL: it is empty, or '..' is in it", .0.escape_debug())]
    Path(String),
}

impl Address {
    /// The address of `path` below `remote`. The path is taken literally: it needs no escapes, and has none.
    pub(super) fn below(remote: &str, path: &[u8]) -> Result<Self, Unusable> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        if parts.is_empty() || parts.contains(&&b".."[..]) || path.contains(&0) {
            return Err(Unusable::Path(String::from_utf8_lossy(path).into_owned()));
        }
        let bad = || Unusable::Url(remote.to_owned());
        match remote.split_once("://").map(|(scheme, rest)| (scheme, rest.trim_end_matches('/'))) {
            Some(("file", directory)) => {
                let directory = directory.strip_prefix("localhost").unwrap_or(directory);
                // Of file:/// nothing is left.
                if !directory.starts_with('/') && remote != "file:///" {
                    return Err(bad());
                }
                let mut file = unescape(directory.as_bytes()).filter(|path| !path.contains(&0)).ok_or_else(bad)?;
                for part in parts {
                    file.push(b'/');
                    file.extend_from_slice(part);
                }
                Ok(Self::File(OsString::from_vec(file).into()))
            }
            Some((scheme @ ("http" | "https"), rest)) => {
                let host = rest.split('/').next().unwrap_or_default();
                // What stands behind a query would be no path.
                if host.is_empty() || !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['?', '#']) {
                    return Err(bad());
                }
                let mut url = format!("{scheme}://{rest}");
                for part in parts {
                    url.push('/');
                    url.push_str(&escape(part, KEPT));
                }
                Ok(Self::Web(url))
            }
            _ => Err(Unusable::Scheme(remote.to_owned())),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Web(url) => f.write_str(url),
        }
    }
}

/// What stays as it is in the path of a URL (RFC 3986, section 3.3).
const KEPT: &[u8] = b"-._~+,=@:";

#[cfg(test)]
mod tests {
    use super::*;

    fn below(remote: &str, path: &str) -> Result<String, String> {
        Address::below(remote, path.as_bytes()).map(|address| address.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_is_put_below_the_url() {
        for (remote, path, expected) in [
            ("https://example.org", "libs.flatimage", "https://example.org/libs.flatimage"),
            ("http://example.org:81/a/", "/b//./c d%é#?", "http://example.org:81/a/b/c%20d%25%C3%A9%23%3F"),
            ("http://[::1]:80/%7Eann", "x", "http://[::1]:80/%7Eann/x"),
            ("file:///srv/images", "a/b", "/srv/images/a/b"),
            ("file://localhost/srv", "a b", "/srv/a b"),
            ("file:///with%20blank", "a%20b", "/with blank/a%20b"),
            ("file:///", "a", "/a"),
        ] {
            assert_eq!(below(remote, path).as_deref(), Ok(expected), "{remote} {path}");
        }
        let odd = Address::below("http://h", b"\xff\n").unwrap();
        assert_eq!(odd.to_string(), "http://h/%FF%0A");
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        for (remote, path, why) in [
            ("ftp://example.org", "x", "must begin with https://"),
            ("example.org", "x", "must begin with https://"),
            ("-o", "x", "must begin with https://"),
            ("HTTP://h", "x", "must begin with https://"),
            ("http://", "x", "names no host"),
            ("http:///a", "x", "names no host"),
            ("http://a b", "x", "holds blanks"),
            ("http://h/?a=", "x", "names no host, or holds"),
            ("file://host/a", "x", "names no host"),
            ("file://", "x", "names no host"),
            ("file:///a%2", "x", "names no host"),
            ("file:///a%00", "x", "names no host"),
            ("file:///a%+1", "x", "names no host"),
            ("http://h", "", "it is empty"),
            ("http://h", "/./", "it is empty"),
            ("http://h", "a/../b", "'..' is in it"),
        ] {
            let error = below(remote, path).unwrap_err();
            assert!(error.contains(why), "{remote} {path}: {error}");
        }
    }
}
