//! Removing a layer: a copy of the image without it takes the image's place, so that whoever has the old one open goes
//! on reading it.

use std::ops::Range;
use std::path::Path;

use super::config::Config;
use super::error::{Error, FormatError};
use super::layer::{LayerEntry, index_end};
use super::update::write_slot;
use super::write::{Locked, Writer};

/// Removes the entry of the layer index whose position `choose` returns, and gives its space back. `choose` sees the
/// configuration as the writer before left it.
///
/// # Errors
/// What `choose` returns, and as for [`super::update()`]; the image is as it was then.
pub fn remove_layer<E: From<Error>>(
    path: &Path,
    choose: impl FnOnce(&Config) -> Result<usize, E>,
) -> Result<LayerEntry, E> {
    let locked = Locked::acquire(path)?;
    let contents = locked.contents()?;
    let mut config = contents.config.clone();
    let at = choose(&config)?;
    if at >= config.layers.len() {
        let source = FormatError::Layer { index: at, reason: "there is no such entry" };
        return Err(Error::Format { path: path.to_owned(), source }.into());
    }
    let removed = config.layers.remove(at);
    if let Some(icon) = config.icon.as_mut().filter(|icon| icon.layer as usize > at) {
        icon.layer -= 1;
    }
    // What stands behind keeps its place, and the layer becomes a hole.
    let end = index_end(&config.layers, &contents.superblock).max(contents.superblock.payload);
    let hole: Range<u64> = removed.offset.min(end)..removed.end().min(end);
    let mut writer = Writer::into_copy(&locked, hole, end)?;
    write_slot(&mut writer, &locked, &contents, &config)?;
    writer.commit()?;
    Ok(removed)
}
