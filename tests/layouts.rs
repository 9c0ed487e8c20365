//! Layouts: files of the application where programs expect them. The examples and edge cases of snap's documentation and
//! of its users, with FIM in the place of SNAP.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use harness::layouts::{FOO, add, data, import, on_tree, with};
use harness::{TestCommand, Tree, World, is_root};

/// Names in the writable layer.
fn upper(world: &World) -> Vec<String> {
    let find = TestCommand::new("/usr/bin/find").arg(world.data().join("root")).args(["-mindepth", "1"]).prints();
    let root = world.data().join("root").display().to_string();
    find.lines().map(|line| line.trim_start_matches(&root).to_owned()).collect()
}

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
    let detached = world.app(&["fim-exec", "--detach", "sh", "-c", "sleep 1000"]).prints();
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
