//! A virtual machine with Debian's kernel: what this one lacks (FAT, exFAT, AppArmor) or what must not be done to the
//! host of the tests (its switches, pulling out a disk). All cases run in one boot, without KVM: nothing has to be
//! granted, and a processor that only pretends to have it does no harm.

mod initramfs;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness::{DEADLINE, TestCommand, World, debian, need};

use super::harness;
use super::host::{REFUSAL, SMOKE, judge, refused};

/// What came of one case.
struct Case {
    code: i32,
    stdout: String,
    stderr: String,
}

/// A policy that lets a program do everything that takes no capability, in whatever namespace: as that of Ubuntu 24.04.
const POLICY: &str = "profile no-capability /home/user/confined flags=(attach_disconnected) {
  file,
  network,
  signal,
  ptrace,
  unix,
}
";

fn case(name: &str) -> &'static Case {
    static CASES: OnceLock<HashMap<String, Case>> = OnceLock::new();
    CASES.get_or_init(boot).get(name).unwrap_or_else(|| panic!("the guest has not run the case {name}"))
}

/// Boots the guest and collects what it says.
fn boot() -> HashMap<String, Case> {
    let world = World::new();
    let drive = |path: &Path| ["-drive".to_owned(), format!("file={},if=virtio,format=raw", path.display())];
    let disks = [
        disk(&world, "vfat", "mkfs.vfat", 96),
        disk(&world, "exfat", "mkfs.exfat", 96),
        disk(&world, "ext4", "mkfs.ext4", 512),
        padded(&world),
    ];
    let initramfs = initramfs(&world);
    let mut machine = TestCommand::new(need("qemu-system-x86_64"))
        .env("PATH", "/usr/bin:/bin")
        .args(["-accel", "tcg", "-m", "512", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel())
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 loglevel=0 panic=-1"])
        .args(disks.iter().flat_map(|path| drive(path)))
        .spawn();
    let mut cases = HashMap::new();
    loop {
        let line = machine.line_within(5 * DEADLINE);
        let line = line.trim_end();
        if line == "== all done" {
            break;
        }
        // What a boot loader or the kernel have to say.
        let Some((name, code)) = line.strip_prefix("== ").and_then(|rest| rest.split_once(' ')) else { continue };
        let mut case = Case { code: code.parse().unwrap(), stdout: String::new(), stderr: String::new() };
        loop {
            let line = machine.line_within(5 * DEADLINE);
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
fn disk(world: &World, name: &str, format: &str, megabytes: u64) -> PathBuf {
    let path = world.path(format!("{name}.img"));
    File::create(&path).unwrap().set_len(megabytes << 20).unwrap();
    TestCommand::new(need(format)).arg(&path).run().succeeds();
    path
}

/// The image as a disk, which has whole sectors.
fn padded(world: &World) -> PathBuf {
    let path = world.path("image.img");
    fs::copy(world.image(), &path).unwrap();
    let len = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(len.next_multiple_of(512)).unwrap();
    path
}

fn kernel() -> PathBuf {
    let found = fs::read_dir(debian::kernel().join("boot")).unwrap().map(|entry| entry.unwrap().path());
    found.into_iter().find(|path| path.to_string_lossy().contains("vmlinuz")).expect("the package has a kernel")
}

/// What the guest needs before and instead of an installed system.
fn initramfs(world: &World) -> PathBuf {
    let mut archive = initramfs::Archive::default();
    for name in ["bin", "dev", "proc", "sys", "new", "modules", "guest"] {
        archive.directory(name);
    }
    archive.file("init", include_bytes!("guest/init.sh"), 0o755);
    archive.file("bin/busybox", &fs::read("/bin/busybox").unwrap(), 0o755);
    let mut order = String::new();
    for module in MODULES {
        let path = find(&debian::kernel().join("lib/modules"), &format!("{module}.ko"));
        let path = path.unwrap_or_else(|| panic!("the kernel package has no module {module}"));
        archive.file(&format!("modules/{module}.ko"), &fs::read(path).unwrap(), 0o644);
        order.push_str(&format!("{module}.ko\n"));
    }
    archive.file("modules/order", order.as_bytes(), 0o644);
    let size = fs::metadata(world.image()).unwrap().len().to_string();
    fs::write(world.path("policy"), POLICY).unwrap();
    let parser = TestCommand::new(need("apparmor_parser")).args(["--skip-cache", "--skip-kernel-load", "--stdout"]);
    let policy = parser.arg(world.path("policy")).run().succeeds().stdout;
    for (name, content) in [
        ("cases.sh", include_bytes!("guest/cases.sh").as_slice()),
        ("instance.sh", include_bytes!("guest/instance.sh")),
        ("smoke.sh", SMOKE.as_bytes()),
        ("refusal.sh", REFUSAL.as_bytes()),
        ("image-size", size.as_bytes()),
        ("policy", &policy),
    ] {
        archive.file(&format!("guest/{name}"), content, 0o644);
    }
    let path = world.path("initramfs");
    fs::write(&path, archive.finish()).unwrap();
    path
}

/// In the order in which they can be loaded.
const MODULES: [&str; 15] = [
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
];

/// A file of this name below a directory.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).find_map(|entry| {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

/// Everything works in a case of the guest.
#[track_caller]
fn runs(name: &str, row: &str) {
    let case = case(name);
    assert_eq!((case.code, case.stdout.as_str()), (0, "smoke: all works\n"), "{row}: {}", case.stderr);
    judge(row, case.stderr.clone());
}

#[test]
fn old_kernel() {
    runs("old_kernel", "old-kernel");
}

#[test]
fn vfat() {
    runs("vfat", "vfat");
}

#[test]
fn exfat() {
    runs("exfat", "exfat");
}

#[test]
fn userns_switch() {
    let case = case("userns_switch");
    refused("userns-switch", &case.stdout, &case.stderr);
}

#[test]
fn apparmor() {
    let case = case("apparmor");
    refused("apparmor", &case.stdout, &case.stderr);
}

#[test]
fn pulled() {
    let case = case("pulled");
    let shown = format!("{} {}\n{}", case.code, case.stdout, case.stderr);
    assert_eq!((case.code, case.stdout.as_str()), (0, "start: 125\nstart: 125\n"), "{shown}");
    let super::table::Refuses(cause, fix) = super::table::find("pulled").outcome else { panic!("it is no refusal") };
    let told =
        case.stderr.lines().filter(|line| line.starts_with("fim: ") && line.contains(cause) && line.contains(fix));
    assert_eq!(told.count(), 2, "{shown}");
}
