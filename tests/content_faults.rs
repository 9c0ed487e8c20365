//! Producers that are missing, damaged or hostile, and plugs that have no place.

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

use harness::content::{connect, consumer, content, image, on, producer, waiting};
use harness::process::position;
use harness::{World, is_root, world};

/// A file that no compressor shortens, so that it stands in an image as it is.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    };
    (0..128 * 1024).flat_map(|_| word()).collect()
}

/// A producer with `d/first` and `d/noise`, connected to a consumer that shows them at `/x`.
fn with_noise() -> (World, Vec<u8>) {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    let (tree, noise) = (world.path("one.flatimage.tree"), noise(7));
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d/noise"), &noise).unwrap();
    producer(&world, "one.flatimage", &[("d/first", "first")], &["--read", "$FIM_ROOT_DIR/d"]);
    connect(&world, "one.flatimage");
    (world, noise)
}

#[test]
fn a_missing_producer_is_one_error_that_says_where_it_was_looked_for() {
    let world = consumer("$FIM_ROOT_DIR/x", &["--default-provider", "provider.flatimage"]);
    world.sh("true").fails_naming(&[
        "the plug 'p' (content 'c') has no producer",
        "nothing is connected",
        &format!("no image in {} has a slot for it", world.path("").display().to_string().trim_end_matches('/')),
        &format!("default provider {} does not exist", world.path("provider.flatimage").display()),
        "fim-content connect p FILE",
    ]);
    assert!(!world.data().exists(), "nothing was begun");
    // A connection whose producer has gone.
    producer(&world, "one.flatimage", &[("d/f", "x")], &["--read", "$FIM_ROOT_DIR/d"]);
    connect(&world, "one.flatimage");
    fs::rename(world.path("one.flatimage"), world.path("moved")).unwrap();
    for _ in 0..2 {
        world.sh("true").fails_naming(&["'p'", "connected to", "one.flatimage:s", "No such file", "disconnect p"]);
    }
    let shown = content(&world, &["connections"]).prints();
    assert!(shown.starts_with("p:c:-:the plug 'p'") && shown.contains("No such file"), "{shown}");
    fs::rename(world.path("moved"), world.path("one.flatimage")).unwrap();
    world.sh("cat /x/f").run().succeeds();
}

#[test]
fn an_optional_plug_starts_without() {
    let world = consumer("$FIM_ROOT_DIR/x", &["--optional"]);
    assert_eq!(world.sh("ls -d /x 2>/dev/null || echo without").prints(), "without");
    producer(&world, "one.flatimage", &[("d/f", "x")], &["--read", "$FIM_ROOT_DIR/d"]);
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /x/f").prints(), "x");
    // One that is wrong is not passed over in silence.
    fs::write(world.path("one.flatimage"), "junk").unwrap();
    let outcome = world.sh("ls -d /x 2>/dev/null || echo without").run().succeeds().with_stdout("without\n");
    outcome.complains_of(&["warning: the optional plug 'p' gets nothing", "one.flatimage"]);
}

#[test]
fn a_producer_that_goes_bad_is_an_error_for_who_reads_it() {
    let (world, noise) = with_noise();
    let path = world.path("one.flatimage");
    let at = position(&fs::read(&path).unwrap(), &noise[600_000..600_064]).unwrap() as u64;
    // Deleted or replaced while it is in use: what was started goes on.
    let mut running = waiting(world.sh("cat /x/first; echo ready; read line; cat /x/noise | wc -c; echo read; cat"));
    fs::rename(&path, world.path("kept")).unwrap();
    running.say("go\n");
    running.expect(&noise.len().to_string());
    running.expect("read");
    world.sh("true").fails_naming(&["one.flatimage", "No such file"]);
    running.close_stdin();
    running.wait().succeeds();
    world.wait_for_end();
    // A block that changes under it is never shown, and the consumer goes on.
    fs::rename(world.path("kept"), &path).unwrap();
    let script = "echo ready; read line; cat /x/noise > /dev/null || echo failed; cat /x/first; echo goes on";
    let mut running = waiting(world.sh(script));
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[noise[600_010] ^ 1], at + 10).unwrap();
    running.say("go\n");
    running.expect("failed");
    running.expect("first");
    running.expect("goes on");
    running.wait().succeeds().complains_of(&["cat: read error: I"]);
    world.wait_for_end();
    // Cut off in use.
    let mut running = waiting(world.sh("echo ready; read line; cat /x/noise > /dev/null || echo failed; echo goes on"));
    file.set_len(at).unwrap();
    running.say("go\n");
    running.expect("failed");
    running.expect("goes on");
    running.wait().succeeds();
    world.wait_for_end();
    // The next start is refused.
    world.sh("true").fails_naming(&["one.flatimage"]);
    world.assert_nothing_left();
}

#[test]
fn a_damaged_producer_never_hangs_or_ends_anything_else() {
    let (world, _) = with_noise();
    let path = world.path("one.flatimage");
    let pristine = fs::read(&path).unwrap();
    let steps = 16;
    for step in 0..steps {
        // From the end of the program on; before it, there is what a producer is never used for.
        let payload = pristine.len() - pristine.len() / 4;
        let mut bytes = pristine.clone();
        bytes[payload + (pristine.len() - payload - 1) * step / (steps - 1)] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        let start = world.sh("find /x -type f -exec cat {} + > /dev/null; echo goes on").run();
        match start.status.code() {
            Some(125) => assert!(start.stderr().starts_with("fim: "), "{start:?}"),
            Some(0) => assert_eq!(start.text(), "goes on"),
            _ => panic!("{start:?}"),
        }
    }
    fs::write(&path, &pristine[..pristine.len() - 5000]).unwrap();
    world.sh("true").fails_naming(&["one.flatimage"]);
}

#[test]
fn paths_of_a_slot_stay_in_the_producer() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    let tree = world.path("one.flatimage.tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    // Links in the files of the application are those of its own root.
    for (to, name) in [("/d", "absolute"), ("../../../../d", "up"), ("d/inner", "chain"), ("/proc/self/root", "magic")]
    {
        symlink(to, tree.join(name)).unwrap();
    }
    symlink("/absolute", tree.join("d/inner")).unwrap();
    symlink("loop", tree.join("loop")).unwrap();
    symlink("/etc/passwd", tree.join("host")).unwrap();
    producer(&world, "one.flatimage", &[("d/f", "its own")], &["--read", "$FIM_ROOT_DIR/absolute"]);
    for link in ["absolute", "up", "chain"] {
        on(&world, "one.flatimage", &["fim-content", "unslot", "s"]).run().succeeds();
        let slot = ["fim-content", "slot", "s", "--content", "c", "--read", &format!("$FIM_ROOT_DIR/{link}")];
        on(&world, "one.flatimage", &slot).run().succeeds();
        connect(&world, "one.flatimage");
        assert_eq!(world.sh("cat /x/f").prints(), "its own", "{link}");
    }
    for link in ["magic", "loop", "host", "none", "d/f/x"] {
        on(&world, "one.flatimage", &["fim-content", "unslot", "s"]).run().succeeds();
        let slot = ["fim-content", "slot", "s", "--content", "c", "--read", &format!("$FIM_ROOT_DIR/{link}")];
        on(&world, "one.flatimage", &slot).run().succeeds();
        connect(&world, "one.flatimage");
        world.sh("true").fails_naming(&["the slot 's' of", "one.flatimage", link, "no such file in the producer"]);
    }
    // Links in its data, which its guest has made.
    fs::write(world.path("secret"), "secret").unwrap();
    on(&world, "one.flatimage", &["fim-content", "unslot", "s"]).run().succeeds();
    let slot = ["fim-content", "slot", "s", "--content", "c", "--write", "$FIM_COMMON/box/", "--read", "$FIM_DATA/f"];
    on(&world, "one.flatimage", &slot).run().succeeds();
    connect(&world, "one.flatimage");
    world.sh("true").fails_naming(&["$FIM_DATA/f", "no such file"]);
    let files = world.path(".one.flatimage.data/files");
    fs::write(files.join("1/system/f"), "file").unwrap();
    assert_eq!(world.sh("cat /x/f; ls /x").prints(), "filebox\nf");
    assert!(files.join("common/system/box").is_dir(), "it was to be made");
    for (place, shown) in [("1/system/f", "$FIM_DATA/f"), ("common/system/box", "$FIM_COMMON/box/")] {
        for to in [world.path("secret").to_str().unwrap(), "../../../../secret", "/proc/self/root", "/"] {
            let path = files.join(place);
            let kept = path.with_extension("kept");
            fs::rename(&path, &kept).unwrap();
            symlink(to, &path).unwrap();
            world.sh("cat /x/f /x/box/*").fails_naming(&[shown, "leads out"]);
            fs::remove_file(&path).unwrap();
            fs::rename(&kept, &path).unwrap();
        }
    }
    assert_eq!(world.sh("cat /x/f").prints(), "file");
}

#[test]
fn what_is_shared_has_no_privileges_and_no_devices() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    producer(&world, "one.flatimage", &[("d/f", "x")], &["--read", "$SNAP/d", "--write", "$FIM_COMMON"]);
    connect(&world, "one.flatimage");
    let flags = world.sh("grep ' /x' /proc/self/mountinfo").prints();
    assert!(flags.lines().all(|line| line.contains("nosuid") && line.contains("nodev")), "{flags}");
    // The guest cannot undo it.
    world.root_sh("umount /x/common || umount /x || mount -o remount,rw /x").run().exits(1);
}

#[test]
fn a_plug_needs_a_place() {
    let world = World::with_tree(
        |tree| {
            fs::write(tree.join("taken"), "file").unwrap();
            fs::create_dir(tree.join("directory")).unwrap();
            symlink("/proc/1", tree.join("to-proc")).unwrap();
            symlink("/run/fim", tree.join("to-run")).unwrap();
            symlink("usr/share", tree.join("to-share")).unwrap();
            symlink("/dev/none", tree.join("dangling")).unwrap();
        },
        &[],
    );
    producer(&world, "one.flatimage", &[("d/f", "content")], &["--read", "$SNAP/d"]);
    on(&world, "one.flatimage", &["fim-content", "slot", "file", "--read", "$SNAP/d/f"]).run().succeeds();
    let plug = |content_id: &str, target: &str| {
        let _ = content(&world, &["unplug", "p"]).run();
        content(&world, &["plug", "p", "--content", content_id, "--target", target]).run().succeeds();
        connect(&world, "one.flatimage");
    };
    for (content_id, target, complaints) in [
        ("c", "$SNAP/taken", &["there is a file of the image, and the plug gets a directory"][..]),
        ("file", "$SNAP/directory", &["there is a directory of the image, and the plug gets a file"]),
        ("c", "$SNAP/to-proc/x", &["a link leads to /proc", "the instance's own"]),
        ("c", "$SNAP/to-run/data", &["a link leads to /run/fim", "the instance's own"]),
        ("c", "$SNAP/taken/x", &["Not a directory"]),
        ("c", "$SNAP/dangling", &["/dangling"]),
    ] {
        plug(content_id, target);
        let complaints = [&["the plug 'p' cannot be put at", "fim-content unplug p"], complaints].concat();
        world.sh("true").fails_naming(&complaints);
        world.wait_for_end();
        assert_eq!(fs::metadata(world.data().join("mount-points")).unwrap().len(), 0, "{target}");
    }
    // A link within the image is no matter.
    plug("c", "$SNAP/to-share/x");
    assert_eq!(world.sh("cat /usr/share/x/f $FIM_ROOT_DIR/usr/share/x/f").prints(), "contentcontent");
    // What the image has there shows again without the plug.
    plug("file", "$SNAP/taken");
    assert_eq!(world.sh("cat /taken").prints(), "content");
    content(&world, &["unplug", "p"]).run().succeeds();
    content(&world, &["inherit"]).run().succeeds();
    assert_eq!(world.sh("cat /taken").prints(), "file");
    world.assert_nothing_left();
}

#[test]
fn plugs_within_plugs() {
    let world = consumer("$FIM_COMMON/outer", &[]);
    content(&world, &["plug", "a", "--content", "c", "--target", "$FIM_COMMON/outer/inner"]).run().succeeds();
    producer(&world, "one.flatimage", &[("d/inner/f", "outer"), ("d/g", "g")], &["--read", "$SNAP/d"]);
    producer(&world, "two.flatimage", &[("d/f", "inner")], &["--read", "$SNAP/d"]);
    connect(&world, "one.flatimage");
    content(&world, &["connect", "a", "two.flatimage"]).run().succeeds();
    assert_eq!(world.sh("cd $FIM_COMMON/outer; cat g inner/f").prints(), "ginner");
}

#[test]
fn permission_denied_is_said() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    producer(&world, "one.flatimage", &[("d/f", "x")], &["--read", "$SNAP/d"]);
    connect(&world, "one.flatimage");
    fs::set_permissions(world.path("one.flatimage"), fs::Permissions::from_mode(0o000)).unwrap();
    if is_root() {
        // Modes are nothing to root.
        assert_eq!(world.sh("cat /x/f").prints(), "x");
    } else {
        world.sh("true").fails_naming(&["'p'", "one.flatimage", "Permission denied"]);
    }
}

#[test]
fn a_hundred_producers() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    producer(&world, "0.flatimage", &[("d/f0", "x")], &["--read", "$SNAP/d"]);
    connect(&world, "0.flatimage");
    for number in 1..100 {
        // The same image by other names is as good as others; every tenth is one that has its own name.
        let name = format!("{number}.flatimage");
        if number % 10 > 0 {
            fs::hard_link(world.path("0.flatimage"), world.path(&name)).unwrap();
        } else {
            world::copy(&world.path("0.flatimage"), &world.path(&name));
            on(&world, &name, &["fim-content", "unslot", "s"]).run().succeeds();
            let slot = ["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/d", "--source"];
            on(&world, &name, &slot).run().succeeds();
        }
        connect(&world, &name);
    }
    assert_eq!(world.sh("cd /x; ls | wc -l; cat f0; cat d-9/f0; ls -d d-10 2>/dev/null").run().text(), "10\nxx");
    world.assert_nothing_left();
}

#[test]
fn more_producers_than_files_may_be_open() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    producer(&world, "0.flatimage", &[("d/f", "f")], &["--read", "$SNAP/d"]);
    let script = "for n in $(seq 80); do ln 0.flatimage $n.flatimage; $IMAGE fim-content connect p $n.flatimage; done";
    world.host_sh(script).run().succeeds();
    let refused = world.host_sh("ulimit -n 64; exec $IMAGE fim-exec true").fails_naming(&[
        "the producer",
        ".flatimage cannot be used",
        "Too many open files",
        "at most 64 files",
        "ulimit -n",
    ]);
    assert!(!refused.stderr().contains("connect"), "another producer would not help: {refused:?}");
    // Whatever it is that finds none left.
    for limit in 84..92 {
        let outcome = world.host_sh(&format!("ulimit -n {limit}; exec $IMAGE fim-exec true")).run();
        let told = outcome.stderr();
        let words = ["Too many open files", &format!("at most {limit} files"), "ulimit -n"];
        assert!(outcome.status.success() || words.iter().all(|word| told.contains(word)), "{outcome:?}");
    }
    world.assert_nothing_left();
    // A soft limit is raised, but not for the guest.
    let script = "ulimit -Sn 64; ulimit -Hn 1000; exec $IMAGE fim-exec sh -c 'cat /x/f; echo; ulimit -Sn; ulimit -Hn; echo ready; cat'";
    let mut running = waiting(world.host_sh(script));
    assert_eq!(world.app(&["fim-instance", "exec", "0", "sh", "-c", "ulimit -Sn; ulimit -Hn"]).prints(), "64\n1000");
    running.close_stdin();
    running.wait().succeeds().quietly().with_stdout("f\n64\n1000\nready\n");
}

#[test]
fn a_producer_with_many_layers_is_what_they_show_together() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    world::copy(world.image(), &world.path("one.flatimage"));
    on(&world, "one.flatimage", &["fim-content", "unplug", "p"]).run().succeeds();
    let slot = ["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/usr/share/dir"];
    on(&world, "one.flatimage", &slot).run().succeeds();
    for script in
        ["rm /usr/share/dir/one; echo 2 > /usr/share/dir/two", "rm -r /usr/share/dir/deep; mkdir /usr/share/dir/deep"]
    {
        on(&world, "one.flatimage", &["fim-root", "sh", "-c", script]).run().succeeds();
        on(&world, "one.flatimage", &["fim-layer", "commit", "binary"]).run().succeeds();
    }
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cd /x; cat two; find . | sort").prints(), "2\n.\n./deep\n./two");
    // Merged with another, it takes nothing from that.
    producer(&world, "two.flatimage", &[("d/one", "other"), ("d/deep/f", "f")], &["--read", "$SNAP/d"]);
    connect(&world, "two.flatimage");
    assert_eq!(world.sh("cd /x; cat one; find . | sort").prints(), "other.\n./deep\n./deep/f\n./one\n./two");
}

#[test]
fn junk_is_no_producer() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    world
        .host_sh("mkfifo pipe; cp /bin/true elf; head -c 1000 app.flatimage > head; ln -s gone dangling; touch empty")
        .run();
    for name in ["pipe", "elf", "head", "dangling", "empty", "/dev/zero", "."] {
        content(&world, &["connect", "p", name]).fails_naming(&[
            "the producer",
            name.trim_start_matches('.'),
            "cannot be used",
        ]);
    }
    assert!(!world.data().exists());
    // A tree is an image without slots.
    image(&world, "plain.flatimage", &[("f", "x")], &[]);
    content(&world, &["connect", "p", "plain.flatimage"]).fails_naming(&["no slot for content 'c'", "it has no slots"]);
}

#[test]
fn a_session_that_is_killed_leaves_nothing() {
    let (world, _) = with_noise();
    for killed in [&["fim-mount"][..], &["fim-host", "fim-mount"]] {
        let running = waiting(world.sh("cat /x/first; echo ready; cat"));
        let tree = running.tree();
        killed.iter().for_each(|name| tree.named(name).kill());
        running.wait_as_it_is();
        tree.wait_gone();
        world.assert_no_mounts();
        assert_eq!(world.sh("cat /x/first").prints(), "first");
        world.assert_nothing_left();
        assert!(!world.upper("x").exists());
    }
}
