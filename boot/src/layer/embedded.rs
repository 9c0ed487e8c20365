//! The layers of the image, as `fim-layer` counts them: by their place in the stack.

use runtime::image::{Config, LayerKind};

/// Positions in the layer index of the layers of the root, bottom first.
pub(super) fn positions(config: &Config) -> Vec<usize> {
    let entries = config.layers.iter().enumerate();
    entries.filter(|(_, entry)| entry.kind == LayerKind::Squashfs).map(|(position, _)| position).collect()
}
