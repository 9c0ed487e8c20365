//! `fim-alias`: launchers of installations, and who has which name.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::{Outcome, TestCommand, World, is_root, world};
use serde_json::{Value, json};

/// A world with the documentation's `hello-world`, which has the applications `env` and `hello-world`.
struct Hello(World);

impl Hello {
    fn new() -> Self {
        let hello = Self::plain();
        hello.app("hello-world.flatimage", &["fim-alias", "declare", "env", "env"]).run().succeeds().quietly();
        hello.app("hello-world.flatimage", &["fim-alias", "declare", "hello-world"]).run().succeeds().quietly();
        hello
    }

    /// Without applications.
    fn plain() -> Self {
        let world = World::new();
        fs::rename(world.image(), world.path("hello-world.flatimage")).unwrap();
        let hello = Self(world);
        hello.app("hello-world.flatimage", &["fim-boot", "set", "echo", "hello from", "boot"]).run().succeeds();
        hello
    }

    fn bin(&self) -> PathBuf {
        self.0.path("home/.local/bin")
    }

    /// With the directory of launchers in PATH.
    fn app(&self, program: &str, args: &[&str]) -> TestCommand {
        self.with_path(TestCommand::new(self.0.path(program))).args(args)
    }

    fn alias(&self, program: &str, args: &[&str]) -> TestCommand {
        self.app(program, &["fim-alias"]).args(args)
    }

    fn with_path(&self, command: TestCommand) -> TestCommand {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.bin().display());
        self.0.equip(command).env("PATH", path)
    }

    /// A line for the host's shell, anywhere but where the image lies.
    fn shell(&self, line: &str) -> Outcome {
        self.with_path(TestCommand::new("/bin/sh")).args(["-c", line]).current_dir("/").run()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.bin()).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const IMAGE: &str = "hello-world.flatimage";

#[test]
fn applications_are_named_after_the_installation() {
    let hello = Hello::new();
    hello.alias(IMAGE, &["enable"]).run().succeeds().quietly();
    let added = hello.app(IMAGE, &["fim-key", "add", "foo"]).run().succeeds().quietly().text();
    assert!(added.contains("Added:\n  - hello-world_foo env as hello-world_foo.env\n"), "{added}");
    assert_eq!(hello.names(), ["hello-world", "hello-world.env", "hello-world_foo", "hello-world_foo.env"]);
    for name in ["hello-world", "hello-world_foo"] {
        let shown = hello.shell(&format!("{name}.env | grep ^FIM_INSTANCE_NAME")).succeeds().quietly().text();
        assert_eq!(shown, format!("FIM_INSTANCE_NAME={name}"));
        assert_eq!(hello.shell(&format!("{name} again")).succeeds().quietly().text(), "hello from boot again");
    }
    // Whatever the variable says, and through a link.
    symlink(hello.bin().join("hello-world.env"), hello.0.path("home/link")).unwrap();
    let shown = hello.shell("export FIM_INSTANCE_KEY=bar; ~/link | grep ^FIM_INSTANCE_NAME");
    assert_eq!(shown.succeeds().text(), "FIM_INSTANCE_NAME=hello-world");
}

#[test]
fn aliases_are_added_listed_and_removed_as_the_documentation_has_it() {
    let hello = Hello::plain();
    for key in ["foo", "bar"] {
        hello.app(IMAGE, &["fim-key", "add", key]).run().succeeds().quietly();
    }
    assert_eq!(hello.names(), [] as [&str; 0]);
    let added = hello.alias("hello-world_bar.flatimage", &["add", "bar_env"]).prints();
    assert_eq!(added, "Added:\n  - hello-world_bar as bar_env");
    let added = hello.alias(IMAGE, &["add", "foo_env"]).env("FIM_INSTANCE_KEY", "foo").prints();
    assert_eq!(added, "Added:\n  - hello-world_foo as foo_env");
    let table = "Command          Alias    Notes\nhello-world_bar  bar_env  manual\nhello-world_foo  foo_env  manual";
    assert_eq!(hello.alias(IMAGE, &["list"]).prints(), table);
    assert_eq!(hello.alias("hello-world_foo.flatimage", &["list"]).prints(), table);
    let listed: Value = serde_json::from_str(&hello.alias(IMAGE, &["list", "--json"]).prints()).unwrap();
    let expected = json!({
        "alias": "bar_env", "command": [], "declared": null, "instance": "hello-world_bar", "key": "bar",
        "path": hello.bin().join("bar_env"),
    });
    assert_eq!(listed[0], expected);
    // The documentation's conflict.
    hello.alias("hello-world_foo.flatimage", &["add", "bar_env"]).fails_naming(&[
        "cannot enable alias \"bar_env\" for \"hello-world_foo\", already enabled for \"hello-world_bar\"",
        "hello-world.flatimage",
        "choose another name",
    ]);
    assert_eq!(hello.alias(IMAGE, &["list"]).prints(), table);
    // The same installation may think again.
    hello
        .alias("hello-world_bar.flatimage", &["add", "bar_env", "sh", "-c", "echo \"$0:$1\"", "it's"])
        .run()
        .succeeds();
    assert_eq!(hello.shell("bar_env 'two  words'").succeeds().quietly().text(), "it's:two  words");
    let removed = hello.alias(IMAGE, &["remove", "bar_env"]).run().succeeds().quietly().text();
    assert!(removed.starts_with("Removed:\n  - hello-world_bar sh -c "), "{removed}");
    assert_eq!(hello.names(), ["foo_env"]);
    hello.alias(IMAGE, &["remove", "bar_env"]).fails_naming(&["there is no alias 'bar_env'", "fim-alias list"]);
    hello.alias(IMAGE, &["remove", "foo_env"]).run().succeeds();
    assert_eq!(hello.alias(IMAGE, &["list"]).prints(), "");
}

#[test]
fn a_launcher_is_a_command_like_any_other() {
    let hello = Hello::plain();
    let odd = hello.0.path("it's\n a \"$(place)\" \\ %41");
    fs::create_dir(&odd).unwrap();
    fs::rename(hello.0.path(IMAGE), odd.join("my app.flatimage")).unwrap();
    let run = |args: &[&str]| hello.with_path(TestCommand::new(odd.join("my app.flatimage"))).args(args);
    run(&["fim-alias", "add", "odd name", "sh"]).run().succeeds();
    let outcome = hello.shell("echo data | 'odd name' -c 'cat; echo done >&2; exit 7'");
    assert_eq!((outcome.text(), outcome.status.code()), ("data".to_owned(), Some(7)), "{outcome:?}");
    assert_eq!(outcome.stderr(), "done\n");
    // Found again by its image, whatever that is called.
    assert!(run(&["fim-alias", "list"]).prints().ends_with("my app sh  odd name  manual"));
    run(&["fim-alias", "remove", "odd name"]).run().succeeds();
    assert_eq!(hello.names(), [] as [&str; 0]);
}

#[test]
fn names_of_others_are_conflicts() {
    let hello = Hello::plain();
    fs::create_dir_all(hello.bin()).unwrap();
    fs::write(hello.bin().join("mine"), "not even a program").unwrap();
    symlink("nowhere", hello.bin().join("dangling")).unwrap();
    fs::create_dir(hello.bin().join("directory")).unwrap();
    let before = hello.names();
    let refused = "cannot enable alias";
    for (name, why) in [
        ("mine", ".local/bin/mine"),
        ("dangling", ".local/bin/dangling"),
        ("directory", ".local/bin/directory"),
        ("ls", "the name is taken by /"),
    ] {
        hello.alias(IMAGE, &["add", name]).fails_naming(&[refused, name, "\"hello-world\"", why]);
    }
    for name in ["", "a/b", "..", "-x", ".hidden", "a\nb", &"x".repeat(256)] {
        hello.alias(IMAGE, &["add", name]).fails_naming(&["Invalid alias '", "without / and control characters"]);
    }
    assert_eq!(hello.names(), before);
    assert_eq!(fs::read(hello.bin().join("mine")).unwrap(), b"not even a program");
    // Another application.
    world::copy(&hello.0.path(IMAGE), &hello.0.path("other.flatimage"));
    hello.alias("other.flatimage", &["add", "tool"]).run().succeeds();
    let other = hello.0.path("other.flatimage");
    let named = ["already enabled for \"other\"", other.to_str().unwrap()];
    hello.alias(IMAGE, &["add", "tool"]).fails_naming(&named);
    hello.alias(IMAGE, &["remove", "tool"]).fails_naming(&["there is no alias 'tool' of this image"]);
    // Also where it lies elsewhere in PATH.
    let elsewhere = hello.0.path("elsewhere");
    hello.alias(IMAGE, &["add", "tool"]).env("XDG_BIN_HOME", &elsewhere).fails_naming(&named);
    // One whose image is no more is in nobody's way.
    fs::remove_file(&other).unwrap();
    hello.alias(IMAGE, &["add", "tool"]).run().succeeds().complains_of(&["note: the alias tool was of", "no more"]);
    assert_eq!(hello.shell("tool").text(), "hello from boot");
}

#[test]
fn a_conflict_keeps_a_key_from_being_added_unless_unaliased() {
    let hello = Hello::new();
    fs::create_dir_all(hello.bin()).unwrap();
    world::script(&hello.bin().join("hello-world_foo"), "#!/bin/sh\n");
    let outcome = hello.app(IMAGE, &["fim-key", "add", "foo"]).run().exits(125);
    let words = ["alias \"hello-world_foo\"", "the name is taken by", "with --unaliased, no aliases are made"];
    assert_eq!(outcome.complains_of(&words).text(), "");
    assert_eq!(hello.names(), ["hello-world_foo"]);
    assert!(!hello.0.path("hello-world_foo.flatimage").is_symlink());
    assert!(!hello.0.path(".hello-world.flatimage.keys/foo").exists());
    hello.app(IMAGE, &["fim-key", "add", "foo", "--unaliased"]).run().succeeds().quietly();
    assert_eq!(hello.names(), ["hello-world_foo"]);
    assert_eq!(hello.app("hello-world_foo.flatimage", &[]).prints(), "hello from boot");
    hello.app(IMAGE, &["fim-key", "add", "x", "--unaliased", "y"]).fails_naming(&["Trailing arguments", "'y'"]);
}

#[test]
fn aliases_follow_their_key() {
    let hello = Hello::new();
    hello.app(IMAGE, &["fim-key", "add", "foo"]).run().succeeds();
    hello.alias("hello-world_foo.flatimage", &["add", "tool", "sh", "-c", "echo $FIM_INSTANCE_KEY"]).run().succeeds();
    hello.app(IMAGE, &["fim-key", "rename", "foo", "bar"]).run().succeeds().quietly();
    assert_eq!(hello.names(), ["hello-world_bar", "hello-world_bar.env", "tool"]);
    assert_eq!(hello.shell("tool").text(), "bar");
    // A clone has none of its own.
    hello.app(IMAGE, &["fim-key", "clone", "bar", "baz"]).run().succeeds();
    assert_eq!(hello.names().len(), 3);
    hello.app("hello-world_baz.flatimage", &["fim-alias", "enable"]).run().succeeds();
    assert_eq!(hello.names().len(), 5);
    hello.app(IMAGE, &["fim-key", "remove", "bar"]).run().succeeds().quietly();
    assert_eq!(hello.names(), ["hello-world_baz", "hello-world_baz.env"]);
    // What is taken meanwhile is said, and the key is renamed all the same.
    world::script(&hello.bin().join("hello-world_new"), "#!/bin/sh\n");
    let outcome = hello.app(IMAGE, &["fim-key", "rename", "baz", "new"]).run().succeeds();
    outcome.complains_of(&["warning: not all aliases of 'baz' are those of 'new'", "hello-world_new"]);
}

#[test]
fn a_key_with_an_image_of_its_own_has_the_aliases_of_that() {
    let hello = Hello::new();
    let old = hello.0.path("old.flatimage");
    world::copy(&hello.0.path(IMAGE), &old);
    hello.app("old.flatimage", &["fim-alias", "undeclare", "hello-world"]).run().succeeds();
    hello.app("old.flatimage", &["fim-alias", "declare", "cat", "cat", "/etc/release"]).run().succeeds();
    let add = ["fim-key", "add", "old", "--image", old.to_str().unwrap()];
    hello.app(IMAGE, &add).run().succeeds();
    assert_eq!(hello.names(), ["hello-world_old.cat", "hello-world_old.env"]);
    assert_eq!(hello.shell("hello-world_old.cat").succeeds().text(), "small");
    hello.app("hello-world_old.flatimage", &["fim-alias", "remove", "hello-world_old.env"]).run().succeeds();
    hello.app("hello-world_old.flatimage", &["fim-alias", "enable"]).run().succeeds();
    assert_eq!(hello.names(), ["hello-world_old.cat", "hello-world_old.env"]);
    assert!(
        hello.alias(IMAGE, &["list"]).prints().contains("hello-world_old cat /etc/release  hello-world_old.cat  -")
    );
}

#[test]
fn declarations_are_the_images() {
    let hello = Hello::new();
    hello.alias(IMAGE, &["declare", "env", "env", "-0"]).run().succeeds();
    let shown: Value = serde_json::from_str(&hello.app(IMAGE, &["fim-inspect", "--json"]).prints()).unwrap();
    let declared = json!([{ "name": "env", "command": ["env", "-0"] }, { "name": "hello-world", "command": [] }]);
    assert_eq!(shown["config"]["aliases"], declared);
    for name in ["", "a b", "../x", "-x", "ä", ".a"] {
        hello.alias(IMAGE, &["declare", name]).fails_naming(&["Invalid alias", "letters, digits"]);
    }
    hello.alias(IMAGE, &["undeclare", "nothing"]).fails_naming(&["declares no alias 'nothing'", "fim-inspect"]);
    hello.alias(IMAGE, &[]).fails_naming(&["Missing op for 'fim-alias'"]);
    hello.alias(IMAGE, &["add"]).fails_naming(&["Missing name for 'add'"]);
    hello.alias(IMAGE, &["frobnicate"]).fails_naming(&["Invalid alias operation 'frobnicate'"]);
    hello.alias(IMAGE, &["list", "x"]).fails_naming(&["Trailing arguments for fim-alias: ['x',]"]);
}

#[test]
fn the_directory_is_the_users() {
    let hello = Hello::plain();
    let add = |name: &str| hello.alias(IMAGE, &["add", name]);
    // Said once, where no shell would find it.
    let bin = hello.bin();
    let note = [bin.to_str().unwrap(), "is not in PATH", "~/.profile"];
    let outcome = add("one").env("PATH", "/usr/bin:/bin").run().succeeds().complains_of(&note);
    assert_eq!(outcome.stderr().lines().count(), 1);
    assert_eq!(fs::metadata(hello.bin().join("one")).unwrap().permissions().mode() & 0o700, 0o700);
    let other = hello.0.path("other bin");
    add("two").env("XDG_BIN_HOME", &other).run().succeeds();
    assert!(other.join("two").is_file() && !Path::new("relative").exists());
    add("three").env("XDG_BIN_HOME", "relative").run().succeeds().quietly();
    assert!(hello.bin().join("three").is_file());
    add("four").env_remove("HOME").fails_naming(&["no place for aliases", "XDG_BIN_HOME", "HOME"]);
    if !is_root() {
        fs::set_permissions(hello.bin(), fs::Permissions::from_mode(0o500)).unwrap();
        add("five").fails_naming(&[".local/bin", "Permission denied"]);
        fs::set_permissions(hello.bin(), fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::remove_dir_all(hello.0.path("home/.local")).unwrap();
    fs::write(hello.0.path("home/.local"), "a file").unwrap();
    add("six").fails_naming(&["cannot make the alias", ".local/bin/six"]);
}

#[test]
fn one_of_many_gets_a_name() {
    let hello = Hello::plain();
    let running: Vec<_> =
        (0..6).map(|n| hello.alias(IMAGE, &["add", "tool"]).env("FIM_INSTANCE_KEY", format!("k{n}")).spawn()).collect();
    let codes: Vec<_> = running.into_iter().map(|running| running.wait().status.code().unwrap()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| [0, 125].contains(code)));
    assert_eq!(hello.names(), ["tool"]);
}
