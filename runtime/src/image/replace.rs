//! All layers of the root give way to one: a copy of the image with that one takes the image's place, so that whoever has
//! the old one open goes on reading it.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::append::append;
use super::error::Error;
use super::layer::{Digest, LayerEntry, LayerFacts, LayerKind};
use super::update::write_slot;
use super::verified::VerifiedSource;
use super::write::{Locked, Writer};
use crate::source::{ByteSource, FileRange};

/// Replaces the layers of the root, which have these digests, by the bytes of `data`.
///
/// # Errors
/// [`Error::Replaced`] when the image has other layers by now, and as for [`super::append_layer`]; the image is as it was
/// then.
pub fn replace_layers(
    path: &Path,
    digests: &[Digest],
    data: &mut dyn Read,
    facts: LayerFacts,
) -> Result<LayerEntry, Error> {
    let locked = Locked::acquire(path)?;
    let before = locked.contents()?;
    let (merged, others): (Vec<_>, Vec<_>) =
        before.config.layers.iter().enumerate().partition(|(_, layer)| layer.kind == LayerKind::Squashfs);
    if !merged.iter().map(|(_, layer)| layer.digest).eq(digests.iter().copied()) {
        return Err(Error::Replaced { path: path.to_owned() });
    }
    let payload = before.superblock.payload;
    let mut writer = Writer::into_copy(&locked, payload..payload, payload)?;
    let mut after = before.clone();
    after.config.layers.clear();
    let entry = append(&mut writer, &locked, &after, data, facts)?;
    after.config.layers.push(entry.clone());
    for (position, layer) in others {
        let bytes =
            verified(&locked, layer, position).map_err(|source| Error::Source { path: path.to_owned(), source })?;
        let facts = LayerFacts { kind: layer.kind, inodes: layer.inodes, unpacked: layer.unpacked };
        let moved = append(&mut writer, &locked, &after, &mut bytes.as_slice(), facts)?;
        if let Some(icon) = after.config.icon.as_mut()
            && before.config.icon.as_ref().is_some_and(|icon| icon.layer as usize == position)
        {
            icon.layer = after.config.layers.len() as u32;
        }
        after.config.layers.push(moved);
    }
    // Neither slot may name what is gone: one of them must do, should the other be damaged.
    for _ in 0..2 {
        write_slot(&mut writer, &locked, &after, &after.config)?;
        (after.slot, after.generation) = (after.slot.other(), after.generation + 1);
    }
    writer.commit()?;
    Ok(entry)
}

/// The bytes of an entry that is no layer of the root: an icon, of at most 1 MiB.
fn verified(locked: &Locked, layer: &LayerEntry, position: usize) -> io::Result<Vec<u8>> {
    let source = VerifiedSource::new(FileRange::whole(Arc::clone(&locked.file))?, layer, position)?;
    let mut bytes = vec![0; usize::try_from(layer.size).map_err(|_| io::ErrorKind::FileTooLarge)?];
    source.read_exact_at(&mut bytes, 0).map(|()| bytes)
}
