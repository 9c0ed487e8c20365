//! A virtual machine: other kernels and file systems, switches of the host, a disk that is pulled out. All cases run in
//! one boot.

use std::collections::HashMap;
use std::fs;
use std::sync::OnceLock;

use harness::machine::{self, Case, disk};
use harness::{TestCommand, World, need};

use super::harness;
use super::host::{REFUSAL, SMOKE, judge, refused};

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
    let (image, size) = machine::padded(&world, world.image());
    let disks = [
        disk(&world, "vfat", "mkfs.vfat", 96),
        disk(&world, "exfat", "mkfs.exfat", 96),
        disk(&world, "ext4", "mkfs.ext4", 512),
        image,
    ];
    fs::write(world.path("policy"), POLICY).unwrap();
    let parser = TestCommand::new(need("apparmor_parser")).args(["--skip-cache", "--skip-kernel-load", "--stdout"]);
    let policy = parser.arg(world.path("policy")).run().succeeds().stdout;
    let files: [(&str, &[u8]); 6] = [
        ("cases.sh", include_bytes!("guest/cases.sh")),
        ("instance.sh", include_bytes!("guest/instance.sh")),
        ("smoke.sh", SMOKE.as_bytes()),
        ("refusal.sh", REFUSAL.as_bytes()),
        ("image-size", size.as_bytes()),
        ("policy", &policy),
    ];
    machine::run(&world, &disks, &files)
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
