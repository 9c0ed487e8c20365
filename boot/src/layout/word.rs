//! Words of layouts: a path of the guest, or one below a directory of the installation.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use runtime::installation::places::{self, Place};

/// A path, without `.`, `..` and doubled slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word {
    /// Where it begins; `None` is the root of the guest.
    pub base: Option<Place>,
    /// Below that.
    pub rest: PathBuf,
}

/// Directories of the installation in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Files of the application.
    pub root: PathBuf,
    /// Data of the revision.
    pub data: PathBuf,
    /// Data of all revisions.
    pub common: PathBuf,
}

impl Places {
    /// Where a path begins.
    #[must_use]
    pub fn of(&self, base: Option<Place>) -> &Path {
        match base {
            None => Path::new("/"),
            Some(Place::Root) => &self.root,
            Some(Place::Data) => &self.data,
            Some(Place::Common) => &self.common,
        }
    }
}

/// A word that is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It begins with nothing known.
    #[error(
        "it must begin with / or with $FIM_ROOT_DIR, $FIM_DATA or $FIM_COMMON (put it into single quotes, or the shell replaces them)"
    )]
    Start,
    /// It leads up.
    #[error("it has '..' in it; write the path that is meant")]
    Up,
    /// There is a variable in the middle.
    #[error("it has a variable in it; only the beginning may be one, and $SNAPCRAFT_ARCH_TRIPLET")]
    Variable,
    /// It has a byte that no path has.
    #[error("it has a NUL byte in it")]
    Nul,
    /// It is longer than any path.
    #[error("it is longer than 4095 bytes")]
    Long,
}

/// Longest path in bytes, its NUL included (limits.h).
const PATH_MAX: usize = 4096;

/// The name of the machine in the paths of Debian's libraries.
const TRIPLET: &str = "SNAPCRAFT_ARCH_TRIPLET";

/// Replaces the name of the machine, which snapcraft knows; any other variable is refused.
fn without_variables(text: &[u8]) -> Result<Vec<u8>, Invalid> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'$') {
        out.extend_from_slice(&rest[..at]);
        let (name, behind) = places::variable(&rest[at..]).ok_or(Invalid::Variable)?;
        if name != TRIPLET.as_bytes() {
            return Err(Invalid::Variable);
        }
        out.extend_from_slice(format!("{}-linux-gnu", std::env::consts::ARCH).as_bytes());
        rest = behind;
    }
    out.extend_from_slice(rest);
    Ok(out)
}

impl Word {
    /// Reads a word.
    ///
    /// # Errors
    /// When it is no path that a layout can have.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        if text.contains(&0) {
            return Err(Invalid::Nul);
        }
        if text.len() >= PATH_MAX {
            return Err(Invalid::Long);
        }
        let (base, rest) = match Place::begin(text) {
            Some((place, rest)) => (Some(place), rest),
            None if text.first() == Some(&b'/') => (None, text),
            None => return Err(Invalid::Start),
        };
        let mut path = PathBuf::new();
        for component in Path::new(OsStr::from_bytes(&without_variables(rest)?)).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => return Err(Invalid::Up),
                _ => {}
            }
        }
        Ok(Self { base, rest: path })
    }

    /// The path in the guest.
    #[must_use]
    pub fn path(&self, places: &Places) -> PathBuf {
        places.of(self.base).join(&self.rest)
    }

    /// The word as it is stored, which [`Word::parse`] reads.
    #[must_use]
    pub fn stored(&self) -> Vec<u8> {
        let mut stored = self.base.map_or_else(OsString::new, |place| format!("${}", place.variable()).into());
        if stored.is_empty() || !self.rest.as_os_str().is_empty() {
            stored.push("/");
            stored.push(&self.rest);
        }
        stored.as_bytes().to_vec()
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.stored()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &str) -> Result<String, Invalid> {
        Word::parse(text.as_bytes()).map(|word| word.to_string())
    }

    #[test]
    fn one_place_has_one_spelling() {
        for (text, expected) in [
            ("/var/lib/foo", "/var/lib/foo"),
            ("//var/./lib//foo/", "/var/lib/foo"),
            ("/", "/"),
            ("$SNAP/usr/share/foo", "$FIM_ROOT_DIR/usr/share/foo"),
            ("$SNAP_DATA/etc/foo.conf", "$FIM_DATA/etc/foo.conf"),
            ("${SNAP_COMMON}//x", "$FIM_COMMON/x"),
            ("$FIM_ROOT_DIR", "$FIM_ROOT_DIR"),
            ("$FIM_DATA/", "$FIM_DATA"),
            ("/with blank/ä", "/with blank/ä"),
        ] {
            assert_eq!(stored(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(stored(expected).as_deref(), Ok(expected));
        }
        let bytes = b"/\xff/x";
        assert_eq!(Word::parse(bytes).unwrap().stored(), bytes);
    }

    #[test]
    fn the_machines_name_is_known() {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        assert_eq!(stored("/usr/lib/$SNAPCRAFT_ARCH_TRIPLET/x"), Ok(format!("/usr/lib/{triplet}/x")));
        assert_eq!(stored("$SNAP/lib/${SNAPCRAFT_ARCH_TRIPLET}"), Ok(format!("$FIM_ROOT_DIR/lib/{triplet}")));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (text, error) in [
            ("", Invalid::Start),
            ("etc/x", Invalid::Start),
            ("$HOME/x", Invalid::Start),
            ("$SNAPX/x", Invalid::Start),
            ("$SNAP_USER_DATA/x", Invalid::Start),
            ("$FIM_DATAx", Invalid::Start),
            ("${FIM_DATA/x", Invalid::Start),
            ("${FIM_DATA}x", Invalid::Start),
            ("$", Invalid::Start),
            ("/a/../b", Invalid::Up),
            ("$FIM_DATA/../common", Invalid::Up),
            ("/..", Invalid::Up),
            ("/a/$HOME", Invalid::Variable),
            ("/a$", Invalid::Variable),
            ("/a\0b", Invalid::Nul),
        ] {
            assert_eq!(stored(text), Err(error), "{text}");
        }
        assert_eq!(stored(&format!("/{}", "x".repeat(4095))), Err(Invalid::Long));
    }
}
