//! A tree with one of everything, and the comparison of two trees.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Makes the tree in `root`. With `reversed`, the entries are made in another order.
pub fn make(root: &Path, reversed: bool) {
    fs::create_dir(root).unwrap();
    let long = "n".repeat(255);
    let raw = OsStr::from_bytes(b"raw-\xff\xfe\x80");
    let mut files: Vec<(&OsStr, Vec<u8>, u32)> = vec![
        (OsStr::new("empty"), Vec::new(), 0o644),
        (OsStr::new("small"), b"small\n".to_vec(), 0o600),
        (OsStr::new("same-as-small"), b"small\n".to_vec(), 0o644),
        (OsStr::new("setuid"), b"#!/bin/sh\n".to_vec(), 0o4755),
        (OsStr::new("setgid"), b"#!/bin/sh\n".to_vec(), 0o2755),
        (OsStr::new("block"), noise(1, 128 << 10), 0o644),
        (OsStr::new("block-and-tail"), noise(2, (128 << 10) + 17), 0o444),
        (OsStr::new("text"), b"all work and no play\n".repeat(40_000), 0o644),
        (OsStr::new("zeros"), vec![0; 300_000], 0o644),
        (OsStr::new("zero-tail"), [noise(3, 128 << 10), vec![0; 1000]].concat(), 0o644),
        (OsStr::new(&long), b"long".to_vec(), 0o644),
        (raw, b"raw".to_vec(), 0o644),
    ];
    let mut directories = vec!["dir", "dir/deep", "dir/deep/er", "sticky", "void"];
    fs::create_dir(root.join("dir")).unwrap();
    if reversed {
        files.reverse();
        directories = vec!["void", "sticky", "dir/deep", "dir/deep/er"];
    } else {
        directories.remove(0);
    }
    for directory in &directories {
        fs::create_dir(root.join(directory)).unwrap();
    }
    for (name, content, mode) in &files {
        let path = root.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
    }
    let many = 0..600;
    let make_one = |number: u32| fs::write(root.join(format!("dir/deep/{number}")), number.to_string()).unwrap();
    if reversed {
        many.rev().for_each(make_one)
    } else {
        many.for_each(make_one)
    }

    let mut sparse = File::create(root.join("dir/sparse")).unwrap();
    sparse.seek(SeekFrom::Start((3 << 20) + 5)).unwrap();
    sparse.write_all(b"middle").unwrap();
    sparse.set_len(9 << 20).unwrap();

    fs::hard_link(root.join("small"), root.join("dir/deep/link")).unwrap();
    fs::hard_link(root.join("small"), root.join("another-link")).unwrap();
    symlink("dir/deep/link", root.join("symlink")).unwrap();
    symlink(OsStr::from_bytes(b"nowhere/\xff"), root.join("dangling")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    drop(UnixListener::bind(root.join("socket")).unwrap());
    fs::set_permissions(root.join("sticky"), Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(root.join("void"), Permissions::from_mode(0o555)).unwrap();
    for (path, name, value) in [
        ("text", "user.one", &b"1"[..]),
        ("text", "user.binary", b"a\n\0=\xff"),
        ("empty", "user.one", b"1"),
        ("dir", "user.dir", &[7; 3000]),
    ] {
        let set = xattr::set(root.join(path), name, value);
        set.unwrap_or_else(|error| panic!("these tests need user attributes in {}: {error}", root.display()));
    }
    times(root, 1_600_000_000);
}

/// Takes the fractions of seconds from all times.
pub fn whole_seconds(root: &Path) {
    let status = root.symlink_metadata().unwrap();
    if status.is_dir() {
        fs::read_dir(root).unwrap().for_each(|entry| whole_seconds(&entry.unwrap().path()));
    }
    let time = nix::sys::time::TimeSpec::new(status.mtime(), 0);
    let flag = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, root, &time, &time, flag).unwrap();
}

/// Gives every file a time of its own that depends on its name only.
fn times(path: &Path, base: u64) {
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            times(&entry.unwrap().path(), base);
        }
    }
    let sum: u64 = path.file_name().unwrap().as_bytes().iter().map(|&byte| u64::from(byte)).sum();
    // The root's own name is the test's affair.
    let seconds = if path.join("same-as-small").exists() { base } else { base + sum };
    let time = nix::sys::time::TimeSpec::new(seconds.cast_signed(), 500);
    let flag = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flag).unwrap();
}

/// Asserts that two trees are the same; owners only where the test may set them.
pub fn assert_same(expected: &Path, found: &Path) {
    let (a, b) = (expected.symlink_metadata().unwrap(), found.symlink_metadata().unwrap());
    let what = expected.display();
    // unsquashfs gives set-user-ID and set-group-ID to root only; what the archive holds, its listing shows.
    let kept = if nix::unistd::geteuid().is_root() { !0 } else { !0o6000 };
    assert_eq!(a.mode() & kept, b.mode() & kept, "mode of {what}");
    assert_eq!(a.mtime(), b.mtime(), "time of {what}");
    if !a.is_dir() {
        assert_eq!(a.nlink(), b.nlink(), "links of {what}");
    }
    if nix::unistd::geteuid().is_root() {
        assert_eq!((a.uid(), a.gid()), (b.uid(), b.gid()), "owner of {what}");
    }
    assert_eq!(attributes(expected), attributes(found), "attributes of {what}");
    let kind = a.file_type();
    if kind.is_dir() {
        let (names, others) = (names(expected), names(found));
        assert_eq!(names, others, "entries of {what}");
        for name in names {
            assert_same(&expected.join(&name), &found.join(&name));
        }
    } else if kind.is_symlink() {
        assert_eq!(fs::read_link(expected).unwrap(), fs::read_link(found).unwrap(), "target of {what}");
    } else if kind.is_file() {
        assert!(fs::read(expected).unwrap() == fs::read(found).unwrap(), "content of {what}");
    } else if kind.is_char_device() || kind.is_block_device() {
        assert_eq!(a.rdev(), b.rdev(), "device {what}");
    }
}

fn names(path: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn attributes(path: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let names = xattr::list(path).unwrap().filter(|name| name.as_bytes().starts_with(b"user."));
    let mut found: Vec<_> = names.map(|name| (name.clone(), xattr::get(path, &name).unwrap().unwrap())).collect();
    found.sort();
    found
}

/// A time as the file system takes it.
pub fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
