//! Extraction of archives that were written, and of some that nobody would write.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Checked, Error, Omitted, check, extract};
use crate::progress::Progress;
use crate::source::FileRange;
use crate::squashfs::Archive;
use crate::squashfs::handmade::{Handmade, words};
use crate::squashfs::write::{Content, Kind, Metadata, NodeId, Options, Tree, Writer};

/// One layer in the making.
struct Layer {
    file: fs::File,
    writer: Writer,
    tree: Tree,
}

const TIME: u32 = 1_234_567_890;

fn owned(mode: u16) -> Metadata {
    Metadata { mode, uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), mtime: TIME.into() }
}

impl Layer {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        let options = Options { block_size: 4096, level: 1, threads: 1 };
        let writer = Writer::new(&file, 0, &options).unwrap();
        let mut tree = Tree::new();
        tree.set_metadata(Tree::ROOT, owned(0o755)).unwrap();
        Self { file, writer, tree }
    }

    fn content(&mut self, bytes: &[u8], hole: u64) -> Content {
        let mut content = self.writer.content(false);
        content.write(bytes).unwrap();
        content.hole(hole).unwrap();
        content.end().unwrap()
    }

    /// Adds `kind` at `path`, whose parents exist.
    fn add(&mut self, path: &str, mode: u16, kind: Kind) -> NodeId {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut parts = parent.split('/').filter(|part| !part.is_empty());
        let parent = parts.try_fold(Tree::ROOT, |id, part| self.tree.get(id, part.as_bytes())).unwrap();
        self.tree.add(parent, name.as_bytes(), owned(mode), kind).unwrap()
    }

    fn file(&mut self, path: &str, text: &str) -> NodeId {
        let content = self.content(text.as_bytes(), 0);
        self.add(path, 0o644, Kind::File(Some(content)))
    }

    fn directory(&mut self, path: &str) -> NodeId {
        self.add(path, 0o755, Kind::Directory)
    }

    fn whiteout(&mut self, path: &str) {
        self.add(path, 0, Kind::CharDevice { major: 0, minor: 0 });
    }

    fn mark(&mut self, id: NodeId, name: &str, value: &str) {
        self.tree.set_xattrs(id, vec![(name.as_bytes().into(), value.as_bytes().into())]);
    }

    fn finish(self) -> Archive {
        self.writer.finish(&self.tree, TIME).unwrap();
        Archive::open(Arc::new(FileRange::whole(Arc::new(self.file)).unwrap())).unwrap()
    }
}

fn unpack(layers: &[Archive]) -> (tempfile::TempDir, PathBuf, Result<Omitted, Error>) {
    let work = tempfile::tempdir().unwrap();
    let into = work.path().join("into");
    let omitted = extract(layers, &into, &mut ());
    (work, into, omitted)
}

/// Path and content of every file, `/` for directories.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, "/".to_owned());
                stack.push(path);
            } else {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_kind_of_file_arrives() {
    let mut layer = Layer::new();
    let locked = layer.add("locked", 0o555, Kind::Directory);
    layer.mark(locked, "user.note", "kept");
    let file = layer.file("locked/file", "text");
    layer.mark(file, "user.note", "of a file");
    layer.tree.link(Tree::ROOT, b"hard", file).unwrap();
    let big = [vec![7; 10_000], vec![8; 10_000]].concat();
    let big = layer.content(&big, 50_000_000);
    layer.add("sparse", 0o400, Kind::File(Some(big)));
    let empty = layer.content(b"", 0);
    layer.add("closed", 0o000, Kind::File(Some(empty)));
    layer.add("sticky", 0o1777, Kind::Directory);
    layer.add("setuid", 0o4755, Kind::File(Some(empty)));
    layer.add("link", 0o777, Kind::Symlink(b"../../outside"[..].into()));
    layer.add("pipe", 0o620, Kind::Fifo);
    layer.add("socket", 0o666, Kind::Socket);
    let (_work, into, omitted) = unpack(&[layer.finish()]);
    assert_eq!(omitted.unwrap(), Omitted::default());

    let meta = |name: &str| fs::symlink_metadata(into.join(name)).unwrap();
    let modes = [
        ("", 0o755),
        ("locked", 0o555),
        ("locked/file", 0o644),
        ("sparse", 0o400),
        ("closed", 0),
        ("sticky", 0o1777),
        ("setuid", 0o4755),
        ("pipe", 0o620),
        ("socket", 0o666),
    ];
    for (name, mode) in modes {
        assert_eq!(meta(name).permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!((meta(name).mtime(), meta(name).mtime_nsec()), (i64::from(TIME), 0), "{name}");
    }
    assert_eq!(meta("link").mtime(), i64::from(TIME));
    assert_eq!(fs::read_link(into.join("link")).unwrap(), Path::new("../../outside"));
    assert!(meta("pipe").file_type().is_fifo() && meta("socket").file_type().is_socket());
    assert_eq!((meta("hard").ino(), meta("hard").nlink()), (meta("locked/file").ino(), 2));
    assert_eq!(xattr::get(into.join("locked"), "user.note").unwrap().unwrap(), b"kept");
    assert_eq!(xattr::get(into.join("hard"), "user.note").unwrap().unwrap(), b"of a file");
    let sparse = meta("sparse");
    assert_eq!(sparse.len(), 50_020_000);
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    let bytes = fs::read(into.join("sparse")).unwrap();
    assert!(bytes[..10_000].iter().all(|byte| *byte == 7) && bytes[10_000..20_000].iter().all(|byte| *byte == 8));
    assert!(bytes[20_000..].iter().all(|byte| *byte == 0));
    fs::set_permissions(into.join("locked"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// As root everything is restored; others keep what is theirs, and are told what is not.
#[test]
fn what_needs_privilege_is_restored_or_counted() {
    let mut layer = Layer::new();
    let empty = layer.content(b"", 0);
    let foreign = layer.add("foreign", 0o6755, Kind::File(Some(empty)));
    let other = Metadata { uid: 12_345, gid: 23_456, ..layer.tree.metadata(foreign) };
    layer.tree.set_metadata(foreign, other).unwrap();
    layer.add("null", 0o666, Kind::CharDevice { major: 1, minor: 3 });
    let trusted = layer.file("trusted", "");
    layer.mark(trusted, "trusted.note", "x");
    let (_work, into, omitted) = unpack(&[layer.finish()]);
    let omitted = omitted.unwrap();
    let meta = fs::symlink_metadata(into.join("foreign")).unwrap();
    if nix::unistd::geteuid().is_root() {
        assert_eq!(omitted, Omitted::default());
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (12_345, 23_456, 0o6755));
        let null = fs::symlink_metadata(into.join("null")).unwrap();
        assert!(null.file_type().is_char_device() && null.rdev() == nix::sys::stat::makedev(1, 3));
        assert_eq!(null.mode() & 0o7777, 0o666);
        assert_eq!(xattr::get(into.join("trusted"), "trusted.note").unwrap().unwrap(), b"x");
    } else {
        assert_eq!(omitted, Omitted { owners: 1, set_id: 1, devices: 1, attributes: 1 });
        assert_eq!(meta.mode() & 0o7777, 0o755, "a foreign set-uid program must not become ours");
        assert!(!into.join("null").exists());
    }
}

#[test]
fn layers_merge_as_overlayfs_merges_them() {
    let mut bottom = Layer::new();
    for directory in ["both", "both/deep", "gone", "hidden", "was-dir", "user-hidden"] {
        bottom.directory(directory);
    }
    for file in ["both/low", "both/deep/low", "both/covered", "gone/x", "hidden/x", "was-dir/x", "user-hidden/x"] {
        bottom.file(file, "0");
    }
    bottom.file("was-file", "0");
    bottom.file("removed", "0");
    bottom.file("back", "0");
    let mut middle = Layer::new();
    for directory in ["both", "both/deep", "was-file"] {
        middle.directory(directory);
    }
    middle.file("both/covered", "1");
    middle.file("was-file/x", "1");
    middle.file("was-dir", "1");
    middle.whiteout("gone");
    middle.whiteout("removed");
    middle.whiteout("back");
    for (name, attribute) in [("hidden", "trusted.overlay.opaque"), ("user-hidden", "user.overlay.opaque")] {
        let hidden = middle.directory(name);
        middle.mark(hidden, attribute, "y");
        middle.file(&format!("{name}/new"), "1");
    }
    let mut top = Layer::new();
    for directory in ["both", "gone", "hidden", "was-dir"] {
        top.directory(directory);
    }
    top.file("both/high", "2");
    top.whiteout("both/deep");
    top.file("back", "2");
    top.file("gone/new", "2");
    top.file("hidden/high", "2");
    let (_work, into, omitted) = unpack(&[bottom.finish(), middle.finish(), top.finish()]);
    omitted.unwrap();
    let expected = [
        ("back", "2"),
        ("both", "/"),
        ("both/covered", "1"),
        ("both/high", "2"),
        ("both/low", "0"),
        ("gone", "/"),
        ("gone/new", "2"),
        ("hidden", "/"),
        ("hidden/high", "2"),
        ("hidden/new", "1"),
        ("user-hidden", "/"),
        ("user-hidden/new", "1"),
        ("was-dir", "/"),
        ("was-file", "/"),
        ("was-file/x", "1"),
    ];
    let expected = expected.map(|(name, content)| (name.to_owned(), content.to_owned()));
    assert_eq!(listing(&into), BTreeMap::from(expected));
    assert_eq!(xattr::list(into.join("user-hidden")).unwrap().count(), 0, "the mark is not the guest's");
}

/// Inode offset, type and name of a directory's entry.
type Listed<'a> = (u16, u16, &'a [u8]);

#[test]
fn whiteouts_may_be_marked_files() {
    let (mut base, mut top) = (Layer::new(), Layer::new());
    base.directory("in");
    base.directory("plain");
    for name in ["in/gone", "in/kept", "in/full", "plain/kept"] {
        base.file(name, "base");
    }
    // What the kernel takes for one: an empty file with the mark, in a directory that says that there are some.
    let directory = top.directory("in");
    top.mark(directory, "user.overlay.opaque", "x");
    top.directory("plain");
    for (name, text) in [("in/gone", ""), ("in/full", "text"), ("in/new", ""), ("plain/kept", "")] {
        let file = top.file(name, text);
        if name != "in/new" {
            top.mark(file, "user.overlay.whiteout", "");
        }
    }
    let (_base, tree, extracted) = unpack(&[base.finish(), top.finish()]);
    extracted.unwrap();
    let names: Vec<String> = listing(&tree).into_keys().collect();
    assert_eq!(names, ["in", "in/full", "in/kept", "in/new", "plain", "plain/kept"]);
    assert_eq!(fs::read_to_string(tree.join("in/full")).unwrap(), "text");
    let marks = xattr::list(tree.join("in/full")).unwrap().chain(xattr::list(tree.join("in")).unwrap()).count();
    assert_eq!(marks, 0);
}

/// An archive whose root has these entries. The root is at 0, a fifo at 40.
fn rooted(entries: &[Listed<'_>]) -> Archive {
    let mut made = Handmade::new();
    let listing: Vec<u8> = entries.iter().fold(words(&[entries.len() as u32 - 1, 0, 7]), |mut listing, entry| {
        let (offset, kind, name) = entry;
        for word in [*offset, 0, *kind, name.len() as u16 - 1] {
            listing.extend(word.to_le_bytes());
        }
        listing.extend(*name);
        listing
    });
    made.dirs = listing.clone();
    made.inode(8, &words(&[2, listing.len() as u32 + 3, 0, 1, 0, u32::MAX]));
    assert_eq!(made.inode(6, &words(&[1])).0, 40);
    made.open()
}

#[test]
fn what_no_tree_can_be_is_refused_and_leaves_nothing() {
    let cases: [(&[Listed<'_>], &str); 4] = [
        (&[(0, 1, b"loop")], "cannot extract /loop of layer 0: the directory has two places in the tree"),
        (&[(40, 2, b"lie")], "cannot extract /lie of layer 0: the directory has another type for it than its inode"),
        (&[(40, 6, b"twice"), (40, 6, b"twice")], "cannot extract /twice of layer 0: the directory is not sorted"),
        (&[(40, 6, b"b"), (40, 6, b"a")], "cannot extract /a of layer 0: the directory is not sorted"),
    ];
    for (entries, reason) in cases {
        let error = check(&rooted(entries), &mut ()).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
        let (work, _, outcome) = unpack(&[rooted(entries)]);
        let error = outcome.unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "{reason}");
    }
}

#[test]
fn a_claim_of_a_huge_file_is_refused() {
    let mut made = Handmade::new();
    let listing = [words(&[0, 0, 7]), vec![40, 0, 0, 0, 2, 0, 0, 0, b'f']].concat();
    made.dirs = listing.clone();
    made.inode(8, &words(&[2, listing.len() as u32 + 3, 0, 1, 0, u32::MAX]));
    let size = (i64::MAX as u64).to_le_bytes();
    let body = [&96u64.to_le_bytes()[..], &size, &[0; 8], &words(&[1, u32::MAX, 0, u32::MAX])].concat();
    assert_eq!(made.inode(9, &body).0, 40);
    assert!(check(&made.open(), &mut ()).unwrap_err().to_string().contains("cannot extract /f of layer 0"));
    let (work, _, outcome) = unpack(&[made.open()]);
    // Refused by the file system, or where that takes any size, because the list of blocks ends too soon.
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("set the size of") || error.contains("cannot extract /f of layer 0"), "{error}");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
}

#[test]
fn a_sound_layer_is_read_whole_and_a_damaged_one_is_found() {
    let noise = |len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    };
    let mut layer = Layer::new();
    layer.directory("dir");
    let file = layer.file("dir/small", "text");
    layer.tree.link(Tree::ROOT, b"hard", file).unwrap();
    layer.whiteout("gone");
    let content = layer.content(&noise(100_000), 1_000_000);
    layer.add("big", 0o644, Kind::File(Some(content)));
    let mut bytes = Vec::new();
    {
        use std::io::{Read, Seek};
        let mut file = layer.file.try_clone().unwrap();
        layer.finish();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
    }
    let checked = check(&Archive::open(Arc::new(bytes.clone())).unwrap(), &mut ()).unwrap();
    assert_eq!(checked, Checked { inodes: 5, unpacked: 1_100_004 });
    // Every metadata block and every compressed block says so itself; what is stored as it is cannot.
    let superblock = Archive::open(Arc::new(bytes.clone())).unwrap().superblock().clone();
    for at in [superblock.inode_table, superblock.directory_table, superblock.id_table] {
        let mut damaged = bytes.clone();
        damaged[at as usize + 1] ^= 0x55;
        damaged[at as usize + 6] ^= 0x55;
        let found =
            Archive::open(Arc::new(damaged)).map_err(drop).and_then(|layer| check(&layer, &mut ()).map_err(drop));
        assert!(found.is_err(), "{at}");
    }
}

#[test]
fn an_existing_directory_is_not_touched() {
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("mine"), "x").unwrap();
    let error = extract(&[Layer::new().finish()], work.path(), &mut ()).unwrap_err();
    assert!(matches!(&error, Error::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
    assert_eq!(fs::read_to_string(work.path().join("mine")).unwrap(), "x");
}

#[test]
fn an_interrupted_extraction_leaves_nothing() {
    struct Impatient(u64);
    impl Progress for Impatient {
        fn total(&mut self, _: Option<u64>, _: Option<u64>) {}
        fn advance(&mut self, _: u64, files: u64) {
            self.0 += files;
        }
        fn stopped(&self) -> bool {
            self.0 >= 100
        }
    }
    let mut layer = Layer::new();
    layer.add("closed", 0o555, Kind::Directory);
    for number in 0..1000 {
        layer.file(&format!("closed/{number}"), "text");
    }
    let work = tempfile::tempdir().unwrap();
    let outcome = extract(&[layer.finish()], &work.path().join("into"), &mut Impatient(0));
    assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
}
