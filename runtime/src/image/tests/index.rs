//! Rules of the layer index, writing with a packer, and `verify`.

use std::os::unix::fs::FileExt;

use super::*;

#[test]
fn every_rule_of_the_index_is_enforced() {
    let (_directory, path) = image();
    let opened = open(&path);
    let check = |change: fn(&mut Vec<LayerEntry>)| {
        let mut layers = opened.config.layers.clone();
        change(&mut layers);
        layer::check_index(&layers, &opened.superblock).map_err(|error| error.to_string()).unwrap_err()
    };
    assert!(check(|l| l[1].offset += 1).contains("entry 1 of the layer index is not valid: an offset is not a"));
    assert!(check(|l| l[0].size = 0).contains("it has no bytes"));
    assert!(check(|l| l[0].size = u64::MAX).contains("exceeds 1 TiB"));
    assert!(check(|l| l[0].chunks.offset = u64::MAX - 4095).contains("exceeds 1 TiB"));
    assert!(check(|l| l[0].chunks.offset = 1 << 40).contains("ends behind 1 TiB"));
    assert!(check(|l| l[0].chunks.size += 4096).contains("tree's length"));
    assert!(check(|l| l[0].chunks.chunk_size = 0).contains("chunk length"));
    assert!(check(|l| l[0].chunks.chunk_size = 1 << 31).contains("chunk length"));
    assert!(check(|l| l[0].chunks.offset = l[0].offset).contains("overlaps the layer"));
    assert!(check(|l| l[0].offset = 0).contains("overlaps what stands before"));
    assert!(check(|l| l.swap(0, 1)).contains("overlaps what stands before"));
    assert!(check(|l| *l = vec![l[0].clone(); 513]).contains("more than 512"));
}

#[test]
fn a_layer_written_by_a_packer_is_sealed_like_a_copied_one() {
    let (_directory, copied) = image();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sealed");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let options = WriterOptions { slot_capacity: 4096, chunk_size: 16 * 1024, created: 1_700_000_000 };
    let mut writer = ImageWriter::create(file, &path, &program(), options).unwrap();
    let offset = writer.layer_offset();
    writer.file().write_all_at(&noise(1, 40_000), offset).unwrap();
    writer.file().write_all_at(b"left behind by the packer", offset + 40_000).unwrap();
    writer.seal_layer(40_000, FACTS).unwrap();
    let icon = LayerFacts { kind: LayerKind::Icon, inodes: 0, unpacked: 0 };
    writer.add_layer(&mut &b"\x89PNG\n"[..], icon).unwrap();
    writer.finish(config()).unwrap();
    assert_eq!(bytes_of(&path), bytes_of(&copied));
    assert_eq!(open(&path).root_layers().collect::<Vec<_>>(), [0]);
}

#[test]
fn the_uuid_names_the_content_and_not_the_program() {
    let mut longer = program();
    longer[96..104].copy_from_slice(&5000u64.to_le_bytes());
    longer.resize(5000, 0);
    let (_a, one) = image();
    let (_b, two) = image_with(&longer, &config());
    let (_c, three) = image_with(&program(), &Config::default());
    assert_eq!(open(&one).superblock.uuid, open(&two).superblock.uuid);
    assert_ne!(open(&one).superblock.uuid, open(&three).superblock.uuid);
}

#[test]
fn a_program_taken_from_an_image_makes_the_same_image() {
    let (_a, one) = image();
    let (_b, two) = image_with(&bytes_of(&one), &config());
    assert_eq!(bytes_of(&one), bytes_of(&two));
}

#[test]
fn verify_finds_nothing_in_a_sound_image() {
    let (_directory, path) = image();
    let mut seen = Vec::new();
    let report = verify(&open(&path), &mut |done, total| seen.push((done, total))).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(seen, [(40_000, 40_005), (40_005, 40_005)]);
    assert_eq!(report.bytes, 40_005);
}

#[test]
fn verify_names_every_damaged_range() {
    let (_directory, path) = image();
    let image = open(&path);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let [first, second] = [&image.config.layers[0], &image.config.layers[1]];
    for at in [first.offset, first.offset + 16_384, first.offset + 39_999, second.chunks.offset + 9] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    file.write_all_at(b"junk", image.superblock.slots[1]).unwrap();
    let report = verify(&open(&path), &mut |_, _| {}).unwrap();
    let found: Vec<_> = report.bad.iter().map(|bad| (bad.layer, bad.offset, bad.len)).collect();
    assert_eq!(
        found,
        [
            (None, image.superblock.slots[1], 4096),
            (Some(0), first.offset, 40_000),
            (Some(1), second.chunks.offset, 4096)
        ]
    );
}
