//! An image file that gets another name, or is moved: its data is found again, and never that of another image.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use harness::{TestCommand, World, is_root, need, world};

/// A world whose image has written `/note`.
fn with_note() -> World {
    let world = World::new();
    world.sh("echo kept > /note").run().succeeds().quietly();
    world.wait_for_end();
    world
}

/// What the image of this name shows as its note, and what it says about where that was.
fn note(world: &World, image: &Path) -> harness::Outcome {
    let outcome = named(world, image, &["fim-exec", "sh", "-c", "cat /note 2>&1"]).run();
    world.wait_for_end();
    outcome
}

fn named(world: &World, image: &Path, words: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(image)).args(words)
}

fn path_of(world: &World, image: &Path) -> String {
    named(world, image, &["fim-data", "path"]).prints()
}

/// Moves the image; its data stays.
fn moved(world: &World, to: &str) -> PathBuf {
    let to = world.path(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(world.image(), &to).unwrap();
    to
}

#[test]
fn data_is_found_after_a_rename_and_said_so_once() {
    let world = with_note();
    let other = moved(&world, "other.flatimage");
    // Looking moves nothing.
    assert_eq!(path_of(&world, &other), world.data().to_str().unwrap());
    assert_ne!(named(&world, &other, &["fim-data", "size"]).prints(), "0");
    let ephemeral = ["fim-exec", "--ephemeral", "cat", "/note"];
    assert_eq!(named(&world, &other, &ephemeral).prints(), "kept");
    assert!(world.data().exists());
    let first = note(&world, &other).succeeds().with_stdout("kept\n");
    let proper = world.path(".other.flatimage.data");
    first.complains_of(&["note: data of this image", "former name", world.data().to_str().unwrap()]);
    assert!(proper.join("root/note").exists() && !world.data().exists());
    note(&world, &other).succeeds().quietly().with_stdout("kept\n");
    assert_eq!(path_of(&world, &other), proper.to_str().unwrap());
    // Again, with what there is by now.
    let third = world.path("a third one");
    fs::rename(&other, &third).unwrap();
    note(&world, &third).succeeds().with_stdout("kept\n").complains_of(&[".a third one.data"]);
}

#[test]
fn data_is_found_when_the_image_is_moved_away_from_it() {
    let world = with_note();
    let other = moved(&world, "bin/app.flatimage");
    assert_eq!(path_of(&world, &other), world.data().to_str().unwrap());
    note(&world, &other).succeeds().with_stdout("kept\n").complains_of(&["is now in", "bin/.app.flatimage.data"]);
    note(&world, &other).succeeds().quietly().with_stdout("kept\n");
    // Along with the image, and renamed later.
    fs::rename(world.path("bin"), world.path("lib")).unwrap();
    note(&world, &world.path("lib/app.flatimage")).succeeds().quietly().with_stdout("kept\n");
    fs::rename(world.path("lib/app.flatimage"), world.path("lib/b")).unwrap();
    note(&world, &world.path("lib/b")).succeeds().with_stdout("kept\n").complains_of(&["lib/.b.data"]);
}

#[test]
fn data_of_an_image_that_exists_is_not_taken() {
    let world = with_note();
    // With everything that tells where it was.
    let copy = |to: &str| {
        let cp = world.equip(TestCommand::new(need("cp")));
        cp.args(["-a", world.image().to_str().unwrap(), world.path(to).to_str().unwrap()]).run().succeeds();
        world.path(to)
    };
    fs::create_dir(world.path("elsewhere")).unwrap();
    for name in ["copy.flatimage", "elsewhere/app.flatimage"] {
        let copy = copy(name);
        note(&world, &copy).exits(1).quietly();
        assert_eq!(
            path_of(&world, &copy),
            copy.with_file_name(format!(".{}.data", copy.file_name().unwrap().display())).to_str().unwrap()
        );
    }
    // Neither when the image is there under the name of a link only.
    let third = copy("third");
    fs::rename(world.image(), world.path("real")).unwrap();
    symlink("real", world.image()).unwrap();
    note(&world, &third).exits(1).quietly();
    // Data that was copied along is the copy's, though the original is still there.
    fs::remove_file(world.image()).unwrap();
    fs::rename(world.path("real"), world.image()).unwrap();
    let cp = world.equip(TestCommand::new(need("cp")));
    fs::create_dir(world.path("both")).unwrap();
    cp.args(["-a", "app.flatimage", ".app.flatimage.data", "both"]).run().succeeds();
    fs::rename(world.path("both/app.flatimage"), world.path("both/b")).unwrap();
    note(&world, &world.path("both/b")).succeeds().with_stdout("kept\n").complains_of(&["both/.b.data"]);
    note(&world, world.image()).succeeds().quietly().with_stdout("kept\n");
}

#[test]
fn data_of_other_images_and_of_chosen_places_is_not_taken() {
    let world = World::new();
    world.sh("echo chosen > /note").env("FIM_DIR_DATA", world.path(".gone.data")).run().succeeds().quietly();
    world.wait_for_end();
    note(&world, world.image()).exits(1).quietly();
    // Of another image, which is gone.
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    let stranger = world.path("stranger");
    world::build(&tree, &stranger, &[]).succeeds();
    named(&world, &stranger, &["fim-exec", "sh", "-c", "echo theirs > /note"]).run().succeeds();
    world.wait_for_end();
    fs::remove_file(&stranger).unwrap();
    fs::remove_dir_all(world.data()).unwrap();
    note(&world, world.image()).exits(1).quietly();
    // What a variable names is what it names.
    let other = moved(&world, "other.flatimage");
    let chosen = named(&world, &other, &["fim-data", "path"]).env("FIM_DIR_DATA", "/elsewhere");
    assert_eq!(chosen.prints(), "/elsewhere");
}

#[test]
fn two_that_could_be_meant_are_both_named() {
    let world = with_note();
    let cp = world.equip(TestCommand::new(need("cp")));
    cp.args(["-a", ".app.flatimage.data", ".second.data"]).run().succeeds();
    // The file does not tell either.
    let other = world.path("other.flatimage");
    world::copy(world.image(), &other);
    fs::remove_file(world.image()).unwrap();
    for words in [&["fim-exec", "true"][..], &["fim-data", "path"]] {
        let both = [".app.flatimage.data and ", ".second.data", "mv ", ".other.flatimage.data", "FIM_DIR_DATA"];
        named(&world, &other, words).fails_naming(&both);
    }
    assert!(!world.path(".other.flatimage.data").exists());
    fs::rename(world.path(".second.data"), world.path(".other.flatimage.data")).unwrap();
    note(&world, &other).succeeds().quietly().with_stdout("kept\n");
    // One that was moved away far enough is none.
    assert!(world.data().join("root/note").exists());
}

#[test]
fn starts_at_once_find_it_once() {
    let world = with_note();
    let other = moved(&world, "other.flatimage");
    let starts: Vec<_> = (0..6).map(|_| named(&world, &other, &["fim-exec", "cat", "/note"]).spawn()).collect();
    let said: Vec<String> =
        starts.into_iter().map(|start| start.wait().succeeds().with_stdout("kept\n").stderr()).collect();
    assert_eq!(said.iter().filter(|said| said.contains("former name")).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| said.is_empty()).count(), 5, "{said:?}");
}

#[test]
fn data_in_use_stays_where_it_is_until_it_is_not() {
    let world = World::new();
    let mut running = world.sh("echo kept > /note; echo ready; cat").spawn();
    running.expect("ready");
    let other = moved(&world, "other.flatimage");
    // It joins the session of the former name.
    let joined = named(&world, &other, &["fim-exec", "cat", "/note"]).run().succeeds().with_stdout("kept\n");
    joined.complains_of(&["stays in", world.data().to_str().unwrap(), "in use"]);
    assert_eq!(named(&world, &other, &["fim-instance", "list"]).prints().lines().count(), 1);
    running.close_stdin();
    running.wait().succeeds();
    world.wait_for_end();
    note(&world, &other).succeeds().with_stdout("kept\n").complains_of(&["is now in"]);
}

#[test]
fn data_that_cannot_be_moved_is_used_where_it_is() {
    // Root may write anywhere; a mount point cannot be renamed by anybody.
    let world = with_note();
    let script = "set -e; mkdir far; mount -t tmpfs none far; cp -a app.flatimage far/; rm app.flatimage; cd far
        ended() { flock ../.app.flatimage.data/session.lock true; }
        ./app.flatimage fim-exec cat /note; ./app.flatimage fim-exec sh -c 'cat /note; echo more > /more'
        ./app.flatimage fim-data path; ended; mv app.flatimage b; ./b fim-exec cat /more; ended
        cp b ../copy; ../copy fim-exec ls / | grep -c more || true";
    let outcome = world.in_namespace(script).run().succeeds();
    let data = world.data();
    let data = data.to_str().unwrap();
    assert_eq!(outcome.text(), format!("kept\nkept\n{data}\nmore\n0"), "a copy must not take it");
    // Once for each name.
    assert_eq!(outcome.stderr().matches(&format!("is used in {data}")).count(), 2, "{outcome:?}");
    assert_eq!(outcome.stderr().lines().count(), 2, "{outcome:?}");
}

#[test]
fn data_of_keys_goes_along() {
    let world = World::new();
    world.app(&["fim-key", "add", "foo"]).run().succeeds();
    world.app(&["fim-key", "run", "foo", "fim-exec", "sh", "-c", "echo foo > /note"]).run().succeeds().quietly();
    world.app(&["fim-key", "run", "foo", "fim-env", "set", "WORD=own"]).run().succeeds().quietly();
    // A key with an image of its own.
    world::copy(world.image(), &world.path("own"));
    world.app(&["fim-key", "add", "bar", "--image", "own"]).run().succeeds();
    world.app(&["fim-key", "run", "bar", "fim-exec", "sh", "-c", "echo bar > /note"]).run().succeeds();
    world.wait_for_end();
    let other = moved(&world, "other.flatimage");
    let list = named(&world, &other, &["fim-key", "list"]).prints();
    assert_eq!(list.lines().count(), 2, "{list}");
    let run = |key: &str, script: &str| {
        let outcome = named(&world, &other, &["fim-key", "run", key, "fim-exec", "sh", "-c", script]).run();
        world.wait_for_end();
        outcome
    };
    run("foo", "cat /note; echo $WORD").succeeds().with_stdout("foo\nown\n").complains_of(&[".other.flatimage.keys"]);
    run("foo", "cat /note; echo $WORD").succeeds().with_stdout("foo\nown\n").quietly();
    run("bar", "cat /note; echo $FIM_INSTANCE_NAME").succeeds().with_stdout("bar\nother_bar\n").quietly();
    assert!(!world.path(".app.flatimage.keys").exists());
    let keys = named(&world, &other, &["fim-key", "list"]).prints();
    assert!(keys.contains("/own") && keys.contains("/other.flatimage"), "{keys}");
    // One more, on another name, before any start.
    let third = world.path("third");
    fs::rename(&other, &third).unwrap();
    named(&world, &third, &["fim-key", "add", "baz"]).run().succeeds().complains_of(&[".third.keys"]);
    assert_eq!(named(&world, &third, &["fim-key", "list"]).prints().lines().count(), 3);
}

#[test]
fn data_of_somebody_else_is_not_found() {
    let world = with_note();
    if is_root() {
        world.host_sh("chown -R 12345 .app.flatimage.data").run().succeeds();
    } else {
        // What belongs to nobody in particular: a directory that says it is this image's, but is none.
        fs::remove_dir_all(world.data()).unwrap();
        symlink("/", world.data()).unwrap();
    }
    let other = moved(&world, "other.flatimage");
    note(&world, &other).exits(1).quietly();
}

#[test]
fn what_was_committed_or_replaced_is_found_too() {
    let world = with_note();
    world.app(&["fim-layer", "commit", "layer"]).run().succeeds();
    let other = moved(&world, "other.flatimage");
    note(&world, &other).succeeds().with_stdout("kept\n");
    // A new version in its place, which then gets another name.
    let tree = world.path("new-tree");
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    fs::write(tree.join("etc/release"), "newer\n").unwrap();
    world::build(&tree, &other, &["--force"]).succeeds();
    named(&world, &other, &["fim-exec", "true"]).run().succeeds();
    world.wait_for_end();
    let third = world.path("third");
    fs::rename(&other, &third).unwrap();
    note(&world, &third).succeeds().with_stdout("kept\n").complains_of(&[".third.data"]);
}
