//! `fim-layer squash`: several layers become one that shows the same.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::base::Base;
use runtime::commit;
use runtime::error::chain;
use runtime::image::{self, Digest, LayerFacts, LayerKind};
use runtime::pack::{self, Epoch, Summary};
use runtime::source::FileRange;
use runtime::squashfs::{Archive, write};

use super::create::{LAYER, unwritten};
use super::level::Level;
use super::operation::Stack;
use crate::draft::{Draft, Use};
use crate::interrupt::Interrupt;
use crate::launch::exclusive;
use crate::progress::Listener;
use crate::stack::{self, MANAGED};
use crate::{Failure, Invocation, Message, cli, publisher};

/// Squashes.
///
/// # Errors
/// When instances run, when a layer is damaged, and whatever keeps the one layer from being complete; nothing is changed
/// then.
pub(super) fn run(invocation: &Invocation, which: Stack, level: Level) -> Result<i32, Failure> {
    let alone = exclusive::take(invocation, "squash")?;
    let merged = match (which, &alone) {
        (Stack::Binary, alone) => {
            let before = Base::of(&invocation.image.config);
            let merged = embedded(invocation, level)?;
            // A writable layer that was made on these was made on the one.
            if let Some(data) = alone.as_ref().map(|alone| &alone.data.path)
                && merged > 1
                && Base::read(data)? == Some(before)
            {
                Base::of(&invocation.read_again()?.image.config).record(data)?;
            }
            merged
        }
        (Stack::Layer, Some(alone)) => managed(&alone.data.path.join(MANAGED), level)?,
        (Stack::Layer, None) => 0,
    };
    cli::print(&match merged {
        0 | 1 => "There are no two layers to merge\n".to_owned(),
        count => format!("Merged {count} layers into one\n"),
    })?;
    Ok(0)
}

/// Merges the layers of the image; returns how many there were.
fn embedded(invocation: &Invocation, level: Level) -> Result<usize, Failure> {
    let (image, path) = (&invocation.image, &invocation.path);
    let indices: Vec<usize> = image.root_layers().collect();
    if indices.len() < 2 {
        return Ok(indices.len());
    }
    let open = |&index: &usize| -> Result<Archive, Failure> {
        let opened = Archive::open(Arc::new(image.layer_source(index)?));
        opened.map_err(|error| Message::boxed(format!("cannot read layer {index}: {}", chain(&error))))
    };
    let layers = indices.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let digests: Vec<Digest> = indices.iter().map(|&index| image.config.layers[index].digest).collect();
    let interrupt = Interrupt::hold()?;
    let draft = Draft::create(&path.with_extension("layer"), Use { mode: 0o600, fix: "" })?;
    let summary = merge(path, &layers, false, &draft.file, level, &interrupt)?;
    let mut data = &draft.file;
    data.seek(SeekFrom::Start(0))?;
    let unpacked = summary.unpacked_bytes.unwrap_or_default();
    let facts = LayerFacts { kind: LayerKind::Squashfs, inodes: summary.inodes, unpacked };
    image::replace_layers(path, &digests, &mut data, facts).map_err(|error| unwritten(error.into(), path))?;
    drop(draft);
    publisher::tell_of_change(invocation);
    drop(interrupt);
    Ok(layers.len())
}

/// Merges the layers of the data directory; returns how many there were.
///
/// The one takes the place of the topmost in one step. From then on it covers all others, so that it does not matter when
/// they go.
fn managed(directory: &Path, level: Level) -> Result<usize, Failure> {
    let found = stack::managed_layers(directory)?;
    let Some((top, others)) = found.split_last().filter(|(_, others)| !others.is_empty()) else {
        return Ok(found.len());
    };
    let open = |layer: &stack::External| {
        let opened = Archive::open(Arc::new(FileRange::new(Arc::clone(&layer.file), 0, layer.len)));
        opened.map_err(|error| {
            Message::boxed(format!("cannot read the layer {}: {}", layer.path.display(), chain(&error)))
        })
    };
    let layers = found.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let interrupt = Interrupt::hold()?;
    let draft = Draft::create(&top.path, LAYER)?;
    merge(&top.path, &layers, true, &draft.file, level, &interrupt)?;
    draft.complete(true).map_err(|error| unwritten(error, &top.path))?;
    commit::sync_directory(directory)?;
    for layer in others {
        fs::remove_file(&layer.path)
            .map_err(|error| Message::boxed(format!("cannot remove {}: {error}", layer.path.display())))?;
    }
    // Room for the numbers of later ones.
    let first: PathBuf = directory.join("layer-000.layer");
    if fs::symlink_metadata(&first).is_err() {
        fs::rename(&top.path, &first)
            .map_err(|error| Message::boxed(format!("cannot rename {}: {error}", top.path.display())))?;
    }
    drop(interrupt);
    Ok(found.len())
}

fn merge(
    path: &Path,
    layers: &[Archive],
    whiteouts: bool,
    out: &File,
    level: Level,
    interrupt: &Interrupt,
) -> Result<Summary, Failure> {
    let squashfs = write::Options { level: level.zstd(), ..write::Options::default() };
    let options = pack::Options { squashfs, epoch: Epoch::Newest, ..pack::Options::default() };
    let mut listener = Listener::new(false, interrupt);
    let merged = pack::squash(path, layers, whiteouts, out, &options, &mut listener);
    drop(listener);
    merged.map_err(|error| unwritten(error.into(), path))
}
