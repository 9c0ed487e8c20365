use super::*;
use crate::image::declared::Declared;
use crate::image::tests::{FACTS, config, image, noise, open};
use crate::image::{Error, NamedSet, OverlayKind, append_layer, update};

fn secret(byte: u8) -> SecretKey {
    SecretKey::parse(&format!("fim-secret-key 1 {}\n", format!("{byte:02x}").repeat(32))).unwrap()
}

/// Signs the image at `path`.
fn signed(path: &std::path::Path, key: &SecretKey) {
    let image = open(path);
    let program = program_digest(&image).unwrap();
    update(path, |config| {
        config.declared.publisher = Some(sign(&image.superblock.uuid, program, config, key));
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn the_statement_is_that_of_the_format() {
    let (_directory, path) = image();
    let image = open(&path);
    let statement = statement::encode(&Uuid([9; 16]), &Digest([7; 32]), &image.config);
    assert!(statement.starts_with(b"fim image statement 1\n"));
    assert_eq!(Digest::of(&statement).to_string(), "ae2962d5f7110f9a835d56d041e29d196729bb54acdd2b9106fc35a97c16010e");
}

#[test]
fn a_signature_names_its_key_until_what_it_covers_changes() {
    let (_directory, path) = image();
    assert!(matches!(Standing::whole(&open(&path)).unwrap(), Standing::Changed(_)), "the fixture's is none");
    let key = secret(1);
    signed(&path, &key);
    assert_eq!(Standing::whole(&open(&path)).unwrap(), Standing::Signed(key.public()));
    assert_eq!(verified_publisher(&open(&path)), Some(key.public()));
    // Another takes its place.
    signed(&path, &secret(2));
    assert_eq!(verified_publisher(&open(&path)), Some(secret(2).public()));
    append_layer(&path, &mut &noise(2, 5000)[..], FACTS).unwrap();
    assert_eq!(Standing::whole(&open(&path)).unwrap(), Standing::Changed(secret(2).public()));
    assert_eq!(verified_publisher(&open(&path)), None);
}

/// Whether a signature survives this change.
fn survives(change: impl FnOnce(&mut Config)) -> bool {
    let (_directory, path) = image();
    signed(&path, &secret(1));
    update(&path, |config| {
        change(config);
        Ok::<_, Error>(())
    })
    .unwrap();
    verified_publisher(&open(&path)).is_some()
}

#[test]
fn what_users_set_is_not_covered() {
    assert!(survives(|config| {
        let before = config.clone();
        *config = Config {
            name: before.name,
            declared: Declared {
                layouts: Vec::new(),
                services: Vec::new(),
                ports: Vec::new(),
                connections: Vec::new(),
                ..before.declared
            },
            layers: before.layers,
            icon: before.icon,
            permissions: NamedSet::all(),
            overlay: OverlayKind::Bwrap,
            ..Config::default()
        };
    }));
}

#[test]
fn everything_that_is_declared_is_covered() {
    type Change = (&'static str, fn(&mut Config));
    let changes: [Change; 24] = [
        ("name", |config| config.name.push('x')),
        ("version", |config| config.declared.version = None),
        ("another version", |config| config.declared.version = Some("2.1".into())),
        ("alias", |config| config.declared.aliases[0].name.push('x')),
        ("words of an alias", |config| config.declared.aliases[0].words.clear()),
        ("one alias less", |config| config.declared.aliases.clear()),
        ("kind of a hook", |config| config.declared.hooks[0].kind = crate::image::declared::HookKind::Install),
        ("words of a hook", |config| config.declared.hooks[0].words.push(Vec::new())),
        ("slot", |config| config.declared.slots[0].name.push('x')),
        ("content of a slot", |config| config.declared.slots[0].content.push('x')),
        ("read of a slot", |config| config.declared.slots[0].read.clear()),
        ("write of a slot", |config| config.declared.slots[0].write[0].push(b'/')),
        ("read that is written", |config| {
            let slot = &mut config.declared.slots[0];
            let path = slot.read.remove(0);
            slot.write.insert(0, path);
        }),
        ("source", |config| config.declared.slots[0].source = false),
        ("plug", |config| config.declared.plugs[0].name.push('x')),
        ("content of a plug", |config| config.declared.plugs[0].content.push('x')),
        ("target", |config| config.declared.plugs[0].target.push(b'x')),
        ("provider", |config| config.declared.plugs[0].provider = None),
        ("digest", |config| config.declared.plugs[0].digest = Some(Digest([9; 32]))),
        ("least", |config| config.declared.plugs[0].least = Some(String::new())),
        ("optional", |config| config.declared.plugs[0].optional = false),
        ("digest of a layer", |config| config.layers[0].digest = Digest([8; 32])),
        ("tree of a layer", |config| config.layers[0].chunks.root = Digest([8; 32])),
        ("key", |config| config.declared.publisher.as_mut().unwrap().key = secret(3).public().0),
    ];
    assert!(survives(|_| {}));
    for (what, change) in changes {
        assert!(!survives(change), "{what}");
    }
    assert!(!survives(|config| config.declared.publisher.as_mut().unwrap().signature[7] ^= 1));
    assert!(!survives(|config| config.declared.publisher.as_mut().unwrap().program = Digest([0; 32])));
}

#[test]
fn another_program_in_the_file_is_found() {
    let (_directory, path) = image();
    signed(&path, &secret(1));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"!", 190).unwrap();
    let image = open(&path);
    assert_eq!(Standing::whole(&image).unwrap(), Standing::Changed(secret(1).public()));
    // Whoever uses the content only never executes it.
    assert_eq!(verified_publisher(&image), Some(secret(1).public()));
}

#[test]
fn a_signature_is_of_one_image() {
    let (_directory, path) = image();
    signed(&path, &secret(1));
    let publisher = open(&path).config.declared.publisher;
    // The same content by another name has another UUID.
    let mut other = config();
    other.env.clear();
    let (_other, path) = crate::image::tests::image_with(&crate::image::tests::program(), &other);
    update(&path, |config| {
        config.declared.publisher = publisher;
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(verified_publisher(&open(&path)), None);
}
