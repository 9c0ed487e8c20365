//! Archives damaged at every byte: each question has an answer or an error.

mod squashfs_tree;
mod squashfs_walk;

use std::fs;
use std::io::{Read, Seek};

use nix::sys::resource::{Resource, setrlimit};
use runtime::squashfs::Time;
use runtime::squashfs::write::{Kind, Metadata, Options, Tree, Writer};
use squashfs_tree::{PSEUDO, Random, pack, small_tree};
use squashfs_walk::walk;

/// Address space of this process in bytes: a size that is believed unchecked fails the test.
const MEMORY: u64 = 1 << 30;

fn small_archive(options: &[&str]) -> Vec<u8> {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    small_tree(&tree);
    let mut all = vec!["-b", "4K", "-nopad"];
    all.extend(options);
    for line in PSEUDO {
        all.extend(["-p", line]);
    }
    fs::read(pack(&tree, "archive", &all)).unwrap()
}

/// Overwrites bytes at every offset of the superblock and of everything behind the data.
fn damage_everywhere(options: &[&str]) {
    let good = small_archive(options);
    let sound = walk(good.clone());
    assert_eq!(sound.errors, 0, "{sound:?}");
    assert!(sound.inodes > 25 && sound.bytes > 15_000 && sound.xattrs == 3, "{sound:?}");

    let inode_table = u64::from_le_bytes(good[64..72].try_into().unwrap()) as usize;
    let mut random = Random(0x5eed);
    let mut failed = 0;
    for at in (0..96).chain(inode_table..good.len()) {
        for round in 0..5 {
            let mut bad = good.clone();
            let end = bad.len();
            match round {
                0 => bad[at] ^= 1 << (random.next() % 8),
                1 => bad[at] = random.next() as u8,
                2 => bad[at..end.min(at + 4)].fill(0xff),
                3 => bad[at..end.min(at + 2)].fill(0),
                _ => bad[at..end.min(at + 8)].fill_with(|| random.next() as u8),
            }
            let findings = walk(bad);
            failed += usize::from(findings != sound);
        }
    }
    assert!(failed > 1000, "{failed}");
    for len in (0..good.len()).step_by(13) {
        assert!(walk(good[..len].to_vec()).errors > 0);
    }
}

#[test]
fn stored_metadata_may_be_damaged() {
    damage_everywhere(&["-noI", "-noX"]);
}

#[test]
fn metadata_in_zstd_may_be_damaged() {
    damage_everywhere(&["-comp", "zstd"]);
}

#[test]
fn metadata_in_gzip_may_be_damaged() {
    damage_everywhere(&["-comp", "gzip"]);
}

#[test]
fn metadata_in_xz_may_be_damaged() {
    damage_everywhere(&["-comp", "xz"]);
}

#[test]
fn metadata_in_lz4_may_be_damaged() {
    damage_everywhere(&["-comp", "lz4"]);
}

#[test]
fn metadata_in_lzo_may_be_damaged() {
    damage_everywhere(&["-comp", "lzo"]);
}

/// What our writer adds: a table between the data and the inodes.
#[test]
fn nanoseconds_may_be_damaged() {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let writer = Writer::new(&file, 0, &Options { level: 1, threads: 1, ..Options::default() }).unwrap();
    let mut tree = Tree::new();
    for number in 0..30u32 {
        let mtime = Time { seconds: number, nanoseconds: number * 33_333_333 };
        let metadata = Metadata { mode: 0o600, mtime, ..Metadata::default() };
        tree.add(Tree::ROOT, number.to_string().as_bytes(), metadata, Kind::Fifo).unwrap();
    }
    writer.finish(&tree, 0).unwrap();
    let mut good = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut good).unwrap();
    let sound = walk(good.clone());
    assert_eq!((sound.errors, sound.inodes, sound.fractions), (0, 31, 29), "{sound:?}");

    let mut random = Random(0xf00d);
    let (mut failed, mut changed) = (0, 0);
    for at in 96..good.len() {
        for _ in 0..20 {
            let mut bad = good.clone();
            bad[at] = random.next() as u8;
            let findings = walk(bad);
            failed += usize::from(findings.errors > 0);
            changed += usize::from(findings.errors == 0 && findings.fractions != sound.fractions);
        }
    }
    assert!(failed > 1000 && changed > 0, "{failed} {changed}");
}

/// Data blocks too, which the other tests leave alone.
#[test]
fn data_may_be_damaged() {
    let mut random = Random(77);
    for compressor in ["zstd", "gzip", "xz", "lz4", "lzo"] {
        let good = small_archive(&["-comp", compressor]);
        for at in (96..good.len()).step_by(3) {
            let mut bad = good.clone();
            bad[at] = random.next() as u8;
            walk(bad);
        }
    }
}
