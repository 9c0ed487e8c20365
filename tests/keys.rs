//! Instance keys: several installations of one image file, which know nothing of each other.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use harness::{Running, TestCommand, World, world};

/// A command on the link that stands for a key.
fn keyed(world: &World, key: &str, args: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(world.path(format!("app_{key}.flatimage")))).args(args)
}

/// A world whose image has links for these keys.
fn with_keys(keys: &[&str]) -> World {
    let world = World::new();
    for key in keys {
        symlink("app.flatimage", world.path(format!("app_{key}.flatimage"))).unwrap();
    }
    world
}

fn sh(world: &World, key: &str, script: &str) -> TestCommand {
    keyed(world, key, &["fim-exec", "sh", "-c", script])
}

/// An instance that waits for its stdin.
fn waiting(command: TestCommand) -> Running {
    let mut running = command.spawn();
    running.expect("ready");
    running
}

#[test]
fn a_link_a_variable_and_a_word_name_the_same_installation() {
    let world = with_keys(&["foo"]);
    world.sh("echo default > /note").run().succeeds().quietly();
    assert_eq!(sh(&world, "foo", "cat /note 2>/dev/null || echo foo > /note; cat /note").prints(), "foo");
    assert_eq!(world.sh("cat /note").env("FIM_INSTANCE_KEY", "foo").prints(), "foo");
    assert_eq!(world.app(&["fim-key", "run", "foo", "fim-exec", "cat", "/note"]).prints(), "foo");
    // From another directory, by another way to the same link, and without the ending.
    fs::create_dir(world.path("bin")).unwrap();
    symlink("../app.flatimage", world.path("bin/app_foo")).unwrap();
    assert_eq!(world.equip(TestCommand::new("bin/app_foo")).args(["fim-exec", "cat", "/note"]).prints(), "foo");
    assert_eq!(world.host_sh("PATH=$PWD/bin:$PATH; app_foo fim-exec cat /note").prints(), "foo");
    // Through a link of any name to that one, and to the image itself.
    symlink("../app_foo.flatimage", world.path("bin/work")).unwrap();
    symlink("../app.flatimage", world.path("bin/other")).unwrap();
    assert_eq!(world.equip(TestCommand::new("bin/work")).args(["fim-exec", "cat", "/note"]).prints(), "foo");
    assert_eq!(world.equip(TestCommand::new("bin/other")).args(["fim-exec", "cat", "/note"]).prints(), "default");
    // No key is the default one, and so is an empty one.
    assert_eq!(world.sh("cat /note").env("FIM_INSTANCE_KEY", "").prints(), "default");
    assert_eq!(fs::read_to_string(world.path(".app.flatimage.keys/foo/root/note")).unwrap(), "foo\n");
    world.assert_nothing_left();
}

#[test]
fn an_underscore_in_the_name_of_a_file_is_no_key() {
    let world = World::new();
    let image = world.path("my_app.flatimage");
    world::copy(world.image(), &image);
    let run = |path: &Path| world.equip(TestCommand::new(path)).args(["fim-exec", "sh", "-c", "echo x > /note"]).run();
    run(&image).succeeds();
    assert!(world.path(".my_app.flatimage.data/root/note").exists());
    assert!(!world.path(".my_app.flatimage.keys").exists());
    // A hard link is a file with that name, too.
    fs::hard_link(&image, world.path("my_app_foo.flatimage")).unwrap();
    run(&world.path("my_app_foo.flatimage")).succeeds();
    assert!(world.path(".my_app_foo.flatimage.data/root/note").exists());
    symlink("my_app.flatimage", world.path("my_app_bar.flatimage")).unwrap();
    run(&world.path("my_app_bar.flatimage")).succeeds();
    assert!(world.path(".my_app.flatimage.keys/bar/root/note").exists());
}

#[test]
fn keys_that_are_none_are_refused_and_leave_nothing() {
    let world = with_keys(&["Foo", "", "01234567890", "a-b"]);
    for key in ["Foo", "", "01234567890", "a-b"] {
        keyed(&world, key, &["fim-exec", "true"]).fails_naming(&[
            "Invalid instance key",
            key,
            &format!("app_{key}.flatimage"),
            "lower-case",
            "renamed",
        ]);
        if !key.is_empty() {
            world.exec(&["true"]).env("FIM_INSTANCE_KEY", key).fails_naming(&["Invalid", key, "FIM_INSTANCE_KEY"]);
        }
        world.app(&["fim-key", "run", key, "fim-exec", "true"]).fails_naming(&["Invalid instance key", key]);
    }
    world.app(&["fim-key", "run"]).fails_naming(&["Missing key", "fim-key run"]);
    world.app(&["fim-key", "run", "-x"]).fails_naming(&["Invalid instance key '-x'"]);
    world.app(&["fim-key", "run", "a", "fim-key", "run", "b"]).fails_naming(&["fim-key run b", "one key"]);
    world.app(&["fim-key"]).fails_naming(&["Missing op for 'fim-key'", "fim-help key"]);
    world.app(&["fim-key", "frobnicate"]).fails_naming(&["Invalid key operation 'frobnicate'"]);
    symlink("app.flatimage", world.path("app_foo.flatimage")).unwrap();
    keyed(&world, "foo", &["fim-exec", "true"]).env("FIM_INSTANCE_KEY", "bar").fails_naming(&[
        "'foo'",
        "'bar'",
        "FIM_INSTANCE_KEY",
        "unset",
    ]);
    assert!(!world.path(".app.flatimage.keys").exists() && !world.data().exists());
}

#[test]
fn instances_and_their_ids_are_each_keys_own() {
    let world = with_keys(&["foo", "bar"]);
    let wait = "echo ready; cat";
    let mut running = [
        waiting(world.sh(wait)),
        waiting(sh(&world, "foo", wait)),
        waiting(sh(&world, "foo", wait)),
        waiting(sh(&world, "bar", wait)),
    ];
    let ids = |listing: String| {
        listing.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(world.app(&["fim-instance", "list"]).prints()), "0");
    assert_eq!(ids(keyed(&world, "foo", &["fim-instance", "list"]).prints()), "0 1");
    assert_eq!(ids(keyed(&world, "bar", &["fim-instance", "list"]).prints()), "0");
    // A command in one is a command in that one.
    keyed(&world, "foo", &["fim-instance", "exec", "1", "sh", "-c", "echo foo > /note; echo tmp > /tmp/note"])
        .run()
        .succeeds();
    assert_eq!(sh(&world, "foo", "cat /note; test -e /tmp/note || echo none").prints(), "foo\nnone");
    assert_eq!(sh(&world, "bar", "test -e /note || test -e /tmp/note || echo none").prints(), "none");
    keyed(&world, "bar", &["fim-instance", "exec", "1", "true"]).fails_naming(&["no instance 1", "0"]);
    keyed(&world, "bar", &["fim-instance", "stop", "0"]).run().succeeds();
    assert_eq!(ids(keyed(&world, "foo", &["fim-instance", "list"]).prints()), "0 1");
    running[0].say("still here\n");
    running[0].expect("still here");
    for instance in running {
        drop(instance.wait());
    }
    world.assert_nothing_left();
}

#[test]
fn memory_network_and_abstract_sockets_are_each_keys_own() {
    let world = with_keys(&["foo", "bar"]);
    // Abstract sockets belong to the network namespace.
    let look = "for name in ipc net pid mnt; do readlink /proc/self/ns/$name; done";
    let seen = ["foo", "bar"].map(|key| {
        let script = format!("echo {key} > /dev/shm/x; ls /dev/shm; {look}; echo ready; cat");
        waiting(sh(&world, key, &script))
    });
    let seen = seen.map(|running| running.wait().succeeds().text());
    let lines = seen.each_ref().map(|text| text.lines().filter(|line| *line != "ready").collect::<Vec<_>>());
    assert_eq!((lines[0].len(), lines[1].len()), (5, 5), "{seen:?}");
    assert!(lines.iter().all(|lines| lines[0] == "x"), "{seen:?}");
    for (one, other) in lines[0][1..].iter().zip(&lines[1][1..]) {
        assert_ne!(one, other);
    }
    // Two servers on one port do not collide, and a port below 1024 needs no privilege.
    let server = "mkdir -p /www; echo $FIM_KEY > /www/index.html; httpd -p 80 -h /www; echo ready; cat";
    let serve = |key: &str| waiting(sh(&world, key, &server.replace("$FIM_KEY", key)));
    let servers = ["foo", "bar"].map(serve);
    for key in ["foo", "bar"] {
        let id = keyed(&world, key, &["fim-instance", "list"]).prints();
        let id = id.split(':').next().unwrap();
        let fetch = keyed(&world, key, &["fim-instance", "exec", id, "wget", "-qO-", "http://127.0.0.1/"]);
        assert_eq!(fetch.prints(), key);
    }
    servers.into_iter().for_each(|server| drop(server.wait().succeeds()));
}

#[test]
fn a_setting_that_a_key_changes_is_its_own_and_the_rest_is_the_images() {
    let world = with_keys(&["foo", "bar"]);
    let list = |key: Option<&str>, command: &str| match key {
        None => world.app(&[command, "list"]).prints(),
        Some(key) => keyed(&world, key, &[command, "list"]).prints(),
    };
    world.app(&["fim-perms", "set", "certs"]).run().succeeds();
    world.app(&["fim-env", "add", "A=image"]).run().succeeds();
    assert_eq!((list(Some("foo"), "fim-perms"), list(Some("foo"), "fim-env")), ("certs".into(), "A=image".into()));
    assert!(!world.path(".app.flatimage.keys").exists(), "reading makes nothing");
    keyed(&world, "foo", &["fim-perms", "add", "fonts"]).run().succeeds().quietly();
    assert_eq!(list(Some("foo"), "fim-perms"), "certs\nfonts");
    assert_eq!((list(None, "fim-perms"), list(Some("bar"), "fim-perms")), ("certs".into(), "certs".into()));
    // What is the key's own stays; what is not follows the image.
    world.app(&["fim-perms", "set", "locale"]).run().succeeds();
    world.app(&["fim-env", "add", "B=later"]).run().succeeds();
    assert_eq!(list(Some("foo"), "fim-perms"), "certs\nfonts");
    assert_eq!(list(Some("foo"), "fim-env"), "A=image\nB=later");
    assert_eq!(sh(&world, "foo", "echo $A $B").prints(), "image later");
    assert_eq!(list(Some("bar"), "fim-perms"), "locale");
    // A set that happens to be the same as the image's is kept, too, and so is nothing at all.
    keyed(&world, "bar", &["fim-perms", "set", "locale"]).run().succeeds();
    keyed(&world, "bar", &["fim-env", "clear"]).run().succeeds();
    world.app(&["fim-perms", "clear"]).run().succeeds();
    assert_eq!((list(Some("bar"), "fim-perms"), list(Some("bar"), "fim-env")), ("locale".into(), String::new()));
    keyed(&world, "bar", &["fim-perms", "inherit"]).run().succeeds().quietly();
    assert_eq!(list(Some("bar"), "fim-perms"), "");
    // Giving up what is not one's own is fine; the default installation has nothing to give up.
    keyed(&world, "bar", &["fim-bind", "inherit"]).run().succeeds().quietly();
    world.app(&["fim-perms", "inherit"]).fails_naming(&["'inherit'", "default one"]);
    keyed(&world, "bar", &["fim-perms", "inherit", "x"]).fails_naming(&["Trailing arguments for fim-perms: ['x',]"]);
}

#[test]
fn every_kind_of_setting_can_be_a_keys_own() {
    let world = with_keys(&["foo"]);
    fs::write(world.path("shared"), "shared\n").unwrap();
    let shared = world.path("shared");
    let bind: &[&str] = &["fim-bind", "add", "ro", shared.to_str().unwrap(), "/shared"];
    let changes: [(&[&str], &[&str]); 9] = [
        (&["fim-boot", "set", "echo", "keyed"], &["fim-boot", "show"]),
        (bind, &["fim-bind", "list"]),
        (&["fim-unshare", "add", "net"], &["fim-unshare", "list"]),
        (&["fim-overlay", "set", "unionfs"], &["fim-overlay", "show"]),
        (&["fim-remote", "set", "https://example.org/x"], &["fim-remote", "show", "--json"]),
        (&["fim-portal", "allow", "true"], &["fim-portal", "list"]),
        (&["fim-env", "add", "K=v"], &["fim-env", "list"]),
        (&["fim-perms", "add", "certs"], &["fim-perms", "list"]),
        (&["fim-notify", "on"], &["fim-boot", "show"]),
    ];
    let image = fs::read(world.image()).unwrap();
    for (change, show) in changes {
        let before = world.app(show).prints();
        keyed(&world, "foo", change).run().succeeds().quietly();
        assert_eq!(world.app(show).prints(), before, "{change:?}");
        if change[0] != "fim-notify" {
            assert_ne!(keyed(&world, "foo", show).prints(), before, "{change:?}");
        }
    }
    assert!(image == fs::read(world.image()).unwrap(), "the image is as it was");
    assert_eq!(keyed(&world, "foo", &["further"]).prints(), "keyed further");
    assert_eq!(sh(&world, "foo", "cat /shared; echo $K").prints(), "shared\nv");
    let listing: serde_json::Value = serde_json::from_str(&world.app(&["fim-key", "list", "--json"]).prints()).unwrap();
    let own = &listing[0]["settings"];
    assert_eq!(own.as_array().unwrap().len(), 9, "{own}");
    for command in ["boot", "bind", "unshare", "overlay", "remote", "portal", "env", "perms", "notify"] {
        keyed(&world, "foo", &[&format!("fim-{command}"), "inherit"]).run().succeeds().quietly();
    }
    let listing: serde_json::Value = serde_json::from_str(&world.app(&["fim-key", "list", "--json"]).prints()).unwrap();
    assert_eq!(listing[0]["settings"], serde_json::json!([]));
}

#[test]
fn damaged_settings_are_an_error_that_says_what_helps() {
    let world = with_keys(&["foo"]);
    keyed(&world, "foo", &["fim-perms", "set", "certs"]).run().succeeds();
    let settings = world.path(".app.flatimage.keys/foo/settings");
    let good = fs::read(&settings).unwrap();
    for bad in [&b""[..], b"garbage", &good[..good.len() - 1], b"fim-settings 2 perms\n"] {
        fs::write(&settings, bad).unwrap();
        for args in [&["fim-exec", "true"][..], &["fim-perms", "list"], &["fim-perms", "add", "fonts"]] {
            keyed(&world, "foo", args).fails_naming(&["settings", settings.to_str().unwrap(), "remove the file"]);
        }
        assert_eq!(fs::read(&settings).unwrap(), bad);
    }
    fs::remove_file(&settings).unwrap();
    assert_eq!(keyed(&world, "foo", &["fim-perms", "list"]).prints(), "");
    world.exec(&["true"]).run().succeeds().quietly();
}

#[test]
fn writers_of_one_keys_settings_at_once_all_succeed() {
    let world = with_keys(&["foo"]);
    let change = |n: usize| keyed(&world, "foo", &["fim-env", "add", &format!("W{n}={n}")]).spawn();
    let writers: Vec<Running> = (0..20).map(change).collect();
    for writer in writers {
        writer.wait().succeeds().quietly();
    }
    assert_eq!(keyed(&world, "foo", &["fim-env", "list"]).prints().lines().count(), 20);
}

#[test]
fn fim_dir_data_holds_the_keys_of_what_is_kept_there() {
    let world = with_keys(&["foo"]);
    let place = world.path("elsewhere");
    let run = |command: TestCommand| command.env("FIM_DIR_DATA", &place).run().succeeds().quietly();
    run(world.sh("echo default > /note"));
    run(sh(&world, "foo", "echo foo > /note"));
    assert_eq!(fs::read_to_string(place.join("root/note")).unwrap(), "default\n");
    assert_eq!(fs::read_to_string(place.join("keys/foo/root/note")).unwrap(), "foo\n");
    assert!(!world.path(".app.flatimage.keys").exists());
}
