//! The way of an application from its packages to a stick in somebody else's machine, in the steps that a user takes.

mod harness;

use std::collections::HashMap;

use harness::debian::{self, INSTALL, SHOW, SHOWN, archive};
use harness::machine::{self, Case, disk};
use harness::{World, world};

/// A Debian with the packages in it, in one file that knows what it is for, and what that says.
fn application() -> (World, String) {
    let world = World::empty();
    world::build(debian::minimal(), world.image(), &[]).succeeds().quietly();
    world.app(&["fim-perms", "set", "network"]).run().succeeds().quietly();
    world.root_sh(INSTALL).input(archive()).run().succeeds();
    let files = world.root_sh("dpkg -L at cron dbus-bin dbus-daemon dbus-system-bus-common | wc -l").prints();
    assert!(files.parse::<u32>().unwrap() > 100, "{files}");
    let version = world.exec(&["dbus-daemon", "--version"]).prints();
    assert!(version.starts_with("D-Bus Message Bus Daemon"), "{version}");
    world.app(&["fim-layer", "commit", "binary", "--level", "2"]).run().succeeds();
    world.app(&["fim-boot", "set", "dbus-daemon", "--version"]).run().succeeds().quietly();
    assert_eq!(world.app(&[]).prints(), version);
    (world, version)
}

/// What the virtual machine says about both sticks.
fn on_sticks(world: &World) -> HashMap<String, Case> {
    let (image, size) = machine::padded(world, world.image());
    let room = size.parse::<u64>().unwrap().div_ceil(1 << 20) + 64;
    let disks = [
        disk(world, "vfat", "mkfs.vfat", room),
        disk(world, "exfat", "mkfs.exfat", room),
        disk(world, "ext4", "mkfs.ext4", 2 * room),
        image,
    ];
    let files: [(&str, &[u8]); 4] = [
        ("cases.sh", include_bytes!("distribution/cases.sh")),
        ("stick.sh", include_bytes!("distribution/stick.sh")),
        ("show.sh", SHOW.as_bytes()),
        ("image-size", size.as_bytes()),
    ];
    machine::run(world, &disks, &files)
}

#[test]
fn an_application_runs_from_sticks_on_another_machine() {
    let (world, version) = application();
    let told = on_sticks(&world);
    for (name, kind) in [("vfat", "a FAT"), ("exfat", "an exFAT")] {
        let case = &told[name];
        let shown = format!("{name}: {} {}\n{}", case.code, case.stdout, case.stderr);
        let data = "/home/user/.local/share/fim/";
        // Where the data is, is said once, by the first start, and so it is found.
        let note = format!("fim: note: data of this image is kept in {data}");
        assert_eq!(case.stderr.lines().filter(|line| line.starts_with(&note)).count(), 1, "{shown}");
        assert!(case.stderr.contains(&format!("it is on {kind} file system")), "{shown}");
        let said: Vec<&str> = case.stdout.split("--\n").collect();
        let [first, owners, audit, kept, path, stick, renamed, linked, read_only, ..] = said[..] else {
            panic!("{shown}")
        };
        assert_eq!(first.trim_end(), version, "{shown}");
        assert_eq!(owners.trim_end(), SHOWN, "{shown}");
        assert_eq!(audit, "Status: install ok installed\ndaemon\n", "{shown}");
        assert_eq!(kept, "kept\n", "{shown}");
        assert!(path.starts_with(data) && path.lines().count() == 1, "{shown}");
        assert_eq!(stick, "app.com\n", "the stick has the image only: {shown}");
        assert_eq!((renamed, linked, read_only), ("kept\n", "kept\n", "kept\n"), "{shown}");
        assert_eq!(case.code, 0, "{shown}");
    }
    // Where desktops let names that end in .com and the like be executed, others are not.
    assert_eq!(told["names"].stdout, "126\n0\n", "{}", told["names"].stderr);
}
