//! Whether a layer is in its place.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::intent::{Place, Publication};
use crate::image::{Digest, Image};

/// Bytes read at once.
pub(super) const PIECE: usize = 1 << 20;

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
