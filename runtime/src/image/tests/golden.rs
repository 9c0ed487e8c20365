//! Fixed bytes: a change that breaks one of these breaks every image in the world.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn superblock() {
    let mut superblock = Superblock::new(200, 1 << 20).unwrap();
    superblock.uuid = Uuid::from_digest(&[0xab; 32]);
    superblock.created = 1_700_000_000;
    let page = superblock.to_bytes();
    assert_eq!(superblock.uuid.to_string(), "abababab-abab-8bab-abab-abababababab");
    assert_eq!(
        hex(&page[..80]),
        concat!(
            "8946494d0d0a1a0a",                 // magic
            "0100000001000000",                 // version, min_reader
            "abababababab8bababababababababab", // uuid
            "c800000000000000",                 // elf_len
            "0020000000000000",                 // slots
            "0020100000000000",
            "0000100000000000", // slot_capacity
            "0020200000000000", // payload
            "00f1536500000000", // created
        )
    );
    assert!(page[80..superblock::DIGEST_OFFSET].iter().all(|byte| *byte == 0));
    assert_eq!(
        hex(&page[superblock::DIGEST_OFFSET..]),
        "bef839fabec337a066b69ce923be4672087b67ca1d973136ced033000f07d0d7"
    );
    assert_eq!(Superblock::parse(&page, 4096).unwrap(), superblock);
}

#[test]
fn slot_header() {
    let slot = slot::encode(7, 1, b"body", 4096).unwrap();
    assert_eq!(hex(&slot[..32]), "46494d534c4f540a070000000000000004000000010000000000000000000000");
    assert_eq!(hex(&slot[32..64]), "b465282bd58dd0c660fc693abd4c36a08f57315f0842e0ba5281b3cbc8a47736");
    assert_eq!(&slot[64..], b"body");
}

#[test]
fn config_bodies() {
    let mut config = config();
    config.layers = vec![LayerEntry {
        offset: 0x10_000,
        size: 70_000,
        kind: LayerKind::Icon,
        digest: Digest([1; 32]),
        chunks: ChunkTree { offset: 0x22_000, size: 4096, chunk_size: 32_768, root: Digest([2; 32]) },
        inodes: 12,
        unpacked: 300,
    }];
    let body = body::encode(&config).unwrap();
    let (before, declared) = body.split_at(body.len() - DECLARED_LEN);
    let (first, second) = before.split_at(before.len() - STARTUP_LEN);
    assert_eq!(
        hex(first),
        concat!(
            "045a6fc3ab01072f62696e2f736802022d6301ff0201410974776f20776f726473014200fc010002000102062f646576",
            "2f78062f6465762f790120020101011368747470733a2f2f6578616d706c652e6f726701027b7d0103706e6701010878",
            "64672d6f70656e01fc00000100fc70110100010101010101010101010101010101010101010101010101010101010101",
            "010101fc00200200fb0010fb008002020202020202020202020202020202020202020202020202020202020202020cfb",
            "2c01",
        )
    );
    assert_eq!(hex(second), "01096c69622f6c642e736f");
    assert_eq!(
        hex(declared),
        concat!(
            "010d2f6574632f666f6f2e636f6e6602162446494d5f444154412f6574632f666f6f2e636f6e66010103666f6f01082f",
            "62696e2f666f6f010377656201082f62696e2f77656201015001fb901f50010103776562010201092f62696e2f686f6f",
            "6b01046c696273066c6962732d3001112446494d5f524f4f545f4449522f6c696201092446494d5f444154410101046c",
            "696273066c6962732d30092f6f70742f6c696273010e6c6962732e666c6174696d616765010303030303030303030303",
            "0303030303030303030303030303030303030303030103312e320101046c696273022f70046c69627309090909090909",
            "090909090909090909040404040404040404040404040404040404040404040404040404040404040407070707070707",
            "070707070707070707070707070707070707070707070707070103322e30010505050505050505050505050505050505",
            "050505050505050505050505050505070707070707070707070707070707070707070707070707070707070707070706",
            "060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606",
            "060606060606060606060606060606",
        )
    );
    assert_eq!(body::decode(3, &body).unwrap(), config);
    // An image of an older version is read; the next change of it writes the newest.
    config.declared = Declared::default();
    assert_eq!(body::decode(2, before).unwrap(), config);
    config.startup.clear();
    assert_eq!(body::decode(1, first).unwrap(), config);
}

#[test]
fn chunk_tree_of_one_page() {
    let data = noise(9, 40_000);
    let mut tree = TreeBuilder::new(16_384).unwrap();
    data.chunks(777).for_each(|piece| tree.update(piece));
    let parts = tree.finish();
    assert_eq!(parts.digest, Digest::of(&data));
    assert_eq!(parts.pages.len(), 4096);
    for (chunk, digest) in data.chunks(16_384).zip(parts.pages.chunks(32)) {
        assert_eq!(Digest::of(chunk).0, digest);
    }
    assert!(parts.pages[96..].iter().all(|byte| *byte == 0));
    assert_eq!(parts.root, Digest::of(&parts.pages));
    assert_eq!(parts.root.to_string(), "cbdeadec09092c64580e17138a48fd5a63969c0c53b8012ac1a40a87b1223e67");
}

#[test]
fn chunk_tree_of_three_levels() {
    // 128 * 128 chunks fill two levels, one more makes a third.
    let size = 16_384 * (128 * 128 + 1);
    let mut tree = TreeBuilder::new(16_384).unwrap();
    let piece = vec![7; 16_384 * 128];
    (0..128).for_each(|_| tree.update(&piece));
    tree.update(&piece[..16_384]);
    let parts = tree.finish();
    assert_eq!(parts.size, size);
    assert_eq!(parts.pages.len() as u64, chunk_tree::tree_len(size, 16_384));
    assert_eq!(parts.pages.len(), (129 + 2 + 1) * 4096);
    assert_eq!(parts.root, Digest::of(&parts.pages[131 * 4096..]));
    assert_eq!(parts.pages[131 * 4096..][..32], Digest::of(&parts.pages[129 * 4096..][..4096]).0);
    assert_eq!(parts.pages[130 * 4096..][..32], Digest::of(&parts.pages[128 * 4096..][..4096]).0);
}

#[test]
fn whole_image_is_reproducible() {
    let ((_a, one), (_b, two)) = (image(), image());
    let bytes = bytes_of(&one);
    assert_eq!(bytes, bytes_of(&two));
    assert_eq!(&bytes[8..11], b"FI\x01");
    assert_eq!(Digest::of(&bytes).to_string(), "842a92586d18b6cea077d18490dd1b83652d8015e0d041324c947298538269bf");
}

#[test]
fn permission_bits_are_those_of_the_format() {
    let names: Vec<_> = Permission::ALL.iter().map(|permission| permission.name()).collect();
    let expected = "home media audio wayland xorg dbus_user dbus_system udev usb input gpu network dev shm optical \
                    certs fonts locale";
    assert_eq!(names.join(" "), expected);
    assert!(Permission::ALL.iter().enumerate().all(|(bit, permission)| permission.bit() == bit as u32));
    let names: Vec<_> = Unshare::ALL.iter().map(|unshare| unshare.name()).collect();
    assert_eq!(names.join(" "), "user ipc pid net uts cgroup");
    assert_eq!(Permission::from_name("DBUS_user"), Some(Permission::DbusUser));
    assert_eq!(PermissionSet::from_bits(1 << 18), None);
}
