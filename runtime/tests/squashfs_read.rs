//! Archives made by `mksquashfs` read back, byte for byte.

mod squashfs_tree;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use runtime::source::FileRange;
use runtime::squashfs::{Archive, Block, FileKind, Inode, Kind};
use squashfs_tree::{PSEUDO, full_tree, noise, pack, run, small_tree};

fn open(path: &Path) -> Archive {
    let file = fs::File::open(path).unwrap();
    Archive::open(Arc::new(FileRange::whole(Arc::new(file)).unwrap())).unwrap()
}

fn entries(archive: &Archive, dir: &Inode) -> Vec<runtime::squashfs::DirEntry> {
    let mut entries = Vec::new();
    archive
        .read_dir(dir, 0, &mut |entry| {
            entries.push(entry);
            true
        })
        .unwrap();
    entries
}

fn at(archive: &Archive, path: &str) -> Inode {
    let mut inode = archive.inode(archive.root()).unwrap();
    for name in path.split('/') {
        let entry = archive.lookup(&inode, name.as_bytes()).unwrap();
        inode = archive.inode(entry.unwrap_or_else(|| panic!("{name} of {path}")).inode).unwrap();
    }
    inode
}

/// Compares a directory of the archive with one of the file system, and everything below.
fn compare(archive: &Archive, dir: &Inode, path: &Path, links: &mut HashMap<u64, u32>) {
    let mut expected: BTreeMap<Vec<u8>, fs::DirEntry> = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        expected.insert(entry.file_name().as_bytes().to_vec(), entry);
    }
    let found = entries(archive, dir);
    for pair in found.windows(2) {
        assert!(pair[0].name < pair[1].name && pair[0].cookie < pair[1].cookie);
    }
    for (index, entry) in found.iter().enumerate() {
        let path = path.join(OsStr::from_bytes(&entry.name));
        assert_eq!(archive.lookup(dir, &entry.name).unwrap().as_ref(), Some(entry), "{}", path.display());
        let mut next = None;
        archive
            .read_dir(dir, entry.cookie, &mut |entry| {
                next = Some(entry);
                false
            })
            .unwrap();
        assert_eq!(next.as_ref(), found.get(index + 1), "behind {}", path.display());

        let inode = archive.inode(entry.inode).unwrap();
        assert_eq!((inode.number, inode.kind.file_kind()), (entry.number, entry.kind), "{}", path.display());
        if expected.remove(&entry.name).is_none() {
            assert!(PSEUDO.iter().any(|line| line.as_bytes().starts_with(&entry.name)), "{}", path.display());
            continue;
        }
        compare_inode(archive, &inode, &path, links);
    }
    assert!(expected.is_empty(), "missing in the archive: {expected:?}");
}

fn compare_inode(archive: &Archive, inode: &Inode, path: &Path, links: &mut HashMap<u64, u32>) {
    let name = path.display();
    let status = fs::symlink_metadata(path).unwrap();
    assert_eq!(u32::from(inode.mode_perm), status.mode() & 0o7777, "{name}");
    assert_eq!((inode.uid, inode.gid), (status.uid(), status.gid()), "{name}");
    assert_eq!(i64::from(inode.mtime), status.mtime(), "{name}");
    assert_eq!(*links.entry(status.ino()).or_insert(inode.number), inode.number, "{name}");
    if !status.is_dir() {
        assert_eq!(u64::from(inode.nlink), status.nlink(), "{name}");
    }
    compare_xattrs(archive, inode, path);
    match &inode.kind {
        Kind::Directory { .. } => {
            assert!(status.is_dir(), "{name}");
            compare(archive, inode, path, links);
        }
        Kind::File { size, .. } => {
            assert!(status.is_file(), "{name}");
            let contents = fs::read(path).unwrap();
            assert_eq!(*size, contents.len() as u64, "{name}");
            assert!(archive.read_file(inode).unwrap() == contents, "{name} differs");
            compare_parts(archive, inode, &contents);
        }
        Kind::Symlink { target } => {
            assert_eq!(*target, fs::read_link(path).unwrap().as_os_str().as_bytes(), "{name}");
        }
        Kind::Socket => assert!(status.file_type().is_socket(), "{name}"),
        other => panic!("{name}: {other:?}"),
    }
}

fn compare_xattrs(archive: &Archive, inode: &Inode, path: &Path) {
    let mut expected = BTreeMap::new();
    for name in xattr::list(path).unwrap() {
        let value = xattr::get(path, &name).unwrap().unwrap();
        // mksquashfs leaves out what it has no prefix for; a build machine may add labels.
        if name.as_bytes().starts_with(b"user.") {
            expected.insert(name.as_bytes().to_vec(), value);
        }
    }
    let mut found: BTreeMap<_, _> = archive.xattrs(inode).unwrap().into_iter().collect();
    found.retain(|name, _| name.starts_with(b"user."));
    assert_eq!(found, expected, "{}", path.display());
}

/// Reads with odd offsets and lengths, and the blocks one by one from the last to the first.
fn compare_parts(archive: &Archive, inode: &Inode, contents: &[u8]) {
    let len = contents.len();
    for (offset, count) in [(0, 1), (len / 3, 7777), (len.saturating_sub(5), 100), (len, 10), (len + 9, 1)] {
        let mut buf = vec![0xee; count];
        let read = archive.read_at(inode, offset as u64, &mut buf).unwrap();
        let expected = contents.get(offset..).unwrap_or_default();
        let expected = &expected[..expected.len().min(count)];
        assert!(buf[..read] == *expected, "{count} bytes at {offset} of {len}");
    }
    let block_size = u64::from(archive.superblock().block_size);
    for index in (0..inode.block_count()).rev() {
        let block = archive.block(inode, index).unwrap();
        let start = (index * block_size) as usize;
        let expected = &contents[start..len.min(start + block_size as usize)];
        assert_eq!(block.len(), expected.len());
        match block {
            Block::Hole { .. } => assert!(expected.iter().all(|byte| *byte == 0)),
            Block::Stored { stored, skip, len } => {
                let bytes = archive.load(stored).unwrap();
                assert!(stored.part(&bytes, skip, len).unwrap() == expected, "block {index}");
            }
        }
    }
    assert!(archive.block(inode, inode.block_count()).is_err());
}

fn check_pseudo(archive: &Archive) {
    let facts = |name| {
        let inode = at(archive, name);
        (inode.kind.file_kind(), inode.mode_perm, inode.uid, inode.gid)
    };
    assert_eq!(facts("zero"), (FileKind::CharDevice, 0o666, 0, 0));
    assert_eq!(facts("disk"), (FileKind::BlockDevice, 0o660, 0, 6));
    assert_eq!(facts("queue"), (FileKind::Fifo, 0o600, 1000, 70000));
    assert_eq!(facts("ipc"), (FileKind::Socket, 0o4755, 1, 2));
    assert_eq!(facts("owned"), (FileKind::Directory, 0o1777, 4_000_000_000, 65535));
    assert!(matches!(at(archive, "zero").kind, Kind::CharDevice { rdev: 0x105 }));
    // new_encode_dev(259, 70000): minor 0x11170 is split around the major.
    assert!(matches!(at(archive, "disk").kind, Kind::BlockDevice { rdev: 0x1111_0370 }));
}

/// Packs the full tree with one compressor and every way of laying it out, and compares.
fn every_layout(compressor: &str) {
    let dir = tempfile::tempdir().unwrap();
    let trees = [("128K", 128 << 10), ("4K", 4 << 10), ("1M", 1 << 20)].map(|(name, block_size)| {
        let tree = dir.path().join(name);
        full_tree(&tree, block_size);
        (name, block_size, tree)
    });
    let layouts: [(&str, usize, &[&str]); 8] = [
        ("default", 0, &[]),
        ("no-fragments", 0, &["-no-fragments"]),
        ("always-use-fragments", 0, &["-always-use-fragments"]),
        ("no-exports", 0, &["-no-exports"]),
        ("no-duplicates", 0, &["-no-duplicates"]),
        ("stored", 0, &["-noI", "-noD", "-noF", "-noX"]),
        ("small blocks", 1, &[]),
        ("large blocks", 2, &["-always-use-fragments"]),
    ];
    for (layout, tree, options) in layouts {
        let (block_name, block_size, tree) = &trees[tree];
        let mut all = vec!["-comp", compressor, "-b", block_name];
        all.extend(options);
        for line in PSEUDO {
            all.extend(["-p", line]);
        }
        let archive = open(&pack(tree, "archive", &all));
        assert_eq!(archive.superblock().block_size as usize, *block_size, "{layout}");
        assert_eq!(archive.superblock().compressor.to_string(), compressor);
        let root = archive.inode(archive.root()).unwrap();
        compare(&archive, &root, tree, &mut HashMap::new());
        check_pseudo(&archive);
        check_export(&archive, &root, layout != "no-exports");
    }
}

fn check_export(archive: &Archive, root: &Inode, exportable: bool) {
    assert_eq!(archive.superblock().export_table.is_some(), exportable);
    let count = archive.superblock().inode_count;
    assert_eq!(archive.inode_by_number(0).unwrap(), None);
    assert_eq!(archive.inode_by_number(count + 1).unwrap(), None);
    if !exportable {
        assert_eq!(archive.inode_by_number(1).unwrap(), None);
        return;
    }
    assert_eq!(archive.inode_by_number(root.number).unwrap(), Some(archive.root()));
    for number in 1..=count {
        let inode = archive.inode_by_number(number).unwrap().unwrap();
        assert_eq!(archive.inode(inode).unwrap().number, number);
    }
}

#[test]
fn every_layout_with_zstd() {
    every_layout("zstd");
}

#[test]
fn every_layout_with_gzip() {
    every_layout("gzip");
}

#[test]
fn every_layout_with_xz() {
    every_layout("xz");
}

#[test]
fn every_layout_with_lz4() {
    every_layout("lz4");
}

#[test]
fn every_layout_with_lzo() {
    every_layout("lzo");
}

#[test]
fn xz_filters_and_gzip_options_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    small_tree(&tree);
    // A program, so that the filter for its instructions is worth choosing.
    fs::copy(std::env::current_exe().unwrap(), tree.join("program")).unwrap();
    let options: [&[&str]; 4] = [
        &["-comp", "xz", "-Xbcj", "x86,arm,armthumb,powerpc,sparc,ia64"],
        &["-comp", "gzip", "-Xcompression-level", "1", "-Xwindow-size", "8", "-Xstrategy", "huffman_only,fixed"],
        &["-comp", "lz4", "-Xhc"],
        &["-comp", "lzo", "-Xalgorithm", "lzo1x_1_15"],
    ];
    for options in options {
        let archive = open(&pack(&tree, "archive", options));
        compare(&archive, &archive.inode(archive.root()).unwrap(), &tree, &mut HashMap::new());
    }
}

#[test]
fn lzma_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    small_tree(&tree);
    let path = pack(&tree, "archive", &["-comp", "lzma"]);
    let error = Archive::open(Arc::new(fs::read(path).unwrap())).unwrap_err();
    assert!(error.to_string().contains("compressor lzma is not supported"), "{error}");
}

/// Device nodes, foreign owners and all prefixes of xattrs need no privilege when they come from a tar archive.
#[test]
fn trusted_and_security_xattrs_keep_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("tree.tar");
    let long = noise(700, 9);
    let expected = |name: &str| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let pairs = [
            ("user.fim", b"u".to_vec()),
            ("trusted.overlay.opaque", b"y".to_vec()),
            ("security.capability", long.clone()),
        ];
        let mut pairs: BTreeMap<_, _> =
            pairs.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect();
        pairs.insert(b"user.name".to_vec(), name.as_bytes().to_vec());
        pairs
    };
    let mut builder = tar::Builder::new(fs::File::create(&tar).unwrap());
    for name in ["a", "b", "c"] {
        let pairs: Vec<_> = expected(name).into_iter().collect();
        let pairs: Vec<_> = pairs
            .into_iter()
            .map(|(key, value)| (format!("SCHILY.xattr.{}", String::from_utf8(key).unwrap()), value))
            .collect();
        builder.append_pax_extensions(pairs.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(4);
        header.set_mode(0o640);
        builder.append_data(&mut header, name, &b"data"[..]).unwrap();
    }
    builder.finish().unwrap();
    let path = dir.path().join("archive");
    run(Command::new("mksquashfs")
        .args(["-", path.to_str().unwrap(), "-tar", "-quiet", "-no-progress"])
        .stdin(fs::File::open(&tar).unwrap()));

    let archive = open(&path);
    for name in ["a", "b", "c"] {
        let inode = at(&archive, name);
        let found: BTreeMap<_, _> = archive.xattrs(&inode).unwrap().into_iter().collect();
        assert_eq!(found, expected(name), "{name}");
        assert_eq!(archive.read_file(&inode).unwrap(), b"data");
    }
}

/// A second reader that shares no code with ours.
#[test]
fn libsquashfs_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    full_tree(&tree, 128 << 10);
    fs::remove_file(tree.join(OsStr::from_bytes(b"not \xff\xfe text \x01"))).unwrap();
    let path = pack(&tree, "archive", &["-comp", "zstd", "-p", PSEUDO[1]]);
    let (ours, theirs) = (open(&path), squashfs_ng::read::Archive::open(&path).unwrap());
    assert_eq!(ours.superblock().inode_count, theirs.size());
    let mut queue = vec![(String::new(), ours.root())];
    let mut seen = 0;
    while let Some((path, inode)) = queue.pop() {
        seen += 1;
        let inode = ours.inode(inode).unwrap();
        let node = theirs.get_exists(if path.is_empty() { "/" } else { &path }).unwrap();
        assert_eq!((inode.number, inode.mtime), (node.id(), node.mtime()), "{path}");
        assert_eq!((inode.uid, inode.gid), (node.uid().unwrap(), node.gid().unwrap()), "{path}");
        assert_eq!(inode.mode_perm, node.mode() & 0o7777, "{path}");
        let xattrs: BTreeMap<_, _> = ours.xattrs(&inode).unwrap().into_iter().collect();
        let mut theirs = BTreeMap::new();
        for (category, prefix) in [
            (squashfs_ng::read::XattrType::User, "user."),
            (squashfs_ng::read::XattrType::Trusted, "trusted."),
            (squashfs_ng::read::XattrType::Security, "security."),
        ] {
            for (name, value) in node.xattrs(category).unwrap() {
                let short = name.strip_prefix(prefix.as_bytes()).unwrap_or(&name).to_vec();
                theirs.insert([prefix.as_bytes(), &short].concat(), value);
            }
        }
        assert_eq!(xattrs, theirs, "{path}");
        match (&inode.kind, node.data().unwrap()) {
            (Kind::Directory { .. }, squashfs_ng::read::Data::Dir(dir)) => {
                let names: Vec<_> = dir.map(|node| node.unwrap().name().unwrap().into_bytes()).collect();
                let ours = entries(&ours, &inode);
                assert_eq!(ours.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>(), names, "{path}");
                for entry in ours {
                    queue.push((format!("{path}/{}", String::from_utf8(entry.name).unwrap()), entry.inode));
                }
            }
            (Kind::File { .. }, squashfs_ng::read::Data::File(mut file)) => {
                assert!(ours.read_file(&inode).unwrap() == file.to_bytes().unwrap(), "{path}");
            }
            (Kind::Symlink { target }, squashfs_ng::read::Data::Symlink(other)) => {
                assert_eq!(*target, other.as_os_str().as_bytes(), "{path}");
            }
            (Kind::BlockDevice { rdev: 0x1111_0370 }, squashfs_ng::read::Data::BlockDev(259, 70000)) => {}
            (Kind::Socket, _) => {}
            (kind, _) => panic!("{path}: {kind:?}"),
        }
    }
    assert!(seen > 1000);
}

#[test]
fn what_is_not_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    full_tree(&tree, 4096);
    let archive = open(&pack(&tree, "archive", &["-comp", "zstd"]));
    let root = archive.inode(archive.root()).unwrap();
    let many = at(&archive, "many");
    for name in [&b""[..], b".", b"..", b"\0", b"\xff\xff", b"a", b"nn", b"nnnnnnn999", &[b'w'; 254], &[b'w'; 300]] {
        assert_eq!(archive.lookup(&root, name).unwrap(), None);
        assert_eq!(archive.lookup(&many, name).unwrap(), None);
    }
    assert_eq!(archive.lookup(&at(&archive, "nothing inside"), b"x").unwrap(), None);
    assert!(archive.lookup(&at(&archive, "one"), b"x").is_err());
    assert!(archive.block(&many, 0).is_err());
    // Whatever a program seeks a directory to, it gets sound entries.
    let all = entries(&archive, &many);
    for from in (0..all.last().unwrap().cookie + 50).step_by(7).chain([u64::MAX]) {
        let mut rest = Vec::new();
        archive
            .read_dir(&many, from, &mut |entry| {
                rest.push(entry);
                rest.len() < 3
            })
            .unwrap();
        let skipped = all.iter().filter(|entry| entry.cookie <= from).count();
        assert_eq!(rest, all[skipped..all.len().min(skipped + 3)], "from {from}");
    }
}

#[test]
fn many_threads_read_one_archive() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    full_tree(&tree, 4096);
    let archive = open(&pack(&tree, "archive", &["-comp", "zstd", "-b", "4K"]));
    let root = archive.inode(archive.root()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| compare(&archive, &root, &tree, &mut HashMap::new()));
        }
    });
}
