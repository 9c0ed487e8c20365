//! Revisions: which content of the image the files of an installation go with. The number grows whenever the layers of the
//! image are others than before, by a commit or because another version was put in the place of the file.
//!
//! ```text
//! DATA/revision       link whose text is the record of the revision
//! DATA/files/N/       bound into each instance of revision N: system/ and user/
//! DATA/files/common/  bound into each instance: system/ and user/
//! ```
//!
//! What is bound is the guest's: nothing here looks into it by a path that a guest could make a link of.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::image::{Config, LayerKind};

/// The directory in the data directory that holds one for each revision.
pub const FILES: &str = "files";
/// Directory beside those of the revisions that belongs to all of them.
pub const COMMON: &str = "common";
/// The record.
pub const RECORD: &str = "revision";
/// First field of a record; changing what follows needs another number.
const VERSION: &str = "1";

/// Which revision an installation is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// The number, from 1.
    pub current: u32,
    /// The highest number that was ever given.
    pub newest: u32,
    /// The image's content: a digest of its layers, as 16 hexadecimal digits.
    pub content: String,
}

/// What a start has to do about its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The revision that its files are taken from; `None` when there were none.
    pub before: Option<Revision>,
    /// The revision that the start belongs to.
    pub now: Revision,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}:{}:{}:{}", self.current, self.newest, self.content)
    }
}

impl Revision {
    /// Reads what [`Revision::to_string`] gave.
    #[must_use]
    pub fn parse(text: &OsStr) -> Option<Self> {
        let fields: Vec<&str> = text.to_str()?.split(':').collect();
        let [VERSION, current, newest, content] = fields[..] else { return None };
        let number = |text: &str| text.parse().ok().filter(|number: &u32| *number > 0 && number.to_string() == text);
        let (current, newest) = (number(current)?, number(newest)?);
        (current <= newest && !content.is_empty()).then(|| Self { current, newest, content: content.to_owned() })
    }

    /// The record of a data directory; `None` where none has been made yet. One system call.
    ///
    /// # Errors
    /// A record that cannot be read or understood.
    pub fn read(data: &Path) -> io::Result<Option<Self>> {
        match fs::read_link(data.join(RECORD)) {
            Ok(text) => Self::parse(text.as_os_str()).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "it is damaged, or was written by a newer version")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes this the record of a data directory: the old record or the new one is there at any moment.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let draft = data.join("revision.new");
        let _ = fs::remove_file(&draft);
        std::os::unix::fs::symlink(self.to_string(), &draft)?;
        fs::rename(draft, data.join(RECORD))
    }

    /// The greatest revision below the current one that still has files.
    #[must_use]
    pub fn previous(&self, data: &Path) -> Option<u32> {
        (1..self.current).rev().find(|number| directory(data, *number).is_dir())
    }
}

/// Directory of a revision.
#[must_use]
pub fn directory(data: &Path, number: u32) -> PathBuf {
    data.join(FILES).join(number.to_string())
}

/// Digest of what an image holds.
#[must_use]
pub fn content(config: &Config) -> String {
    let mut hasher = blake3::Hasher::new();
    for layer in config.layers.iter().filter(|layer| layer.kind == LayerKind::Squashfs) {
        hasher.update(&layer.digest.0);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

impl Step {
    /// Decides from the record and the image.
    #[must_use]
    pub fn decide(before: Option<Revision>, content: String) -> Self {
        let now = match &before {
            None => Revision { current: 1, newest: 1, content },
            Some(before) if before.content == content => before.clone(),
            Some(before) => {
                let newest = before.newest.saturating_add(1);
                Revision { current: newest, newest, content }
            }
        };
        Self { before, now }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.before.as_ref() == Some(&self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(current: u32, newest: u32, content: &str) -> Revision {
        Revision { current, newest, content: content.to_owned() }
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        assert_eq!(revision(2, 3, "ab").to_string(), "1:2:3:ab");
        assert_eq!(Revision::parse(OsStr::new("1:2:3:ab")), Some(revision(2, 3, "ab")));
        for bad in ["", "1:2:3", "2:2:3:ab", "1:0:3:ab", "1:4:3:ab", "1:02:3:ab", "1:2:3:", "1:x:3:ab", "1:2:3:ab:c"] {
            assert_eq!(Revision::parse(OsStr::new(bad)), None, "{bad}");
        }
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Revision::read(data.path()).unwrap(), None);
        for number in [1, 2] {
            revision(number, 2, "ab").write(data.path()).unwrap();
            assert_eq!(Revision::read(data.path()).unwrap(), Some(revision(number, 2, "ab")));
        }
        fs::remove_file(data.path().join(RECORD)).unwrap();
        std::os::unix::fs::symlink("x", data.path().join(RECORD)).unwrap();
        assert!(Revision::read(data.path()).is_err());
    }

    #[test]
    fn the_number_grows_with_each_other_content() {
        let decide = |before: Option<Revision>, content: &str| Step::decide(before, content.to_owned());
        let first = decide(None, "a");
        assert!(!first.is_done() && first.now == revision(1, 1, "a"));
        assert!(decide(Some(first.now.clone()), "a").is_done());
        assert_eq!(decide(Some(first.now), "b").now, revision(2, 2, "b"));
        // Gone back to 1, and never given twice.
        assert!(decide(Some(revision(1, 2, "b")), "b").is_done());
        assert_eq!(decide(Some(revision(1, 2, "b")), "c").now, revision(3, 3, "c"));
    }
}
