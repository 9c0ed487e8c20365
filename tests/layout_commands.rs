//! `fim-layout`: words that are refused, what is imported and what is explained.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;

use harness::World;
use harness::layouts::{FOO, add, import, on_tree, with};

#[test]
fn places_that_are_kept_say_why() {
    let world = World::new();
    for (place, reason) in [
        ("/boot", "boot loader"),
        ("/dev", "devices"),
        ("/home", "homes of users"),
        ("/lib/firmware", "firmware"),
        ("/usr/lib/firmware", "firmware"),
        ("/lib/modules", "modules"),
        ("/usr/lib/modules", "modules"),
        ("/lost+found", "repair"),
        ("/media", "media"),
        ("/proc", "processes"),
        ("/run", "anew"),
        ("/run/fim", "anew"),
        ("/var/run", "anew"),
        ("/sys", "machine"),
        ("/tmp", "empty one of its own"),
        ("/var/lib/snapd", "snapd"),
        ("/var/snap", "snapd"),
        ("/", "hide everything"),
    ] {
        let below = format!("{}/self/x", place.trim_end_matches('/'));
        for target in [place, &below] {
            if target == "/self/x" {
                continue;
            }
            world.app(&["fim-layout", "add", target, "tmpfs"]).fails_naming(&[target, "no layout may be", reason]);
        }
    }
    for (words, text) in [
        (&["/a/../proc", "tmpfs"][..], "'..'"),
        (&["/a", "bind", "$FIM_DATA/../../.."], "'..'"),
        (&["/a", "bind", "/etc"], "must begin with $FIM_ROOT_DIR"),
        (&["/a", "bind", "/proc/self/root/etc"], "must begin with $FIM_ROOT_DIR"),
        (&["/a", "symlink", "$HOME/x"], "must begin with"),
        (&["a", "tmpfs"], "must begin with /"),
        (&["$FIM_DATA", "tmpfs"], "no layout may be"),
        (&["/a", "hardlink", "$FIM_DATA/a"], "Invalid layout type 'hardlink'"),
        (&["/a", "bind"], "needs a source"),
        (&["/a"], "Incorrect number of arguments"),
    ] {
        world.app(&["fim-layout", "add"]).args(words).fails_naming(&[text]);
    }
    assert_eq!(world.app(&["fim-layout", "list", "--json"]).prints(), "[]");
}

#[test]
fn two_layouts_of_one_place_are_found_by_any_spelling() {
    let world = with(&["/a tmpfs", "$SNAP/b tmpfs"]);
    for target in ["/a", "//a/./", "$FIM_ROOT_DIR/b", "${SNAP}//b/"] {
        world.app(&["fim-layout", "add", target, "tmpfs"]).fails_naming(&["there is a layout for '", "fim-layout del"]);
    }
    let world = on_tree(
        |tree| {
            fs::create_dir_all(tree.join("usr/lib")).unwrap();
            symlink("usr/lib", tree.join("lib")).unwrap();
        },
        &["/lib/x tmpfs", "/usr/lib/x tmpfs"],
    );
    world.sh("true").fails_naming(&["'/usr/lib/x'", "same place as layout '/lib/x'"]);
    world.app(&["fim-layout", "check"]).fails_naming(&["'/usr/lib/x'", "same place as layout '/lib/x'"]);
    world.app(&["fim-layout", "del", "/lib/x"]).run().succeeds();
    add(&world, "/lib/x/deep tmpfs");
    world.sh("true").fails_naming(&["'/usr/lib/x'", "would hide layout '/lib/x/deep'"]);
}

#[test]
fn circles_change_nothing() {
    let world = with(&["$FIM_ROOT_DIR/a bind $FIM_ROOT_DIR/b"]);
    let words = ["fim-layout", "add", "$FIM_ROOT_DIR/b", "bind", "$FIM_ROOT_DIR/a"];
    world.app(&words).fails_naming(&["circle", "$FIM_ROOT_DIR/a -> $FIM_ROOT_DIR/b -> $FIM_ROOT_DIR/a"]);
    world.app(&["fim-layout", "list"]).run().with_stdout("$FIM_ROOT_DIR/a bind $FIM_ROOT_DIR/b\n");
    world.app(&["fim-layout", "add", "$FIM_DATA/x", "symlink", "$FIM_DATA/x"]).fails_naming(&["circle"]);
}

#[test]
fn importing_is_all_or_nothing() {
    let world = World::new();
    for (text, words) in [
        (
            "layout:\n  /a:\n    type: tmpfs\n  /b:\n    bond: $SNAP/b\n",
            &["layout.yaml", "line 5", "'bond' is unknown"][..],
        ),
        ("layout:\n  /a:\n    type: tmpfs\n  /b:\n    bind: /etc\n", &["'/b'", "must begin with $FIM_ROOT_DIR"]),
        ("layout:\n  /a:\n    type: tmpfs\n  ../b:\n    type: tmpfs\n", &["line 4", "target '../b'"]),
        ("layout:\n  /a:\n    type: tmpfs\n  /a/:\n    type: tmpfs\n", &["there is a layout for '/a'"]),
        ("layout:\n  /a:\n    type: tmpfs\n  /proc/x:\n    type: tmpfs\n", &["'/proc/x'", "no layout may be"]),
        ("name: x\n", &["no layout: block"]),
    ] {
        import(&world, text).exits(125).complains_of(words);
        assert_eq!(world.app(&["fim-layout", "list", "--json"]).prints(), "[]", "{text}");
    }
    world.app(&["fim-layout", "import", "none.yaml"]).fails_naming(&["cannot read none.yaml", "No such file"]);
    let text = format!("name: app\nversion: 1\napps:\n    app:\n        command: bin/app\n{FOO}parts: {{}}\n");
    import(&world, &text).succeeds().with_stdout("3 layouts imported\n");
    let listing: serde_json::Value =
        serde_json::from_str(&world.app(&["fim-layout", "list", "--json"]).prints()).unwrap();
    let expected = serde_json::json!([
        {"target": "/var/lib/foo", "type": "bind", "source": "$FIM_DATA/var/lib/foo", "replace": false},
        {"target": "/usr/share/foo", "type": "bind", "source": "$FIM_ROOT_DIR/usr/share/foo", "replace": false},
        {"target": "/etc/foo.conf", "type": "bind-file", "source": "$FIM_DATA/etc/foo.conf", "replace": false},
    ]);
    assert_eq!(listing, expected);
}

#[test]
fn explain_tells_the_order_and_the_cost() {
    let world = with(&["/a/b symlink $SNAP/b", "/a tmpfs", "/c bind $SNAP/c"]);
    let told = world.app(&["fim-layout", "explain"]).prints();
    for text in [
        "1 /a\n",
        "2 /a/b\n",
        "symlink to /run/fim/root/b",
        "3 /c\n",
        "read-only",
        "cost: ",
        "3 mounts for each start, 1 of",
    ] {
        assert!(told.contains(text), "{text}: {told}");
    }
    for words in [&["fim-layout", "explain", "x"][..], &["fim-layout", "check", "x"], &["fim-layout", "clear", "x"]] {
        world.app(words).fails_naming(&["Trailing arguments"]);
    }
    world.app(&["fim-layout", "show"]).fails_naming(&["Invalid layout operation 'show'"]);
    world.app(&["fim-layout"]).fails_naming(&["Missing op for 'fim-layout'"]);
}
