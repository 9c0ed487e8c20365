//! `fim-doctor`: what it finds is so, what it proposes helps, and nothing of it stays.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::world::copy;
use harness::{FIM, TestCommand, World, is_root, need};
use serde_json::Value;

use super::harness;
use super::host::{FILTER, Host};

fn report(command: TestCommand) -> Value {
    serde_json::from_slice(&command.run().stdout).unwrap()
}

/// The check of this name.
#[track_caller]
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {report:#}"))
}

/// Every path below a directory.
fn everything(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(everything(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn it_leaves_nothing_before_and_after_the_first_start() {
    let world = World::new();
    let examine = || {
        let before = everything(&world.path(""));
        let text = world.app(&["fim-doctor"]).prints();
        assert!(text.ends_with("This image can run here."), "{text}");
        assert_eq!(everything(&world.path("")), before);
        world.assert_no_mounts();
        text
    };
    assert!(examine().contains("data: beside the image, in "));
    world.root_sh("echo kept > /etc/note").run().succeeds();
    world.wait_for_end();
    examine();
    assert_eq!(world.exec(&["cat", "/etc/note"]).prints(), "kept");
    // While an instance runs on the same data.
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    assert!(world.app(&["fim-doctor"]).prints().ends_with("can run here."));
    running.wait().succeeds();
}

#[test]
fn the_json_has_every_check_and_rung() {
    let world = World::new();
    let report = report(world.app(&["fim-doctor", "--json"]));
    assert_eq!(report["runs"], true);
    for name in
        ["user-namespaces", "mounts", "instance", "seccomp", "pidfd", "memory-program", "fuse", "overlay", "data"]
    {
        assert_eq!(check(&report, name)["result"], "works", "{report:#}");
    }
    assert_eq!(report["rungs"]["layers"], "mounted through FUSE");
    assert_eq!(report["rungs"]["program"], "a sealed copy in memory");
    let ids = report["rungs"]["ids"].as_str().unwrap();
    assert_eq!(ids, if is_root() { "every ID of the host" } else { "one ID; fim-root is emulated" });
    // The builder's command says the same of the same file.
    let tool = world.equip(TestCommand::new(FIM)).arg("doctor").arg(world.image()).arg("--json");
    assert_eq!(self::report(tool), report);
}

#[test]
fn wrong_words_are_refused() {
    let world = World::new();
    world
        .app(&["fim-doctor", "--apparmor", "x"])
        .fails_naming(&["Trailing arguments for fim-doctor", "fim-help doctor"]);
    world.equip(TestCommand::new(FIM)).args(["doctor", "/no/image"]).fails_naming(&["/no/image"]);
}

#[test]
fn a_missing_rung_is_no_failure_and_has_a_fix() {
    let host = Host::new().arranged("mount --bind /dev/fuse /dev/fuse; mount -o remount,bind,nodev /dev/fuse");
    let outcome = host.run("exec \"$IMAGE\" fim-doctor --json").succeeds();
    let report: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let fuse = check(&report, "fuse");
    assert_eq!((&fuse["result"], &fuse["needed"]), (&"fails".into(), &false.into()));
    assert_eq!(fuse["fix"], "sudo chmod 0666 /dev/fuse");
    assert_eq!(check(&report, "layer-cache")["needed"], true);
    assert!(report["rungs"]["layers"].as_str().unwrap().starts_with("extracted once, to "));
    // Without either there is no way.
    let both = "mount --bind /dev/fuse /dev/fuse; mount -o remount,bind,nodev /dev/fuse
        mkdir cache; mount -t tmpfs none cache; mount -o remount,bind,ro cache";
    let host = Host::new().arranged(both);
    let cache = host.world.path("cache").to_str().unwrap().to_owned();
    let outcome = host.env("XDG_CACHE_HOME", &cache).run("exec \"$IMAGE\" fim-doctor").exits(125);
    assert!(
        outcome.text().contains("FAILS   layer-cache") && outcome.text().ends_with("cannot run here."),
        "{outcome:?}"
    );
}

#[test]
fn a_filter_that_kills_is_survived() {
    // Not an error but the end of whoever makes a user namespace.
    let filter = FILTER.replace("0x50000 | error", "0x80000000");
    let host = Host::new().through(&["python3", "-c", &filter, "272", "0", "sh", "-c"]);
    let outcome = host.run("exec \"$IMAGE\" fim-doctor").exits(125);
    let text = outcome.text();
    assert!(text.contains("the process that tried it died") && text.contains("SIGSYS"), "{outcome:?}");
    assert!(text.contains("not tried: it needs user-namespaces"), "{outcome:?}");
}

#[test]
fn data_of_somebody_else_is_named() {
    let world = World::new();
    fs::create_dir_all(world.data().join("root")).unwrap();
    fs::set_permissions(world.data(), fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        TestCommand::new(need("chown")).arg("-R").arg("12345").arg(world.data()).run().succeeds();
    } else {
        fs::remove_dir_all(world.data()).unwrap();
        std::os::unix::fs::symlink("/usr", world.data()).unwrap();
    }
    let outcome = world.app(&["fim-doctor"]).run().exits(125);
    assert!(outcome.text().contains("FAILS   data"), "{outcome:?}");
    assert!(outcome.text().contains("belongs to user"), "{outcome:?}");
}

#[test]
fn the_profile_is_one_that_the_parser_takes() {
    let world = World::new();
    for name in [
        &b"plain"[..],
        b"a b",
        b"quo\"te",
        b"{glob,*}?[x]^",
        b"@{HOME}",
        b"back\\slash",
        b"new\nline\t",
        b"\xff\xfe",
        b"#a",
    ] {
        let image = world.path(std::ffi::OsStr::from_bytes(name));
        copy(world.image(), &image);
        let profile =
            world.equip(TestCommand::new(&image)).args(["fim-doctor", "--apparmor"]).run().succeeds().quietly();
        let file = world.path("profile");
        fs::write(&file, &profile.stdout).unwrap();
        let parse = |flags: &[&str]| {
            TestCommand::new(need("apparmor_parser"))
                .args(["--skip-kernel-load", "--skip-cache"])
                .args(flags)
                .arg(&file)
        };
        parse(&[]).run().succeeds();
        assert!(parse(&["--names"]).run().succeeds().text().starts_with("fim-"), "{profile:?}");
        fs::remove_file(image).unwrap();
    }
}
