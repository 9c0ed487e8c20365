//! Committing the writable layer: the tree that the guest sees is the same before and after, whatever was done to it.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::layers::{assert_same, changeable, seen, upper_names};
use harness::owners::one_id;
use harness::{World, is_root};
use nix::sys::signal::Signal;

/// Ten rounds of changes, each committed to the target.
fn rounds(world: &World, target: &str, seed: u64) {
    for round in 0..10 {
        world.root(&["tree", "churn", &(seed + round).to_string(), "120"]).run().succeeds();
        let before = seen(world);
        world.app(&["fim-layer", "commit", target, "--level", "0"]).run().succeeds().quietly();
        assert_eq!(upper_names(world), [""; 0], "round {round}");
        assert_same(&before, &seen(world), &format!("seed {seed}, round {round}"));
    }
}

#[test]
fn the_tree_is_the_same_after_each_of_ten_commits() {
    let world = changeable();
    rounds(&world, "binary", 1);
    // Somebody else gets the file alone.
    let other = World::empty();
    harness::world::copy(world.image(), other.image());
    assert_same(&seen(&world), &seen(&other), "without the data directory");
}

#[test]
fn the_tree_is_the_same_where_root_is_emulated() {
    let world = changeable();
    one_id(&world);
    rounds(&world, "binary", 101);
}

#[test]
fn the_tree_is_the_same_with_each_commit_in_a_file_of_its_own() {
    let world = changeable();
    rounds(&world, "layer", 201);
    for number in 0..10 {
        assert!(world.data().join(format!("layers/layer-{number:03}.layer")).is_file());
    }
}

#[test]
fn nothing_to_commit_is_an_error_that_makes_nothing() {
    let world = World::new();
    world.app(&["fim-layer", "commit", "binary"]).fails_naming(&["nothing to commit", "FIM_DIR_DATA"]);
    assert!(!world.data().exists());
}

#[test]
fn running_instances_are_named_and_refused() {
    let world = World::new();
    let mut running = world.sh("echo x > /etc/made; echo ready; cat").spawn();
    running.expect("ready");
    let len = fs::metadata(world.image()).unwrap().len();
    world.app(&["fim-layer", "commit", "binary"]).fails_naming(&[
        "cannot commit: instances use",
        ": 0;",
        "fim-instance stop",
    ]);
    assert_eq!(fs::metadata(world.image()).unwrap().len(), len);
    drop(running);
}

#[test]
fn what_a_layer_cannot_hold_is_said() {
    let world = changeable();
    world.sh("mkdir /srv/x; touch /srv/x/file").run().succeeds();
    let listener = std::os::unix::net::UnixListener::bind(world.upper("srv/x/s")).unwrap();
    let outcome = world.app(&["fim-layer", "commit", "binary", "--level", "0"]).run().succeeds();
    outcome.complains_of(&["fim: note: the socket /srv/x/s is not committed"]);
    drop(listener);
    assert_eq!(world.sh("ls /srv/x").prints(), "file");
}

#[test]
fn texts_that_scripts_know() {
    let world = World::new();
    let commit = |words: &[&str]| world.app(&["fim-layer", "commit"]).args(words).args(["--level", "0"]);
    world.sh("echo one > /etc/one").run().succeeds();
    let printed = commit(&["binary"]).prints();
    assert_eq!(
        printed,
        "Gathering files to compress...\nFilesystem created without errors\n\
         Filesystem appended to binary without errors\nFinished erasing files"
    );
    world.sh("echo two > /etc/two").run().succeeds();
    let saved = world.data().join("layers/layer-000.layer");
    assert!(commit(&["layer"]).prints().contains(&format!("\nLayer saved to '{}'\n", saved.display())));
    // What is committed to the image would lie below that one.
    world.sh("echo three > /etc/three").run().succeeds();
    commit(&["binary"]).fails_naming(&["1 layers outside", "layer-000.layer", "fim-layer add"]);
    fs::rename(&saved, world.data().join("layers/layer-999.layer")).unwrap();
    commit(&["layer"]).fails_naming(&["Maximum number of layers exceeded", "squash"]);
    assert_eq!(world.sh("cat /etc/one /etc/two /etc/three").prints(), "one\ntwo\nthree");
}

#[test]
fn a_layer_goes_to_a_file_of_another_file_system_and_over_nothing() {
    let world = World::new();
    world.sh("rm /usr/share/dir/one; echo x > /etc/made").run().succeeds();
    let commit = |path: &str| world.app(&["fim-layer", "commit", "file", path, "--level", "0"]);
    fs::write(world.path("taken"), "mine").unwrap();
    commit("taken").fails_naming(&["Destination file already exists", "taken"]);
    assert_eq!(fs::read(world.path("taken")).unwrap(), b"mine");
    commit("no/such/place").fails_naming(&["no/such"]);
    let inside = world.upper("etc/inside");
    commit(inside.to_str().unwrap()).fails_naming(&["lies in the writable layer"]);
    // What failed has changed nothing.
    assert_eq!(world.sh("cat /etc/made; ls /usr/share/dir").prints(), "x\ndeep\ntwo");
    world.wait_for_end();
    let script = "mkdir there; mount -t tmpfs fim there; \"$IMAGE\" fim-layer commit file there/new.layer --level 0; \
                  cp there/new.layer new.layer";
    world.in_namespace(script).run().succeeds();
    assert_eq!(upper_names(&world), [""; 0]);
    assert_eq!(world.sh("ls /usr/share/dir; ls /etc/made 2>&1 | wc -l").prints(), "deep\none\ntwo\n1");
    let with =
        |script: &str| world.sh(script).env("FIM_LAYERS", world.path("new.layer")).env("FIM_DIR_DATA", world.path("d"));
    assert_eq!(with("cat /etc/made; ls /usr/share/dir").prints(), "x\ndeep\ntwo");
}

#[test]
fn a_full_disk_loses_nothing() {
    let world = World::new();
    // A layer of noise that does not fit; where the image lies is full, too.
    let script = "mkdir small; mount -t tmpfs -o size=64M fim small; cp app.flatimage small/; cd small; \
                  ./app.flatimage fim-exec sh -c 'dd if=/dev/urandom of=/noise bs=1M count=9 2>/dev/null; rm /etc/release'; \
                  head -c 100M /dev/zero > fill 2>/dev/null; \
                  for room in 0 4096 1M 4M; do \
                      truncate -s -$room fill; \
                      for where in binary layer 'file x.layer'; do \
                          ./app.flatimage fim-layer commit $where --level 0 >/dev/null; echo $?; \
                      done; \
                  done; \
                  ls -A .app.flatimage.data .app.flatimage.data/layers .; \
                  ./app.flatimage fim-exec sh -c 'wc -c < /noise; ls /etc/release'; rm fill; \
                  ./app.flatimage fim-layer commit layer --level 0 >/dev/null; echo $?; ls .app.flatimage.data/root | wc -l; \
                  ./app.flatimage fim-exec sh -c 'wc -c < /noise'";
    let outcome = world.in_namespace(script).run();
    let text = outcome.text();
    let (full, later) = text.split_once("9437184\n").unwrap_or_else(|| panic!("{outcome:?}"));
    assert!(full.starts_with(&"125\n".repeat(12)), "{outcome:?}");
    assert!(!full.contains("committed") && !full.contains(".layer") && !full.contains("part"), "{outcome:?}");
    assert_eq!(later, "0\n0\n9437184", "{outcome:?}");
    let complaints = outcome.stderr().lines().filter(|line| line.starts_with("fim: ")).count();
    assert_eq!(complaints, 12, "each with one line: {outcome:?}");
}

#[test]
fn a_start_waits_for_a_commit_and_sees_what_was_committed() {
    let world = World::new();
    world.sh("echo x > /etc/made").run().succeeds();
    world.wait_for_end();
    // The data directory is held as a commit holds it, until the start has said that it waits.
    let lock = runtime::session::lock::wait(&world.data(), runtime::session::lock::SESSION).unwrap();
    std::os::unix::fs::FileExt::write_all_at(lock.file(), b"fim-command 1\n77\n", 0).unwrap();
    let start = world.exec(&["cat", "/etc/made"]).spawn();
    start.expect_complaint("waiting for the command (process 77)");
    let other = world.exec(&["cat", "/etc/made"]).spawn();
    other.expect_complaint("waiting for the command (process 77)");
    drop(lock);
    for waiting in [start, other] {
        assert_eq!(waiting.wait().succeeds().text(), "x");
    }
}

#[test]
fn junk_in_the_writable_layer_is_named_and_nothing_is_lost() {
    let world = World::new();
    world.sh("mkdir /srv; echo x > /srv/file").run().succeeds();
    world.wait_for_end();
    let script = "mkdir .app.flatimage.data/root/srv/there; mount -t tmpfs fim .app.flatimage.data/root/srv/there; \
                  echo kept > .app.flatimage.data/root/srv/there/file; \
                  \"$IMAGE\" fim-layer commit layer --level 0; echo $?; cat .app.flatimage.data/root/srv/there/file";
    let outcome = world.in_namespace(script).run();
    assert!(outcome.text().ends_with("125\nkept"), "{outcome:?}");
    outcome.complains_of(&["something is mounted on", "root/srv/there", "unmount it"]);
    if is_root() {
        // Of somebody else, where root has one ID.
        fs::write(world.data().join("ids"), "fim-ids 1\none\n").unwrap();
        let secret = world.upper("srv/secret");
        fs::write(&secret, "").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&secret, Some(4711), Some(4711)).unwrap();
        let commit = world.app(&["fim-layer", "commit", "layer", "--level", "0"]);
        commit.run().exits(125).complains_of(&["srv/secret", "Permission denied"]);
        fs::remove_file(&secret).unwrap();
    }
    assert_eq!(world.sh("cat /srv/file").prints(), "x");
}

#[test]
fn a_read_only_image_keeps_its_changes_and_may_commit_elsewhere() {
    let world = World::new();
    let script = "export FIM_DIR_DATA=$PWD/home/data; mkdir place; cp app.flatimage place; mount --bind place place; \
                  mount -o remount,bind,ro place; cd place; ./app.flatimage fim-exec sh -c 'echo x > /etc/made'; \
                  ./app.flatimage fim-layer commit binary --level 0; echo $?; \
                  ./app.flatimage fim-layer commit layer --level 0; ./app.flatimage fim-exec cat /etc/made";
    let outcome = world.in_namespace(script).run();
    assert!(outcome.text().starts_with("125\n") && outcome.text().ends_with("\nx"), "{outcome:?}");
    outcome.complains_of(&["cannot write", "place/app.flatimage", "Read-only file system", "commit to a layer"]);
}

#[test]
fn a_layer_on_another_base_shows_no_whiteouts() {
    let world = World::new();
    world.sh("rm /usr/share/dir/one; echo x > /usr/share/dir/new").run().succeeds();
    world.app(&["fim-layer", "commit", "file", "a.layer", "--level", "0"]).run().succeeds();
    let other = World::with_tree(|tree| fs::remove_dir_all(tree.join("usr/share/dir")).unwrap(), &[]);
    let shown =
        other.sh("ls /usr/share/dir; ls /usr/share/dir/one 2>&1").env("FIM_LAYERS", world.path("a.layer")).run();
    assert!(shown.text().starts_with("new\n") && shown.text().contains("No such file"), "{shown:?}");
}

#[test]
fn an_interrupted_commit_leaves_everything_as_it_was_or_done() {
    let world = World::new();
    world.sh("cp /usr/share/noise /one; for n in 1 2 3 4 5 6 7 8 9; do cat /one /one > /two; mv /two /one; done").run();
    let before = fs::metadata(world.image()).unwrap().len();
    let mut commit = world.app(&["fim-layer", "commit", "binary", "--level", "9"]).spawn();
    commit.expect("Gathering files");
    commit.signal(Signal::SIGINT);
    commit.wait().dies_of(Signal::SIGINT);
    let done = upper_names(&world).is_empty();
    assert_eq!(fs::metadata(world.image()).unwrap().len() > before, done);
    assert!(!world.data().join("commit").exists() && !world.data().join("committed").exists());
    assert_eq!(world.sh("ls / | grep one").prints(), "one");
}
