//! A source tree with everything that squashfs can hold, and `mksquashfs` to pack it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Entries that need root to be made in a source tree, so `mksquashfs` makes them.
pub const PSEUDO: [&str; 5] = [
    "zero c 666 0 0 1 5",
    "disk b 660 0 6 259 70000",
    "queue i 600 1000 70000 f",
    "ipc i 4755 1 2 s",
    "owned d 1777 4000000000 65535",
];

/// Bytes that do not compress, the same every time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

/// xorshift64*, seeded with anything but 0.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 24
    }
}

/// Fills `root` with files whose sizes matter for blocks of `block_size` bytes.
pub fn full_tree(root: &Path, block_size: usize) {
    fs::create_dir_all(root).unwrap();
    let text: Vec<u8> = b"all work and no play ".iter().copied().cycle().take(3 * block_size + 1).collect();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("one"), b"1").unwrap();
    fs::write(root.join("block"), &text[..block_size]).unwrap();
    fs::write(root.join("block+1"), &text[..=block_size]).unwrap();
    fs::write(root.join("block-1"), &text[..block_size - 1]).unwrap();
    fs::write(root.join("blocks"), &text).unwrap();
    fs::write(root.join("noise"), noise(300_000 + block_size, 1)).unwrap();
    fs::write(root.join("zeros"), vec![0; 2 * block_size + 77]).unwrap();

    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 2 << 20).unwrap();
    sparse.write_all_at(&noise(5000, 2), (3 << 20) + 123).unwrap();
    let ends_in_hole = File::create(root.join("sparse-tail")).unwrap();
    ends_in_hole.write_all_at(b"front", 0).unwrap();
    ends_in_hole.set_len((1 << 20) + 5).unwrap();

    let many = root.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..1000 {
        // Every name is the beginning of another, so that the order of equal beginnings matters.
        let name = format!("{}{}", "n".repeat(1 + number % 40), number / 40);
        fs::write(many.join(name), format!("file {number}\n").repeat(number % 7)).unwrap();
    }
    let mut deep = root.join("deep");
    for level in 0..30 {
        deep = deep.join(format!("level {level}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"reached").unwrap();
    fs::create_dir(root.join("nothing inside")).unwrap();

    fs::hard_link(root.join("noise"), root.join("noise again")).unwrap();
    fs::hard_link(root.join("one"), deep.join("one too")).unwrap();
    symlink("one", root.join("link")).unwrap();
    symlink("x/".repeat(2000), root.join("long link")).unwrap();
    UnixListener::bind(root.join("socket")).unwrap();

    fs::write(root.join(OsStr::from_bytes(b"not \xff\xfe text \x01")), b"bytes").unwrap();
    fs::write(root.join("w".repeat(255)), b"widest").unwrap();
    fs::set_permissions(root.join("one"), fs::Permissions::from_mode(0o6711)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o400)).unwrap();

    set_xattr(&root.join("one"), "user.short", b"value");
    set_xattr(&root.join("one"), "user.empty", b"");
    let shared = noise(1500, 3);
    for name in ["one", "block", "deep", "many", "sparse", "zeros"] {
        set_xattr(&root.join(name), "user.shared", &shared);
        set_xattr(&root.join(name), &format!("user.own.{name}"), name.as_bytes());
    }
}

/// Like [`full_tree`], but small: for tests that read it thousands of times.
pub fn small_tree(root: &Path) {
    fs::create_dir_all(root.join("dir/inner")).unwrap();
    fs::write(root.join("file"), noise(5000, 4)).unwrap();
    fs::write(root.join("text"), b"text ".repeat(2000)).unwrap();
    fs::write(root.join("zeros"), [0; 9000]).unwrap();
    for number in 0..20 {
        fs::write(root.join(format!("dir/{number}")), number.to_string()).unwrap();
    }
    symlink("file", root.join("link")).unwrap();
    fs::hard_link(root.join("file"), root.join("dir/hard")).unwrap();
    set_xattr(&root.join("file"), "user.name", b"value");
    for name in ["text", "dir"] {
        set_xattr(&root.join(name), "user.long", &noise(300, 5));
    }
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    xattr::set(path, name, value)
        .unwrap_or_else(|error| panic!("the test needs a file system with user xattrs: {}: {error}", path.display()));
}

/// Packs `tree` with `mksquashfs` and returns the archive's path, which is beside it.
pub fn pack(tree: &Path, name: &str, options: &[&str]) -> PathBuf {
    let archive = tree.with_file_name(name);
    let mut command = Command::new("mksquashfs");
    command.arg(tree).arg(&archive).args(["-noappend", "-no-progress", "-quiet"]).args(options);
    run(&mut command);
    archive
}

/// Runs a program that the test cannot do without.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("the test needs {:?} (package squashfs-tools): {error}", command.get_program());
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
