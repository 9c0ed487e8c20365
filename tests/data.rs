//! The writable data: throw-away starts, `fim-data`, and a writable layer that was made on another version of the image.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::{Terminal, World, is_root, world};
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn what_an_ephemeral_start_writes_is_gone_at_its_end() {
    let world = World::new();
    let script = "echo new > /etc/new; rm /usr/share/plain; mkdir -p /opt/a; cat /etc/new; ls /usr/share";
    let ephemeral = |script: &str| world.app(&["fim-exec", "--ephemeral", "sh", "-c", script]);
    assert_eq!(ephemeral(script).prints(), "new\ndir\nnoise");
    assert!(!world.data().exists(), "it needs no data directory");
    world.assert_nothing_left();
    world.sh("echo kept > /etc/kept; rm /usr/share/dir/one").run().succeeds();
    world.wait_for_end();
    // It sees what was written before, and takes nothing of it away.
    assert_eq!(ephemeral("cat /etc/kept; ls /usr/share/dir; echo more >> /etc/kept").prints(), "kept\ndeep\ntwo");
    assert_eq!(ephemeral("cat /etc/kept; rm -r /etc /usr/share; ls /etc/kept || true").run().stdout, b"kept\n");
    assert_eq!(world.app(&["fim-root", "--ephemeral", "sh", "-c", "id -u; touch /x; ls /x"]).prints(), "0\n/x");
    let boot = world.app(&["-c", "touch /booted; ls -d /booted"]).env("FIM_EPHEMERAL", "1");
    assert_eq!(boot.prints(), "/booted");
    for off in ["0", ""] {
        world.app(&["-c", "ls -d /etc/kept"]).env("FIM_EPHEMERAL", off).run().succeeds();
    }
    assert_eq!(world.sh("cat /etc/kept; ls -d /booted /x 2>&1 | grep -c No").prints(), "kept\n2");
    world.assert_nothing_left();
}

#[test]
fn ephemeral_starts_are_sessions_of_their_own() {
    let world = World::new();
    let mut first = world.app(&["fim-exec", "--ephemeral", "sh", "-c", "echo one > /word; echo ready; cat"]).spawn();
    first.expect("ready");
    let second = world.app(&["fim-exec", "--ephemeral", "sh", "-c", "ls /word 2>&1; echo two > /word; cat /word"]);
    let outcome = second.run().succeeds();
    assert!(outcome.text().contains("No such file") && outcome.text().ends_with("two"), "{outcome:?}");
    // A session that keeps what it writes goes on beside them.
    let mut kept = world.sh("ls /word 2>&1; echo kept > /kept; echo written; cat").spawn();
    kept.expect("written");
    assert_eq!(world.app(&["fim-instance", "list"]).prints().lines().count(), 1);
    // While it writes, its writable layer is left out, which the user is told.
    let outcome = world.app(&["fim-exec", "--ephemeral", "sh", "-c", "ls / | grep -c kept"]).run().exits(1);
    outcome.with_stdout("0\n").complains_of(&["note: instances (0) are writing", "without what they have written"]);
    for running in [first, kept] {
        let mut running = running;
        running.close_stdin();
        running.wait().succeeds();
    }
    world.app(&["fim-exec", "--detach", "--ephemeral", "true"]).fails_naming(&["--detach cannot be combined"]);
    world.app(&["fim-exec", "--ephemeral"]).fails_naming(&["Incorrect number of arguments for fim-exec"]);
}

#[test]
fn an_ephemeral_start_leaves_nothing_however_it_ends() {
    let world = World::new();
    let start = || {
        let mut running = world.app(&["fim-exec", "--ephemeral", "sh", "-c", "echo > /new; echo ready; cat"]).spawn();
        running.expect("ready");
        running
    };
    // The starter alone is killed.
    let running = start();
    running.signal(Signal::SIGKILL);
    running.wait_as_it_is();
    world.assert_nothing_left();
    // Everybody is, at once: the next one cleans up.
    let running = start();
    let tree = running.tree();
    // Those first who would clean up.
    for name in ["fim-host", "fim-mount"] {
        tree.named(name).kill();
    }
    tree.0.iter().for_each(harness::process::Member::end);
    running.wait_as_it_is();
    tree.wait_gone();
    world.assert_no_mounts();
    assert_eq!(fs::read_dir(world.sessions()).unwrap().count(), 1, "it was killed too late to prove anything");
    assert_eq!(world.app(&["fim-exec", "--ephemeral", "sh", "-c", "ls /new 2>&1 | wc -l"]).prints(), "1");
    world.assert_nothing_left();
    // One that cannot start.
    fs::write(world.path("junk"), [1; 500]).unwrap();
    let words = ["fim-exec", "--ephemeral", "true"];
    world.app(&words).env("FIM_LAYERS", "junk").fails_naming(&["/junk"]);
    world.assert_nothing_left();
}

#[test]
fn an_ephemeral_start_stacks_the_same_layers() {
    let world = World::new();
    for name in ["a", "b"] {
        fs::create_dir_all(world.path("tree")).unwrap();
        fs::write(world.path("tree/word"), name).unwrap();
        world.app(&["fim-layer", "create", "tree", &format!("{name}.layer")]).run().succeeds();
    }
    let ephemeral = || world.app(&["fim-exec", "--ephemeral", "cat", "/word"]);
    assert_eq!(ephemeral().env("FIM_LAYERS", "a.layer").prints(), "a");
    world.sh("true").run().succeeds();
    fs::create_dir(world.data().join("layers")).unwrap();
    fs::rename(world.path("b.layer"), world.data().join("layers/layer-000.layer")).unwrap();
    assert_eq!(ephemeral().env("FIM_LAYERS", "a.layer").prints(), "b");
}

#[test]
fn fim_data_tells_where_and_how_much() {
    let world = World::new();
    let data = |words: &[&str]| world.app(&[&["fim-data"], words].concat());
    assert_eq!(data(&["path"]).prints(), world.data().to_str().unwrap());
    assert_eq!(data(&["size"]).prints(), "0");
    assert_eq!(data(&["clear"]).prints(), "There is no data");
    assert!(!world.data().exists(), "looking makes nothing");
    world.sh("head -c 300000 /usr/share/noise > /kept; ln /kept /linked").run().succeeds();
    let size: u64 = data(&["size"]).prints().parse().unwrap();
    assert!((300_000..500_000).contains(&size), "{size}");
    let json: Value = serde_json::from_str(&data(&["SIZE", "--json"]).prints()).unwrap();
    assert_eq!((json["bytes"].as_u64(), json["layers"].as_u64()), (Some(size), Some(0)));
    assert!(json["writable"].as_u64().unwrap() >= 300_000);
    assert_eq!(data(&["path"]).env("FIM_DIR_DATA", "/elsewhere").prints(), "/elsewhere");
    for (line, text) in [
        ("", "Missing op for 'fim-data' (<path|size|clear>)"),
        ("burn", "Invalid data operation"),
        ("path x", "Trailing arguments for fim-data: ['x',]"),
        ("clear now", "Trailing arguments for fim-data: ['now',]"),
    ] {
        data(&line.split_whitespace().collect::<Vec<_>>()).fails_naming(&[text]);
    }
}

#[test]
fn clear_removes_what_is_ours_and_nothing_else() {
    let world = World::new();
    world.sh("mkdir -p /closed/inner; echo > /closed/inner/file; chmod 0 /closed").run().succeeds();
    world.wait_for_end();
    fs::create_dir(world.data().join("layers")).unwrap();
    fs::write(world.data().join("layers/layer-000.layer"), "x").unwrap();
    fs::write(world.data().join("notes.txt"), "mine").unwrap();
    let clear = |words: &[&str]| world.app(&[&["fim-data", "clear"], words].concat());
    clear(&[]).fails_naming(&["cannot be undone", "--yes"]);
    assert!(world.upper("closed").exists());
    assert!(clear(&["--yes"]).prints().starts_with("Removed the data in "));
    let mut names: Vec<_> = fs::read_dir(world.data()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["notes.txt", "session.lock", "start.lock"]);
    assert_eq!(world.sh("ls -d /closed 2>&1 | wc -l").prints(), "1");
    assert_eq!(fs::read_to_string(world.data().join("notes.txt")).unwrap(), "mine");
}

#[test]
fn clear_is_refused_while_instances_run_and_asks_on_a_terminal() {
    let world = World::new();
    let mut running = world.sh("echo kept > /kept; echo ready; cat").spawn();
    running.expect("ready");
    world.app(&["fim-data", "clear", "--yes"]).fails_naming(&["cannot clear the data", ": 0;", "fim-instance stop"]);
    running.close_stdin();
    running.wait().succeeds();
    world.wait_for_end();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-data clear; echo code $?");
    terminal.expect("[y/N]");
    terminal.enter("n");
    terminal.expect("nothing was removed");
    terminal.expect("code 125");
    terminal.prompt();
    assert!(world.upper("kept").exists());
    terminal.enter("$IMAGE fim-data clear; echo code $?");
    terminal.expect("[y/N]");
    terminal.enter("y");
    terminal.expect("code 0");
    terminal.prompt();
    assert!(!world.upper("kept").exists());
}

#[test]
fn data_of_somebody_else_is_not_touched() {
    let world = World::new();
    // Owned by root and readable for everybody, or by nobody.
    let place = if is_root() {
        let place = world.path("theirs");
        fs::create_dir_all(place.join("root")).unwrap();
        world.host_sh("chown -R 12345 theirs").run().succeeds();
        place
    } else {
        Path::new("/").to_owned()
    };
    for words in [&["fim-data", "clear", "--yes"][..], &["fim-layer", "reset", "--yes"], &["fim-exec", "true"]] {
        let outcome = world.app(words).env("FIM_DIR_DATA", &place).run().exits(125);
        outcome.complains_of(&["belongs to user"]);
    }
    if is_root() {
        world.app(&["fim-exec", "--ephemeral", "true"]).env("FIM_DIR_DATA", &place).fails_naming(&["belongs to user"]);
    }
}

/// Puts another version of the application in the place of the image.
fn replace(world: &World) {
    let tree = world.path("new-tree");
    if !tree.exists() {
        fs::create_dir(&tree).unwrap();
        world::small_tree(&tree);
        fs::write(tree.join("etc/release"), "newer\n").unwrap();
    }
    world::build(&tree, world.image(), &["--force"]).succeeds().quietly();
}

#[test]
fn a_new_version_of_the_image_keeps_old_changes_and_says_so() {
    let world = World::new();
    world.sh("echo mine > /etc/mine").run().succeeds().quietly();
    assert!(fs::read_to_string(world.data().join("base")).unwrap().starts_with("fim-base 1\n"));
    world.exec(&["true"]).run().succeeds().quietly();
    world.wait_for_end();
    replace(&world);
    for _ in 0..2 {
        let outcome = world.sh("cat /etc/release /etc/mine").run().succeeds().with_stdout("newer\nmine\n");
        outcome.complains_of(&["was made on other layers", "fim-layer rebase keep, commit or reset decides"]);
        world.wait_for_end();
    }
    world.app(&["fim-layer", "rebase", "keep"]).run().succeeds().quietly().with_stdout("");
    assert_eq!(world.sh("cat /etc/release /etc/mine").prints(), "newer\nmine");
}

#[test]
fn old_changes_become_a_layer_or_are_dropped() {
    let world = World::new();
    world.sh("echo mine > /etc/mine").run().succeeds();
    world.wait_for_end();
    replace(&world);
    let committed = world.app(&["fim-layer", "rebase", "commit"]).run().succeeds().quietly();
    assert!(committed.text().contains("Layer saved to '"), "{committed:?}");
    assert_eq!(world.sh("cat /etc/release /etc/mine").prints(), "newer\nmine");
    assert_eq!(world.app(&["fim-layer", "list"]).prints().lines().count(), 2);
    world.sh("echo other > /etc/mine").run().succeeds().quietly();
    world.wait_for_end();
    fs::write(world.path("new-tree/etc/release"), "newest\n").unwrap();
    replace(&world);
    world.app(&["fim-layer", "rebase", "reset"]).run().succeeds().quietly();
    assert_eq!(world.sh("cat /etc/release /etc/mine").prints(), "newest\nmine");
}

#[test]
fn a_terminal_is_asked_what_becomes_of_old_changes() {
    let world = World::new();
    world.sh("echo mine > /etc/mine").run().succeeds();
    world.wait_for_end();
    replace(&world);
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec cat /etc/mine");
    terminal.expect("[KEEP/commit/reset]");
    terminal.enter("whatever");
    terminal.expect("[KEEP/commit/reset]");
    terminal.enter("commit");
    terminal.expect("Layer saved to");
    terminal.expect("mine");
    terminal.prompt();
    // Decided once.
    assert_eq!(world.sh("cat /etc/release /etc/mine").prints(), "newer\nmine");
}

#[test]
fn an_empty_writable_layer_asks_nothing_and_a_damaged_record_is_named() {
    let world = World::new();
    world.exec(&["true"]).run().succeeds();
    world.wait_for_end();
    replace(&world);
    world.exec(&["true"]).run().succeeds().quietly();
    world.wait_for_end();
    world.sh("echo mine > /mine").run().succeeds();
    world.wait_for_end();
    fs::write(world.data().join("base"), "fim-base 2\n").unwrap();
    world.exec(&["true"]).fails_naming(&["/base", "newer version", "fim-layer rebase keep"]);
    world.app(&["fim-layer", "rebase", "keep"]).run().succeeds();
    assert_eq!(world.exec(&["cat", "/mine"]).prints(), "mine");
    let mode = fs::metadata(world.data()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
