//! A change of the configuration is whole or not there at all, whoever else writes, and nobody who runs notices.

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

use harness::{Outcome, Running, TestCommand, World, need, world};
use nix::fcntl::{Flock, FlockArg};
use runtime::image::{Config, Image};

fn opened(world: &World) -> Image {
    Image::open(File::open(world.image()).unwrap(), world.image()).unwrap().unwrap()
}

/// The value of a stored variable.
fn stored(config: &Config, name: &str) -> Option<String> {
    let value = &config.env.iter().find(|(key, _)| key == name.as_bytes())?.1;
    Some(String::from_utf8(value.clone()).unwrap())
}

/// An instance that waits for its stdin.
fn waiting(world: &World) -> Running {
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    running
}

#[test]
fn fifty_writers_at_once_all_succeed_and_nobody_who_runs_is_disturbed() {
    let world = World::new();
    let mut instance = waiting(&world);
    // Held until all have begun: an image that is just being written cannot be executed (README, Limits).
    let lock = Flock::lock(File::open(world.image()).unwrap(), FlockArg::LockExclusive).unwrap();
    let writers: Vec<Running> =
        (0..50).map(|writer| world.app(&["fim-env", "add", &format!("W{writer}={writer}")]).spawn()).collect();
    drop(lock);
    for (index, writer) in writers.into_iter().enumerate() {
        writer.wait().succeeds().quietly().with_stdout(&format!("Included variable 'W{index}' with value '{index}'\n"));
    }
    assert_eq!(world.app(&["fim-env", "list"]).prints().lines().count(), 50);
    assert_eq!(opened(&world).generation, 51);
    instance.say("still here\n");
    instance.expect("still here");
    // A second start joins the session of the first, and sees what is stored now.
    assert_eq!(world.sh("echo $W0 $W49").prints(), "0 49");
    assert_eq!(world.app(&["fim-instance", "list"]).prints().lines().count(), 1);
    instance.wait().succeeds();
    world.assert_nothing_left();
}

/// A change that may write this many bytes of its file only; the kernel ends the writer at the next one, or refuses it.
fn limited(world: &World, bytes: u64, value: &str, refused: bool) -> Outcome {
    let signal = if refused { "trap '' XFSZ; " } else { "" };
    let script = format!("{signal}exec prlimit --core=0 --fsize={bytes} \"$IMAGE\" fim-env set \"V=$0\"");
    need("prlimit");
    world.host_sh(&script).arg(value).run()
}

#[test]
fn a_writer_killed_at_any_byte_leaves_the_old_or_the_new_configuration() {
    let world = World::new();
    world.app(&["fim-env", "set", "V=old"]).run().succeeds();
    let before = opened(&world);
    let slot = before.superblock.slot_offset(before.slot.other());
    let (mut written, mut kept) = (0, 0);
    loop {
        let outcome = limited(&world, slot + written, "new", false);
        let now = opened(&world);
        let value = stored(&now.config, "V").unwrap();
        if outcome.status.success() {
            assert_eq!((value.as_str(), now.generation), ("new", before.generation + 1), "{written}");
            break;
        }
        assert_eq!(outcome.status.signal(), Some(nix::libc::SIGXFSZ), "{outcome:?}");
        // What stood there before may end in the very bytes that were not written any more.
        if value == "new" {
            assert_eq!(now.generation, before.generation + 1, "{written}");
            break;
        }
        assert_eq!((value.as_str(), now.generation), ("old", before.generation), "{written}");
        kept += 1;
        written += 1;
    }
    assert!(kept > 64, "only {kept} cuts were tried");
    // What the last killed writer left is reported once to each reader and repaired by the next writers.
    world.app(&["fim-env", "set", "V=1"]).run().succeeds();
    let cut = opened(&world);
    limited(&world, cut.superblock.slot_offset(cut.slot.other()) + 70, "2", false);
    world.app(&["fim-env", "list"]).run().succeeds().with_stdout("V=1\n").complains_of(&["config slot", "damaged"]);
    world.app(&["fim-env", "set", "V=3"]).run().succeeds();
    world.app(&["fim-env", "list"]).run().succeeds().quietly().with_stdout("V=3\n");
}

#[test]
fn a_write_that_is_refused_names_the_image_and_the_reason() {
    let world = World::new();
    world.app(&["fim-env", "set", "V=old"]).run().succeeds();
    let before = opened(&world);
    let slot = before.superblock.slot_offset(before.slot.other());
    for bytes in [0, 1, 100] {
        limited(&world, slot + bytes, "new", true).exits(125).complains_of(&[
            "fim: cannot write the image",
            "app.flatimage",
            "File too large",
        ]);
        assert_eq!(stored(&opened(&world).config, "V").unwrap(), "old");
    }
}

/// A change during which a system call fails.
fn tampered(world: &World, fault: &str) -> Outcome {
    world
        .equip(TestCommand::new(need("strace")))
        .args(["-f", "-qqq", "-o", "/dev/null", "-e", &format!("inject={fault}")])
        .arg(world.image())
        .args(["fim-env", "set", "V=new"])
        .run()
}

#[test]
fn errors_of_the_medium_leave_the_old_or_the_new_configuration() {
    for (fault, reason) in [
        ("pwrite64:error=ENOSPC", "No space left"),
        ("pwrite64:error=EIO", "Input/output error"),
        ("fsync:error=EIO:when=1", "Input/output error"),
        ("fsync:error=EIO:when=2", "Input/output error"),
        ("flock:error=ENOLCK", "No locks available"),
    ] {
        let world = World::new();
        world.app(&["fim-env", "set", "V=old"]).run().succeeds();
        tampered(&world, fault).exits(125).with_stdout("").complains_of(&["fim: cannot ", "app.flatimage", reason]);
        let value = stored(&opened(&world).config, "V").unwrap();
        // Bytes that were written and not made durable may be there.
        let possible: &[&str] = if fault.ends_with("when=2") { &["old", "new"] } else { &["old"] };
        assert!(possible.contains(&value.as_str()), "{fault}: {value}");
        world.app(&["fim-env", "set", "V=after"]).run().succeeds().quietly();
    }
    for fault in ["pwrite64:signal=KILL", "fsync:signal=KILL:when=1", "fsync:signal=KILL:when=2"] {
        let world = World::new();
        world.app(&["fim-env", "set", "V=old"]).run().succeeds();
        assert_eq!(tampered(&world, fault).status.signal(), Some(nix::libc::SIGKILL), "{fault}");
        assert!(["old", "new"].contains(&stored(&opened(&world).config, "V").unwrap().as_str()));
        // The lock of a killed writer holds up nobody.
        world.app(&["fim-env", "set", "V=after"]).run().succeeds();
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_refused_with_the_limit() {
    let world = World::new();
    world.app(&["fim-env", "add", "KEPT=1"]).run().succeeds();
    // An argument may have 128 KiB.
    let values: Vec<String> = (0..9).map(|number| format!("V{number}={}", "x".repeat(120 << 10))).collect();
    let mut words = vec!["fim-env", "add"];
    words.extend(values.iter().map(String::as_str));
    world.app(&words).fails_naming(&["the image has room for 1048512", "remove or shorten"]).with_stdout("");
    assert_eq!(world.app(&["fim-env", "list"]).prints(), "KEPT=1");
    words.truncate(10);
    world.app(&words).run().succeeds().quietly();
    assert_eq!(world.app(&["fim-env", "list"]).prints().lines().count(), 9);
}

#[test]
fn a_read_only_image_is_read_and_refuses_changes_with_the_remedy() {
    let world = World::new();
    let script = |line: &str| {
        let here = world.path("");
        let here = here.display();
        format!("mount --bind '{here}' '{here}' && mount -o remount,bind,ro '{here}' && cd / && exec \"$IMAGE\" {line}")
    };
    world.in_namespace(&script("fim-perms add home")).fails_naming(&[
        "cannot change the image",
        "app.flatimage: it is read-only",
        "make it writable",
    ]);
    assert_eq!(world.in_namespace(&script("fim-perms list")).prints(), "");
    assert_eq!(world.in_namespace(&script("fim-boot show")).run().succeeds().text().lines().count(), 4);
    assert_eq!(opened(&world).generation, 1);
}

#[test]
fn file_systems_without_clones_will_do() {
    let world = World::new();
    // As on FAT, a clone is refused here, and the file must be written in place.
    let script = "set -e; mkdir there; mount -t tmpfs none there; cp \"$IMAGE\" there/a.com; cd there; \
                  for i in $(seq 20); do ./a.com fim-env add V$i=$i; done; ./a.com fim-env list | wc -l; ls -A";
    let outcome = world.in_namespace(script).run().succeeds().quietly();
    assert!(outcome.text().ends_with("20\na.com"), "{outcome:?}");
}

#[test]
fn an_image_that_is_replaced_under_an_instance_is_the_one_that_is_changed() {
    let world = World::new();
    let mut instance = waiting(&world);
    world::copy(world.image(), &world.path("next"));
    fs::rename(world.path("next"), world.image()).unwrap();
    let inode = fs::metadata(world.image()).unwrap().ino();
    world.app(&["fim-perms", "add", "network"]).run().succeeds().quietly();
    assert_eq!(fs::metadata(world.image()).unwrap().ino(), inode, "an idle file is written in place");
    assert_eq!(world.app(&["fim-perms", "list"]).prints(), "network");
    instance.say("still here\n");
    instance.expect("still here");
    instance.wait().succeeds();
}

#[test]
fn a_slot_of_a_newer_version_is_never_overwritten() {
    let world = World::new();
    let image = opened(&world);
    // The slot that the next change would take, as a newer fim would have written it, and not yet the newest.
    let bytes = fs::read(world.image()).unwrap();
    let from = image.superblock.slot_offset(image.slot) as usize;
    let len = u32::from_le_bytes(bytes[from + 16..][..4].try_into().unwrap()) as usize;
    let mut slot = bytes[from..from + 64 + len].to_vec();
    slot[20..24].copy_from_slice(&99_u32.to_le_bytes());
    let digest = blake3::Hasher::new().update(&slot[..32]).update(&slot[64..]).finalize();
    slot[32..64].copy_from_slice(digest.as_bytes());
    fs::write(world.path("slot"), slot).unwrap();
    let at = image.superblock.slot_offset(image.slot.other());
    let write = format!("dd if=slot of=\"$IMAGE\" bs=1 seek={at} conv=notrunc status=none");
    world.host_sh(&write).run().succeeds().quietly();
    let before = fs::read(world.image()).unwrap();
    world.app(&["fim-env", "add", "A=1"]).fails_naming(&["config version 99", "use a newer fim"]);
    assert!(fs::read(world.image()).unwrap() == before);
}
