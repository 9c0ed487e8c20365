//! What is being done to the writable layer, written down before it is done.
//!
//! ```text
//! fim-commit 1
//! image | file | reset | clean
//! SIZE DIGEST
//! PLACE
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Error, remove_file, sync_directory};
use crate::image::Digest;

/// The record, in the data directory.
pub const INTENT: &str = "commit";

/// Its first line; changing what follows needs another number.
const HEADER: &str = "fim-commit 1";
/// Longest record in bytes: a path and a few numbers.
const LIMIT: u64 = 2 * libc::PATH_MAX as u64;

/// Where a layer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into an image, as its topmost layer.
    Image,
    /// A file of its own.
    File,
}

/// A layer that is complete and about to appear in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What the place is.
    pub place: Place,
    /// The image, or the file to be.
    pub path: PathBuf,
    /// Length of the layer in bytes.
    pub size: u64,
    /// The digest of these bytes.
    pub digest: Digest,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// The layer is being put into its place. If it is there, the writable layer is to be replaced; if not, the layer is
    /// given up.
    Publish(Publication),
    /// The writable layer is being replaced.
    Reset,
    /// It is replaced; the former one is being removed.
    Clean,
}

impl Intent {
    fn encode(&self) -> Vec<u8> {
        let nothing = (0, Digest([0; 32]), Path::new(""));
        let (word, (size, digest, path)) = match self {
            Self::Publish(Publication { place, path, size, digest }) => {
                (if *place == Place::Image { "image" } else { "file" }, (*size, *digest, path.as_path()))
            }
            Self::Reset => ("reset", nothing),
            Self::Clean => ("clean", nothing),
        };
        let mut bytes = format!("{HEADER}\n{word}\n{size} {digest}\n").into_bytes();
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.splitn(4, |&byte| byte == b'\n');
        let mut line = || lines.next();
        if line()? != HEADER.as_bytes() {
            return None;
        }
        let (word, numbers, path) = (line()?, std::str::from_utf8(line()?).ok()?, line()?);
        let (size, digest) = numbers.split_once(' ')?;
        let (size, digest) = (size.parse().ok()?, Digest::from_hex(digest)?);
        let path = PathBuf::from(OsStr::from_bytes(path));
        let publish = |place| {
            let whole = path.is_absolute();
            whole.then(|| Self::Publish(Publication { place, path: path.clone(), size, digest }))
        };
        match word {
            b"image" => publish(Place::Image),
            b"file" => publish(Place::File),
            b"reset" => Some(Self::Reset),
            b"clean" => Some(Self::Clean),
            _ => None,
        }
    }

    /// What was being done to a data directory; `None` when nothing was.
    ///
    /// # Errors
    /// I/O errors; a record that cannot be understood.
    pub fn read(data: &Path) -> Result<Option<Self>, Error> {
        let path = data.join(INTENT);
        let mut bytes = Vec::new();
        match File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.and_then(|file| file.take(LIMIT).read_to_end(&mut bytes)),
        }
        .map_err(Error::io("read", &path))?;
        Self::decode(&bytes).map(Some).ok_or(Error::Intent { path })
    }

    /// Writes it down as the beginning of something, for which [`super::make_fresh`] has made the empty writable layer. That
    /// is given up when this fails.
    ///
    /// # Errors
    /// I/O errors.
    pub fn begin(&self, data: &Path) -> Result<(), Error> {
        self.write(data).inspect_err(|_| {
            // What is left of it is replaced by the next.
            let _ = super::forget(data);
        })
    }

    /// Writes it down, durably, in place of what was.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, data: &Path) -> Result<(), Error> {
        let (path, draft) = (data.join(INTENT), data.join(format!("{INTENT}.new")));
        remove_file(&draft)?;
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&draft).and_then(|mut file| {
            file.write_all(&self.encode())?;
            file.sync_all()
        });
        let written = written.and_then(|()| fs::rename(&draft, &path)).map_err(Error::io("write", &path));
        if written.is_err() {
            // On a full disk, for instance; should this fail, too, it means nothing.
            let _ = fs::remove_file(&draft);
        }
        written?;
        sync_directory(data)
    }

    /// Says that nothing is being done any more.
    ///
    /// # Errors
    /// I/O errors.
    pub fn remove(data: &Path) -> Result<(), Error> {
        remove_file(&data.join(format!("{INTENT}.new")))?;
        remove_file(&data.join(INTENT))?;
        sync_directory(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(place: Place) -> Intent {
        let path = PathBuf::from(OsStr::from_bytes(b"/a \xff\n/x"));
        Intent::Publish(Publication { place, path, size: 4096, digest: Digest([7; 32]) })
    }

    #[test]
    fn every_intent_is_read_as_it_was_written() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Intent::read(data.path()).unwrap(), None);
        let all = [publication(Place::Image), publication(Place::File), Intent::Reset, Intent::Clean];
        for intent in all {
            intent.write(data.path()).unwrap();
            assert_eq!(Intent::read(data.path()).unwrap(), Some(intent));
        }
        Intent::remove(data.path()).unwrap();
        assert_eq!(Intent::read(data.path()).unwrap(), None);
        Intent::remove(data.path()).unwrap();
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    }

    #[test]
    fn golden_record() {
        let expected = [b"fim-commit 1\nimage\n4096 ".to_vec(), "07".repeat(32).into_bytes()].concat();
        let expected = [&expected[..], b"\n/a \xff\n/x"].concat();
        assert_eq!(publication(Place::Image).encode(), expected);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_never_a_guess() {
        let data = tempfile::tempdir().unwrap();
        let whole = publication(Place::File).encode();
        let path = whole.iter().position(|&byte| byte == b'/').unwrap();
        for len in 0..=path {
            assert_eq!(Intent::decode(&whole[..len]), None, "{len}");
        }
        for text in ["fim-commit 2\nreset\n", "fim-commit 1\nnothing\n0 0\n", "fim-commit 1\nfile\n0 00\nrelative"] {
            fs::write(data.path().join(INTENT), text).unwrap();
            assert!(matches!(Intent::read(data.path()), Err(Error::Intent { .. })), "{text}");
        }
    }
}
