//! A virtual machine with Debian's kernel: what this one lacks (FAT, exFAT, AppArmor) or what must not be done to the host
//! of the tests. Without KVM: nothing has to be granted, and a processor that only pretends to have it does no harm.
//!
//! The guest runs the cases of a script, one after the other, and tells on its console what came of each.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::initramfs::Archive;
use super::{DEADLINE, TestCommand, World, debian, need};

/// What came of one case.
pub struct Case {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Boots the guest with these disks, `/dev/vda` and so on, and collects what it says. `files` are in its `/guest`;
/// `cases.sh` among them ends with `run CASE` for each case and `finish`.
pub fn run(world: &World, disks: &[PathBuf], files: &[(&str, &[u8])]) -> HashMap<String, Case> {
    let drive = |path: &PathBuf| ["-drive".to_owned(), format!("file={},if=virtio,format=raw", path.display())];
    let mut machine = TestCommand::new(need("qemu-system-x86_64"))
        .env("PATH", "/usr/bin:/bin")
        .args(["-accel", "tcg", "-m", "512", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel())
        .arg("-initrd")
        .arg(initramfs(world, files))
        .args(["-append", "console=ttyS0 loglevel=0 panic=-1"])
        .args(disks.iter().flat_map(drive))
        .spawn();
    let mut cases = HashMap::new();
    loop {
        let line = machine.line_within(2 * DEADLINE);
        let line = line.trim_end();
        if line == "== all done" {
            break;
        }
        // What a boot loader or the kernel have to say.
        let Some((name, code)) = line.strip_prefix("== ").and_then(|rest| rest.split_once(' ')) else { continue };
        let mut case = Case { code: code.parse().unwrap(), stdout: String::new(), stderr: String::new() };
        loop {
            let line = machine.line_within(2 * DEADLINE);
            match line.trim_end().split_once(' ') {
                Some(("1", text)) => case.stdout.push_str(&format!("{text}\n")),
                Some(("2", text)) => case.stderr.push_str(&format!("{text}\n")),
                Some(("==", _)) => break,
                _ => {}
            }
        }
        cases.insert(name.to_owned(), case);
    }
    // An emulated processor is slow, so every line above has had more time than other tests give.
    machine.wait_as_it_is().succeeds();
    cases
}

/// A disk with an empty file system.
pub fn disk(world: &World, name: &str, format: &str, megabytes: u64) -> PathBuf {
    let path = world.path(format!("{name}.img"));
    File::create(&path).unwrap().set_len(megabytes << 20).unwrap();
    TestCommand::new(need(format)).arg(&path).run().succeeds();
    path
}

/// An image as a disk, which has whole sectors; and how many bytes it has really, as text.
pub fn padded(world: &World, image: &Path) -> (PathBuf, String) {
    let path = world.path("image.img");
    fs::copy(image, &path).unwrap();
    let len = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(len.next_multiple_of(512)).unwrap();
    (path, len.to_string())
}

fn kernel() -> PathBuf {
    let found = fs::read_dir(debian::kernel().join("boot")).unwrap().map(|entry| entry.unwrap().path());
    found.into_iter().find(|path| path.to_string_lossy().contains("vmlinuz")).expect("the package has a kernel")
}

/// What the guest needs before and instead of an installed system.
fn initramfs(world: &World, files: &[(&str, &[u8])]) -> PathBuf {
    let mut archive = Archive::default();
    for name in ["bin", "dev", "proc", "sys", "new", "modules", "guest"] {
        archive.directory(name);
    }
    archive.file("init", include_bytes!("machine/init.sh"), 0o755);
    archive.file("bin/busybox", &fs::read("/bin/busybox").unwrap(), 0o755);
    let mut order = String::new();
    for module in MODULES {
        let path = find(&debian::kernel().join("lib/modules"), &format!("{module}.ko"));
        let path = path.unwrap_or_else(|| panic!("the kernel package has no module {module}"));
        archive.file(&format!("modules/{module}.ko"), &fs::read(path).unwrap(), 0o644);
        order.push_str(&format!("{module}.ko\n"));
    }
    archive.file("modules/order", order.as_bytes(), 0o644);
    archive.file("guest/report.sh", include_bytes!("machine/report.sh"), 0o644);
    archive.file("guest/functions.sh", include_bytes!("machine/functions.sh"), 0o644);
    for (name, content) in files {
        archive.file(&format!("guest/{name}"), content, 0o644);
    }
    let path = world.path("initramfs");
    fs::write(&path, archive.finish()).unwrap();
    path
}

/// In the order in which they can be loaded.
const MODULES: [&str; 16] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "nls_utf8",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859-1",
    "fat",
    "vfat",
    "exfat",
    "fuse",
    "overlay",
    "squashfs",
];

/// A file of this name below a directory.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).find_map(|entry| {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}
