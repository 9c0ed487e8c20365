//! What programs are told of the installation they are part of, and the files that each has beside its root: the tables
//! of snap's documentation with FIM in the place of SNAP.

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use harness::{Running, TestCommand, World, is_root, world};

/// A world with `hello-world.flatimage` and a link for the key `foo`.
fn hello_world() -> World {
    let world = World::empty();
    version(&world, "1");
    symlink("hello-world.flatimage", world.path("hello-world_foo.flatimage")).unwrap();
    world
}

/// Puts a version of the application in the place of the image.
fn version(world: &World, version: &str) {
    let tree = world.path(format!("tree-{version}"));
    if !tree.exists() {
        fs::create_dir(&tree).unwrap();
        world::small_tree(&tree);
        fs::write(tree.join("etc/version"), version).unwrap();
    }
    let image = world.path("new.flatimage");
    world::build(&tree, &image, &["--name", "something else"]).succeeds().quietly();
    fs::rename(image, world.path("hello-world.flatimage")).unwrap();
}

fn run(world: &World, name: &str, args: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(world.path(format!("{name}.flatimage")))).args(args)
}

fn sh(world: &World, name: &str, script: &str) -> TestCommand {
    run(world, name, &["fim-exec", "sh", "-c", script])
}

fn data(world: &World, name: &str) -> PathBuf {
    world.path(if name == "hello-world" { ".hello-world.flatimage.data" } else { ".hello-world.flatimage.keys/foo" })
}

const BOTH: [&str; 2] = ["hello-world", "hello-world_foo"];

#[test]
fn the_table_of_names() {
    let world = hello_world();
    let env = "env | grep -E '^FIM_(NAME|INSTANCE_NAME|INSTANCE_KEY)=' | sort";
    let of = |name: &str| sh(&world, name, env).prints();
    let both = "FIM_INSTANCE_KEY=\nFIM_INSTANCE_NAME=hello-world\nFIM_NAME=hello-world";
    assert_eq!(of("hello-world"), both);
    assert_eq!(
        of("hello-world_foo"),
        both.replace("KEY=", "KEY=foo").replace("INSTANCE_NAME=hello-world", "INSTANCE_NAME=hello-world_foo")
    );
    // What the caller has set is not what the guest is told.
    let told = run(&world, "hello-world", &["fim-exec", "env"]).env("FIM_NAME", "x").env("FIM_DATA", "/x").prints();
    assert!(told.contains("FIM_NAME=hello-world\n") && !told.contains("=/x"), "{told}");
}

#[test]
fn the_table_of_places_is_the_same_inside_and_apart_outside() {
    let world = hello_world();
    let names = "FIM_ROOT_DIR FIM_DATA FIM_COMMON FIM_USER_DATA FIM_USER_COMMON HOME XDG_RUNTIME_DIR FIM_REVISION";
    let script = format!("for name in {names}; do eval echo $name=\\$$name; done");
    // A home that the host need not have; those of the tests lie in /tmp, which is each instance's own.
    let sh = |name: &str, script: &str| sh(&world, name, script).env("HOME", "/home/ann");
    let [one, other] = BOTH.map(|name| sh(name, &script).prints());
    assert_eq!(one, other);
    let home = if is_root() { "/root" } else { "/home/ann" };
    let expected = format!(
        "FIM_ROOT_DIR=/run/fim/root\nFIM_DATA=/run/fim/data/1/system\nFIM_COMMON=/run/fim/data/common/system\n\
         FIM_USER_DATA=/run/fim/data/1/user\nFIM_USER_COMMON=/run/fim/data/common/user\nHOME={home}\n\
         XDG_RUNTIME_DIR=/run/user/{}\nFIM_REVISION=1",
        harness::uid()
    );
    assert_eq!(one, expected);
    // Each is a place of its own, to which programs may write, unlike the files of the application.
    for name in BOTH {
        let write = format!(
            "for place in $FIM_DATA $FIM_COMMON $FIM_USER_DATA $FIM_USER_COMMON $HOME; do test ! -e $place/note && echo {name} > $place/note || exit 1; done;\
             echo $FIM_INSTANCE_KEY > $XDG_RUNTIME_DIR/note; cat $FIM_ROOT_DIR/etc/version; touch $FIM_ROOT_DIR/x 2>/dev/null && exit 1; exit 0"
        );
        assert_eq!(sh(name, &write).prints(), "1");
    }
    for name in BOTH {
        let files = data(&world, name).join("files");
        for place in ["1/system", "1/user", "common/system", "common/user"] {
            assert_eq!(fs::read_to_string(files.join(place).join("note")).unwrap(), format!("{name}\n"));
        }
        let read = "cat $FIM_DATA/note $FIM_COMMON/note $FIM_USER_DATA/note $FIM_USER_COMMON/note $HOME/note; ls $XDG_RUNTIME_DIR";
        assert_eq!(sh(name, read).prints(), format!("{name}\n").repeat(5).trim_end());
        assert_eq!(fs::metadata(files.join("1/user")).unwrap().mode() & 0o7777, 0o700);
    }
}

#[test]
fn files_of_the_application_are_its_root_without_what_lies_on_it() {
    let world = hello_world();
    let script = "ls -A $FIM_ROOT_DIR/proc $FIM_ROOT_DIR/tmp 2>/dev/null | grep -v ':$' | grep .; cmp /bin/busybox $FIM_ROOT_DIR/bin/busybox && $FIM_ROOT_DIR/bin/echo runs";
    assert_eq!(sh(&world, "hello-world", script).prints(), "runs");
    for script in
        ["rm $FIM_ROOT_DIR/etc/version", "echo x > $FIM_ROOT_DIR/etc/version", "mount -o remount,rw $FIM_ROOT_DIR"]
    {
        assert_ne!(
            run(&world, "hello-world", &["fim-root", "sh", "-c", script]).run().status.code(),
            Some(0),
            "{script}"
        );
    }
    assert_eq!(sh(&world, "hello-world", "cat /etc/version").prints(), "1");
}

#[test]
fn a_pipe_among_the_files_joins_inside_and_outside() {
    let world = hello_world();
    let mut server = sh(&world, "hello-world", "mkfifo $FIM_COMMON/pipe; echo ready; cat $FIM_COMMON/pipe").spawn();
    server.expect("ready");
    let pipe = data(&world, "hello-world").join("files/common/system/pipe");
    fs::write(pipe, "from outside\n").unwrap();
    server.expect("from outside");
    server.wait().succeeds();
}

/// Writes a note at each place.
const WRITE: &str =
    "for place in $FIM_DATA $FIM_USER_DATA $FIM_COMMON $FIM_USER_COMMON; do cat /etc/version > $place/note; done";
/// Reads them, behind the revision.
const READ: &str = "echo $FIM_REVISION $(cat $FIM_DATA/note) $(cat $FIM_USER_DATA/note) $(cat $FIM_COMMON/note) $(cat $FIM_USER_COMMON/note)";

#[test]
fn a_replaced_image_is_a_new_revision_that_begins_with_a_copy_and_can_go_back() {
    let world = hello_world();
    sh(
        &world,
        "hello-world",
        &format!("{WRITE}; ln $FIM_DATA/note $FIM_DATA/same; chmod 600 $FIM_DATA/note; mkfifo $FIM_DATA/pipe"),
    )
    .run()
    .succeeds();
    assert_eq!(sh(&world, "hello-world", READ).prints(), "1 1 1 1 1");
    version(&world, "2");
    assert_eq!(sh(&world, "hello-world", READ).prints(), "2 1 1 1 1");
    let look = "stat -c '%n %a %h %F' $FIM_DATA/* | sed s:.*/::";
    assert_eq!(
        sh(&world, "hello-world", look).prints(),
        "note 600 2 regular file\npipe 644 1 fifo\nsame 600 2 regular file"
    );
    sh(&world, "hello-world", WRITE).run().succeeds();
    assert_eq!(sh(&world, "hello-world", READ).prints(), "2 2 2 2 2");
    // The other installation counts for itself.
    assert_eq!(sh(&world, "hello-world_foo", "echo $FIM_REVISION").prints(), "1");
    run(&world, "hello-world_foo", &["fim-key", "revert"]).fails_naming(&["no files of an earlier revision"]);
    // Back, while nothing runs; what all revisions share stays.
    let mut running = sh(&world, "hello-world", "echo ready; cat").spawn();
    running.expect("ready");
    run(&world, "hello-world", &["fim-key", "revert"]).fails_naming(&["in use by running instances (0)", "stop"]);
    running.wait().succeeds();
    run(&world, "hello-world", &["fim-key", "revert"])
        .run()
        .succeeds()
        .with_stdout("hello-world reverted to revision 1\n");
    assert_eq!(sh(&world, "hello-world", READ).prints(), "1 1 1 2 2");
    run(&world, "hello-world", &["fim-key", "revert"]).fails_naming(&["no files of an earlier revision"]);
    // A number is never given twice, and the copy is of what was used last.
    version(&world, "3");
    assert_eq!(sh(&world, "hello-world", READ).prints(), "3 1 1 2 2");
    version(&world, "1");
    assert_eq!(sh(&world, "hello-world", READ).prints(), "4 1 1 2 2");
}

#[test]
fn a_key_can_be_reverted_by_name() {
    let world = hello_world();
    sh(&world, "hello-world_foo", WRITE).run().succeeds();
    version(&world, "2");
    sh(&world, "hello-world_foo", WRITE).run().succeeds();
    run(&world, "hello-world", &["fim-key", "revert", "foo"])
        .run()
        .succeeds()
        .with_stdout("hello-world_foo reverted to revision 1\n");
    assert_eq!(sh(&world, "hello-world_foo", READ).prints(), "1 1 1 2 2");
    run(&world, "hello-world", &["fim-key", "revert", "bar"]).fails_naming(&["there is no instance key 'bar'"]);
    run(&world, "hello-world", &["fim-key", "revert", "foo", "x"]).fails_naming(&["Trailing arguments"]);
    let listing: serde_json::Value =
        serde_json::from_str(&run(&world, "hello-world", &["fim-key", "list", "--json"]).prints()).unwrap();
    assert_eq!(listing[0]["revision"], 1);
}

#[test]
fn a_copy_that_was_cut_is_made_anew() {
    let world = hello_world();
    sh(&world, "hello-world", WRITE).run().succeeds();
    version(&world, "2");
    // As a start leaves it that is killed while it copies, or just before the number is written.
    let files = data(&world, "hello-world").join("files");
    for name in ["2.new", "2"] {
        fs::create_dir_all(files.join(name).join("system")).unwrap();
        fs::write(files.join(name).join("system/half"), "").unwrap();
    }
    assert_eq!(sh(&world, "hello-world", "ls $FIM_DATA; cat $FIM_DATA/note").prints(), "note\n1");
    assert!(!files.join("2.new").exists());
}

#[test]
fn starts_at_once_of_a_new_version_copy_once() {
    let world = hello_world();
    sh(&world, "hello-world", WRITE).run().succeeds();
    world.wait_for_end();
    version(&world, "2");
    let starts: Vec<Running> =
        (0..8).map(|_| sh(&world, "hello-world", "echo $FIM_REVISION; cat $FIM_DATA/note").spawn()).collect();
    for start in starts {
        start.wait().succeeds().with_stdout("2\n1");
    }
    let names: Vec<_> = fs::read_dir(data(&world, "hello-world").join("files"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn what_a_guest_makes_of_its_files_leads_nowhere() {
    let world = hello_world();
    fs::write(world.path("secret"), "secret").unwrap();
    let secret = world.path("secret");
    let host = secret.parent().unwrap().display();
    let script = format!(
        "cd /run/fim/data/1 && rm -r system && ln -s {host} system && rmdir user && ln -s {host}/secret user; ls -A /run/fim/data; rm -r /run/fim/data/1; echo $?"
    );
    let listing = sh(&world, "hello-world", &script).run().text();
    assert_eq!(listing.lines().last(), Some("1"), "what is mounted cannot be removed: {listing}");
    let hostile = "cd /run/fim/data/1 && ln -s $0 system && ln -s $0/secret user; ls";
    run(&world, "hello-world", &["fim-exec", "sh", "-c", hostile, &host.to_string()]).run();
    version(&world, "2");
    // The links are copied as links: the start works, and the host's files are where they were.
    let look = "ls -l /run/fim/data/2 | grep -c -- '-> '; cat $FIM_DATA/secret 2>/dev/null || echo none";
    assert_eq!(sh(&world, "hello-world", look).prints(), "2\nnone");
    let copied = data(&world, "hello-world").join("files/2/system");
    assert!(fs::symlink_metadata(copied).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(world.path("secret")).unwrap(), "secret");
}

#[test]
fn a_damaged_record_is_named() {
    let world = hello_world();
    sh(&world, "hello-world", WRITE).run().succeeds();
    let record = data(&world, "hello-world").join("revision");
    for bad in ["x", "2:1:1:a", "1:5:1:a", "1:-1:1:a"] {
        fs::remove_file(&record).unwrap();
        symlink(bad, &record).unwrap();
        run(&world, "hello-world", &["fim-exec", "true"]).fails_naming(&[
            "cannot read the revision",
            record.to_str().unwrap(),
            "remove it",
        ]);
    }
    fs::remove_file(&record).unwrap();
    assert_eq!(sh(&world, "hello-world", READ).prints(), "1 1 1 1 1");
    assert!(Path::new(&record).is_symlink());
}

#[test]
fn a_throw_away_start_begins_with_empty_files_and_leaves_none() {
    let world = hello_world();
    sh(&world, "hello-world_foo", &format!("{WRITE}; echo keyed > /note")).run().succeeds();
    let script = format!("cat /note; ls $FIM_DATA $FIM_COMMON | grep -c note; {WRITE}; {READ}");
    let passing = run(&world, "hello-world_foo", &["fim-exec", "--ephemeral", "sh", "-c", &script]);
    assert_eq!(passing.prints(), "keyed\n0\n1 1 1 1 1");
    fs::write(data(&world, "hello-world_foo").join("files/1/system/note"), "kept\n").unwrap();
    assert_eq!(sh(&world, "hello-world_foo", "cat $FIM_DATA/note").prints(), "kept");
}

#[test]
fn a_commit_to_the_image_is_a_new_revision() {
    let world = hello_world();
    sh(&world, "hello-world", &format!("{WRITE}; echo more > /etc/more")).run().succeeds();
    run(&world, "hello-world", &["fim-layer", "commit", "binary"]).run().succeeds();
    assert_eq!(sh(&world, "hello-world", &format!("cat /etc/more; {READ}")).prints(), "more\n2 1 1 1 1");
}

#[test]
fn clearing_the_data_clears_the_files_too_and_counts_anew() {
    let world = hello_world();
    sh(&world, "hello-world_foo", WRITE).run().succeeds();
    sh(&world, "hello-world", WRITE).run().succeeds();
    version(&world, "2");
    assert_eq!(sh(&world, "hello-world", READ).prints(), "2 1 1 1 1");
    run(&world, "hello-world", &["fim-data", "clear", "--yes"]).run().succeeds();
    assert_eq!(sh(&world, "hello-world", "echo $FIM_REVISION; ls $FIM_DATA $FIM_COMMON | grep note").run().text(), "1");
    // Those of a key are its own.
    let path = data(&world, "hello-world_foo");
    assert_eq!(run(&world, "hello-world_foo", &["fim-data", "path"]).prints(), path.to_str().unwrap());
    assert_eq!(sh(&world, "hello-world_foo", "cat $FIM_COMMON/note").prints(), "1");
}
