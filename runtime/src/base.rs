//! What the writable layer of a data directory was made on: the layers of the image, recorded once, when the first
//! session begins on it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::image::{Config, Digest, LayerKind, MAX_LAYERS};

/// The record in the data directory.
pub const NAME: &str = "base";
/// Its first line; changing what follows needs another number.
const HEADER: &str = "fim-base 1";
/// Longest record in bytes: a line for each layer that an image may have.
const LIMIT: u64 = (HEADER.len() + 1 + 65 * MAX_LAYERS) as u64;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// The record.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none.
    #[error("cannot read {}: it is damaged, or of a newer version; fim-layer rebase keep writes it anew", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
    },
}

/// Layers of an image, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(Vec<Digest>);

impl Base {
    /// The layers that an image has.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let layers = config.layers.iter().filter(|layer| layer.kind == LayerKind::Squashfs);
        Self(layers.map(|layer| layer.digest).collect())
    }

    /// Whether the one has all layers of the other and more on top of them, or the other way round.
    #[must_use]
    pub fn extends_or_shortens(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }

    fn encode(&self) -> String {
        self.0.iter().fold(format!("{HEADER}\n"), |text, digest| text + &format!("{digest}\n"))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != HEADER {
            return None;
        }
        lines.map(Digest::from_hex).collect::<Option<_>>().map(Self)
    }

    /// What is recorded; `None` when nothing is.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn read(data: &Path) -> Result<Option<Self>, Error> {
        let path = data.join(NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?,
        };
        // Room for what it usually is, so that it takes one read.
        let mut bytes = Vec::with_capacity(4096);
        let read = file.take(LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
        if bytes.is_empty() {
            // The machine lost its power when a start had just written it.
            return Ok(None);
        }
        let base = std::str::from_utf8(&bytes).ok().and_then(Self::decode);
        base.map(Some).ok_or(Error::Damaged { path })
    }

    /// Records, whole or not at all, also when the power is cut. The caller holds the start lock or the session lock.
    ///
    /// # Errors
    /// I/O errors.
    pub fn record(&self, data: &Path) -> Result<(), Error> {
        self.write(data, File::sync_all)
    }

    /// As [`Base::record`], for a start, which does not wait for the medium: after a power cut nothing may be recorded.
    ///
    /// # Errors
    /// As [`Base::record`].
    pub fn note(&self, data: &Path) -> Result<(), Error> {
        self.write(data, |_| Ok(()))
    }

    fn write(&self, data: &Path, complete: impl FnOnce(&File) -> io::Result<()>) -> Result<(), Error> {
        let path = data.join(NAME);
        let draft = data.join(format!("{NAME}.new"));
        let written = File::create(&draft).and_then(|mut file| {
            file.write_all(self.encode().as_bytes())?;
            complete(&file)?;
            fs::rename(&draft, &path)
        });
        written.map_err(|source| Error::Io { action: "write", path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_record() {
        let base = Base(vec![Digest([0xab; 32]), Digest([1; 32])]);
        let text = format!("fim-base 1\n{}\n{}\n", "ab".repeat(32), "01".repeat(32));
        assert_eq!(base.encode(), text);
        assert_eq!(Base::decode(&text), Some(base));
        assert_eq!(Base::decode("fim-base 1\n"), Some(Base(Vec::new())));
    }

    #[test]
    fn damaged_records_are_errors() {
        let data = tempfile::tempdir().unwrap();
        assert!(Base::read(data.path()).unwrap().is_none());
        let digest = "ab".repeat(32);
        fs::write(data.path().join(NAME), "").unwrap();
        assert!(Base::read(data.path()).unwrap().is_none());
        for text in ["fim-base 2\n", "fim-base 1", "fim-base 1\n\n", "fim-base 1\nab\n", "\u{0}"] {
            fs::write(data.path().join(NAME), text).unwrap();
            assert!(matches!(Base::read(data.path()), Err(Error::Damaged { .. })), "{text:?}");
        }
        fs::write(data.path().join(NAME), [0xff]).unwrap();
        assert!(matches!(Base::read(data.path()), Err(Error::Damaged { .. })));
        fs::write(data.path().join(NAME), format!("fim-base 1\n{}", format!("{digest}\n").repeat(MAX_LAYERS + 1)))
            .unwrap();
        assert!(matches!(Base::read(data.path()), Err(Error::Damaged { .. })));
        let base = Base(vec![Digest([0xab; 32]); MAX_LAYERS]);
        base.record(data.path()).unwrap();
        assert_eq!(Base::read(data.path()).unwrap(), Some(base));
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    }

    #[test]
    fn layers_on_top_make_no_other_base() {
        let base = |digests: &[u8]| Base(digests.iter().map(|byte| Digest([*byte; 32])).collect());
        assert!(base(&[1, 2]).extends_or_shortens(&base(&[1])) && base(&[1]).extends_or_shortens(&base(&[1, 2])));
        assert!(!base(&[1, 2]).extends_or_shortens(&base(&[1, 3])) && !base(&[2]).extends_or_shortens(&base(&[1, 2])));
    }
}
