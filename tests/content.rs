//! Content that images share: the documentation's own examples, and what can go wrong.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::{FIM, Running, TestCommand, World, world};

/// An image at `name` in the world, of a tree with these files, which prints their own names where they are programs.
fn image(world: &World, name: &str, files: &[(&str, &str)], options: &[&str]) -> PathBuf {
    let tree = world.path(format!("{name}.tree"));
    fs::create_dir_all(&tree).unwrap();
    for (file, content) in files {
        let path = tree.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if content.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let image = world.path(name);
    world::build(&tree, &image, &[&["--boot", "none"], options].concat()).succeeds().quietly();
    image
}

/// A command on another image of the world.
fn on(world: &World, image: impl AsRef<Path>, args: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(world.path(image))).args(args)
}

/// `fim-content` of the world's own image, the consumer.
fn content(world: &World, args: &[&str]) -> TestCommand {
    world.app(&["fim-content"]).args(args)
}

/// A producer that shares these paths by a slot `s` for content `c`.
fn producer(world: &World, name: &str, files: &[(&str, &str)], slot: &[&str]) {
    image(world, name, files, &[]);
    on(world, name, &["fim-content", "slot", "s", "--content", "c"]).args(slot).run().succeeds().quietly();
}

/// A world whose image has the plug `p` for content `c`, with this target.
fn consumer(target: &str, options: &[&str]) -> World {
    let world = World::new();
    content(&world, &["plug", "p", "--content", "c", "--target", target]).args(options).run().succeeds().quietly();
    world
}

fn connect(world: &World, producer: &str) {
    content(world, &["connect", "p", producer]).run().succeeds().quietly();
}

/// An instance that waits for its stdin.
fn waiting(command: TestCommand) -> Running {
    let mut running = command.spawn();
    running.expect("ready");
    running
}

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
fn a_default_provider_serves_what_nobody_connected() {
    let world = World::new();
    image(&world, "lib01604.flatimage", &[("lib/l", "library")], &["--version", "1.10"]);
    on(&world, "lib01604.flatimage", &["fim-content", "slot", "lib0-1604", "--read", "$SNAP/lib"]).run().succeeds();
    let plug = ["plug", "lib0-1604", "--target", "$SNAP/extra-libs", "--default-provider", "lib01604.flatimage"];
    content(&world, &plug).run().succeeds();
    // Unsigned images never connect by themselves: the user is asked, or told how.
    world.sh("cat /extra-libs/l").fails_naming(&[
        "default provider",
        "lib01604.flatimage",
        "same publisher",
        "fim-content connect lib0-1604",
    ]);
    let mut terminal = harness::Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec cat /extra-libs/l; echo");
    terminal.expect("Connect the plug 'lib0-1604'");
    terminal.enter("y");
    terminal.expect("library");
    // That was a consent for good.
    assert_eq!(world.sh("cat /extra-libs/l").prints(), "library");
    // Of the same publisher, nobody is asked.
    content(&world, &["disconnect", "lib0-1604"]).run().succeeds();
    world.equip(TestCommand::new(FIM)).args(["key-pair", "key"]).run().succeeds();
    for image in ["lib01604.flatimage", "app.flatimage"] {
        world.equip(TestCommand::new(FIM)).args(["sign", image, "--key", "key"]).run().succeeds();
    }
    assert_eq!(world.sh("cat /extra-libs/l").prints(), "library");
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
fn consent_is_bound_to_what_the_producer_was() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    producer(&world, "one.flatimage", &[("d/f", "old")], &["--read", "$FIM_ROOT_DIR/d"]);
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /x/f").prints(), "old");
    // Settings of the producer do not matter.
    on(&world, "one.flatimage", &["fim-perms", "add", "network"]).run().succeeds();
    assert_eq!(world.sh("cat /x/f").prints(), "old");
    // What the slot shares does.
    on(&world, "one.flatimage", &["fim-content", "unslot", "s"]).run().succeeds();
    world.sh("true").fails_naming(&["'p'", "one.flatimage:s", "no slot 's'", "it has no slots", "disconnect p"]);
    let wider = ["fim-content", "slot", "s", "--content", "c", "--read", "$FIM_ROOT_DIR"];
    on(&world, "one.flatimage", &wider).run().succeeds();
    let accept = format!("fim-content connect p {}:s accepts it", world.path("one.flatimage").display());
    world.sh("true").fails_naming(&["is not what it was", "its slot shares something else", &accept]);
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /x/d/f").prints(), "old");
    // Another version of the application, another image.
    for (content, change) in [("same", "it is another image"), ("other", "it is another image")] {
        fs::remove_file(world.path("one.flatimage")).unwrap();
        image(&world, "one.flatimage", &[("d/f", content)], &[]);
        on(&world, "one.flatimage", &wider).run().succeeds();
        world.sh("true").fails_naming(&["is not what it was when it was connected", change]);
    }
    // On a terminal the user is asked; no is no.
    let mut terminal = harness::Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec cat /x/d/f; echo code $?");
    terminal.expect("is not what it was when it was connected");
    terminal.expect("Use it? [y/N]");
    terminal.enter("n");
    terminal.expect("code 125");
    terminal.prompt();
    terminal.enter("$IMAGE fim-exec cat /x/d/f; echo code $?");
    terminal.expect("[y/N]");
    terminal.enter("y");
    terminal.expect("other");
    terminal.expect("code 0");
    assert_eq!(world.sh("cat /x/d/f").prints(), "other");
    // A commit of the producer makes another version of it.
    world::copy(world.image(), &world.path("two.flatimage"));
    on(&world, "two.flatimage", &["fim-content", "unplug", "p"]).run().succeeds();
    on(&world, "two.flatimage", &["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/etc"])
        .run()
        .succeeds();
    content(&world, &["disconnect", "p"]).run().succeeds();
    connect(&world, "two.flatimage");
    on(&world, "two.flatimage", &["fim-root", "sh", "-c", "echo new > /etc/new"]).run().succeeds();
    assert_eq!(world.sh("ls /x").prints(), "release", "what is written is not shared");
    on(&world, "two.flatimage", &["fim-layer", "commit", "binary"]).run().succeeds();
    world.sh("true").fails_naming(&["its layers are others (a new version?)"]);
    connect(&world, "two.flatimage");
    assert_eq!(world.sh("cat /x/new").prints(), "new");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let world = consumer("$FIM_ROOT_DIR/x", &["--least", "1.10"]);
    producer(&world, "one.flatimage", &[("d/f", "x")], &["--read", "$FIM_ROOT_DIR/d"]);
    let bytes = fs::read(world.image()).unwrap();
    let before = content(&world, &["list"]).prints();
    assert_eq!(before, "plug:p:c:--target $FIM_ROOT_DIR/x --least 1.10");
    for (words, complaints) in [
        (&[][..], &["Missing op for 'fim-content'"][..]),
        (&["frobnicate"], &["Invalid content operation 'frobnicate'"]),
        (&["slot"], &["Missing name for 'slot'"]),
        (&["slot", "a b", "--read", "$FIM_DATA"], &["Invalid name 'a b'", "letters"]),
        (&["slot", "../x", "--read", "$FIM_DATA"], &["Invalid name '../x'"]),
        (&["slot", "s"], &["share nothing", "--read"]),
        (&["slot", "s", "--read"], &["Missing value for '--read'"]),
        (&["slot", "s", "--read", "/etc"], &["'/etc'", "must begin with $FIM_ROOT_DIR"]),
        (&["slot", "s", "--read", "$FIM_DATA/../x"], &["holds '..'"]),
        (&["slot", "s", "--write", "$SNAP/x"], &["'$SNAP/x' cannot be shared for writing", "read-only"]),
        (&["slot", "s", "--read", "$SNAP", "--content", ""], &["Invalid content ID ''"]),
        (&["slot", "s", "--read", "$SNAP", "extra"], &["Trailing arguments for fim-content: ['extra',]"]),
        (&["slot", "s", "--read", "$SNAP", "--source", "--source"], &["'--source' was given twice"]),
        (&["plug", "q"], &["'q' has no target", "--target"]),
        (&["plug", "p", "--target", "$FIM_ROOT_DIR/y"], &["there is a plug 'p' already", "unplug p"]),
        (&["plug", "q", "--target", "$SNAP/x/"], &["the plug 'p' has $FIM_ROOT_DIR/x already"]),
        (&["plug", "q", "--target", "$SNAP"], &["hide the whole application"]),
        (&["plug", "q", "--target", "$SNAP/proc/1"], &["$FIM_ROOT_DIR/proc/1", "each instance's own"]),
        (&["plug", "q", "--target", "$SNAP/dev"], &["each instance's own"]),
        (&["plug", "q", "--target", "/x"], &["must begin with"]),
        (&["plug", "q", "--target", "$SNAP/y", "--least", ">=1"], &["Invalid version '>=1'"]),
        (&["plug", "q", "--target", "$SNAP/y", "--digest", "12"], &["Invalid digest '12'", "64 hexadecimal"]),
        (&["unslot", "s"], &["no slot 's'", "it has no slot at all"]),
        (&["unplug", "q"], &["no plug 'q': it has p"]),
        (&["connect", "p"], &["Incorrect number of arguments for 'connect'"]),
        (&["connect", "q", "one.flatimage"], &["no plug 'q': it has p"]),
        (&["connect", "p", "gone"], &["gone", "No such file"]),
        (&["connect", "p", "home"], &["home", "no regular file"]),
        (&["connect", "p", "one.flatimage.tree/d/f"], &["d/f cannot be used"]),
        (&["connect", "p", "one.flatimage"], &["does not fit", "no version", "1.10 or later"]),
        (&["connect", "p", "one.flatimage:t"], &["it has no slot 't' (its slots: s for c)"]),
        (&["disconnect", "p"], &["'p' is not connected"]),
        (&["connections", "x"], &["Trailing arguments"]),
        (&["inherit", "x"], &["Trailing arguments"]),
    ] {
        content(&world, words).fails_naming(complaints);
    }
    assert_eq!(content(&world, &["list"]).prints(), before);
    assert!(fs::read(world.image()).unwrap() == bytes && !world.data().exists());
    // Versions count by numbers.
    for (version, fits) in [("1.9", false), ("1.10-rc1", false), ("1.10", true), ("2", true)] {
        let name = format!("v{version}.flatimage");
        image(&world, &name, &[("d/f", version)], &["--version", version]);
        on(&world, &name, &["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/d"]).run().succeeds();
        let connect = content(&world, &["connect", "p", &name]);
        if fits {
            connect.run().succeeds();
            assert_eq!(world.sh("cat /x/f").prints(), version);
            content(&world, &["disconnect", "p", &name]).run().succeeds().quietly();
        } else {
            connect.fails_naming(&[&format!("its version is {version}, and the plug takes 1.10 or later")]);
        }
    }
    // Content IDs must match, also when the slot is named.
    let other = ["fim-content", "slot", "o", "--content", "other", "--read", "$SNAP/d"];
    on(&world, "v2.flatimage", &other).run().succeeds();
    content(&world, &["connect", "p", "v2.flatimage:o"]).fails_naming(&["content 'other'", "takes 'c'"]);
    on(&world, "v2.flatimage", &["fim-content", "slot", "t", "--content", "c", "--read", "$SNAP/d"]).run().succeeds();
    content(&world, &["connect", "p", "v2.flatimage"]).fails_naming(&["several slots", "s, t", "FILE:SLOT"]);
    content(&world, &["connect", "p", "v2.flatimage:t"]).run().succeeds();
}
