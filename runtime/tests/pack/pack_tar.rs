//! Tars become squashfs, and hostile ones an error.

use crate::tree::{assert_same, make, whole_seconds};
use crate::{chain, has_nanoseconds, listing, options, pack_to, run, unpack};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::{Builder, EntryType, Header};

/// Adds an entry whose name and target are taken as they are.
pub fn add(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, data: &[u8]) {
    add_with(tar, kind, name, link, data, |_| ());
}

pub fn add_with(
    tar: &mut Builder<Vec<u8>>,
    kind: EntryType,
    name: &str,
    link: &str,
    data: &[u8],
    change: impl FnOnce(&mut Header),
) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(86_400);
    change(&mut header);
    header.set_cksum();
    tar.append(&header, data).unwrap();
}

pub fn file(tar: &mut Builder<Vec<u8>>, name: &str, data: &[u8]) {
    add(tar, EntryType::Regular, name, "", data);
}

/// Packs the tar that `build` makes; the listing, or the error.
fn packed(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Result<String, String> {
    let mut tar = Builder::new(Vec::new());
    build(&mut tar);
    packed_bytes(&tar.into_inner().unwrap())
}

fn packed_bytes(bytes: &[u8]) -> Result<String, String> {
    let work = tempfile::tempdir().unwrap();
    let (source, image) = (work.path().join("source.tar"), work.path().join("image"));
    fs::write(&source, bytes).unwrap();
    pack_to(&source, &image, &options(2)).map_err(|error| chain(&error))?;
    unpack(&image, 0, work.path());
    Ok(listing(&image))
}

/// A tar of `source` made by GNU tar, entries sorted.
fn gnu_tar(source: &Path, tar: &Path, more: &[&str]) {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--xattrs", "--xattrs-include=*", "-C"]).arg(source).args(more);
    run(command.arg("-cf").arg(tar).arg("."), "tar");
}

fn compressed(path: &Path) -> Vec<PathBuf> {
    let bytes = fs::read(path).unwrap();
    let (gz, xz, zst) = (path.with_extension("1"), path.with_extension("2"), path.with_extension("3"));
    let mut out = flate2::write::GzEncoder::new(fs::File::create(&gz).unwrap(), flate2::Compression::fast());
    out.write_all(&bytes).unwrap();
    out.finish().unwrap();
    let mut out = Vec::new();
    liblzma::bufread::XzEncoder::new(&bytes[..], 1).read_to_end(&mut out).unwrap();
    fs::write(&xz, out).unwrap();
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd_safe::compress(&mut out, &bytes, 1).unwrap();
    fs::write(&zst, out).unwrap();
    vec![gz, xz, zst]
}

#[test]
fn pack_of_a_tar_gives_the_bytes_of_its_directory_in_every_compression() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    make(&source, false);
    // A tar has no sockets.
    let time = source.metadata().unwrap().modified().unwrap();
    fs::remove_file(source.join("socket")).unwrap();
    fs::File::open(&source).unwrap().set_modified(time).unwrap();
    let image = work.path().join("image");
    pack_to(&source, &image, &options(2)).unwrap();
    let expected = fs::read(&image).unwrap();
    assert!(has_nanoseconds(&expected));
    assert_same(&source, &unpack(&image, 0, work.path()));

    let tar = work.path().join("source.tar");
    for format in [
        &["--format=pax"][..],
        &["--format=pax", "-S"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
    ] {
        gnu_tar(&source, &tar, format);
        pack_to(&tar, &image, &options(2)).unwrap();
        assert!(fs::read(&image).unwrap() == expected, "{format:?}");
    }
    for path in compressed(&tar) {
        pack_to(&path, &image, &options(2)).unwrap();
        assert!(fs::read(&image).unwrap() == expected, "{}", path.display());
        // Cut off, it is an error and no smaller tree.
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        let error = chain(&pack_to(&path, &image, &options(2)).unwrap_err());
        assert!(error.contains("cannot read the tar"), "{error}");
    }
}

/// The old GNU format has long names and sparse files of its own, and no attributes.
#[test]
fn pack_of_an_old_gnu_tar_gives_the_bytes_of_its_directory() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    make(&source, false);
    let time = source.metadata().unwrap().modified().unwrap();
    fs::remove_file(source.join("socket")).unwrap();
    fs::File::open(&source).unwrap().set_modified(time).unwrap();
    for (path, name) in [("text", "user.one"), ("text", "user.binary"), ("empty", "user.one"), ("dir", "user.dir")] {
        xattr::remove(source.join(path), name).unwrap();
    }
    // Nor has it fractions of seconds.
    whole_seconds(&source);
    let (image, tar) = (work.path().join("image"), work.path().join("source.tar"));
    pack_to(&source, &image, &options(2)).unwrap();
    let expected = fs::read(&image).unwrap();
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--format=gnu", "-S", "-C"]).arg(&source).arg("-cf").arg(&tar).arg(".");
    run(&mut command, "tar");
    pack_to(&tar, &image, &options(2)).unwrap();
    assert!(fs::read(&image).unwrap() == expected);
}

#[test]
fn pack_of_a_tar_keeps_devices_owners_and_the_last_of_equal_names() {
    let list = packed(|tar| {
        let device = |major, minor| {
            move |header: &mut Header| {
                header.set_device_major(major).unwrap();
                header.set_device_minor(minor).unwrap();
                header.set_uid(4_000_000_000);
                header.set_gid(7);
            }
        };
        add_with(tar, EntryType::Char, "dev/null", "", b"", device(1, 3));
        add_with(tar, EntryType::Block, "dev/sda", "", b"", device(8, 200));
        file(tar, "./twice", b"first");
        add(tar, EntryType::Link, "kept", "./twice", b"");
        file(tar, "/twice", b"second, longer");
    });
    let list = list.unwrap();
    let line = |name: &str| {
        let line =
            list.lines().find(|line| line.ends_with(&format!(" root/{name}"))).unwrap_or_else(|| panic!("{list}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(line("dev/null").starts_with("crw-r--r-- 4000000000/7 1, 3 "), "{list}");
    assert!(line("dev/sda").starts_with("brw-r--r-- 4000000000/7 8,200 "), "{list}");
    assert!(line("dev").starts_with("drwxr-xr-x 0/0"), "{list}");
    assert!(line("twice").contains(" 14 "), "{list}");
    assert!(line("kept").contains(" 5 "), "{list}");
}

#[test]
fn pack_refuses_hostile_entries_and_names_them() {
    type Build = fn(&mut Builder<Vec<u8>>);
    let cases: [(Build, &str, &str); 13] = [
        (|tar| file(tar, "../outside", b""), "../outside", "leads outside"),
        (|tar| file(tar, "a/../../b", b""), "a/../../b", "leads outside"),
        (
            |tar| {
                add(tar, EntryType::Symlink, "way", "/etc", b"");
                file(tar, "way/passwd", b"");
            },
            "way/passwd",
            "a symbolic link",
        ),
        (
            |tar| {
                file(tar, "way", b"");
                file(tar, "way/file", b"");
            },
            "way/file",
            "not a directory",
        ),
        (|tar| add(tar, EntryType::Link, "link", "missing", b""), "link", "which no earlier entry has"),
        (|tar| add(tar, EntryType::Link, "link", "../../etc/passwd", b""), "link", "outside the archive"),
        (
            |tar| {
                add(tar, EntryType::Directory, "dir", "", b"");
                add(tar, EntryType::Link, "link", "dir", b"");
            },
            "link",
            "the directory",
        ),
        (
            |tar| {
                file(tar, "dir/file", b"");
                file(tar, "dir", b"");
            },
            "dir",
            "not empty",
        ),
        (|tar| file(tar, "./", b""), "./", "no name"),
        (|tar| add(tar, EntryType::new(b'M'), "part", "", b""), "part", "type 'M'"),
        (|tar| add(tar, EntryType::Symlink, "empty", "", b""), "empty", "target"),
        (
            |tar| {
                add_with(tar, EntryType::Char, "device", "", b"", |header| {
                    header.set_device_major(5000).unwrap();
                    header.set_device_minor(0).unwrap();
                });
            },
            "device",
            "5000:",
        ),
        (
            |tar| {
                add_with(tar, EntryType::GNUSparse, "sparse", "", b"12345", |header| {
                    let gnu = header.as_gnu_mut().unwrap();
                    gnu.set_real_size(3);
                    gnu.sparse[0].set_offset(0);
                    gnu.sparse[0].set_length(5);
                });
            },
            "",
            "map of a sparse file",
        ),
    ];
    for (build, name, reason) in cases {
        let error = packed(build).unwrap_err();
        assert!(error.contains(name) && error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn pack_refuses_damaged_tars() {
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "one", &[b'x'; 2000]);
    file(&mut tar, "two", &[b'y'; 2000]);
    let bytes = tar.into_inner().unwrap();
    // In the data, in its padding, in a header.
    for end in [700, 2500, 512 + 2048 + 100, 512 + 2048 + 512 + 5] {
        let error = packed_bytes(&bytes[..end]).unwrap_err();
        assert!(error.contains("cut off"), "cut at {end}: {error}");
    }
    let mut damaged = bytes.clone();
    damaged[512 + 2048 + 3] ^= 1;
    let error = packed_bytes(&damaged).unwrap_err();
    assert!(error.contains("\"one\"") && error.contains("checksum"), "{error}");
    // A missing end mark is common and harmless.
    packed_bytes(&bytes[..2 * (512 + 2048)]).unwrap();
    packed_bytes(&[0; 10240]).unwrap();
}

/// Any one byte of the headers may be anything: an error or a squashfs, no panic.
#[test]
fn pack_survives_a_tar_with_any_byte_changed() {
    let mut tar = Builder::new(Vec::new());
    let record = b"20 SCHILY.xattr.u=a\n29 SCHILY.xattr.user.x=a\n\0\n\0b\n";
    add(&mut tar, EntryType::XHeader, "pax", "", record);
    file(&mut tar, "file", b"data");
    let bytes = tar.into_inner().unwrap();
    let work = tempfile::tempdir().unwrap();
    let (source, image) = (work.path().join("source.tar"), work.path().join("image"));
    for at in (0..1024 + 512).filter(|at| at % 512 < 260 || bytes[*at] != 0) {
        for value in [0, b'7', 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            // Right checksums let the change through to the fields.
            for block in changed.chunks_exact_mut(512).step_by(2).take(2) {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
            let _ = fs::remove_file(&source);
            fs::write(&source, &changed).unwrap();
            if let Err(error) = pack_to(&source, &image, &options(1)) {
                assert!(chain(&error).contains("source.tar"), "{error}");
            }
        }
    }
}

#[test]
fn pack_refuses_more_owners_than_squashfs_holds() {
    let owners = |count: u32| {
        packed(|tar| {
            for id in 0..count {
                let owner = |header: &mut Header| header.set_uid(id.into());
                add_with(tar, EntryType::Fifo, &format!("{id}"), "", b"", owner);
            }
        })
    };
    owners(300).unwrap();
    let error = owners(65_536).unwrap_err();
    assert!(error.contains("65535") && error.contains("owner"), "{error}");
}
