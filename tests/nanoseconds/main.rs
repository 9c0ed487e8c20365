//! Times to the nanosecond through everything that writes and reads layers, and other readers of squashfs, which see whole
//! seconds.

#[path = "../harness/mod.rs"]
mod harness;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use harness::{FIM, TestCommand, World, layers, machine, need};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use runtime::source::FileRange;
use runtime::squashfs::Archive;

/// Name, mode, time in whole seconds, target and contents of everything below the working directory.
const LISTING: &str =
    "find . | sort | xargs stat -c '%n %a %Y'; find . -type f | sort | xargs md5sum; readlink times/link";

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

/// A layer of a directory whose names all have times of their own.
fn layer(world: &World) {
    let source = world.path("source");
    fs::create_dir_all(source.join("times/sub")).unwrap();
    for number in 0..3000 {
        let path = source.join(format!("times/sub/{number}"));
        fs::write(&path, format!("{number}\n")).unwrap();
        set_time(&path, 1_500_000_000 + number, 333_333 * number);
    }
    std::os::unix::fs::symlink("sub/7", source.join("times/link")).unwrap();
    fs::write(source.join("times/last"), "last\n").unwrap();
    for (name, seconds, nanoseconds) in [
        ("times/link", 1_600_000_000, 1),
        ("times/last", 1_600_000_000, 999_999_999),
        ("times/sub", 1_600_000_000, 123_456_789),
        ("times", 1_600_000_000, 0),
        ("", 1_600_000_001, 500_000_000),
    ] {
        set_time(&source.join(name), seconds, nanoseconds);
    }
    world.app(&["fim-layer", "create", "source", "times.layer", "--level", "0"]).run().succeeds();
}

/// What a guest sees of some of these times.
const STAT: &str = "cd /times && stat -c '%n %y' . link last sub sub/0 sub/1 sub/2999";
const SEEN: &str = ". 2020-09-13 12:26:40.000000000 +0000
link 2020-09-13 12:26:40.000000001 +0000
last 2020-09-13 12:26:40.999999999 +0000
sub 2020-09-13 12:26:40.123456789 +0000
sub/0 2017-07-14 02:40:00.000000000 +0000
sub/1 2017-07-14 02:40:01.000333333 +0000
sub/2999 2017-07-14 03:29:59.999665667 +0000";

/// The same in whole seconds.
fn whole(seen: &str) -> String {
    let cut = |line: &str| line.split_once('.').map(|(left, right)| (left.to_owned(), right.to_owned()));
    let line = |line: &str| {
        // The first point may be the name.
        let (name, time) = line.split_once(' ').unwrap();
        let (seconds, rest) = cut(time).unwrap();
        format!("{name} {seconds}.000000000{}", &rest[9..])
    };
    seen.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_way_to_a_guest_shows_them() {
    let world = World::new();
    layer(&world);
    let with = |name: &str, overlay: &str, script: &str| {
        let start = world.sh(script).env("FIM_LAYERS", name).env("FIM_OVERLAY", overlay);
        start.env("FIM_DIR_DATA", world.path(format!("data-{overlay}"))).prints()
    };
    for overlay in ["bwrap", "unionfs"] {
        assert_eq!(with("times.layer", overlay, STAT), SEEN, "{overlay}");
        // What is copied up for its mode keeps its time.
        let copied = format!("chmod 700 /times/sub /times/last /times/sub/1 && {STAT}");
        assert_eq!(with("times.layer", overlay, &copied), SEEN, "{overlay}");
        world.wait_for_end();
    }
    world.app(&["fim-layer", "add", "times.layer"]).run().succeeds();
    assert_eq!(world.sh(STAT).prints(), SEEN, "verified");
    world.wait_for_end();
    // Another layer over it that differs in nanoseconds alone, and both in one.
    world.root_sh("touch -r /times/sub /times/last").run().succeeds();
    let difference = world.app(&["fim-layer", "diff"]).prints();
    assert!(difference.lines().any(|line| line == "M:5:5:/times/last"), "{difference}");
    assert!(!difference.contains("/times/sub"), "{difference}");
    world.app(&["fim-layer", "commit", "binary", "--level", "0"]).run().succeeds();
    let changed = SEEN.replace("999999999", "123456789");
    assert_eq!(world.sh(STAT).prints(), changed, "committed");
    world.wait_for_end();
    world.app(&["fim-layer", "squash", "binary", "--level", "0"]).run().succeeds();
    assert_eq!(world.sh(STAT).prints(), changed, "merged");
    TestCommand::new(FIM).args(["extract", "-q"]).arg(world.image()).arg(world.path("out")).run().succeeds();
    let script = format!("cd out && {}", STAT.replace("cd /times", "cd times"));
    assert_eq!(world.host_sh(&script).env("TZ", "UTC").prints(), changed, "extracted");
}

#[test]
fn other_readers_see_the_same_tree_in_whole_seconds() {
    let world = World::new();
    layer(&world);
    let expected = world.host_sh(&format!("cd source; {LISTING}")).prints();
    assert!(expected.lines().count() > 3000 && expected.contains("./times/last 644 1600000000"), "{expected}");

    need("unsquashfs");
    world.host_sh("unsquashfs -no-progress -d unpacked times.layer > /dev/null").run().succeeds();
    assert_eq!(world.host_sh(&format!("cd unpacked; {LISTING}")).prints(), expected, "unsquashfs");

    need("squashfuse");
    let script = format!("mkdir mounted; squashfuse times.layer mounted; cd mounted; {LISTING}; cd ..; umount mounted");
    assert_eq!(world.in_namespace(&script).prints(), expected, "squashfuse");

    let (disk, _) = machine::padded(&world, &world.path("times.layer"));
    let files: [(&str, &[u8]); 2] = [("cases.sh", include_bytes!("cases.sh")), ("listing.sh", LISTING.as_bytes())];
    let told = machine::run(&world, &[disk], &files);
    let case = &told["squashfs"];
    assert_eq!((case.code, case.stderr.as_str()), (0, ""), "the kernel");
    layers::assert_same(&expected, case.stdout.trim_end(), "the kernel");

    // A layer that another tool goes on with has a table no more, and is none the worse for it.
    fs::create_dir(world.path("more")).unwrap();
    fs::write(world.path("more/another"), "file").unwrap();
    need("mksquashfs");
    world.host_sh("mksquashfs more times.layer -no-progress -quiet > /dev/null").run().succeeds();
    assert_eq!(
        world.sh(&format!("{STAT}; cat /another")).env("FIM_LAYERS", "times.layer").prints(),
        whole(SEEN) + "\nfile"
    );
}

#[test]
fn a_damaged_table_costs_fractions_only_and_is_told_once() {
    let world = World::new();
    layer(&world);
    let mut bytes = fs::read(world.path("times.layer")).unwrap();
    let end = u64::from_le_bytes(bytes[64..72].try_into().unwrap()) as usize;
    assert_eq!(bytes[end - 32..end - 24], *b"FIMNSEC\n");
    bytes[end - 1] ^= 1;
    fs::write(world.path("damaged.layer"), &bytes).unwrap();
    for overlay in ["bwrap", "unionfs"] {
        let data = world.path(format!("data-{overlay}"));
        let start = world.sh(&format!("{STAT}; chmod 700 /times/last; cat /times/last; ls /times/sub | wc -l"));
        let start = start.env("FIM_LAYERS", "damaged.layer").env("FIM_OVERLAY", overlay).env("FIM_DIR_DATA", &data);
        assert_eq!(start.prints(), whole(SEEN) + "\nlast\n3000", "{overlay}");
        world.wait_for_end();
        let told = fs::read_to_string(data.join("errors.log")).unwrap();
        let lines: Vec<&str> = told.lines().filter(|line| line.contains("nanosecond table at byte")).collect();
        assert!(lines.len() == 1 && lines[0].contains("layer 1"), "{told}");
    }
    // Who would make something lasting of it is told what is wrong.
    let refused = |words: &[&str]| {
        world.app(words).env("FIM_LAYERS", "damaged.layer").fails_naming(&["nanosecond table", "checksum"]);
    };
    world.app(&["fim-layer", "add", "damaged.layer"]).run().succeeds();
    refused(&["fim-layer", "extract", "1", "out"]);
    refused(&["fim-layer", "squash", "binary"]);
    refused(&["fim-oci", "export", "out.tar"]);
}

#[test]
fn a_build_to_be_reproduced_has_whole_seconds() {
    let world = World::new();
    layer(&world);
    let create = |name: &str, epoch: Option<&str>| {
        let create = world.app(&["fim-layer", "create", "source", name, "--level", "0"]);
        match epoch {
            Some(epoch) => create.env("SOURCE_DATE_EPOCH", epoch),
            None => create,
        }
        .run()
        .succeeds();
        let archive = Arc::new(File::open(world.path(name)).unwrap());
        let archive = Archive::open(Arc::new(FileRange::whole(archive).unwrap())).unwrap();
        archive.time(&archive.inode(archive.root()).unwrap()).unwrap()
    };
    let root = create("exact.layer", None);
    assert_eq!((root.seconds, root.nanoseconds), (1_600_000_001, 500_000_000));
    let root = create("fixed.layer", Some("1600000000"));
    assert_eq!((root.seconds, root.nanoseconds), (1_600_000_000, 0));
    // Whatever the fractions were.
    let source = File::open(world.path("source/times/last")).unwrap();
    source.set_modified(UNIX_EPOCH + Duration::new(1_600_000_000, 5)).unwrap();
    create("again.layer", Some("1600000000"));
    assert!(fs::read(world.path("fixed.layer")).unwrap() == fs::read(world.path("again.layer")).unwrap());
}
