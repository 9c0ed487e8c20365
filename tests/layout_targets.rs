//! Where layouts may appear and what they may show: objects in their place, links, and what others share.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use harness::layouts::{add, data, on_tree, with};
use harness::{World, content};

#[test]
fn an_object_of_another_type_is_replaced_when_that_is_asked_for() {
    let tree = |tree: &Path| {
        fs::create_dir_all(tree.join("opt/there")).unwrap();
        fs::write(tree.join("opt/file"), "image\n").unwrap();
        fs::write(tree.join("opt/there/old"), "image\n").unwrap();
        symlink("file", tree.join("opt/link")).unwrap();
        symlink("there", tree.join("opt/way")).unwrap();
    };
    let (is_file, is_directory, is_link) = ("there is a file", "there is a directory", "there is a symbolic link");
    for (target, words, existing, wanted, look, shows) in [
        (
            "/opt/file",
            "symlink $FIM_DATA/x",
            is_file,
            "a symbolic link",
            "readlink /opt/file",
            "/run/fim/data/1/system/x",
        ),
        (
            "/opt/link",
            "symlink $FIM_DATA/x",
            is_link,
            "a symbolic link",
            "readlink /opt/link",
            "/run/fim/data/1/system/x",
        ),
        ("/opt/link", "bind-file $FIM_DATA/x", is_link, "a file", "test -L /opt/link || stat -c %s /opt/link", "0"),
        ("/opt/there", "bind-file $FIM_DATA/x", is_directory, "a file", "stat -c %F /opt/there", "regular empty file"),
        (
            "/opt/there",
            "symlink $FIM_DATA/x",
            is_directory,
            "a symbolic link",
            "stat -c %F /opt/there",
            "symbolic link",
        ),
        ("/opt/file", "bind $FIM_DATA/d", is_file, "a directory", "stat -c %F /opt/file", "directory"),
        ("/opt/file", "tmpfs", is_file, "a directory", "stat -c %F /opt/file", "directory"),
        ("/opt/way", "tmpfs", is_link, "a directory", "test -L /opt/way || ls -A /opt/way | wc -l", "0"),
    ] {
        let world = on_tree(tree, &[&format!("{target} {words}")]);
        let refused = world.sh("true").fails_naming(&[&format!("'{target}'"), existing, wanted, "--replace"]);
        let checked = world.app(&["fim-layout", "check"]).run().exits(125);
        assert_eq!(checked.stderr(), refused.stderr());
        world.app(&["fim-layout", "del", target]).run().succeeds();
        add(&world, &format!("{target} {words} --replace"));
        world.app(&["fim-layout", "check"]).run().succeeds().with_stdout("1 layouts can be made\n");
        assert_eq!(world.sh(look).prints(), shows, "{target} {words}");
        // What is beside it is the image's, and can be written.
        let beside = if target == "/opt/there" { "/opt/file" } else { "/opt/there/old" };
        assert_eq!(
            world.sh(&format!("echo mine >> {beside}; cat {beside}")).prints(),
            "image\nmine",
            "{target} {words}"
        );
        // And what was replaced is there again without the layout.
        world.app(&["fim-layout", "clear"]).run().succeeds();
        let again = "readlink /opt/link; readlink /opt/way; head -n 1 /opt/there/old; head -n 1 /opt/file";
        assert_eq!(world.sh(again).prints(), "file\nthere\nimage\nimage");
    }
}

#[test]
fn a_name_of_the_root_directory_is_replaced_too() {
    let tree = |tree: &Path| {
        fs::write(tree.join("top"), "image\n").unwrap();
        symlink("usr/share", tree.join("share")).unwrap();
        fs::create_dir(tree.join("deep")).unwrap();
    };
    let world = on_tree(
        tree,
        &[
            "/before symlink $FIM_DATA/x",
            "/top bind $FIM_DATA/top --replace",
            "/share tmpfs --replace",
            "/deep symlink $FIM_ROOT_DIR/etc --replace",
            "/zz/after bind $FIM_ROOT_DIR/usr/share",
        ],
    );
    let script = "echo t > /top/x; cat $FIM_DATA/top/x; ls -A /share | wc -l; cat /deep/release; readlink /before; ls /zz/after | wc -l; \
                  ls / | grep -v root; echo mine > /usr/share/mine; cat /run/fim/root/top; touch /new 2>/dev/null || echo closed; tty; test -c /dev/null && ls -d /proc/self/fd && echo > /tmp/x";
    let expected = "t\n0\nsmall\n/run/fim/data/1/system/x\n3\nbefore\nbin\ndeep\ndev\netc\nproc\nrun\nsbin\nshare\nsys\ntmp\ntop\nusr\nzz\nimage\nclosed\nnot a tty\n/proc/self/fd";
    assert_eq!(world.sh(script).run().text(), expected);
    assert_eq!(
        world.root_sh("cat /usr/share/mine; id -u; umount /top 2>/dev/null || echo locked").prints(),
        "mine\n0\nlocked"
    );
    world.app(&["fim-layout", "clear"]).run().succeeds();
    assert_eq!(
        world.sh("cat /top; readlink /share; touch /new; ls -d /zz /before 2>/dev/null | wc -l").prints(),
        "image\nusr/share\n0"
    );
    world.assert_nothing_left();
}

#[test]
fn a_directory_in_the_place_of_another_hides_it_for_the_time_being() {
    let world = World::new();
    world.sh("true").run().succeeds();
    world.wait_for_end();
    let before = world.app(&["fim-layer", "diff"]).prints();
    add(&world, "/usr/share/dir bind $FIM_DATA/dir");
    add(&world, "/usr/share/plain bind-file $FIM_DATA/plain");
    assert_eq!(world.sh("ls /usr/share/dir; echo new > /usr/share/plain; cat /usr/share/plain").prints(), "new");
    world.app(&["fim-layout", "clear"]).run().succeeds();
    assert_eq!(world.sh("ls /usr/share/dir; cat /usr/share/plain").prints(), "deep\none\ntwo\nno program");
    world.wait_for_end();
    let names =
        |diff: &str| diff.lines().filter(|line| !line.starts_with("M:0:0:")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&world.app(&["fim-layer", "diff"]).prints()), names(&before));
}

#[test]
fn links_of_the_image_lead_to_no_kept_place() {
    for (link, to, target, place) in [
        ("lib", "usr/lib", "/lib/firmware.d/x", None),
        ("lib64", "usr/lib", "/lib64/firmware/x", Some("/usr/lib/firmware")),
        ("srv", "proc", "/srv/x", Some("/proc/x")),
        ("srv", "/proc/self/root/dev", "/srv/x", None),
        ("srv", "../../../../run/fim/../fim", "/srv/x", Some("/run/fim/x")),
        ("var", ".", "/var/tmp/x", Some("/tmp/x")),
        ("srv", "home", "/srv/x/y", Some("/home/x")),
    ] {
        let world = on_tree(
            |tree| {
                for name in ["usr/lib", "proc", "home"] {
                    fs::create_dir_all(tree.join(name)).unwrap();
                }
                symlink(to, tree.join(link)).unwrap();
            },
            &[&format!("{target} tmpfs")],
        );
        let started = world.sh("true").run();
        match place {
            Some(place) => {
                started.exits(125).complains_of(&["fim: layout", target, place, "no layout may be"]);
            }
            // A link through proc is not followed at all.
            None if to.contains("self") => drop(started.exits(125).complains_of(&["fim: layout", "/srv"])),
            None => drop(started.succeeds().quietly()),
        }
        world.assert_nothing_left();
    }
}

#[test]
fn a_link_to_nothing_is_not_followed() {
    let world = on_tree(|tree| symlink("/gone", tree.join("opt")).unwrap(), &["/opt/x bind $FIM_DATA/x"]);
    world.sh("true").fails_naming(&["'/opt/x'", "/opt is a symbolic link to nothing"]);
    world.app(&["fim-layout", "check"]).fails_naming(&["'/opt/x'", "/opt is a symbolic link to nothing"]);
    world.app(&["fim-layout", "clear"]).run().succeeds();
    assert_eq!(world.sh("ls -d /gone 2>/dev/null; readlink /opt").prints(), "/gone");
}

#[test]
fn what_is_shared_with_the_host_is_left_alone() {
    let world = on_tree(|tree| symlink("shared", tree.join("way")).unwrap(), &[]);
    let shared = world.path("shared");
    fs::create_dir(&shared).unwrap();
    world.app(&["fim-bind", "add", "rw"]).arg(&shared).arg("/shared").run().succeeds();
    for (target, text) in [("/shared/x", "lies in /shared, which bind 0 shares"), ("/shared", "which bind 0 shares")] {
        add(&world, &format!("{target} tmpfs"));
        world.sh("true").fails_naming(&[target, text]);
        world.app(&["fim-layout", "check"]).fails_naming(&[target, text]);
        world.app(&["fim-layout", "clear"]).run().succeeds();
    }
    // By a link of the image, too.
    add(&world, "/way/x tmpfs");
    world.sh("true").fails_naming(&["'/way/x'", "/shared/x", "shares with the host"]);
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    world.app(&["fim-layout", "clear"]).run().succeeds();
    world.app(&["fim-bind", "add", "ro", "/etc/hostname", "/opt/deep/name"]).run().succeeds();
    add(&world, "/opt tmpfs");
    world.sh("true").fails_naming(&["would hide /opt/deep/name, which bind 1 shares"]);
}

#[test]
fn what_a_guest_makes_of_its_data_leads_nowhere() {
    let world = with(&["/a bind $FIM_DATA/out", "/b bind-file $FIM_DATA/dir/file"]);
    fs::write(world.path("secret"), "secret\n").unwrap();
    let host = world.path("").display().to_string();
    world.sh("true").run().succeeds();
    let start = || world.sh("ls /a; cat /b");
    for (to, text) in [
        (host.as_str(), "leads out of /run/fim/data/1/system"),
        ("/etc", "leads out of"),
        ("/proc/self/root", "leads out of"),
        ("../../common", "leads out of"),
        ("nowhere", "link to nothing"),
    ] {
        fs::remove_dir(data(&world, "out")).or_else(|_| fs::remove_file(data(&world, "out"))).unwrap();
        symlink(to, data(&world, "out")).unwrap();
        start().fails_naming(&["'/a'", text]);
    }
    // A link that stays within is followed.
    fs::remove_file(data(&world, "out")).unwrap();
    fs::create_dir(data(&world, "real")).unwrap();
    fs::write(data(&world, "real/note"), "").unwrap();
    symlink("real", data(&world, "out")).unwrap();
    assert_eq!(start().prints(), "note");
    fs::remove_file(data(&world, "dir/file")).unwrap();
    fs::remove_dir(data(&world, "dir")).unwrap();
    symlink(&host, data(&world, "dir")).unwrap();
    start().fails_naming(&["'/b'", "$FIM_DATA/dir/file"]);
    assert!(!world.path("file").exists());
}

#[test]
fn sources_of_the_wrong_kind_are_named() {
    let world = with(&["/a bind $FIM_ROOT_DIR/usr/share/plain", "/b bind-file $FIM_ROOT_DIR/usr/share/dir"]);
    world.sh("true").fails_naming(&["'/a'", "$FIM_ROOT_DIR/usr/share/plain is a file", "use bind-file"]);
    let checked = world.app(&["fim-layout", "check"]).run().exits(125);
    checked.complains_of(&["fim: layout '/a': its source", "fim: layout '/b': its source", "is a directory; use bind"]);
    world.app(&["fim-layout", "del", "/a"]).run().succeeds();
    world.sh("true").fails_naming(&["'/b'", "$FIM_ROOT_DIR/usr/share/dir is a directory", "use bind for"]);
}

/// A world whose image gets `f` and `d/x` of another image at this target, and that has layouts.
fn plugged(target: &str, slot: &[&str]) -> World {
    let world = content::consumer(target, &[]);
    content::producer(&world, "other.flatimage", &[("lib/f", "other\n"), ("lib/d/x", "")], slot);
    content::connect(&world, "other.flatimage");
    world
}

#[test]
fn nothing_is_put_into_what_a_plug_gets() {
    let world = plugged("$FIM_ROOT_DIR/opt/libs", &["--read", "$SNAP/lib"]);
    let lies = "which the plug 'p' has from another image; layouts change nothing outside";
    for (target, place) in [
        ("/opt/libs", "/opt/libs"),
        ("/opt/libs/f", "/opt/libs"),
        ("/opt/libs/new/deep", "/opt/libs"),
        ("$FIM_ROOT_DIR/opt/libs/f", "/run/fim/root/opt/libs"),
        ("$FIM_ROOT_DIR/opt/libs/new", "/run/fim/root/opt/libs"),
    ] {
        for what in ["tmpfs", "bind-file $FIM_DATA/x --replace", "symlink $FIM_DATA/x --replace"] {
            add(&world, &format!("{target} {what}"));
            let words = [&format!("'{target}': its target lies in {place}, {lies}")];
            world.sh("true").fails_naming(&words.map(String::as_str));
            world.app(&["fim-layout", "check"]).fails_naming(&words.map(String::as_str));
            world.app(&["fim-layout", "clear"]).run().succeeds();
        }
    }
    assert_eq!(world.sh("cd /opt/libs; cat f; ls . d; ls $FIM_DATA").prints(), "other\n.:\nd\nf\n\nd:\nx");
    world.assert_nothing_left();
}

#[test]
fn nothing_hides_what_a_plug_gets() {
    let world = plugged("$FIM_ROOT_DIR/opt/libs", &["--read", "$SNAP/lib"]);
    for (target, place) in [("/opt", "/opt/libs"), ("$FIM_ROOT_DIR/opt", "/run/fim/root/opt/libs")] {
        for what in ["tmpfs", "bind $FIM_DATA/x", "symlink $FIM_DATA/x --replace"] {
            add(&world, &format!("{target} {what}"));
            let words = [&format!("'{target}': it would hide {place}, which the plug 'p' has from another image")];
            world.sh("true").fails_naming(&words.map(String::as_str));
            world.app(&["fim-layout", "check"]).fails_naming(&words.map(String::as_str));
            world.app(&["fim-layout", "clear"]).run().succeeds();
        }
    }
    // Beside it, there may be as many as before.
    add(&world, "/opt/libs.d bind $FIM_DATA/x");
    add(&world, "$FIM_ROOT_DIR/opt/more tmpfs");
    let script = "touch /opt/libs.d/y; ls /opt /opt/libs $FIM_DATA/x; ls -d $FIM_ROOT_DIR/opt/more";
    let expected =
        "/opt:\nlibs\nlibs.d\nmore\n\n/opt/libs:\nd\nf\n\n/run/fim/data/1/system/x:\ny\n/run/fim/root/opt/more";
    assert_eq!(world.sh(script).prints(), expected);
}

#[test]
fn no_link_leads_a_layout_into_what_a_plug_gets() {
    // What the producer has for writing is its own data on the host.
    for slot in [["--read", "$SNAP/lib"], ["--write", "$SNAP_COMMON"]] {
        for (plug, target) in [
            ("$FIM_ROOT_DIR/opt/libs", "/way/new"),
            ("$FIM_ROOT_DIR/opt/libs", "$FIM_ROOT_DIR/way/new"),
            ("$FIM_COMMON/libs", "$FIM_COMMON/way/new"),
        ] {
            let world = plugged(plug, &slot);
            let link = "mkdir -p /opt; ln -s opt/libs /way; ln -s libs $FIM_COMMON/way";
            world.sh(link).run().succeeds().quietly();
            add(&world, &format!("{target} tmpfs"));
            world.sh("true").fails_naming(&[&format!("'{target}'"), "libs/new", "or a plug has from another image"]);
            world.assert_nothing_left();
            let left = world.path(".other.flatimage.data/files/common/system");
            assert!(!left.join("new").exists(), "{target} by {slot:?}");
        }
    }
}
