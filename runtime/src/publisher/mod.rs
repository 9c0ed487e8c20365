//! Who vouches for an image: an Ed25519 signature over a statement of what the publisher has put into it.
//!
//! The signature stands in the configuration and covers the program, the layers and what the image declares itself, but
//! not what its users set (permissions, variables, binds and the like), so that a setting does not end it. A change of
//! what it covers does: the signature then no longer fits, and the image counts as unsigned.

mod keys;
mod statement;

use std::io;

use crate::image::declared::Publisher;
use crate::image::{Config, Digest, Image, Uuid};
use crate::source::{ByteSource, FileRange};

pub use keys::{InvalidKey, MAX_FILE, PublicKey, SecretKey};

/// What can be said about the publisher of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has signed it.
    Unsigned,
    /// The owner of this key vouches for it as it is.
    Signed(PublicKey),
    /// The owner of this key has signed something else than what it is now.
    Changed(PublicKey),
}

impl Standing {
    /// Of an image whose program is `program`.
    fn of(image: &Image, program: Option<Digest>) -> Self {
        let Some(publisher) = &image.config.declared.publisher else { return Self::Unsigned };
        let key = PublicKey(publisher.key);
        let statement = statement::encode(&image.superblock.uuid, &publisher.program, &image.config);
        let same_program = program.is_none_or(|program| program == publisher.program);
        if same_program && key.has_signed(&statement, &publisher.signature) {
            Self::Signed(key)
        } else {
            Self::Changed(key)
        }
    }

    /// Of an image with its program, which is read.
    ///
    /// # Errors
    /// When the program cannot be read.
    pub fn whole(image: &Image) -> io::Result<Self> {
        match image.config.declared.publisher {
            Some(_) => Ok(Self::of(image, Some(program_digest(image)?))),
            None => Ok(Self::Unsigned),
        }
    }

    /// The key whose owner vouches for the image.
    #[must_use]
    pub fn publisher(self) -> Option<PublicKey> {
        match self {
            Self::Signed(key) => Some(key),
            Self::Unsigned | Self::Changed(_) => None,
        }
    }
}

/// The key whose owner vouches for the content of an image: its layers and what it declares. Nothing is read, so that
/// the program, which only a start of that image executes, is not looked at: [`Standing::whole`] is for who starts it.
#[must_use]
pub fn verified_publisher(image: &Image) -> Option<PublicKey> {
    Standing::of(image, None).publisher()
}

/// What makes the owner of `key` the publisher of the image with this UUID and configuration, for
/// [`Declared::publisher`](crate::image::declared::Declared::publisher). `program` is [`program_digest`].
#[must_use]
pub fn sign(uuid: &Uuid, program: Digest, config: &Config, key: &SecretKey) -> Publisher {
    let statement = statement::encode(uuid, &program, config);
    Publisher { key: key.public().0, program, signature: key.sign(&statement) }
}

/// Digest of the program that an image begins with, without padding.
///
/// # Errors
/// When it cannot be read.
pub fn program_digest(image: &Image) -> io::Result<Digest> {
    let mut bytes = vec![0; usize::try_from(image.elf_len()).map_err(|_| io::ErrorKind::FileTooLarge)?];
    FileRange::new(image.file.clone(), 0, image.file_len).read_exact_at(&mut bytes, 0)?;
    Ok(Digest::of(&bytes))
}

#[cfg(test)]
mod tests;
