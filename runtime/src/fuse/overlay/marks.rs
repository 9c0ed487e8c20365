//! How the upper directory says that a name of the layers is gone, and that a directory hides those below it.
//!
//! [`Marks::Kernel`] is what the kernel's overlayfs with `userxattr` does (`Documentation/filesystems/overlayfs.rst`,
//! "whiteouts and opaque directories"), so that either can go on with what the other has written. [`Marks::Plain`] needs
//! neither attributes nor device nodes: empty files with reserved names, those of container layers (OCI image
//! specification, "Whiteouts") with an escape for names that look like one. `docs/FORMAT.md` has the table; changing it
//! breaks data directories.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Which form an upper directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// A character device 0:0 is a whiteout, `user.overlay.opaque` = `y` makes a directory opaque.
    Kernel,
    /// The files `.wh.NAME` and `.wh..wh..opq`.
    Plain,
}

/// The attribute that makes a directory opaque, where `userxattr` is on.
pub(super) const OPAQUE_XATTR: &str = "user.overlay.opaque";
/// The file that makes its directory opaque.
pub(super) const OPAQUE_FILE: &[u8] = b".wh..wh..opq";

/// Begins every reserved name.
const PREFIX: &[u8] = b".wh.";
/// Before the rest of a name that begins with [`PREFIX`] itself.
const ESCAPED_NAME: &[u8] = b".wh..wh.n";
/// The whiteout of such a name.
const ESCAPED_WHITEOUT: &[u8] = b".wh..wh.w";

/// What a name in a directory of plain marks means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// This name of the guest.
    Entry(Vec<u8>),
    /// This name of the layers is gone.
    Whiteout(Vec<u8>),
    /// The directory hides those below it.
    Opaque,
    /// Reserved.
    Nothing,
}

fn joined(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
    [prefix, rest].concat()
}

impl Marks {
    /// The name under which an entry of the guest is stored.
    pub(super) fn stored(self, name: &[u8]) -> Vec<u8> {
        match (self, name.strip_prefix(PREFIX)) {
            (Self::Plain, Some(rest)) => joined(ESCAPED_NAME, rest),
            _ => name.to_vec(),
        }
    }

    /// The path under which a path of the guest is stored.
    pub(crate) fn stored_path(self, path: &Path) -> PathBuf {
        path.iter().map(|name| OsString::from_vec(self.stored(name.as_bytes()))).collect()
    }

    /// The name of the whiteout of a name of the guest.
    pub(super) fn whiteout(self, name: &[u8]) -> Vec<u8> {
        match (self, name.strip_prefix(PREFIX)) {
            (Self::Kernel, _) => name.to_vec(),
            (Self::Plain, Some(rest)) => joined(ESCAPED_WHITEOUT, rest),
            (Self::Plain, None) => joined(PREFIX, name),
        }
    }

    /// Bytes that a stored name, or its whiteout, may have more than the guest's: every name must be able to go.
    pub(super) fn longer(self) -> u32 {
        match self {
            Self::Kernel => 0,
            Self::Plain => (ESCAPED_NAME.len() - PREFIX.len()) as u32,
        }
    }

    /// What a stored name means; with kernel marks every name is an entry, which may be a whiteout by its type.
    pub(crate) fn meaning(self, stored: &[u8]) -> Meaning {
        if self == Self::Kernel || !stored.starts_with(PREFIX) {
            return Meaning::Entry(stored.to_vec());
        }
        if stored == OPAQUE_FILE {
            return Meaning::Opaque;
        }
        if let Some(rest) = stored.strip_prefix(ESCAPED_NAME) {
            return Meaning::Entry(joined(PREFIX, rest));
        }
        if let Some(rest) = stored.strip_prefix(ESCAPED_WHITEOUT) {
            return Meaning::Whiteout(joined(PREFIX, rest));
        }
        match &stored[PREFIX.len()..] {
            b"" => Meaning::Nothing,
            rest if rest.starts_with(PREFIX) => Meaning::Nothing,
            rest => Meaning::Whiteout(rest.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_names() {
        let plain = Marks::Plain;
        for (name, stored, whiteout) in [
            (&b"passwd"[..], &b"passwd"[..], &b".wh.passwd"[..]),
            (b".hidden", b".hidden", b".wh..hidden"),
            (b".wh.", b".wh..wh.n", b".wh..wh.w"),
            (b".wh.x", b".wh..wh.nx", b".wh..wh.wx"),
            (b".wh..wh..opq", b".wh..wh.n.wh..opq", b".wh..wh.w.wh..opq"),
            (b".wh..wh.nx", b".wh..wh.n.wh.nx", b".wh..wh.w.wh.nx"),
        ] {
            assert_eq!((&plain.stored(name)[..], &plain.whiteout(name)[..]), (stored, whiteout));
            assert_eq!(plain.meaning(stored), Meaning::Entry(name.to_vec()));
            assert_eq!(plain.meaning(whiteout), Meaning::Whiteout(name.to_vec()));
            assert_eq!(Marks::Kernel.stored(name), name);
            assert_eq!(Marks::Kernel.meaning(name), Meaning::Entry(name.to_vec()));
        }
        assert_eq!(plain.meaning(OPAQUE_FILE), Meaning::Opaque);
        let path = Path::new(".wh.d/x/.wh.f");
        assert_eq!(plain.stored_path(path), Path::new(".wh..wh.nd/x/.wh..wh.nf"));
        assert_eq!(Marks::Kernel.stored_path(path), path);
    }

    #[test]
    fn reserved_names_mean_nothing() {
        for name in [&b".wh."[..], b".wh..wh.plnk", b".wh..wh."] {
            assert_eq!(Marks::Plain.meaning(name), Meaning::Nothing, "{name:?}");
        }
    }
}
