//! Directories become squashfs and come back the same.

use crate::tree::{assert_same, at, make, noise, whole_seconds};
use crate::{fixed, has_nanoseconds, layer, listing, options, pack_to, unpack};
use runtime::pack::{Progress, Startup};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

#[derive(Default)]
struct Counted {
    total: Option<(Option<u64>, Option<u64>)>,
    bytes: u64,
    files: u64,
}

impl Progress for Counted {
    fn total(&mut self, bytes: Option<u64>, files: Option<u64>) {
        assert!(self.total.replace((bytes, files)).is_none(), "the total is told once");
    }
    fn advance(&mut self, bytes: u64, files: u64) {
        assert!(self.total.is_some(), "the total is told first");
        self.bytes += bytes;
        self.files += files;
    }
}

#[test]
fn everything_in_a_tree_comes_back_from_an_archive_behind_other_bytes() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    make(&source, false);
    let image = work.path().join("image");
    let mut out = File::options().read(true).write(true).create_new(true).open(&image).unwrap();
    out.write_all(&[b'#'; 5000]).unwrap();
    let mut progress = Counted::default();
    let summary = layer(&source).unwrap().pack(&out, 4096, &options(2), &mut progress).unwrap();

    assert_same(&source, &unpack(&image, 4096, work.path()));
    let unpacked = work.path().join("unpacked");
    assert!(unpacked.join("dir/sparse").metadata().unwrap().blocks() * 512 < 1 << 20, "the holes were filled");
    let bytes = fs::read(&image).unwrap();
    assert!(bytes[..4096].iter().all(|&byte| byte == b'#'), "the bytes before the archive are gone");
    assert_eq!(bytes.len() as u64, 4096 + summary.bytes_padded);
    assert_eq!(summary.bytes_padded % 4096, 0);
    assert_eq!(bytes[4096 + 40..][..8], summary.bytes_used.to_le_bytes());
    assert_eq!(progress.total, Some((summary.unpacked_bytes, summary.files)));
    assert_eq!((Some(progress.bytes), Some(progress.files)), (summary.unpacked_bytes, summary.files));
}

#[test]
fn pack_gives_the_same_bytes_for_any_number_of_threads_and_any_order_of_entries() {
    let work = tempfile::tempdir().unwrap();
    let (one, two) = (work.path().join("one"), work.path().join("two"));
    make(&one, false);
    make(&two, true);
    let image = work.path().join("image");
    let mut results = Vec::new();
    for (source, threads) in [(&one, 1), (&one, 4), (&two, 3), (&two, 1)] {
        pack_to(source, &image, &options(threads)).unwrap();
        results.push(fs::read(&image).unwrap());
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn pack_lowers_times_to_a_fixed_epoch() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    for (name, seconds) in [("old", 86_400), ("new", 4_000_000_000)] {
        File::create(source.join(name)).unwrap().set_modified(at(seconds)).unwrap();
    }
    File::open(&source).unwrap().set_modified(at(86_400)).unwrap();
    let image = work.path().join("image");
    pack_to(&source, &image, &fixed(172_800, 1)).unwrap();
    assert_eq!(fs::read(&image).unwrap()[8..12], 172_800_u32.to_le_bytes());
    let list = listing(&image);
    assert!(list.contains("1970-01-02 00:00 root/old"), "{list}");
    assert!(list.contains("1970-01-03 00:00 root/new"), "{list}");
    // Without one, the newest time is the archive's.
    pack_to(&source, &image, &options(1)).unwrap();
    assert_eq!(fs::read(&image).unwrap()[8..12], 4_000_000_000_u32.to_le_bytes());
}

#[test]
fn pack_with_a_fixed_epoch_keeps_whole_seconds_only() {
    let work = tempfile::tempdir().unwrap();
    let (source, image) = (work.path().join("source"), work.path().join("image"));
    make(&source, false);
    pack_to(&source, &image, &options(1)).unwrap();
    assert!(has_nanoseconds(&fs::read(&image).unwrap()));
    pack_to(&source, &image, &fixed(u32::MAX, 1)).unwrap();
    let reproducible = fs::read(&image).unwrap();
    whole_seconds(&source);
    pack_to(&source, &image, &fixed(u32::MAX, 1)).unwrap();
    assert!(fs::read(&image).unwrap() == reproducible && !has_nanoseconds(&reproducible));
}

#[test]
fn pack_of_an_empty_directory_is_a_squashfs() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    let image = work.path().join("image");
    let summary = pack_to(&source, &image, &options(1)).unwrap();
    assert_eq!((summary.inodes, summary.files, summary.unpacked_bytes), (1, Some(0), Some(0)));
    assert_same(&source, &unpack(&image, 0, work.path()));
}

#[test]
fn pack_of_a_file_of_four_gigabytes_of_nothing_is_small() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    let file = File::create(source.join("huge")).unwrap();
    file.set_len((4 << 30) + 3).unwrap();
    file.write_all_at(b"end", 4 << 30).unwrap();
    let image = work.path().join("image");
    let summary = pack_to(&source, &image, &options(2)).unwrap();
    assert_eq!(summary.unpacked_bytes, Some((4 << 30) + 3));
    assert!(summary.bytes_used < 1 << 20, "{summary:?}");
    let unpacked = File::open(unpack(&image, 0, work.path()).join("huge")).unwrap();
    assert_eq!(unpacked.metadata().unwrap().len(), (4 << 30) + 3);
    let mut end = [0xff; 6];
    unpacked.read_exact_at(&mut end, (4 << 30) - 3).unwrap();
    assert_eq!(&end, b"\0\0\0end");
}

/// libsquashfs's own search for equal tails fails on a fragment block that is full and does not compress.
#[test]
fn pack_stores_equal_files_once_even_from_a_full_fragment_block() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    let write = |name: &str, content: &[u8]| fs::write(source.join(name), content).unwrap();
    write("a", &noise(1, 64 << 10));
    write("b", &noise(2, 64 << 10));
    write("c", &noise(3, 400 << 10));
    let image = work.path().join("image");
    let before = pack_to(&source, &image, &options(2)).unwrap();
    for number in 0..40 {
        write(&format!("d{number}"), &noise(1, 64 << 10));
        write(&format!("e{number}"), &noise(3, 400 << 10));
    }
    let after = pack_to(&source, &image, &options(2)).unwrap();
    assert!(after.bytes_used - before.bytes_used < 4096, "{before:?} {after:?}");
    assert_same(&source, &unpack(&image, 0, work.path()));
}

#[test]
fn pack_puts_what_a_run_has_read_first_and_uncompressed() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    make(&source, false);
    let image = work.path().join("image");
    let mut options = options(2);
    let read = ["text", "no/such/file", "dir", "/small"].map(|path| path.as_bytes().to_vec());
    options.startup = Some(Startup { read: read.to_vec(), ..Startup::default() });
    let packed = pack_to(&source, &image, &options).unwrap();
    assert_eq!(packed.startup, [&b"text"[..], b"small"]);
    let text = fs::read(source.join("text")).unwrap();
    let bytes = fs::read(&image).unwrap();
    // Superblock and the note of the level stand before.
    assert!(bytes[96 + 6..].starts_with(&text), "the first file is not first");
    assert!(bytes[96 + 6 + text.len()..].starts_with(b"small\n"), "the second file is not second");
    assert_same(&source, &unpack(&image, 0, work.path()));
}

#[test]
fn pack_takes_every_block_size_and_level() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    make(&source, false);
    let image = work.path().join("image");
    for (block_size, level) in [(4096, 1), (1 << 20, 15), (64 << 10, 19)] {
        let mut options = options(2);
        (options.squashfs.block_size, options.squashfs.level) = (block_size, level);
        pack_to(&source, &image, &options).unwrap();
        let unpacked = unpack(&image, 0, work.path());
        assert_same(&source, &unpacked);
        fs::remove_dir_all(unpacked).unwrap();
    }
    for (block_size, level, word) in [(2048, 3, "2048"), (100_000, 3, "100000"), (4096, 0, "level 0"), (4096, 23, "23")]
    {
        let mut options = options(2);
        (options.squashfs.block_size, options.squashfs.level) = (block_size, level);
        let error = pack_to(&source, &image, &options).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn pack_copies_a_squashfs_as_it_is() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    make(&source, false);
    let (first, second) = (work.path().join("first"), work.path().join("second"));
    let made = pack_to(&source, &first, &options(2)).unwrap();
    let copied = pack_to(&first, &second, &options(2)).unwrap();
    assert_eq!((made.bytes_used, made.inodes), (copied.bytes_used, copied.inodes));
    assert_eq!(copied.files, None);
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
    let out = File::options().write(true).open(&first).unwrap();
    out.set_len(made.bytes_used - 1).unwrap();
    let error = pack_to(&first, &second, &options(2)).unwrap_err().to_string();
    assert!(error.contains("first") && error.contains("cut off"), "{error}");
}
