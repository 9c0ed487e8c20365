//! Content that images share: what the user consented to, where paths of a producer lead, and what the consumer calls what
//! it gets.

mod beneath;
mod names;
mod tree;

pub use beneath::{Refused, beneath};
pub use names::{Names, Want};
pub use tree::{Kind, Lost, Tree};

use crate::image::declared::{Identity, Slot};
use crate::image::{Config, Digest, LayerKind, Uuid};

/// What the user consents to: the producer with this UUID and configuration, and what one of its slots shares.
#[must_use]
pub fn identity(image: Uuid, config: &Config, slot: &Slot) -> Identity {
    let layers = config.layers.iter().filter(|layer| layer.kind == LayerKind::Squashfs);
    let layers: Vec<u8> = layers.flat_map(|layer| layer.digest.0).collect();
    Identity { image: image.0, layers: Digest::of(&layers), slot: shared(slot) }
}

/// Digest over what a slot shares. Each part is behind its length, so that no two slots have the same bytes.
fn shared(slot: &Slot) -> Digest {
    let mut bytes = b"fim slot 1\n".to_vec();
    let mut part = |part: &[u8]| {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    };
    part(slot.content.as_bytes());
    part(&[u8::from(slot.source)]);
    for paths in [&slot.read, &slot.write] {
        part(&(paths.len() as u64).to_le_bytes());
        paths.iter().for_each(|path| part(path));
    }
    Digest::of(&bytes)
}

/// What is different about a producer since the user consented to it; `None` when nothing is.
#[must_use]
pub fn difference(consented: &Identity, now: &Identity) -> Option<&'static str> {
    if consented.image != now.image {
        Some("it is another image")
    } else if consented.layers != now.layers {
        Some("its layers are others (a new version?)")
    } else if consented.slot != now.slot {
        Some("its slot shares something else")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot {
            name: "s".into(),
            content: "c".into(),
            read: vec![b"$FIM_ROOT_DIR/a".to_vec()],
            write: vec![b"$FIM_DATA".to_vec()],
            source: false,
        }
    }

    #[test]
    fn whatever_a_slot_shares_is_part_of_its_identity() {
        let (config, uuid) = (Config::default(), Uuid([1; 16]));
        let before = identity(uuid, &config, &slot());
        assert_eq!(difference(&before, &before), None);
        for change in [
            |slot: &mut Slot| slot.content.push('x'),
            |slot: &mut Slot| slot.source = true,
            |slot: &mut Slot| slot.read.clear(),
            |slot: &mut Slot| slot.write.push(b"$FIM_COMMON".to_vec()),
            // The same bytes, divided otherwise.
            |slot: &mut Slot| slot.read = vec![b"$FIM_ROOT".to_vec(), b"_DIR/a".to_vec()],
            |slot: &mut Slot| std::mem::swap(&mut slot.read, &mut slot.write),
        ] {
            let mut other = slot();
            change(&mut other);
            let other = identity(uuid, &config, &other);
            assert_eq!(difference(&before, &other), Some("its slot shares something else"));
        }
        let other = identity(Uuid([2; 16]), &config, &slot());
        assert_eq!(difference(&before, &other), Some("it is another image"));
        let other = Identity { layers: Digest([0; 32]), ..before };
        assert!(difference(&before, &other).unwrap().starts_with("its layers are others"));
    }
}
