//! Content that images share: the documentation's own examples, and how it appears.

mod harness;

use std::fs;

use harness::content::{connect, consumer, content, image, on, producer, waiting};
use harness::{World, world};

const HELLO: &str = "#!/bin/sh\necho hello from the producer\n";

#[test]
fn sharing_an_executable() {
    let world = World::new();
    image(&world, "producer.flatimage", &[("bin/hello", HELLO), ("secret", "not shared")], &[]);
    on(&world, "producer.flatimage", &["fim-content", "slot", "slot-name", "--content", "executables"])
        .args(["--read", "$SNAP/bin"])
        .run()
        .succeeds()
        .quietly();
    content(&world, &["plug", "plug-name", "--content", "executables", "--target", "$SNAP/extra-bin"]).run().succeeds();
    let connected = content(&world, &["connect", "plug-name", "producer.flatimage"]).prints();
    assert_eq!(
        connected,
        format!("plug-name is connected to {}:slot-name", world.path("producer.flatimage").display())
    );
    // From $SNAP/extra-bin, in the PATH, and where that is in the root.
    assert_eq!(world.sh("$FIM_ROOT_DIR/extra-bin/hello").prints(), "hello from the producer");
    assert_eq!(world.sh("PATH=$PATH:$FIM_ROOT_DIR/extra-bin; hello").prints(), "hello from the producer");
    assert_eq!(world.root_sh("/extra-bin/hello; ls /extra-bin; ls /secret 2>&1").run().text().lines().count(), 3);
    // It is read-only, also for root, and nothing stays of it.
    let outcome = world.root_sh("touch /extra-bin/x; rm /extra-bin/hello").run().exits(1);
    assert_eq!(outcome.stderr().matches("Read-only file system").count(), 2, "{outcome:?}");
    world.assert_nothing_left();
    assert!(!world.upper("extra-bin").exists());
    assert!(!world.path(".producer.flatimage.data").exists(), "nothing of it is for writing");
    // The application can see whether it is connected, and fail gracefully.
    content(&world, &["disconnect", "plug-name"]).run().succeeds().quietly();
    world
        .sh("true")
        .fails_naming(&["the plug 'plug-name' (content 'executables') has no producer", "fim-content connect"]);
}

#[test]
fn sharing_a_library() {
    let world = World::new();
    image(&world, "lib01604.flatimage", &[("lib/libzero.so.0", "library 0"), ("lib/deep/x", "x")], &[]);
    // The content is the slot's or plug's own name when none is given.
    on(&world, "lib01604.flatimage", &["fim-content", "slot", "lib0-1604", "--read", "$SNAP/lib"]).run().succeeds();
    content(&world, &["plug", "lib0-1604", "--target", "$SNAP/extra-libs"]).run().succeeds();
    content(&world, &["connect", "lib0-1604", "./lib01604.flatimage"]).run().succeeds();
    assert_eq!(world.sh("cat $FIM_ROOT_DIR/extra-libs/libzero.so.0; cat /extra-libs/deep/x").prints(), "library 0x");
}

#[test]
fn using_source() {
    let world = consumer("$SNAP/shared-bin", &[]);
    for (name, says) in [("one.flatimage", "#!/bin/sh\necho one\n"), ("two.flatimage", "#!/bin/sh\necho two\n")] {
        producer(&world, name, &[("bin/run", says)], &["--read", "$SNAP/bin", "--source"]);
    }
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("$FIM_ROOT_DIR/shared-bin/bin/run").prints(), "one");
    connect(&world, "two.flatimage");
    let both = "cd $FIM_ROOT_DIR/shared-bin; ls; bin/run; bin-2/run";
    assert_eq!(world.sh(both).prints(), "bin\nbin-2\none\ntwo");
    // Names are preserved, in whatever order things are connected later.
    content(&world, &["disconnect", "p", "one.flatimage"]).run().succeeds();
    assert_eq!(world.sh("ls /shared-bin").prints(), "bin-2");
    connect(&world, "one.flatimage");
    assert_eq!(world.sh(both).prints(), "bin\nbin-2\none\ntwo");
    world.root_sh("touch /shared-bin/x").run().exits(1).complains_of(&["Read-only"]);
}

#[test]
fn sharing_writable_files() {
    let world = consumer("$SNAP_DATA", &[]);
    world::copy(world.image(), &world.path("producer.flatimage"));
    let slot = ["fim-content", "slot", "s", "--content", "c", "--write", "$SNAP_DATA"];
    on(&world, "producer.flatimage", &slot).run().succeeds();
    on(&world, "producer.flatimage", &["fim-content", "unplug", "p"]).run().succeeds();
    connect(&world, "producer.flatimage");
    // The producer has never run.
    world.sh("echo consumer > $FIM_DATA/one").run().succeeds().quietly();
    let produce = |script: &str| on(&world, "producer.flatimage", &["fim-exec", "sh", "-c", script]);
    assert_eq!(produce("cat $FIM_DATA/one; echo producer > $FIM_DATA/two").prints(), "consumer");
    assert_eq!(world.sh("cat $FIM_DATA/two").prints(), "producer");
    // Both at once, both ways.
    let mut running = waiting(produce("echo ready; read line; cat $FIM_DATA/three; echo four > $FIM_DATA/four"));
    world.sh("echo three > $FIM_DATA/three").run().succeeds();
    running.say("go\n");
    running.expect("three");
    running.wait().succeeds();
    assert_eq!(world.sh("cat $FIM_DATA/four").prints(), "four");
    // The common files of the two stay apart.
    world.sh("echo mine > $FIM_COMMON/x").run().succeeds();
    produce("ls $FIM_COMMON/x").run().exits(1);
}

#[test]
fn sharing_sockets() {
    let world = consumer("$SNAP_DATA", &[]);
    world::copy(world.image(), &world.path("producer.flatimage"));
    on(&world, "producer.flatimage", &["fim-content", "unplug", "p"]).run().succeeds();
    let slot = ["fim-content", "slot", "socket-directory", "--content", "c", "--write", "$SNAP_DATA"];
    on(&world, "producer.flatimage", &slot).run().succeeds();
    connect(&world, "producer.flatimage");
    let produce = |words: &[&str]| on(&world, "producer.flatimage", &["fim-exec"]).args(words);
    let server = waiting(produce(&["sh", "-c", "exec probe serve $FIM_DATA/socket"]));
    assert_eq!(world.sh("probe talk $FIM_DATA/socket hello").prints(), "heard hello");
    server.wait().succeeds();
    // The other way round.
    let server = waiting(world.sh("exec probe serve $FIM_DATA/socket"));
    assert_eq!(produce(&["sh", "-c", "probe talk $FIM_DATA/socket back"]).prints(), "heard back");
    server.wait().succeeds();
}

#[test]
fn a_single_file_or_socket_is_as_easy_as_a_directory() {
    let world = consumer("$FIM_ROOT_DIR/etc/theme.conf", &[]);
    producer(&world, "one.flatimage", &[("etc/a.conf", "theme")], &["--read", "$FIM_ROOT_DIR/etc/a.conf"]);
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /etc/theme.conf; ls /etc | grep -c theme").prints(), "theme1");
    world.assert_nothing_left();
    assert!(!world.upper("etc/theme.conf").exists());
    // A socket that is there.
    content(&world, &["plug", "socket", "--target", "$FIM_COMMON/its.socket"]).run().succeeds();
    world::copy(world.image(), &world.path("server.flatimage"));
    for name in ["p", "socket"] {
        on(&world, "server.flatimage", &["fim-content", "unplug", name]).run().succeeds();
    }
    let slot = ["fim-content", "slot", "socket", "--write", "$FIM_COMMON/own.socket"];
    on(&world, "server.flatimage", &slot).run().succeeds();
    content(&world, &["connect", "socket", "server.flatimage"]).run().succeeds();
    world.sh("true").fails_naming(&["$FIM_COMMON/own.socket", "no such file", "start the producer first"]);
    let serve = ["fim-exec", "sh", "-c", "exec probe serve $FIM_COMMON/own.socket"];
    let server = waiting(on(&world, "server.flatimage", &serve));
    assert_eq!(world.sh("probe talk $FIM_COMMON/its.socket hello").prints(), "heard hello");
    server.wait().succeeds();
}

#[test]
fn every_element_of_a_list_is_shared_and_directories_are_merged() {
    let world = consumer("$FIM_ROOT_DIR/opt/all", &[]);
    let files = [("a/both", "a"), ("a/one", "1"), ("a/deep/x", "x"), ("b/both", "b"), ("b/two", "2"), ("c.conf", "c")];
    let paths = ["--read", "$FIM_ROOT_DIR/a", "--read", "$FIM_ROOT_DIR/b", "--read", "$FIM_ROOT_DIR/c.conf"];
    producer(&world, "first.flatimage", &files, &paths);
    producer(
        &world,
        "second.flatimage",
        &[("a/three", "3"), ("a/both", "no"), ("a/deep/y", "y"), ("c.conf", "other")],
        &["--read", "$FIM_ROOT_DIR/a", "--read", "$FIM_ROOT_DIR/c.conf"],
    );
    connect(&world, "first.flatimage");
    assert_eq!(world.sh("cd /opt/all; ls; cat both one two c.conf").prints(), "both\nc.conf\ndeep\none\ntwo\na12c");
    connect(&world, "second.flatimage");
    let script = "cd /opt/all; ls; cat both one two three c.conf c.conf-2; ls deep";
    let merged = "both\nc.conf\nc.conf-2\ndeep\none\nthree\ntwo\na123cotherx\ny";
    assert_eq!(world.sh(script).prints(), merged);
    world.root_sh("touch /opt/all/new").run().exits(1).complains_of(&["Read-only"]);
    // What is written is never merged: each has its own name.
    on(&world, "second.flatimage", &["fim-content", "slot", "w", "--content", "c", "--write", "$FIM_COMMON/box/"])
        .run()
        .succeeds();
    content(&world, &["connect", "p", "second.flatimage:w"]).run().succeeds();
    assert_eq!(world.sh("cd /opt/all; echo new > box/file; cat box/file one; ls | grep -c .").prints(), "new\n18");
    let data = world.path(".second.flatimage.data/files/common/system/box/file");
    assert_eq!(fs::read_to_string(data).unwrap(), "new\n");
    world.assert_nothing_left();
}

#[test]
fn two_images_may_use_each_other() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    world::copy(world.image(), &world.path("other.flatimage"));
    for image in ["app.flatimage", "other.flatimage"] {
        let slot = ["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/etc", "--write", "$SNAP_COMMON"];
        on(&world, image, &slot).run().succeeds();
    }
    connect(&world, "other.flatimage");
    on(&world, "other.flatimage", &["fim-content", "connect", "p", "app.flatimage"]).run().succeeds();
    let mut running = waiting(world.sh("echo mine > $FIM_COMMON/f; echo ready; read line; cat /x/common/g"));
    // The plugs of the other are not followed.
    let script = "cat /x/common/f; echo theirs > $FIM_COMMON/g; ls /x";
    let listed = on(&world, "other.flatimage", &["fim-exec", "sh", "-c", script]).prints();
    assert_eq!(listed, "mine\ncommon\nrelease");
    running.say("go\n");
    running.expect("theirs");
    running.wait().succeeds();
    // Even itself.
    content(&world, &["disconnect", "p"]).run().succeeds();
    connect(&world, "app.flatimage");
    assert_eq!(world.sh("cat /x/common/f").prints(), "mine");
}

#[test]
fn every_kind_of_start_gets_it() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    producer(&world, "one.flatimage", &[("d/f", "one")], &["--read", "$FIM_ROOT_DIR/d"]);
    producer(&world, "two.flatimage", &[("e/g", "two")], &["--read", "$FIM_ROOT_DIR/e", "--write", "$FIM_COMMON"]);
    connect(&world, "one.flatimage");
    let script = "cd /x; cat f";
    assert_eq!(world.sh(script).env("FIM_OVERLAY", "unionfs").prints(), "one");
    connect(&world, "two.flatimage");
    let script = "cd /x; cat f e/g 2>/dev/null; cat g 2>/dev/null; ls";
    let expected = "onetwocommon\nf\ng";
    for command in [
        world.sh(script),
        world.root_sh(script),
        world.sh(script).env("FIM_OVERLAY", "unionfs"),
        world.app(&["fim-exec", "--ephemeral", "sh", "-c", script]),
        world.app(&["-c", script]),
        world.sh(script).env("FIM_CASEFOLD", "1"),
    ] {
        let outcome = command.run();
        assert_eq!(outcome.text(), expected, "{outcome:?}");
        world.wait_for_end();
    }
    world.assert_nothing_left();
    let left: Vec<_> = fs::read_dir(world.upper("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "x"), "{left:?}");
}

#[test]
fn files_that_a_producer_writes_can_be_shared_for_reading() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    world::copy(world.image(), &world.path("server.flatimage"));
    on(&world, "server.flatimage", &["fim-content", "unplug", "p"]).run().succeeds();
    let slot = ["fim-content", "slot", "s", "--content", "c", "--read", "$FIM_COMMON/pub/"];
    on(&world, "server.flatimage", &slot).run().succeeds();
    connect(&world, "server.flatimage");
    let produce = |script: &str| on(&world, "server.flatimage", &["fim-exec", "sh", "-c", script]).run().succeeds();
    let mut running = waiting(world.sh("echo ready; read line; cat /x/f; touch /x/g; echo > /x/f"));
    produce("echo new > $FIM_COMMON/pub/f");
    running.say("go\n");
    running.expect("new");
    let outcome = running.wait().exits(1);
    assert_eq!(outcome.stderr().matches("Read-only file system").count(), 2, "{outcome:?}");
    // Beside files of applications, and below a name of its own.
    world.wait_for_end();
    producer(&world, "one.flatimage", &[("d/g", "g")], &["--read", "$SNAP/d"]);
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /x/f /x/g").prints(), "new\ng");
    world.root_sh("echo > /x/f").run().exits(1).complains_of(&["Read-only"]);
}
