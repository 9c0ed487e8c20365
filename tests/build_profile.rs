//! `fim build --profile`: what a run reads decides what is stored first.

mod harness;

use std::fs;
use std::path::Path;

use harness::{FIM, TestCommand, World, debian, world};
use nix::sys::signal::Signal;

/// `fim build` of the world's tree with this profile and these options.
fn build(world: &World, profile: &str, options: &[&str]) -> TestCommand {
    build_of(world, &world.path("tree"), profile, options)
}

fn build_of(world: &World, source: &Path, profile: &str, options: &[&str]) -> TestCommand {
    let command = world.equip(TestCommand::new(FIM)).arg("build").arg(source).arg("-o").arg(world.image());
    command.args(["--level", "3", "--profile", profile]).args(options)
}

/// The start-up list of the world's image.
fn startup(world: &World) -> Vec<String> {
    let shown = world.equip(TestCommand::new(FIM)).args(["inspect", "--json"]).arg(world.image()).prints();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let list = shown["config"]["startup"].as_array().unwrap();
    list.iter().map(|path| path.as_str().unwrap().to_owned()).collect()
}

/// Where a path stands in a list.
#[track_caller]
fn place(list: &[String], path: &str) -> usize {
    list.iter().position(|listed| listed == path).unwrap_or_else(|| panic!("{path} is not among {list:?}"))
}

/// A world with a tree to build from, and no image yet.
fn unbuilt() -> World {
    let world = World::empty();
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    for (name, word) in [("wanted", "a word that is read\n"), ("other", "a word that is not read\n")] {
        fs::write(tree.join("usr/share").join(name), word.repeat(20_000)).unwrap();
    }
    // More than what may be added, and so compressible that it would be.
    fs::write(tree.join("usr/share/large"), "much\n".repeat(2 << 20)).unwrap();
    world::script(&tree.join("bin/start"), "#!/bin/sh\ncat /usr/share/wanted /usr/share/large\n");
    world
}

/// Asserts that the build has left what it was to make and nothing else.
#[track_caller]
fn left(world: &World, expected: &[&str]) {
    world.assert_nothing_left();
    let mut names: Vec<_> = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, expected);
    assert_eq!(fs::read_dir(world.path("home")).unwrap().count(), 0);
}

/// Whether the first kilobyte of a file of the tree stands in the image as it is.
fn is_plain(world: &World, name: &str) -> bool {
    let image = fs::read(world.image()).unwrap();
    let content = fs::read(world.path("tree").join(name)).unwrap();
    image.windows(1024).any(|window| window == &content[..1024])
}

#[test]
fn what_the_command_reads_is_stored_as_it_is_and_listed_in_order() {
    let world = unbuilt();
    let outcome = build(&world, "cat /usr/share/wanted /usr/share/large /etc/release", &["--quiet"]);
    outcome.run().succeeds().quietly().with_stdout("");
    let list = startup(&world);
    let [busybox, wanted, release] = ["bin/sh", "usr/share/wanted", "etc/release"].map(|path| place(&list, path));
    assert!(busybox < wanted && wanted < release, "{list:?}");
    assert!(!list.iter().any(|path| path.ends_with("other") || path.ends_with("large")), "{list:?}");
    assert!(is_plain(&world, "usr/share/wanted") && !is_plain(&world, "usr/share/other"));
    assert!(!is_plain(&world, "usr/share/large"), "the image grew by more than it may");
    // It runs, and nothing of the other run is in it.
    assert_eq!(world.exec(&["cat", "/etc/release"]).prints(), "small");
    left(&world, &[".app.flatimage.data", "app.flatimage", "home", "runtime", "tree"]);
}

#[test]
fn the_command_prints_to_stderr_and_writes_where_nobody_looks() {
    let world = unbuilt();
    let script = world.path("tree/bin/start");
    world::script(&script, "#!/bin/sh\necho out; echo err >&2; echo \"id $(id -u)\"; echo x > /new; cat; env\n");
    let outcome = build(&world, "start", &[]).env("FIM_DIR_DATA", world.path("mine")).input("not for it").run();
    let outcome = outcome.succeeds().complains_of(&["out\n", "err\n", &format!("id {}\n", harness::uid())]);
    let (shown, printed) = (outcome.stderr(), outcome.text());
    assert!(!shown.contains("not for it") && !shown.contains("FIM_PROFILE"), "{shown}");
    assert!(printed.lines().count() == 1 && printed.contains("packed into"), "{printed}");
    left(&world, &["app.flatimage", "home", "runtime", "tree"]);
    build(&world, "start", &["--quiet", "--force"]).run().succeeds().quietly().with_stdout("");
    world.exec(&["test", "-e", "/new"]).run().exits(1);
}

#[test]
fn a_dynamic_program_brings_its_libraries() {
    let world = World::empty();
    build_of(&world, debian::minimal(), "sort /etc/passwd", &["--quiet"]).run().succeeds().quietly();
    let list = startup(&world);
    let sort = list.iter().position(|path| path == "usr/bin/sort" || path == "bin/sort");
    let libc = list.iter().position(|path| path.ends_with("/libc.so.6"));
    assert!(sort.is_some() && libc.is_some(), "{list:?}");
    assert!(sort < libc, "first uses are in order: {list:?}");
    assert_eq!(list.iter().filter(|path| path.contains("/libc.so") || path.contains("/libc-2")).count(), 1);
    let sorted = world.exec(&["sort", "-r", "/etc/group"]).prints();
    assert!(sorted.contains("root:x:0:"), "{sorted}");
}

#[test]
fn an_image_that_is_packed_again_keeps_its_layers_and_gets_a_list() {
    let world = unbuilt();
    let first = world.path("first.flatimage");
    world::build(&world.path("tree"), &first, &["--boot", "start"]).succeeds().quietly();
    // Both overlays read the layers by the same server.
    for overlay in ["bwrap", "overlayfs"] {
        world.equip(TestCommand::new(&first)).args(["fim-overlay", "set", overlay]).run().succeeds();
        build_of(&world, &first, "cat /usr/share/other", &["--quiet", "--force"]).run().succeeds().quietly();
        let list = startup(&world);
        let [other, start] = ["usr/share/other", "bin/start"].map(|path| place(&list, path));
        assert!(other < start, "{overlay}: what was run comes before what the image brought: {list:?}");
    }
    left(&world, &["app.flatimage", "first.flatimage", "home", "runtime", "tree"]);
}

#[test]
fn a_command_that_fails_builds_nothing() {
    let world = unbuilt();
    fs::write(world.image(), "mine").unwrap();
    world::script(&world.path("tree/bin/killed"), "#!/bin/sh\nkill -9 $$\n");
    let tree = ["app.flatimage", "home", "runtime", "tree"];
    for (profile, words) in [
        ("no-such-program", ["cannot profile `no-such-program`", "there is no such program in the image"]),
        ("/usr/share/plain", ["exit code 126", "cannot be executed"]),
        ("false", ["cannot profile `false`", "exit code 1"]),
        ("killed", ["exit code 137", "nothing was built"]),
    ] {
        build(&world, profile, &["--force", "--quiet"]).fails_naming(&words);
        assert_eq!(fs::read(world.image()).unwrap(), b"mine");
        left(&world, &tree);
    }
    for (profile, word) in
        [("", "a program and its arguments"), (" --detach sleep 1000", "a program and its arguments")]
    {
        build(&world, profile, &["--force"]).run().exits(125).complains_of(&[word]);
    }
    build(&world, "true", &["--force", "--no-startup-set"]).run().exits(125).complains_of(&["cannot be used with"]);
    left(&world, &tree);
}

#[test]
fn without_fuse_there_is_no_profile_and_nothing_is_left() {
    let world = unbuilt();
    let script = r#"
        mount -t tmpfs none /dev
        : > /dev/null
        exec "$FIM" build tree -o app.flatimage --level 1 --profile true"#;
    let outcome = world.in_namespace(script).env("FIM", FIM).run().exits(125);
    outcome.complains_of(&["fim: cannot profile", "/dev/fuse", "build without --profile"]);
    left(&world, &["home", "runtime", "tree"]);
}

#[test]
fn an_interrupted_profile_leaves_nothing() {
    let world = unbuilt();
    // It would go on for ever, whatever it is asked.
    world::script(
        &world.path("tree/bin/start"),
        "#!/bin/sh\ntrap '' TERM INT HUP\necho running\nwhile :; do sleep 1000; done\n",
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // What it prints goes to stderr, which the harness does not read along with.
        let mut running = world
            .host_sh("exec \"$FIM\" build tree -o app.flatimage --level 1 --profile start 2>&1")
            .env("FIM", FIM)
            .spawn();
        running.expect("running");
        let tree = running.tree();
        running.signal(signal);
        running.wait().dies_of(signal);
        tree.wait_gone();
        left(&world, &["home", "runtime", "tree"]);
    }
}
