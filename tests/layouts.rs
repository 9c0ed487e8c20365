//! Layouts: files of the application where programs expect them. The examples and edge cases of snap's documentation and
//! of its users, with FIM in the place of SNAP, and what must not be possible.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use harness::{Outcome, TestCommand, Tree, World, is_root};

/// Adds a layout, as the words behind `fim-layout add`.
#[track_caller]
fn add(world: &World, line: &str) {
    world.app(&["fim-layout", "add"]).args(line.split(' ')).run().succeeds().quietly();
}

/// A world with layouts.
#[track_caller]
fn with(lines: &[&str]) -> World {
    let world = World::new();
    lines.iter().for_each(|line| add(&world, line));
    world
}

/// A world with layouts on a changed tree.
#[track_caller]
fn on_tree(change: impl FnOnce(&Path), lines: &[&str]) -> World {
    let world = World::with_tree(change, &[]);
    lines.iter().for_each(|line| add(&world, line));
    world
}

/// A file of the data of the first revision, on the host.
fn data(world: &World, name: &str) -> PathBuf {
    world.data().join("files/1/system").join(name)
}

/// Names in the writable layer.
fn upper(world: &World) -> Vec<String> {
    let find = TestCommand::new("/usr/bin/find").arg(world.data().join("root")).args(["-mindepth", "1"]).prints();
    let root = world.data().join("root").display().to_string();
    find.lines().map(|line| line.trim_start_matches(&root).to_owned()).collect()
}

/// Imports a YAML file.
fn import(world: &World, text: &str) -> Outcome {
    fs::write(world.path("layout.yaml"), text).unwrap();
    world.app(&["fim-layout", "import", "layout.yaml"]).run()
}

const FOO: &str = "layout:
  /var/lib/foo:
    bind: $SNAP_DATA/var/lib/foo
  /usr/share/foo:
    bind: $SNAP/usr/share/foo
  /etc/foo.conf:
    bind-file: $SNAP_DATA/etc/foo.conf
";

#[test]
fn the_example_of_the_documentation() {
    let world = World::with_tree(
        |tree| {
            fs::create_dir(tree.join("usr/share/foo")).unwrap();
            fs::write(tree.join("usr/share/foo/read-only"), "data\n").unwrap();
        },
        &[],
    );
    import(&world, FOO).succeeds().with_stdout("3 layouts imported\n");
    // Sources and targets are made before anything runs, each of its kind.
    let script = "test -d /var/lib/foo && test -f /etc/foo.conf && cat /usr/share/foo/read-only && \
                  echo kept > /var/lib/foo/state && echo set > /etc/foo.conf && ! touch /usr/share/foo/x 2>/dev/null && \
                  cat $FIM_DATA/var/lib/foo/state $FIM_DATA/etc/foo.conf";
    assert_eq!(world.sh(script).prints(), "data\nkept\nset");
    assert_eq!(world.root_sh("cat /var/lib/foo/state /etc/foo.conf").prints(), "kept\nset");
    assert_eq!(fs::read_to_string(data(&world, "var/lib/foo/state")).unwrap(), "kept\n");
    assert_eq!(fs::read_to_string(data(&world, "etc/foo.conf")).unwrap(), "set\n");
    // Nothing of it shows outside.
    assert!(!Path::new("/var/lib/foo").exists() && !Path::new("/etc/foo.conf").exists());
    world.assert_nothing_left();
}

#[test]
fn symlinks_of_the_documentation_are_symlinks() {
    let lib = "usr/lib/x86_64-linux-gnu";
    let world = on_tree(
        |tree| {
            fs::create_dir_all(tree.join(lib).join("app")).unwrap();
            fs::write(tree.join(lib).join("app/libEGL.so"), "egl\n").unwrap();
            fs::write(tree.join(lib).join("libGL.so"), "gl\n").unwrap();
        },
        &[
            "/usr/lib/x86_64-linux-gnu/libEGL.so symlink $SNAP/usr/lib/x86_64-linux-gnu/app/libEGL.so",
            // The file that is meant has this place already.
            "/usr/lib/x86_64-linux-gnu/libGL.so symlink $SNAP/usr/lib/x86_64-linux-gnu/libGL.so",
            "/usr/lib/$SNAPCRAFT_ARCH_TRIPLET/libLater.so symlink $SNAP_DATA/later",
        ],
    );
    let script = format!(
        "cd /{lib}; for name in libEGL.so libGL.so libLater.so; do readlink $name; done; cat libEGL.so libGL.so; cat libLater.so 2>/dev/null || echo none; ls"
    );
    let view = "/run/fim/root/usr/lib/x86_64-linux-gnu";
    let expected = format!(
        "{view}/app/libEGL.so\n{view}/libGL.so\n/run/fim/data/1/system/later\negl\ngl\nnone\napp\nlibEGL.so\nlibGL.so\nlibLater.so"
    );
    assert_eq!(world.sh(&script).prints(), expected);
    // What a link leads to is not made.
    assert!(!data(&world, "later").exists());
    // It is no file of the root: nobody can take it away, and the next start has it again.
    world.root_sh(&format!("rm /{lib}/libEGL.so")).run().exits(1);
    assert_eq!(world.sh(&script).prints(), expected);
}

#[test]
fn a_tmpfs_is_empty_private_and_passing() {
    let world = with(&["/var/cache/foo tmpfs", "/usr/share/dir tmpfs"]);
    let script = "ls -A /var/cache/foo /usr/share/dir | grep -v :; echo x > /var/cache/foo/x && cat /var/cache/foo/x";
    let mut first = world.sh(&format!("{script}; echo ready; cat")).spawn();
    first.expect("ready");
    assert_eq!(world.sh(script).run().text().trim(), "x");
    first.wait().succeeds();
    assert_eq!(world.root_sh("chown 12:34 /var/cache/foo && stat -c %u:%g /var/cache/foo").prints(), "12:34");
}

#[test]
fn what_surrounds_a_target_stays_and_can_be_written() {
    let world = with(&["/usr/share/foo bind $SNAP/usr/share/foo", "/etc/foo.conf bind-file $SNAP_DATA/foo.conf"]);
    let script = "ls /usr/share; ls /etc; echo new > /usr/share/new; mv /usr/share/plain /usr/share/plane; echo x >> /etc/release";
    assert_eq!(world.sh(script).prints(), "dir\nfoo\nnoise\nplain\nfoo.conf\ngroup\npasswd\nrelease");
    assert_eq!(world.sh("cat /usr/share/new /usr/share/plane /etc/release").prints(), "new\nno program\nsmall\nx");
}

#[test]
fn names_that_begin_alike_do_not_meet() {
    let lines = [
        "$SNAP/api/Gemfile bind-file $SNAP_DATA/rails/Gemfile",
        "$SNAP/api/Gemfile.lock bind-file $SNAP_DATA/rails/Gemfile.lock",
        "$SNAP/api/tmp bind $SNAP_DATA/rails/tmp",
        "$SNAP/api/log bind $SNAP_DATA/rails/log",
        "$SNAP/api/vendor bind $SNAP_DATA/rails/vendor",
        "$SNAP/folder bind $SNAP_DATA/folder",
        "$SNAP/folder.suffix bind $SNAP_DATA/folder.suffix",
    ];
    for exists in [false, true] {
        let change = |tree: &Path| {
            if exists {
                fs::create_dir(tree.join("api")).unwrap();
                fs::write(tree.join("api/app.rb"), "").unwrap();
            }
        };
        let world = on_tree(change, &lines);
        let script = "echo lock > $FIM_ROOT_DIR/api/Gemfile.lock; echo gems > $FIM_ROOT_DIR/api/Gemfile; \
                      echo s > $FIM_ROOT_DIR/folder.suffix/x; cd $FIM_ROOT_DIR; find api | sort; ls folder; cat folder.suffix/x; \
                      cd $FIM_DATA; find . | sort";
        let app = if exists { "api/app.rb\n" } else { "" };
        let expected = format!(
            "api\napi/Gemfile\napi/Gemfile.lock\n{app}api/log\napi/tmp\napi/vendor\ns\n.\n./folder\n./folder.suffix\n./folder.suffix/x\n\
             ./rails\n./rails/Gemfile\n./rails/Gemfile.lock\n./rails/log\n./rails/tmp\n./rails/vendor"
        );
        assert_eq!(world.sh(script).prints(), expected);
        assert_eq!(fs::read_to_string(data(&world, "rails/Gemfile")).unwrap(), "gems\n");
        assert_eq!(fs::read_to_string(data(&world, "rails/Gemfile.lock")).unwrap(), "lock\n");
    }
}

#[test]
fn a_directory_that_the_program_makes_is_there_already() {
    // The edge case of an install hook: mkdir of what is mounted.
    let world = with(&["$SNAP/api/tmp bind $SNAP_DATA/rails/tmp"]);
    assert_eq!(world.sh("mkdir $FIM_DATA/rails/tmp; mkdir -p $FIM_DATA/rails/tmp && echo fine").run().text(), "fine");
}

#[test]
fn new_names_in_the_root_directory() {
    let world = with(&["/foo bind $SNAP/foo", "/bar bind-file $SNAP_DATA/bar", "/baz symlink $SNAP_DATA/baz"]);
    assert_eq!(world.sh("test -d /foo && test -f /bar && test -L /baz && echo all").prints(), "all");
}

#[test]
fn nested_layouts_are_made_parents_first() {
    let world = with(&[
        "/a/b/c bind-file $FIM_DATA/c",
        "/a/b bind $FIM_DATA/b",
        "/a tmpfs",
        "/usr/share/dir/more tmpfs",
        "/usr/share/dir bind $FIM_ROOT_DIR/usr/share/dir",
        // A source within the target of another shows what that shows.
        "/shown bind $FIM_ROOT_DIR/in",
        "$FIM_ROOT_DIR/in bind $FIM_COMMON/in",
    ]);
    let script = "echo c > /a/b/c; echo b > /a/b/x; echo a > /a/y; cat $FIM_DATA/c $FIM_DATA/b/x; echo m > /usr/share/dir/more/m; \
                  ls /usr/share/dir /a; echo in > $FIM_COMMON/in/f; cat /shown/f";
    let expected = "c\nb\n/a:\nb\ny\n\n/usr/share/dir:\ndeep\nmore\none\ntwo\nin";
    assert_eq!(world.sh(script).prints(), expected);
    assert_eq!(world.sh("ls /a; cat /a/b/c").prints(), "b\nc");
}

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
fn every_way_to_start_has_them() {
    let world = World::with_tree(|_| {}, &["--boot", "cat /etc/foo.conf"]);
    add(&world, "/etc/foo.conf bind-file $FIM_COMMON/foo.conf");
    add(&world, "/usr/share/x/y symlink $FIM_ROOT_DIR/usr/share/plain");
    world.sh("echo set > /etc/foo.conf").run().succeeds();
    assert_eq!(world.app(&[]).prints(), "set");
    assert_eq!(world.root_sh("cat /etc/foo.conf /usr/share/x/y").prints(), "set\nno program");
    for kind in ["overlayfs", "bwrap"] {
        let command = world.sh("cat /etc/foo.conf /usr/share/x/y").env("FIM_OVERLAY", kind);
        assert_eq!(command.prints(), "set\nno program", "{kind}");
        world.wait_for_end();
    }
    // A throw-away start has empty data of its own.
    let passing = "cat /etc/foo.conf /usr/share/x/y; echo other > /etc/foo.conf; cat $FIM_COMMON/foo.conf";
    assert_eq!(world.exec(&["--ephemeral", "sh", "-c", passing]).prints(), "no program\nother");
    assert_eq!(world.app(&[]).prints(), "set");
    let detached = world.app(&["fim-exec", "--detach", "sh", "-c", "sleep 60"]).prints();
    let inside = world.app(&["fim-instance", "exec", &detached, "cat", "/etc/foo.conf"]).prints();
    assert_eq!(inside, "set");
    world.app(&["fim-instance", "stop", &detached, "--timeout", "0"]).run().succeeds();
}

#[test]
fn each_key_has_data_and_may_have_layouts_of_its_own() {
    let world = with(&["/etc/foo.conf bind-file $FIM_DATA/foo.conf"]);
    symlink("app.flatimage", world.path("app_one.flatimage")).unwrap();
    let key = |args: &[&str]| world.equip(TestCommand::new(world.path("app_one.flatimage"))).args(args);
    world.sh("echo default > /etc/foo.conf").run().succeeds();
    assert_eq!(key(&["fim-exec", "sh", "-c", "cat /etc/foo.conf; echo one > /etc/foo.conf"]).prints(), "");
    assert_eq!(key(&["fim-exec", "cat", "/etc/foo.conf"]).prints(), "one");
    assert_eq!(world.sh("cat /etc/foo.conf").prints(), "default");
    key(&["fim-layout", "add", "/mine", "tmpfs"]).run().succeeds();
    assert_eq!(key(&["fim-layout", "list"]).prints(), "/etc/foo.conf bind-file $FIM_DATA/foo.conf\n/mine tmpfs");
    assert_eq!(key(&["fim-exec", "sh", "-c", "ls -d /mine; cat /etc/foo.conf"]).prints(), "/mine\none");
    world.sh("ls -d /mine").run().exits(1);
    key(&["fim-layout", "inherit"]).run().succeeds();
    key(&["fim-exec", "ls", "-d", "/mine"]).run().exits(1);
    world.app(&["fim-layout", "inherit"]).fails_naming(&["for installations with an instance key"]);
}

#[test]
fn nothing_is_left_of_them() {
    let world = World::new();
    world.root_sh("echo base > /base; rm -r /usr/share/dir/deep; echo more >> /etc/release").run().succeeds();
    world.wait_for_end();
    let before = (upper(&world), world.app(&["fim-layer", "diff"]).prints());
    for line in [
        "/made/by/bind bind $FIM_DATA/x",
        "/bin/made symlink $FIM_DATA/made",
        "/etc/made.conf bind-file $FIM_DATA/made.conf",
        "/srv/link symlink $FIM_DATA/y",
        "/usr/share/dir/deep tmpfs",
        "/opt/app bind $FIM_ROOT_DIR/not/there",
    ] {
        add(&world, line);
    }
    let script = "ls -d /made/by/bind /etc/made.conf /usr/share/dir/deep /opt/app | wc -l; readlink /srv/link; echo x > /made/by/bind/f";
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    assert_eq!(world.sh(script).prints(), "4\n/run/fim/data/1/system/y");
    if std::env::var_os("FIM_TEST_OVERLAY").is_none() {
        // Where the guest has deleted something, that is written over for the time being; nothing else is needed.
        let new: Vec<_> = upper(&world).into_iter().filter(|name| !before.0.contains(name)).collect();
        assert!(new.is_empty(), "{new:?}");
    }
    running.wait().succeeds();
    world.wait_for_end();
    let after = (upper(&world), world.app(&["fim-layer", "diff"]).prints());
    // Our own overlay, which has no lowest layer of mount points, keeps the copy of the directory that one was made in.
    let kernel = std::env::var_os("FIM_TEST_OVERLAY").is_none();
    let new: Vec<_> = after.0.iter().filter(|name| !before.0.contains(name) && (kernel || *name != "/bin")).collect();
    assert!(new.is_empty(), "{new:?}");
    // What is made in a directory for the time being leaves it a new time of change.
    let names =
        |diff: &str| diff.lines().filter(|line| !line.starts_with("M:0:0:")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&before.1), names(&after.1));
    // The data stays; what is taken away is where it appeared.
    world.app(&["fim-layout", "clear"]).run().succeeds();
    assert_eq!(world.sh("ls -d /made /srv /opt /not /usr/share/dir/deep 2>/dev/null; cat $FIM_DATA/x/f").prints(), "x");
    assert_eq!(fs::metadata(world.data().join("mount-points")).unwrap().len(), 0);
}

#[test]
fn a_commit_has_nothing_of_them() {
    let world =
        with(&["/made/x bind $FIM_DATA/x", "/made/link symlink $FIM_DATA/y", "/usr/share/plain bind-file $FIM_DATA/p"]);
    world.sh("echo mine > /mine; echo p > /usr/share/plain; touch /made/x/f").run().succeeds();
    world.app(&["fim-layer", "commit", "binary"]).run().succeeds();
    world.app(&["fim-layout", "clear"]).run().succeeds();
    assert_eq!(world.sh("cat /mine /usr/share/plain; ls -d /made 2>/dev/null").run().text(), "mine\nno program");
}

#[test]
fn a_live_instance_keeps_what_it_was_started_with() {
    let world = with(&["/first symlink $FIM_DATA/first"]);
    let mut running = world.sh("echo ready; cat; readlink /first; test -L /second || echo no link; ls /third 2>/dev/null | wc -l; ls -d /usr/share/dir/*").spawn();
    running.expect("ready");
    add(&world, "/second symlink $FIM_DATA/second");
    add(&world, "/third bind $FIM_DATA/third");
    add(&world, "/usr/share/dir tmpfs");
    world.app(&["fim-layout", "del", "/first"]).run().succeeds();
    let script = "test -L /first || echo gone; readlink /second; touch /third/x; ls /usr/share/dir";
    assert_eq!(world.sh(script).prints(), "gone\n/run/fim/data/1/system/second");
    // Another start finds the mount points of the one before it.
    add(&world, "/first symlink $FIM_DATA/first");
    assert_eq!(
        world.sh("readlink /first; readlink /second; ls /third").prints(),
        "/run/fim/data/1/system/first\n/run/fim/data/1/system/second\nx"
    );
    running.close_stdin();
    let outcome = running.wait().succeeds();
    assert!(outcome.text().contains("/run/fim/data/1/system/first\nno link\n0\n/usr/share/dir/deep\n"), "{outcome:?}");
}

#[test]
fn a_failed_start_leaves_nothing_and_can_be_mended() {
    let world = on_tree(
        |tree| fs::write(tree.join("opt"), "file\n").unwrap(),
        &["/a/b bind $FIM_DATA/a", "/c symlink $FIM_DATA/c", "/opt bind $FIM_DATA/opt"],
    );
    for _ in 0..2 {
        world.sh("true").fails_naming(&["'/opt'", "a file", "a directory"]);
        world.assert_nothing_left();
        assert!(!world.upper("a").exists() && !world.upper("c").exists());
    }
    world.app(&["fim-layout", "del", "/opt"]).run().succeeds();
    world.app(&["fim-layout", "del", "/opt"]).fails_naming(&["there is no layout for '/opt'"]);
    add(&world, "/opt bind-file $FIM_DATA/file");
    assert_eq!(world.sh("stat -c %s /opt; readlink /c").prints(), "0\n/run/fim/data/1/system/c");
    for _ in 0..2 {
        world.app(&["fim-layout", "del", "/opt"]).run().succeeds();
        assert_eq!(world.sh("cat /opt").prints(), "file");
        add(&world, "/opt bind-file $FIM_DATA/file");
        assert_eq!(world.sh("stat -c %s /opt").prints(), "0");
    }
}

#[test]
fn a_killed_session_leaves_mount_points_to_the_next() {
    let world = with(&["/made/x bind $FIM_DATA/x", "/link symlink $FIM_DATA/y"]);
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    let session = Tree::of(running.pid());
    session.0.iter().find(|member| member.name == "fim-mount").expect("the session has a mount server").kill();
    running.wait_as_it_is().exits(125);
    world.wait_for_end();
    assert!(fs::metadata(world.data().join("mount-points")).unwrap().len() > 0, "nobody was killed in time");
    assert_eq!(world.sh("readlink /link; ls -d /made/x").prints(), "/run/fim/data/1/system/y\n/made/x");
    world.app(&["fim-layout", "clear"]).run().succeeds();
    assert_eq!(world.sh("ls -d /made /link 2>/dev/null | wc -l").prints(), "0");
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

#[test]
fn a_guest_cannot_undo_them() {
    let world = with(&["/a bind $FIM_DATA/a", "/l symlink $FIM_DATA/l", "/ro bind $FIM_ROOT_DIR/usr/share"]);
    for script in [
        "umount /a",
        "umount /l",
        "rm /l",
        "rmdir /a",
        "mv /a /b",
        "mount -o remount,rw /ro",
        "mount -t tmpfs none /ro",
        "touch /ro/x",
    ] {
        let outcome = world.root_sh(script).run();
        if script.contains("tmpfs") {
            // A mount of its own, in its own view, where it may make any.
            continue;
        }
        assert_ne!(outcome.status.code(), Some(0), "{script}");
    }
    assert_eq!(world.sh("readlink /l; ls /ro | wc -l").prints(), "/run/fim/data/1/system/l\n3");
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

#[test]
fn fifty_layouts_of_all_kinds() {
    let world = World::new();
    let mut text = String::from("layout:\n");
    for number in 0..50 {
        let declaration =
            ["symlink: $SNAP/etc/release", "bind: $SNAP_DATA/dN", "bind-file: $SNAP_DATA/fN", "type: tmpfs"]
                [number % 4];
        text.push_str(&format!(
            "  /opt/app/{number}:\n    {}\n",
            declaration.replace("DATA/dN", &format!("DATA/d{number}")).replace("DATA/fN", &format!("DATA/f{number}"))
        ));
    }
    import(&world, &text).succeeds();
    let script = "ls /opt/app | wc -l; cat /opt/app/0; test -d /opt/app/49 -a -f /opt/app/46 && grep -c ' /opt/app/' /proc/self/mountinfo";
    for command in [world.sh(script), world.root_sh(script)] {
        assert_eq!(command.prints(), "50\nsmall\n50");
    }
    world.assert_nothing_left();
}

#[test]
fn starts_at_once_do_not_disturb_each_other() {
    let world = with(&[
        "/a/b bind $FIM_DATA/b",
        "/l symlink $FIM_DATA/l",
        "/etc/f bind-file $FIM_DATA/deep/er/f",
        "/o bind $SNAP/o/p",
    ]);
    let starts: Vec<_> = (0..8).map(|_| world.sh("readlink /l; ls -d /a/b /etc/f /o").spawn()).collect();
    for start in starts {
        start.wait().succeeds().quietly().with_stdout("/run/fim/data/1/system/l\n/a/b\n/etc/f\n/o\n");
    }
    assert!(is_root() || !world.upper("l").exists());
}
