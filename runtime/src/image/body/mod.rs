//! The body of a config slot: bincode, behind this one module.
//!
//! Every version has its own wire structures, which never change once released; a decoder for each stays,
//! and what it yields is upgraded to [`Config`]. Enumerations are written as numbers given here, so that
//! reordering a Rust type cannot change the format.

mod declared;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

use super::chunk_tree::ChunkTree;
use super::config::{Bind, BindKind, Boot, Config, Icon, NamedSet, OverlayKind};
use super::declared::Declared;
use super::layer::{Digest, LayerEntry, LayerKind};

/// Most bytes a decoder may claim in memory for a body of up to [`SMALL_BODY`] bytes, and for a longer one:
/// a two-byte variable takes 48 in memory, so 64 times the encoded length is always enough.
const SMALL_LIMIT: usize = SMALL_BODY * 64;
const LIMIT: usize = super::slot::MAX_SLOT_CAPACITY as usize * 64;
const SMALL_BODY: usize = 16 * 1024;

const fn wire<const N: usize>() -> Configuration<LittleEndian, Varint, Limit<N>> {
    bincode::config::standard().with_limit::<N>()
}

/// Encodes the newest version, [`super::CONFIG_VERSION`].
///
/// # Errors
/// A text, when a number cannot be represented.
pub fn encode(config: &Config) -> Result<Vec<u8>, String> {
    bincode::encode_to_vec(ConfigV3::from(config), bincode::config::standard()).map_err(|error| error.to_string())
}

/// Decodes a body of the given version and upgrades it.
///
/// # Errors
/// A text that says what is wrong. The caller has refused versions newer than [`super::CONFIG_VERSION`].
pub fn decode(version: u32, body: &[u8]) -> Result<Config, String> {
    match version {
        1 => decode_as::<ConfigV1>(body)?.try_into().map_err(str::to_owned),
        2 => decode_as::<ConfigV2>(body)?.try_into().map_err(str::to_owned),
        3 => decode_as::<ConfigV3>(body)?.try_into().map_err(str::to_owned),
        _ => Err(format!("config version {version} never existed")),
    }
}

fn decode_as<T: Decode<()>>(body: &[u8]) -> Result<T, String> {
    let decoded = if body.len() <= SMALL_BODY {
        bincode::decode_from_slice(body, wire::<SMALL_LIMIT>())
    } else {
        bincode::decode_from_slice(body, wire::<LIMIT>())
    };
    let (value, used) = decoded.map_err(|error| error.to_string())?;
    if used != body.len() {
        return Err(format!("{} bytes follow the configuration", body.len() - used));
    }
    Ok(value)
}

#[derive(Encode, Decode)]
struct ConfigV1 {
    name: String,
    boot: Option<BootV1>,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    permissions: u32,
    binds: Vec<BindV1>,
    unshare: u32,
    overlay: u8,
    casefold: bool,
    notify: bool,
    remote: Option<String>,
    desktop: Option<String>,
    icon: Option<IconV1>,
    portal: Vec<String>,
    layers: Vec<LayerV1>,
}

/// Version 1 and what came after it.
#[derive(Encode, Decode)]
struct ConfigV2 {
    before: ConfigV1,
    startup: Vec<Vec<u8>>,
}

/// Version 2 and what came after it.
#[derive(Encode, Decode)]
struct ConfigV3 {
    before: ConfigV2,
    declared: declared::DeclaredV3,
}

#[derive(Encode, Decode)]
struct BootV1 {
    program: Vec<u8>,
    args: Vec<Vec<u8>>,
}

#[derive(Encode, Decode)]
struct BindV1 {
    kind: u8,
    src: Vec<u8>,
    dst: Vec<u8>,
    required: bool,
}

#[derive(Encode, Decode)]
struct IconV1 {
    extension: String,
    layer: u32,
}

#[derive(Encode, Decode)]
struct LayerV1 {
    offset: u64,
    size: u64,
    kind: u8,
    digest: [u8; 32],
    tree_offset: u64,
    tree_size: u64,
    chunk_size: u32,
    tree_root: [u8; 32],
    inodes: u64,
    unpacked: u64,
}

impl From<&Config> for ConfigV1 {
    fn from(config: &Config) -> Self {
        Self {
            name: config.name.clone(),
            boot: config.boot.as_ref().map(|b| BootV1 { program: b.program.clone(), args: b.args.clone() }),
            env: config.env.clone(),
            permissions: config.permissions.bits(),
            binds: config.binds.iter().map(BindV1::from).collect(),
            unshare: config.unshare.bits(),
            overlay: match config.overlay {
                OverlayKind::Bwrap => 0,
                OverlayKind::Overlayfs => 1,
                OverlayKind::Unionfs => 2,
            },
            casefold: config.casefold,
            notify: config.notify,
            remote: config.remote.clone(),
            desktop: config.desktop.clone(),
            icon: config.icon.as_ref().map(|i| IconV1 { extension: i.extension.clone(), layer: i.layer }),
            portal: config.portal.clone(),
            layers: config.layers.iter().map(LayerV1::from).collect(),
        }
    }
}

impl TryFrom<ConfigV1> for Config {
    type Error = &'static str;

    fn try_from(wire: ConfigV1) -> Result<Self, Self::Error> {
        Ok(Self {
            name: wire.name,
            boot: wire.boot.map(|b| Boot { program: b.program, args: b.args }),
            env: wire.env,
            permissions: NamedSet::from_bits(wire.permissions).ok_or("an unknown permission is set")?,
            binds: wire.binds.into_iter().map(Bind::try_from).collect::<Result<_, _>>()?,
            unshare: NamedSet::from_bits(wire.unshare).ok_or("an unknown unshare option is set")?,
            overlay: match wire.overlay {
                0 => OverlayKind::Bwrap,
                1 => OverlayKind::Overlayfs,
                2 => OverlayKind::Unionfs,
                _ => return Err("the overlay kind is unknown"),
            },
            casefold: wire.casefold,
            notify: wire.notify,
            remote: wire.remote,
            desktop: wire.desktop,
            icon: wire.icon.map(|i| Icon { extension: i.extension, layer: i.layer }),
            portal: wire.portal,
            startup: Vec::new(),
            declared: Declared::default(),
            layers: wire.layers.into_iter().map(LayerEntry::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Config> for ConfigV2 {
    fn from(config: &Config) -> Self {
        Self { before: config.into(), startup: config.startup.clone() }
    }
}

impl TryFrom<ConfigV2> for Config {
    type Error = &'static str;

    fn try_from(wire: ConfigV2) -> Result<Self, Self::Error> {
        Ok(Self { startup: wire.startup, ..wire.before.try_into()? })
    }
}

impl From<&Config> for ConfigV3 {
    fn from(config: &Config) -> Self {
        Self { before: config.into(), declared: (&config.declared).into() }
    }
}

impl TryFrom<ConfigV3> for Config {
    type Error = &'static str;

    fn try_from(wire: ConfigV3) -> Result<Self, Self::Error> {
        Ok(Self { declared: wire.declared.try_into()?, ..wire.before.try_into()? })
    }
}

impl From<&Bind> for BindV1 {
    fn from(bind: &Bind) -> Self {
        let kind = match bind.kind {
            BindKind::Ro => 0,
            BindKind::Rw => 1,
            BindKind::Dev => 2,
        };
        Self { kind, src: bind.src.clone(), dst: bind.dst.clone(), required: bind.required }
    }
}

impl TryFrom<BindV1> for Bind {
    type Error = &'static str;

    fn try_from(wire: BindV1) -> Result<Self, Self::Error> {
        let kind = match wire.kind {
            0 => BindKind::Ro,
            1 => BindKind::Rw,
            2 => BindKind::Dev,
            _ => return Err("a bind has an unknown type"),
        };
        Ok(Self { kind, src: wire.src, dst: wire.dst, required: wire.required })
    }
}

impl From<&LayerEntry> for LayerV1 {
    fn from(layer: &LayerEntry) -> Self {
        Self {
            offset: layer.offset,
            size: layer.size,
            kind: match layer.kind {
                LayerKind::Squashfs => 0,
                LayerKind::Icon => 1,
            },
            digest: layer.digest.0,
            tree_offset: layer.chunks.offset,
            tree_size: layer.chunks.size,
            chunk_size: layer.chunks.chunk_size,
            tree_root: layer.chunks.root.0,
            inodes: layer.inodes,
            unpacked: layer.unpacked,
        }
    }
}

impl TryFrom<LayerV1> for LayerEntry {
    type Error = &'static str;

    fn try_from(wire: LayerV1) -> Result<Self, Self::Error> {
        let kind = match wire.kind {
            0 => LayerKind::Squashfs,
            1 => LayerKind::Icon,
            _ => return Err("a layer has an unknown kind"),
        };
        let chunks = ChunkTree {
            offset: wire.tree_offset,
            size: wire.tree_size,
            chunk_size: wire.chunk_size,
            root: Digest(wire.tree_root),
        };
        let (inodes, unpacked) = (wire.inodes, wire.unpacked);
        Ok(Self { offset: wire.offset, size: wire.size, kind, digest: Digest(wire.digest), chunks, inodes, unpacked })
    }
}
