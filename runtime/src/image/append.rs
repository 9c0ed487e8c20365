//! Appending a layer: data behind the last indexed byte, fsync, then the config slot that names it.

use std::io::Read;
use std::path::Path;

use super::chunk_tree::{DEFAULT_CHUNK_SIZE, TreeBuilder};
use super::error::{Error, FormatError};
use super::layer::{LayerEntry, LayerFacts};
use super::open::Contents;
use super::update::write_slot;
use super::write::{Locked, Writer};

/// Bytes read and written at once. In place, a start is refused while one such piece is being written.
const PIECE: usize = 4 << 20;

/// Appends the bytes of `data` to the image at `path` as the topmost layer and returns its index entry.
/// Until the last step the image is what it was, and so it is after an error; what a killed append leaves is overwritten
/// by the next.
/// `data` must not be the image itself.
///
/// # Errors
/// As for [`super::update()`], and what reading `data` reports.
pub fn append_layer(path: &Path, data: &mut dyn Read, facts: LayerFacts) -> Result<LayerEntry, Error> {
    let locked = Locked::acquire(path)?;
    let contents = locked.contents()?;
    let before = locked.file.metadata().map_err(|source| Error::Open { path: path.to_owned(), source })?.len();
    let mut writer = Writer::into_clone(&locked);
    let appended = append(&mut writer, &locked, &contents, data, facts);
    if appended.is_err() {
        // What could not be completed must not take space. Should this fail, too, the next append writes over it.
        let _ = writer.shrink(before);
    }
    let entry = appended?;
    let mut config = contents.config.clone();
    config.layers.push(entry.clone());
    write_slot(&mut writer, &locked, &contents, &config)?;
    writer.commit()?;
    Ok(entry)
}

/// Writes layer and tree behind those of `contents`; nothing names them yet.
pub(super) fn append(
    writer: &mut Writer<'_>,
    locked: &Locked,
    contents: &Contents,
    data: &mut dyn Read,
    facts: LayerFacts,
) -> Result<LayerEntry, Error> {
    let path = &locked.path;
    writer.sync()?;
    // The end of an index is at most 1 TiB and a tree ends on a page, so this does not overflow.
    let offset = contents.end().next_multiple_of(super::PAGE);
    let mut tree = TreeBuilder::new(DEFAULT_CHUNK_SIZE).map_err(|reason| index_error(path, 0, reason))?;
    let (mut piece, mut at) = (vec![0; PIECE], offset);
    loop {
        let len = read_piece(data, &mut piece).map_err(|source| Error::Source { path: path.clone(), source })?;
        if len == 0 {
            break;
        }
        tree.update(&piece[..len]);
        writer.write_at(&piece[..len], at)?;
        at += len as u64;
    }
    let parts = tree.finish();
    let entry = LayerEntry::new(offset, facts, &parts);
    entry.check().map_err(|reason| index_error(path, contents.config.layers.len(), reason))?;
    writer.write_at(&parts.pages, entry.chunks.offset)?;
    writer.sync()?;
    Ok(entry)
}

fn index_error(path: &Path, index: usize, reason: &'static str) -> Error {
    Error::Format { path: path.to_owned(), source: FormatError::Layer { index, reason } }
}

/// Fills `piece` as far as `data` reaches.
pub(super) fn read_piece(data: &mut dyn Read, piece: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < piece.len() {
        match data.read(&mut piece[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
