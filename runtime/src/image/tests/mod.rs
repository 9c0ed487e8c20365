//! Tests of the image format. The fixtures are small on purpose: whole files are flipped byte by byte.

mod golden;
mod hostile;
mod index;
mod update;
mod verified;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::declared::{
    Alias, Connection, Declared, Hook, HookKind, Identity, Layout, LayoutKind, Plug, Port, Publisher, Service, Slot,
};
use super::*;

/// A program of 200 bytes: header, one program header that maps all of it, and filling.
pub fn program() -> Vec<u8> {
    let mut elf = vec![0; 200];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[54..56].copy_from_slice(&56u16.to_le_bytes());
    elf[56..58].copy_from_slice(&1u16.to_le_bytes());
    elf[58..60].copy_from_slice(&64u16.to_le_bytes());
    elf[64 + 32..64 + 40].copy_from_slice(&200u64.to_le_bytes());
    elf[120..].fill(0xcc);
    elf
}

/// Reproducible bytes without a pattern.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub const FACTS: LayerFacts = LayerFacts { kind: LayerKind::Squashfs, inodes: 3, unpacked: 99_999 };

/// Bytes at the end of [`config`] that version 2 and version 3 added.
pub const STARTUP_LEN: usize = 11;
pub const DECLARED_LEN: usize = 447;

/// A config that uses every field.
pub fn config() -> Config {
    Config {
        name: "Zoë".to_owned(),
        boot: Some(Boot { program: b"/bin/sh".to_vec(), args: vec![b"-c".to_vec(), b"\xff".to_vec()] }),
        env: vec![(b"A".to_vec(), b"two words".to_vec()), (b"B".to_vec(), Vec::new())],
        permissions: [Permission::Home, Permission::Locale].into_iter().collect(),
        binds: vec![Bind { kind: BindKind::Dev, src: b"/dev/x".to_vec(), dst: b"/dev/y".to_vec(), required: true }],
        unshare: [Unshare::Cgroup].into_iter().collect(),
        overlay: OverlayKind::Unionfs,
        casefold: true,
        notify: true,
        remote: Some("https://example.org".to_owned()),
        desktop: Some("{}".to_owned()),
        icon: Some(Icon { extension: "png".to_owned(), layer: 1 }),
        portal: vec!["xdg-open".to_owned()],
        startup: vec![b"lib/ld.so".to_vec()],
        declared: Declared {
            layouts: vec![Layout {
                target: b"/etc/foo.conf".to_vec(),
                kind: LayoutKind::BindFile,
                source: b"$FIM_DATA/etc/foo.conf".to_vec(),
                replace: true,
            }],
            aliases: vec![Alias { name: "foo".to_owned(), words: vec![b"/bin/foo".to_vec()] }],
            services: vec![Service {
                name: "web".to_owned(),
                words: vec![b"/bin/web".to_vec()],
                enabled: true,
                listens: vec![80],
            }],
            ports: vec![Port { host: 8080, guest: 80, udp: true, service: Some("web".to_owned()) }],
            hooks: vec![Hook { kind: HookKind::Remove, words: vec![b"/bin/hook".to_vec()] }],
            slots: vec![Slot {
                name: "libs".to_owned(),
                content: "libs-0".to_owned(),
                read: vec![b"$FIM_ROOT_DIR/lib".to_vec()],
                write: vec![b"$FIM_DATA".to_vec()],
                source: true,
            }],
            plugs: vec![Plug {
                name: "libs".to_owned(),
                content: "libs-0".to_owned(),
                target: b"/opt/libs".to_vec(),
                provider: Some(b"libs.flatimage".to_vec()),
                digest: Some(Digest([3; 32])),
                least: Some("1.2".to_owned()),
                optional: true,
            }],
            connections: vec![Connection {
                plug: "libs".to_owned(),
                file: b"/p".to_vec(),
                slot: "libs".to_owned(),
                identity: Identity { image: [9; 16], layers: Digest([4; 32]), slot: Digest([7; 32]) },
            }],
            version: Some("2.0".to_owned()),
            publisher: Some(Publisher { key: [5; 32], program: Digest([7; 32]), signature: [6; 64] }),
        },
        layers: Vec::new(),
    }
}

/// An image with two entries, 40,000 and 5 bytes, and slots of 4096 bytes, in a fresh directory.
pub fn image() -> (tempfile::TempDir, PathBuf) {
    image_with(&program(), &config())
}

pub fn image_with(elf: &[u8], config: &Config) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.flatimage");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let options = WriterOptions { slot_capacity: 4096, chunk_size: 16 * 1024, created: 1_700_000_000 };
    let mut writer = ImageWriter::create(file, &path, elf, options).unwrap();
    writer.add_layer(&mut &noise(1, 40_000)[..], FACTS).unwrap();
    let icon = LayerFacts { kind: LayerKind::Icon, inodes: 0, unpacked: 0 };
    writer.add_layer(&mut &b"\x89PNG\n"[..], icon).unwrap();
    writer.finish(config.clone()).unwrap();
    (directory, path)
}

pub fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn open(path: &Path) -> Image {
    Image::open(File::open(path).unwrap(), path).unwrap().unwrap()
}

/// The whole chain, as the program prints it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
