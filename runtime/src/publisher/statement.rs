//! What a publisher says about an image, as the bytes that are signed. `docs/FORMAT.md` has the encoding.

use crate::image::declared::Declared;
use crate::image::{Config, Digest, LayerKind, Uuid};

/// How every statement begins: no signature of anything else can be taken for one of an image. Changing what follows
/// needs another number.
const DOMAIN: &[u8] = b"fim image statement 1\n";

/// The statement about an image with this configuration, whose program has this digest.
pub(super) fn encode(uuid: &Uuid, program: &Digest, config: &Config) -> Vec<u8> {
    let mut out = Out(DOMAIN.to_vec());
    out.0.extend_from_slice(&uuid.0);
    out.0.extend_from_slice(&program.0);
    out.bytes(config.name.as_bytes());
    let layers: Vec<_> = config.layers.iter().filter(|layer| layer.kind == LayerKind::Squashfs).collect();
    out.list(&layers, |out, layer| {
        out.number(layer.size);
        out.0.extend_from_slice(&layer.digest.0);
        // What is mounted is checked against the tree, what is extracted against both.
        out.number(u64::from(layer.chunks.chunk_size));
        out.0.extend_from_slice(&layer.chunks.root.0);
    });
    declared(&mut out, &config.declared);
    out.0
}

/// What the image declares itself. What its users set is left out.
fn declared(out: &mut Out, declared: &Declared) {
    let Declared { aliases, hooks, slots, plugs, version, .. } = declared;
    out.option(version.as_ref(), |out, version| out.bytes(version.as_bytes()));
    out.list(aliases, |out, alias| {
        out.bytes(alias.name.as_bytes());
        out.strings(&alias.words);
    });
    out.list(hooks, |out, hook| {
        out.number(hook.kind as u64);
        out.strings(&hook.words);
    });
    out.list(slots, |out, slot| {
        out.bytes(slot.name.as_bytes());
        out.bytes(slot.content.as_bytes());
        out.strings(&slot.read);
        out.strings(&slot.write);
        out.number(slot.source.into());
    });
    out.list(plugs, |out, plug| {
        out.bytes(plug.name.as_bytes());
        out.bytes(plug.content.as_bytes());
        out.bytes(&plug.target);
        out.option(plug.provider.as_ref(), |out, provider| out.bytes(provider));
        out.option(plug.digest.as_ref(), |out, digest| out.bytes(&digest.0));
        out.option(plug.least.as_ref(), |out, least| out.bytes(least.as_bytes()));
        out.number(plug.optional.into());
    });
}

/// Bytes in which every value tells where it ends, so that no two statements have the same.
struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn strings(&mut self, strings: &[Vec<u8>]) {
        self.list(strings, |out, string| out.bytes(string));
    }

    fn list<T>(&mut self, items: &[T], item: impl Fn(&mut Self, &T)) {
        self.number(items.len() as u64);
        items.iter().for_each(|one| item(self, one));
    }

    fn option<T>(&mut self, value: Option<T>, some: impl Fn(&mut Self, T)) {
        self.number(value.is_some().into());
        if let Some(value) = value {
            some(self, value);
        }
    }
}
