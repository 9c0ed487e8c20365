//! Encoding of [`Declared`], the second part of a body of version 3.

use bincode::{Decode, Encode};

use crate::image::declared::{
    Alias, Connection, Declared, Hook, HookKind, Identity, Layout, LayoutKind, Plug, Port, Publisher, Service, Slot,
};
use crate::image::{Digest, NamedBit};

#[derive(Encode, Decode)]
pub(super) struct DeclaredV3 {
    layouts: Vec<LayoutV3>,
    aliases: Vec<AliasV3>,
    services: Vec<ServiceV3>,
    ports: Vec<PortV3>,
    hooks: Vec<HookV3>,
    slots: Vec<SlotV3>,
    plugs: Vec<PlugV3>,
    connections: Vec<ConnectionV3>,
    version: Option<String>,
    publisher: Option<PublisherV3>,
}

#[derive(Encode, Decode)]
struct LayoutV3 {
    target: Vec<u8>,
    kind: u8,
    source: Vec<u8>,
    replace: bool,
}

#[derive(Encode, Decode)]
struct AliasV3 {
    name: String,
    words: Vec<Vec<u8>>,
}

#[derive(Encode, Decode)]
struct ServiceV3 {
    name: String,
    words: Vec<Vec<u8>>,
    enabled: bool,
    listens: Vec<u16>,
}

#[derive(Encode, Decode)]
struct PortV3 {
    host: u16,
    guest: u16,
    udp: bool,
    service: Option<String>,
}

#[derive(Encode, Decode)]
struct HookV3 {
    kind: u8,
    words: Vec<Vec<u8>>,
}

#[derive(Encode, Decode)]
struct SlotV3 {
    name: String,
    content: String,
    read: Vec<Vec<u8>>,
    write: Vec<Vec<u8>>,
    source: bool,
}

#[derive(Encode, Decode)]
struct PlugV3 {
    name: String,
    content: String,
    target: Vec<u8>,
    provider: Option<Vec<u8>>,
    digest: Option<[u8; 32]>,
    least: Option<String>,
    optional: bool,
}

#[derive(Encode, Decode)]
struct ConnectionV3 {
    plug: String,
    file: Vec<u8>,
    slot: String,
    image: [u8; 16],
    layers: [u8; 32],
    shared: [u8; 32],
}

#[derive(Encode, Decode)]
struct PublisherV3 {
    key: [u8; 32],
    program: [u8; 32],
    signature: [u8; 64],
}

impl From<&Declared> for DeclaredV3 {
    fn from(declared: &Declared) -> Self {
        let layout = |layout: &Layout| LayoutV3 {
            target: layout.target.clone(),
            kind: layout.kind as u8,
            source: layout.source.clone(),
            replace: layout.replace,
        };
        let plug = |plug: &Plug| PlugV3 {
            name: plug.name.clone(),
            content: plug.content.clone(),
            target: plug.target.clone(),
            provider: plug.provider.clone(),
            digest: plug.digest.map(|digest| digest.0),
            least: plug.least.clone(),
            optional: plug.optional,
        };
        let slot = |slot: &Slot| SlotV3 {
            name: slot.name.clone(),
            content: slot.content.clone(),
            read: slot.read.clone(),
            write: slot.write.clone(),
            source: slot.source,
        };
        let connection = |connection: &Connection| ConnectionV3 {
            plug: connection.plug.clone(),
            file: connection.file.clone(),
            slot: connection.slot.clone(),
            image: connection.identity.image,
            layers: connection.identity.layers.0,
            shared: connection.identity.slot.0,
        };
        let service = |service: &Service| ServiceV3 {
            name: service.name.clone(),
            words: service.words.clone(),
            enabled: service.enabled,
            listens: service.listens.clone(),
        };
        let port =
            |port: &Port| PortV3 { host: port.host, guest: port.guest, udp: port.udp, service: port.service.clone() };
        Self {
            layouts: declared.layouts.iter().map(layout).collect(),
            aliases: declared
                .aliases
                .iter()
                .map(|alias| AliasV3 { name: alias.name.clone(), words: alias.words.clone() })
                .collect(),
            services: declared.services.iter().map(service).collect(),
            ports: declared.ports.iter().map(port).collect(),
            hooks: declared
                .hooks
                .iter()
                .map(|hook| HookV3 { kind: hook.kind as u8, words: hook.words.clone() })
                .collect(),
            slots: declared.slots.iter().map(slot).collect(),
            plugs: declared.plugs.iter().map(plug).collect(),
            connections: declared.connections.iter().map(connection).collect(),
            version: declared.version.clone(),
            publisher: declared.publisher.map(|publisher| PublisherV3 {
                key: publisher.key,
                program: publisher.program.0,
                signature: publisher.signature,
            }),
        }
    }
}

impl TryFrom<DeclaredV3> for Declared {
    type Error = &'static str;

    fn try_from(wire: DeclaredV3) -> Result<Self, Self::Error> {
        let layout = |wire: LayoutV3| {
            let kind = LayoutKind::ALL.get(usize::from(wire.kind)).ok_or("a layout has an unknown kind")?;
            Ok::<_, Self::Error>(Layout {
                target: wire.target,
                kind: *kind,
                source: wire.source,
                replace: wire.replace,
            })
        };
        let hook = |wire: HookV3| {
            let kind = HookKind::ALL.get(usize::from(wire.kind)).ok_or("a hook has an unknown kind")?;
            Ok::<_, Self::Error>(Hook { kind: *kind, words: wire.words })
        };
        let slot = |wire: SlotV3| Slot {
            name: wire.name,
            content: wire.content,
            read: wire.read,
            write: wire.write,
            source: wire.source,
        };
        let plug = |wire: PlugV3| Plug {
            name: wire.name,
            content: wire.content,
            target: wire.target,
            provider: wire.provider,
            digest: wire.digest.map(Digest),
            least: wire.least,
            optional: wire.optional,
        };
        let connection = |wire: ConnectionV3| Connection {
            plug: wire.plug,
            file: wire.file,
            slot: wire.slot,
            identity: Identity { image: wire.image, layers: Digest(wire.layers), slot: Digest(wire.shared) },
        };
        Ok(Self {
            layouts: wire.layouts.into_iter().map(layout).collect::<Result<_, _>>()?,
            aliases: wire.aliases.into_iter().map(|alias| Alias { name: alias.name, words: alias.words }).collect(),
            services: wire
                .services
                .into_iter()
                .map(|service| Service {
                    name: service.name,
                    words: service.words,
                    enabled: service.enabled,
                    listens: service.listens,
                })
                .collect(),
            ports: wire
                .ports
                .into_iter()
                .map(|port| Port { host: port.host, guest: port.guest, udp: port.udp, service: port.service })
                .collect(),
            hooks: wire.hooks.into_iter().map(hook).collect::<Result<_, _>>()?,
            slots: wire.slots.into_iter().map(slot).collect(),
            plugs: wire.plugs.into_iter().map(plug).collect(),
            connections: wire.connections.into_iter().map(connection).collect(),
            version: wire.version,
            publisher: wire.publisher.map(|publisher| Publisher {
                key: publisher.key,
                program: Digest(publisher.program),
                signature: publisher.signature,
            }),
        })
    }
}
