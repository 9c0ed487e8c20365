//! Paths that begin with one of the places of an installation, as layouts, slots and plugs name them.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The files of the application.
    Root,
    /// Its files of this revision.
    Data,
    /// Its files of every revision.
    Common,
}

impl Place {
    /// Every place with its variable and what snap calls that.
    const NAMES: [(Self, &'static str, &'static str); 3] = [
        (Self::Root, "FIM_ROOT_DIR", "SNAP"),
        (Self::Data, "FIM_DATA", "SNAP_DATA"),
        (Self::Common, "FIM_COMMON", "SNAP_COMMON"),
    ];

    /// Its variable.
    #[must_use]
    pub fn variable(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// The place that a path begins with, and what follows its variable: nothing, or a slash and more.
    #[must_use]
    pub fn begin(path: &[u8]) -> Option<(Self, &[u8])> {
        let (name, rest) = variable(path)?;
        let (place, ..) =
            Self::NAMES.into_iter().find(|(_, ours, snap)| [ours, snap].iter().any(|n| n.as_bytes() == name))?;
        (rest.is_empty() || rest.starts_with(b"/")).then_some((place, rest))
    }
}

/// A path below a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placed {
    /// Where it begins.
    pub place: Place,
    /// The rest, without `.`, `..` and doubled slashes; empty for the place itself.
    pub path: PathBuf,
    /// Whether it was written with a slash at its end.
    pub slash: bool,
}

/// A path that is below no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' {reason}; it must begin with $FIM_ROOT_DIR, $FIM_DATA or $FIM_COMMON (or $SNAP, $SNAP_DATA, $SNAP_COMMON)",
    .path.escape_debug()
)]
pub struct Misplaced {
    path: String,
    reason: &'static str,
}

impl Placed {
    /// Reads a path: `$FIM_DATA/x`, `${FIM_DATA}/x` or, as in snap, `$SNAP_DATA/x`.
    ///
    /// # Errors
    /// A path that begins otherwise, or could lead out of the place.
    pub fn parse(word: &[u8]) -> Result<Self, Misplaced> {
        let refuse = |reason| Misplaced { path: String::from_utf8_lossy(word).into_owned(), reason };
        let (place, rest) = Place::begin(word).ok_or_else(|| refuse("begins with no place of the installation"))?;
        if rest.contains(&0) {
            return Err(refuse("holds a NUL byte"));
        }
        let mut path = PathBuf::new();
        for component in Path::new(OsStr::from_bytes(rest)).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => return Err(refuse("holds '..'")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(Self { place, path, slash: rest.ends_with(b"/") })
    }

    /// The last name of the path; of a place itself, a word for it.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        let own = match self.place {
            Place::Root => "root",
            Place::Data => "data",
            Place::Common => "common",
        };
        self.path.file_name().unwrap_or(OsStr::new(own))
    }
}

/// Splits `$NAME` or `${NAME}` off the beginning of a text.
#[must_use]
pub fn variable(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(b"$")?;
    if let Some(braced) = rest.strip_prefix(b"{") {
        let end = braced.iter().position(|&byte| byte == b'}')?;
        return Some((&braced[..end], &braced[end + 1..]));
    }
    let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(rest.len());
    Some(rest.split_at(end))
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.place.variable())?;
        if self.path.as_os_str().is_empty() { Ok(()) } else { write!(f, "/{}", self.path.display()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_a_place() {
        for (word, place, path, shown) in [
            ("$FIM_ROOT_DIR", Place::Root, "", "$FIM_ROOT_DIR"),
            ("$SNAP/bin", Place::Root, "bin", "$FIM_ROOT_DIR/bin"),
            ("${FIM_DATA}/a//b/./c", Place::Data, "a/b/c", "$FIM_DATA/a/b/c"),
            ("$SNAP_DATA/", Place::Data, "", "$FIM_DATA"),
            ("$SNAP_COMMON/x/", Place::Common, "x", "$FIM_COMMON/x"),
            ("$FIM_COMMON/a b\n", Place::Common, "a b\n", "$FIM_COMMON/a b\n"),
        ] {
            let parsed = Placed::parse(word.as_bytes()).unwrap();
            assert_eq!((parsed.place, parsed.path.as_path()), (place, Path::new(path)), "{word}");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parsed.slash, word.ends_with('/'));
            assert_eq!(Placed::parse(shown.as_bytes()).unwrap().path, parsed.path);
        }
        assert_eq!(Placed::parse(b"$FIM_DATA/a/b").unwrap().name(), "b");
        assert_eq!(Placed::parse(b"$FIM_COMMON").unwrap().name(), "common");
    }

    #[test]
    fn anything_else_is_refused() {
        for (word, reason) in [
            ("", "no place"),
            ("/bin", "no place"),
            ("bin", "no place"),
            ("$HOME/x", "no place"),
            ("$SNAPX", "no place"),
            ("$FIM_DATAX/y", "no place"),
            ("${FIM_DATA", "no place"),
            ("${FIM_DATA}x", "no place"),
            ("x$FIM_DATA", "no place"),
            ("$FIM_USER_DATA", "no place"),
            ("$FIM_DATA/../x", "'..'"),
            ("$FIM_DATA/x/..", "'..'"),
            ("$FIM_DATA/x\0", "NUL"),
        ] {
            let error = Placed::parse(word.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("$SNAP_COMMON"), "{word}: {error}");
        }
    }
}
