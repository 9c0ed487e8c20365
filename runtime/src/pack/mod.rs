//! Packing: a directory, a tar, a container image or a squashfs becomes layers of an image.
//!
//! The same input gives the same bytes: entries are sorted bytewise, and neither the order in which a directory
//! lists them nor the number of threads shows in the result.

mod appimage;
mod container;
pub(crate) mod contents;
pub(crate) mod directory;
mod error;
mod existing;
mod growth;
mod input;
mod profile;
mod source;
pub(crate) mod squash;
pub(crate) mod startup;
mod stored;
mod tar;

pub use crate::progress::Progress;
pub use container::{Choice, Platform, Unkept};
pub use error::Error;
pub use input::{Input, Intake, Layer};
pub use profile::files_read;
pub use source::{Source, contains};
pub use squash::squash;
pub use startup::Startup;

use crate::squashfs::{Time, write};
use std::ffi::OsStr;

/// Which times a squashfs carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// The archive has the newest modification time in it.
    Newest,
    /// The archive has this time (seconds since 1970), files modified later get it too, and all times are whole seconds:
    /// <https://reproducible-builds.org/specs/source-date-epoch/>.
    Fixed(u32),
}

impl Epoch {
    /// `Fixed` when `SOURCE_DATE_EPOCH` is set, else `Newest`.
    ///
    /// # Errors
    /// When the variable is not a number of seconds from 0 to 4294967295.
    pub fn from_environment() -> Result<Self, Error> {
        Self::parse(std::env::var_os("SOURCE_DATE_EPOCH").as_deref())
    }

    fn parse(value: Option<&OsStr>) -> Result<Self, Error> {
        let Some(value) = value else { return Ok(Self::Newest) };
        let seconds = value.to_str().and_then(|text| text.parse().ok());
        seconds.map(Self::Fixed).ok_or_else(|| Error::Epoch(value.to_string_lossy().into_owned()))
    }

    fn limit(self) -> Option<u32> {
        match self {
            Self::Newest => None,
            Self::Fixed(seconds) => Some(seconds),
        }
    }
}

/// How a source is packed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Block size, level and threads. Not used for a squashfs, which is copied.
    pub squashfs: write::Options,
    /// Which times the archive carries. Not used for a squashfs.
    pub epoch: Epoch,
    /// What starts: the blocks of its start-up set, as far as it adds at most 3 MiB or 3 %, are stored uncompressed and
    /// unshared, before all others. Not used for a squashfs.
    pub startup: Option<Startup>,
}

impl Default for Options {
    fn default() -> Self {
        Self { squashfs: write::Options::default(), epoch: Epoch::Newest, startup: None }
    }
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the squashfs, as its superblock says.
    pub bytes_used: u64,
    /// Bytes of the squashfs with its padding to 4096 (a layer of another image is copied without); the output ends
    /// behind them.
    pub bytes_padded: u64,
    /// Inodes, the root included; 0 when unknown.
    pub inodes: u64,
    /// Regular files, hard links counted once; unknown for a squashfs that was copied.
    pub files: Option<u64>,
    /// Bytes in the regular files; unknown for a squashfs that was copied and does not tell.
    pub unpacked_bytes: Option<u64>,
    /// Whether there is a shell that an image without a boot command could start; unknown for a squashfs.
    pub shell: Option<bool>,
    /// The files of the start-up set, as a start opens them: relative to the root, links not replaced.
    pub startup: Vec<Vec<u8>>,
}

impl From<write::Summary> for Summary {
    fn from(written: write::Summary) -> Self {
        let write::Summary { bytes_used, bytes_padded, inodes, files, unpacked_bytes } = written;
        let inodes = u64::from(inodes);
        Self {
            bytes_used,
            bytes_padded,
            inodes,
            files: Some(files),
            unpacked_bytes: Some(unpacked_bytes),
            shell: None,
            startup: Vec::new(),
        }
    }
}

/// A time since the epoch as squashfs holds it: before 1970 is 0, after 2106 is the last second it knows.
pub(crate) fn clamp_time(seconds: i64, nanoseconds: u32) -> Time {
    match u32::try_from(seconds) {
        Ok(seconds) => Time { seconds, nanoseconds },
        Err(_) if seconds < 0 => Time::default(),
        Err(_) => Time::from(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_a_number_or_an_error() {
        let parse = |value: Option<&str>| Epoch::parse(value.map(OsStr::new));
        assert_eq!(parse(None).unwrap(), Epoch::Newest);
        assert_eq!(parse(Some("86400")).unwrap(), Epoch::Fixed(86_400));
        for value in ["", "-1", "4294967296", "yesterday"] {
            assert!(parse(Some(value)).unwrap_err().to_string().contains("correct or unset"), "{value}");
        }
    }

    #[test]
    fn times_out_of_range_are_clamped() {
        let kept = |seconds, nanoseconds| Time { seconds, nanoseconds };
        for (seconds, expected) in [
            (-1, kept(0, 0)),
            (0, kept(0, 5)),
            (1_700_000_000, kept(1_700_000_000, 5)),
            (u32::MAX.into(), kept(u32::MAX, 5)),
            (1 << 32, kept(u32::MAX, 0)),
        ] {
            assert_eq!(clamp_time(seconds, 5), expected);
        }
    }
}
