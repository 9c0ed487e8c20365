//! The places of layers: a file that appears whole and over nothing, or an image.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, RenameFlags, renameat2};

use super::intent::{Place, Publication};
use super::{Error, sync_directory};
use crate::image::{Digest, Image};

/// Bytes read at once.
pub(super) const PIECE: usize = 1 << 20;

/// The layer while it is written, in the data directory.
pub const PART: &str = "commit.layer";

/// Gives the complete file `part`, which is on the medium, the name `path` on the same file system.
///
/// # Errors
/// [`Error::Exists`]; I/O errors.
pub fn publish_file(part: &Path, path: &Path) -> Result<(), Error> {
    let here = nix::fcntl::AT_FDCWD;
    let named = match renameat2(here, part, here, path, RenameFlags::RENAME_NOREPLACE) {
        // A file system without this kind of renaming: a link covers nothing either.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            match nix::unistd::linkat(here, part, here, path, AtFlags::empty()) {
                Ok(()) => fs::remove_file(part).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
                // Nor links. What is made at this very moment by somebody else is not seen.
                Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) if fs::symlink_metadata(path).is_err() => {
                    nix::fcntl::renameat(here, part, here, path)
                }
                Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => Err(Errno::EEXIST),
                Err(other) => Err(other),
            }
        }
        other => other,
    };
    match named {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("/"))),
        Err(Errno::EEXIST) => Err(Error::Exists { path: path.to_owned() }),
        Err(errno) => Err(Error::io("make", path)(errno.into())),
    }
}

impl Publication {
    /// Whether the layer is in its place. `image` is the image that uses the data directory now, should it have moved.
    pub(super) fn is_published(&self, image: &Path) -> bool {
        match self.place {
            Place::Image => self.is_in(&self.path) || self.is_in(image),
            Place::File => digest_of(&self.path, self.size).is_ok_and(|digest| digest == Some(self.digest)),
        }
    }

    fn is_in(&self, image: &Path) -> bool {
        let opened = File::open(image).map(|file| Image::open(file, image));
        let Ok(Ok(Some(image))) = opened else { return false };
        image.config.layers.iter().any(|layer| (layer.size, layer.digest) == (self.size, self.digest))
    }
}

/// The digest of a file, if it has this many bytes.
fn digest_of(path: &Path, size: u64) -> io::Result<Option<Digest>> {
    let file = File::open(path)?;
    if file.metadata()?.len() != size {
        return Ok(None);
    }
    digest(file).map(Some)
}

/// The digest of everything that can be read.
pub fn digest(mut file: impl Read) -> io::Result<Digest> {
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_over_nothing_only() {
        let base = tempfile::tempdir().unwrap();
        let (part, place) = (base.path().join("part"), base.path().join("place"));
        fs::write(&part, "one").unwrap();
        publish_file(&part, &place).unwrap();
        assert!(!part.exists());
        fs::write(&part, "two").unwrap();
        assert!(matches!(publish_file(&part, &place), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&place).unwrap(), b"one");
        assert!(part.exists());
        assert!(matches!(publish_file(&part, &base.path().join("none/x")), Err(Error::Io { .. })));
    }
}
