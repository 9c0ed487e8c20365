//! `fim-key`: making, listing, renaming, cloning, resetting and removing installations.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use harness::{Running, TestCommand, World, is_root, need, owners, world};
use serde_json::{Value, json};

fn link(world: &World, key: &str) -> PathBuf {
    world.path(format!("app_{key}.flatimage"))
}

fn data(world: &World, key: &str) -> PathBuf {
    world.path(".app.flatimage.keys").join(key)
}

fn keyed(world: &World, key: &str, args: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(link(world, key))).args(args)
}

fn sh(world: &World, key: &str, script: &str) -> TestCommand {
    keyed(world, key, &["fim-exec", "sh", "-c", script])
}

fn key(world: &World, args: &[&str]) -> TestCommand {
    world.app(&["fim-key"]).args(args)
}

fn list(world: &World) -> Value {
    serde_json::from_str(&key(world, &["list", "--json"]).prints()).unwrap()
}

fn names(world: &World) -> Vec<String> {
    key(world, &["list"]).prints().lines().map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

fn waiting(command: TestCommand) -> Running {
    let mut running = command.spawn();
    running.expect("ready");
    running
}

#[test]
fn an_added_key_has_a_link_that_goes_along_when_the_directory_moves() {
    let world = World::empty();
    fs::create_dir(world.path("one")).unwrap();
    let small = World::new();
    world::copy(small.image(), &world.path("one/hello-world.flatimage"));
    let run = |program: &str, args: &[&str]| world.equip(TestCommand::new(world.path(program))).args(args);
    let added = run("one/hello-world.flatimage", &["fim-key", "add", "foo"]).prints();
    assert_eq!(added, world.path("one/hello-world_foo.flatimage").to_str().unwrap());
    run("one/hello-world_foo.flatimage", &["fim-exec", "sh", "-c", "echo foo > /note"]).run().succeeds();
    fs::rename(world.path("one"), world.path("two")).unwrap();
    assert_eq!(run("two/hello-world_foo.flatimage", &["fim-exec", "cat", "/note"]).prints(), "foo");
}

#[test]
fn a_key_can_have_another_version_of_the_application() {
    // The documentation's juju 2.9 beside juju 3.0.
    let world = World::empty();
    for version in ["2.9", "3.0"] {
        let tree = world.path(format!("tree-{version}"));
        fs::create_dir(&tree).unwrap();
        world::small_tree(&tree);
        fs::write(tree.join("etc/release"), format!("juju {version}\n")).unwrap();
        let image =
            world.path(if version == "3.0" { "juju.flatimage".into() } else { format!("juju-{version}.flatimage") });
        world::build(&tree, &image, &["--boot", "cat", "--boot-arg", "/etc/release"]).succeeds().quietly();
    }
    let run = |program: &str, args: &[&str]| world.equip(TestCommand::new(world.path(program))).args(args);
    let old = world.path("juju-2.9.flatimage");
    let add = |args: &[&str]| run("juju.flatimage", &["fim-key", "add"]).args(args);
    add(&["29", "--image", old.to_str().unwrap()]).run().succeeds().quietly();
    add(&["30"]).run().succeeds().quietly();
    assert_eq!(run("juju_29.flatimage", &[]).prints(), "juju 2.9");
    assert_eq!(run("juju_30.flatimage", &[]).prints(), "juju 3.0");
    assert_eq!(run("juju.flatimage", &[]).prints(), "juju 3.0");
    // By every other way, too.
    assert_eq!(run("juju.flatimage", &["fim-key", "run", "29"]).prints(), "juju 2.9");
    assert_eq!(run("juju.flatimage", &[]).env("FIM_INSTANCE_KEY", "29").prints(), "juju 2.9");
    let mut running = waiting(run("juju_29.flatimage", &["fim-exec", "sh", "-c", "echo 29 > /note; echo ready; cat"]));
    assert_eq!(run("juju_29.flatimage", &["fim-instance", "list"]).prints().lines().count(), 1);
    assert_eq!(run("juju.flatimage", &["fim-instance", "list"]).prints(), "");
    running.close_stdin();
    running.wait().succeeds();
    // Its data lies with the other keys', none beside the other image.
    assert_eq!(fs::read_to_string(world.path(".juju.flatimage.keys/29/root/note")).unwrap(), "29\n");
    assert!(!world.path(".juju-2.9.flatimage.data").exists());
    run("juju_29.flatimage", &["fim-perms", "set", "certs"]).run().succeeds();
    assert_eq!(run("juju_29.flatimage", &["fim-perms", "list"]).prints(), "certs");
    assert_eq!(run("juju-2.9.flatimage", &["fim-perms", "list"]).prints(), "");
    let listing: Value = serde_json::from_str(&run("juju.flatimage", &["fim-key", "list", "--json"]).prints()).unwrap();
    assert_eq!((&listing[0]["image"], &listing[0]["name"]), (&json!(old), &json!("juju_29")));
    // What is no image cannot be one.
    for (file, why) in [("nowhere", "No such file"), ("home", "directory"), ("tree-2.9/etc/release", "ELF")] {
        add(&["x", "--image", world.path(file).to_str().unwrap()]).fails_naming(&[file, "cannot be the image", why]);
    }
    add(&["x", "--image"]).fails_naming(&["Missing file for '--image'"]);
    add(&["x", "--frobnicate"]).fails_naming(&["Trailing arguments for fim-key: ['--frobnicate',]"]);
    assert!(!world.path(".juju.flatimage.keys/x").exists() && !world.path("juju_x.flatimage").exists());
    // An image that has gone is named.
    fs::remove_file(&old).unwrap();
    run("juju_29.flatimage", &[]).fails_naming(&["juju-2.9.flatimage", "No such file", "fim-key add --image"]);
    run("juju.flatimage", &["fim-key", "remove", "29"]).run().succeeds();
}

#[test]
fn a_list_tells_what_there_is_and_what_runs() {
    let world = World::new();
    assert_eq!(key(&world, &["list"]).prints(), "");
    assert_eq!(list(&world), json!([]));
    assert!(!world.path(".app.flatimage.keys").exists());
    key(&world, &["add", "foo"]).run().succeeds();
    // Neither data without a link nor a link without data needs to have been added.
    world.exec(&["true"]).env("FIM_INSTANCE_KEY", "data").run().succeeds();
    symlink("app.flatimage", link(&world, "bar")).unwrap();
    symlink("elsewhere", link(&world, "else")).unwrap();
    let mut running = waiting(sh(&world, "foo", "echo ready; cat"));
    let image = world.image().display();
    assert_eq!(key(&world, &["list"]).prints(), format!("bar::{image}\ndata::{image}\nfoo:0:{image}"));
    let entries = list(&world);
    assert_eq!((&entries[0]["data"], &entries[0]["link"]), (&Value::Null, &json!(link(&world, "bar"))));
    assert_eq!((&entries[1]["data"], &entries[1]["link"]), (&json!(data(&world, "data")), &Value::Null));
    assert_eq!(entries[2]["instances"], json!([0]));
    running.close_stdin();
    running.wait().succeeds();
    key(&world, &["list", "x"]).fails_naming(&["Trailing arguments for fim-key: ['x',]"]);
}

#[test]
fn a_renamed_key_keeps_everything_but_its_name() {
    let world = World::new();
    key(&world, &["add", "foo"]).run().succeeds();
    sh(&world, "foo", "echo kept > /note").run().succeeds();
    keyed(&world, "foo", &["fim-env", "add", "A=kept"]).run().succeeds();
    key(&world, &["rename", "foo", "bar"]).run().succeeds().quietly();
    assert_eq!(sh(&world, "bar", "cat /note; echo $A").prints(), "kept\nkept");
    assert!(!link(&world, "foo").is_symlink() && !data(&world, "foo").exists());
    assert_eq!(names(&world), ["bar"]);
}

#[test]
fn a_clone_begins_as_the_other_is_and_goes_its_own_way() {
    let world = World::new();
    let change = "rm /usr/share/dir/one; rm -r /usr/share/dir/deep; mkdir /usr/share/dir/deep; echo new > /usr/share/dir/new;\
                  ln -s new /usr/share/dir/link; ln /usr/share/dir/new /usr/share/dir/same; mkfifo /pipe; chmod 600 /etc/release";
    world.sh(change).run().succeeds().quietly();
    let look = "cd /usr/share/dir; ls -R; cat new same link; stat -c '%n %a %h %F' * /pipe /etc/release; cat two";
    let original = world.sh(look).prints();
    key(&world, &["clone", "foo"]).run().succeeds().quietly();
    assert_eq!(sh(&world, "foo", look).prints(), original);
    sh(&world, "foo", "echo changed > /usr/share/dir/two").run().succeeds();
    keyed(&world, "foo", &["fim-perms", "set", "certs"]).run().succeeds();
    assert_eq!(world.sh(look).prints(), original);
    // Of a key, by name and through its link; settings go along.
    key(&world, &["clone", "foo", "bar"]).run().succeeds();
    keyed(&world, "foo", &["fim-key", "clone", "baz"]).run().succeeds();
    for copy in ["bar", "baz"] {
        assert_eq!(sh(&world, copy, "cat /usr/share/dir/two").prints(), "changed");
        assert_eq!(keyed(&world, copy, &["fim-perms", "list"]).prints(), "certs");
    }
    key(&world, &["clone", "foo", "bar"]).fails_naming(&["'bar' exists already", "fim-key remove bar"]);
    assert_eq!(names(&world), ["bar", "baz", "foo"]);
}

#[test]
fn a_clone_has_the_owners_that_root_gave() {
    let world = World::new();
    if !is_root() {
        owners::one_id(&world);
    }
    let change = "mkdir /o; echo x > /o/file; ln -s x /o/link; mkfifo /o/pipe; chown -h 33:44 /o/file /o/link /o/pipe; chmod 000 /o/file";
    world.root_sh(change).run().succeeds().quietly();
    let look = "stat -c '%n %u:%g %a' /o/*; cat /o/file";
    let original = world.root_sh(look).prints();
    assert!(original.contains("/o/link 33:44"), "{original}");
    key(&world, &["clone", "foo"]).run().succeeds().quietly();
    assert_eq!(keyed(&world, "foo", &["fim-root", "sh", "-c", look]).prints(), original);
    key(&world, &["remove", "foo"]).run().succeeds().with_stdout("app_foo removed\n");
    assert!(!data(&world, "foo").exists());
}

#[test]
fn reset_and_remove_leave_nothing_of_what_they_are_for() {
    let world = World::new();
    world.sh("echo default > /note").run().succeeds();
    for name in ["foo", "bar"] {
        key(&world, &["add", name]).run().succeeds();
        sh(&world, name, "echo keyed > /note").run().succeeds();
        keyed(&world, name, &["fim-perms", "set", "certs"]).run().succeeds();
    }
    key(&world, &["reset", "foo"]).run().succeeds().quietly();
    assert_eq!(sh(&world, "foo", "ls -d /note 2>&1 | wc -l; ls /note 2>/dev/null").run().text(), "1");
    assert_eq!(keyed(&world, "foo", &["fim-perms", "list"]).prints(), "");
    assert_eq!(names(&world), ["bar", "foo"]);
    key(&world, &["remove", "bar"]).run().succeeds().quietly().with_stdout("app_bar removed\n");
    assert!(!link(&world, "bar").is_symlink() && !data(&world, "bar").exists());
    assert_eq!(names(&world), ["foo"]);
    assert_eq!(world.sh("cat /note").prints(), "default");
    let entries = fs::read_dir(world.path(".app.flatimage.keys")).unwrap();
    let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["belongs-to", "foo", "lock"]);
    // A link is all that there may be.
    symlink("app.flatimage", link(&world, "only")).unwrap();
    key(&world, &["remove", "only"]).run().succeeds();
    assert!(!link(&world, "only").is_symlink());
}

#[test]
fn what_runs_is_not_changed() {
    let world = World::new();
    key(&world, &["add", "foo"]).run().succeeds();
    let mut running = [0, 1].map(|_| waiting(sh(&world, "foo", "echo here > /note; echo ready; cat")));
    for args in [&["rename", "foo", "bar"][..], &["clone", "foo", "bar"], &["reset", "foo"], &["remove", "foo"]] {
        key(&world, args).fails_naming(&["'foo' is in use by running instances (0 1)", "fim-instance stop"]);
    }
    running[0].say("still here\n");
    running[0].expect("still here");
    let mut default = waiting(world.sh("echo ready; cat"));
    key(&world, &["clone", "bar"]).fails_naming(&["the default installation is in use by running instances (0)"]);
    assert_eq!(names(&world), ["foo"]);
    for running in &mut running {
        running.close_stdin();
    }
    default.close_stdin();
    running.into_iter().for_each(|running| drop(running.wait().succeeds()));
    default.wait().succeeds();
    // At once, though the session may be just ending.
    key(&world, &["rename", "foo", "bar"]).run().succeeds();
    assert_eq!(sh(&world, "bar", "cat /note").prints(), "here");
}

#[test]
fn wrong_words_change_nothing() {
    let world = World::new();
    fs::write(link(&world, "file"), "mine").unwrap();
    symlink("/etc/passwd", link(&world, "other")).unwrap();
    for (args, words) in [
        (&["add"][..], &["Missing key for 'add'", "fim-help key"][..]),
        (&["add", "Foo"], &["Invalid instance key 'Foo'"]),
        (&["add", "a", "b"], &["Trailing arguments for fim-key: ['b',]"]),
        (&["add", "file"], &["'file'", "app_file.flatimage is a file, not a link", "move it away"]),
        (&["add", "other"], &["'other'", "a link to /etc/passwd, not to this image"]),
        (&["rename", "a"], &["Missing key for 'rename'"]),
        (&["rename", "a", "b"], &["there is no instance key 'a'", "fim-key list"]),
        (&["rename", "a", "b", "c"], &["Trailing arguments for fim-key: ['c',]"]),
        (&["clone"], &["Missing key for 'clone'"]),
        (&["clone", "a"], &["the default installation has no data", "start it once"]),
        (&["clone", "a", "b"], &["there is no instance key 'a'"]),
        (&["reset"], &["Missing key for 'reset'"]),
        (&["reset", "a"], &["there is no instance key 'a'"]),
        (&["remove", "a"], &["there is no instance key 'a'"]),
        (&["remove", "../a"], &["Invalid instance key '../a'"]),
        (&["remove", "a", "--yes"], &["Trailing arguments for fim-key: ['--yes',]"]),
    ] {
        key(&world, args).fails_naming(words);
    }
    assert_eq!(fs::read(link(&world, "file")).unwrap(), b"mine");
    assert!(!data(&world, "file").exists() && !data(&world, "other").exists() && !data(&world, "a").exists());
    key(&world, &["add", "foo"]).run().succeeds();
    key(&world, &["add", "foo"]).fails_naming(&["'foo' exists already", "fim-key remove foo"]);
    world.exec(&["true"]).run().succeeds();
    key(&world, &["clone", "foo"]).fails_naming(&["'foo' exists already"]);
    key(&world, &["clone", "foo", "file"]).fails_naming(&["'file'", "not a link"]);
    key(&world, &["rename", "foo", "file"]).fails_naming(&["'file'", "not a link"]);
    key(&world, &["rename", "foo", "foo"]).fails_naming(&["'foo' exists already"]);
    assert_eq!(names(&world), ["foo"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    if is_root() {
        // Modes do not keep root out.
        return read_only_for_root();
    }
    let world = World::new();
    let place = world.path("readonly");
    fs::create_dir(&place).unwrap();
    world::copy(world.image(), &place.join("app.flatimage"));
    fs::set_permissions(&place, fs::Permissions::from_mode(0o500)).unwrap();
    let outcome = world.equip(TestCommand::new(place.join("app.flatimage"))).args(["fim-key", "add", "foo"]).run();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
    outcome.exits(125).complains_of(&[
        "cannot make the link",
        "app_foo.flatimage",
        "Permission denied",
        "fim-key run foo",
    ]);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

fn read_only_for_root() {
    let world = World::new();
    need("mount");
    let script = "mkdir ro && cp app.flatimage ro/ && mount --bind ro ro && mount -o remount,ro,bind ro && exec ro/app.flatimage fim-key add foo";
    let outcome = world.in_namespace(script).run().exits(125);
    outcome.complains_of(&["cannot make the link", "app_foo.flatimage", "Read-only file system", "fim-key run foo"]);
}

#[test]
fn commands_at_once_give_each_key_once() {
    let world = World::new();
    let add = |name: String| world.app(&["fim-key", "add", &name]).spawn();
    // Five for each of four keys: one of the five gets it.
    let running: Vec<Running> = (0..20).map(|n| add(format!("k{}", n % 4))).collect();
    let codes: Vec<i32> = running.into_iter().map(|running| running.wait().status.code().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 4, "{codes:?}");
    assert!(codes.iter().all(|code| [0, 125].contains(code)));
    assert_eq!(names(&world), ["k0", "k1", "k2", "k3"]);
    // Removing, cloning and starting at once: all or nothing of each.
    sh(&world, "k0", "echo x > /note").run().succeeds();
    let mut running: Vec<Running> =
        (0..4).map(|n| world.app(&["fim-key", "clone", "k0", &format!("c{n}")]).spawn()).collect();
    running.push(world.app(&["fim-key", "rename", "k1", "r"]).spawn());
    running.push(world.app(&["fim-key", "remove", "k2"]).spawn());
    running.into_iter().for_each(|running| drop(running.wait().succeeds()));
    assert_eq!(names(&world), ["c0", "c1", "c2", "c3", "k0", "k3", "r"]);
    for n in 0..4 {
        assert_eq!(sh(&world, &format!("c{n}"), "cat /note").prints(), "x");
    }
}
