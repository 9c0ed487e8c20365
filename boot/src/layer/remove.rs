//! `fim-layer remove`: the last layer of the image goes, and its space with it.

use runtime::image::{self, Config};

use super::{embedded, rebase};
use crate::{Failure, Invocation, Message, publisher};

/// Removes the layer with this index.
///
/// # Errors
/// When it is not the last layer of the image, or the only one; and an image that cannot be changed.
pub(super) fn run(invocation: &Invocation, index: usize) -> Result<i32, Failure> {
    let removed = image::remove_layer(&invocation.path, |config| choose(config, index))?;
    rebase::follow(invocation);
    publisher::tell_of_change(invocation);
    log::debug!("{} bytes were removed", removed.size);
    Ok(0)
}

/// The position in the layer index of the layer with this place in the stack.
fn choose(config: &Config, index: usize) -> Result<usize, Failure> {
    let positions = embedded::positions(config);
    let last = positions.len().saturating_sub(1);
    let refused = if index > last {
        format!("the image has no layer {index}: its layers are 0 to {last}; layers outside of the image are files")
    } else if index == 0 {
        "layer 0 is what the others build on; make a new image with fim build instead".to_owned()
    } else if index < last {
        format!("layer {index} is not the last of the image; remove {last} first")
    } else {
        return Ok(positions[last]);
    };
    Err(Message::boxed(format!("cannot remove the layer: {refused}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::image::{ChunkTree, Digest, LayerEntry, LayerKind};

    fn config(kinds: &[LayerKind]) -> Config {
        let entry = |kind: &LayerKind| LayerEntry {
            offset: 0,
            size: 1,
            kind: *kind,
            digest: Digest([0; 32]),
            chunks: ChunkTree { offset: 0, size: 0, chunk_size: 0, root: Digest([0; 32]) },
            inodes: 0,
            unpacked: 0,
        };
        Config { layers: kinds.iter().map(entry).collect(), ..Config::default() }
    }

    #[test]
    fn only_the_last_layer_of_the_root_is_removed() {
        use LayerKind::{Icon, Squashfs};
        let choose = |kinds: &[LayerKind], index| choose(&config(kinds), index).map_err(|error| error.to_string());
        assert_eq!(choose(&[Squashfs, Squashfs, Icon], 1), Ok(1));
        assert_eq!(choose(&[Squashfs, Icon, Squashfs], 1), Ok(2));
        assert!(choose(&[Squashfs, Squashfs, Squashfs], 1).unwrap_err().contains("remove 2 first"));
        assert!(choose(&[Squashfs, Squashfs], 2).unwrap_err().contains("no layer 2"));
        assert!(choose(&[Squashfs], 0).unwrap_err().contains("layer 0 is what"));
        assert!(choose(&[], 0).is_err());
    }
}
