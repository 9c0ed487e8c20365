//! Changing the configuration: the older slot is overwritten, so a cut leaves the newer one valid.

use std::path::Path;

use super::config::Config;
use super::error::{Error, FormatError};
use super::layer::check_index;
use super::open::Contents;
use super::slot;
use super::write::{Locked, Writer};
use super::{CONFIG_VERSION, body};

/// Changes the configuration of the image at `path`. Writers are serialised by a lock on the file, `change`
/// sees the configuration as the writer before left it, and running instances are not disturbed.
/// Nothing is written when `change` fails or changes nothing.
///
/// # Errors
/// What `change` returns; a file that is no image, was written by a newer fim or cannot be written; a
/// configuration that does not fit.
pub fn update<T, E: From<Error>>(path: &Path, change: impl FnOnce(&mut Config) -> Result<T, E>) -> Result<T, E> {
    let locked = Locked::acquire(path)?;
    let contents = locked.contents()?;
    let mut config = contents.config.clone();
    let value = change(&mut config)?;
    if config != contents.config {
        let mut writer = Writer::in_place(&locked);
        // The writer before may have been killed between its write and its fsync. Its slot is the one that
        // stays, so it must be on the medium before the other is touched.
        writer.sync()?;
        write_slot(&mut writer, &locked, &contents, &config)?;
        writer.commit()?;
    }
    Ok(value)
}

/// Writes `config` into the slot that `contents` does not stand in.
pub(super) fn write_slot(
    writer: &mut Writer<'_>,
    locked: &Locked,
    contents: &Contents,
    config: &Config,
) -> Result<(), Error> {
    let failed = |source| Error::Format { path: locked.path.clone(), source };
    let (bytes, offset) = next_slot(contents, config).map_err(failed)?;
    writer.write_at(&bytes, offset)?;
    writer.sync()
}

/// The bytes that make `config` the configuration after `contents`, and where they go.
pub(super) fn next_slot(contents: &Contents, config: &Config) -> Result<(Vec<u8>, u64), FormatError> {
    let target = contents.slot.other();
    if let Some(version) = contents.other_version.filter(|version| *version > CONFIG_VERSION) {
        return Err(FormatError::NewerConfig { slot: target, version, known: CONFIG_VERSION });
    }
    if contents.superblock.version > super::FORMAT_VERSION {
        let version = contents.superblock.version;
        return Err(FormatError::NewerFormat { version, needed: version, known: super::FORMAT_VERSION });
    }
    check_index(&config.layers, &contents.superblock)?;
    let generation = contents.generation.checked_add(1).ok_or(FormatError::Generation)?;
    let body = body::encode(config).map_err(FormatError::Encode)?;
    let bytes = slot::encode(generation, CONFIG_VERSION, &body, contents.superblock.slot_capacity)?;
    Ok((bytes, contents.superblock.slot_offset(target)))
}
