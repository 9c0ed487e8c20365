//! Binds: what they show, how it may be used, and that nothing is left of them.

mod harness;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use harness::{TestCommand, Tree, World, is_root};
use nix::sys::signal::Signal;

/// Stores a bind.
#[track_caller]
fn bind(world: &World, kind: &str, src: impl AsRef<Path>, dst: &str) {
    world.app(&["fim-bind", "add", kind]).arg(src.as_ref()).arg(dst).run().succeeds().quietly();
}

/// A directory of the host with a file in it.
fn shared(world: &World) -> PathBuf {
    let directory = world.path("shared dir");
    fs::create_dir_all(directory.join("below")).unwrap();
    fs::write(directory.join("file"), "host\n").unwrap();
    directory
}

#[test]
fn a_directory_or_a_file_is_seen_and_written_as_its_type_allows() {
    let world = World::new();
    let directory = shared(&world);
    assert_eq!(world.sh("ls /ro /rw /one 2>&1 | grep -c 'No such'").prints(), "3");
    bind(&world, "ro", &directory, "/ro");
    bind(&world, "rw", &directory, "/rw");
    bind(&world, "rw", directory.join("file"), "/etc/one file");
    for command in [world.sh("cat /ro/file '/etc/one file'"), world.root_sh("cat /ro/file '/etc/one file'")] {
        assert_eq!(command.prints(), "host\nhost");
    }
    for (script, code) in [
        ("echo x > /ro/file", 1),
        ("echo x > /ro/new", 1),
        ("rm /ro/file", 1),
        ("mount -o remount,rw /ro", 1),
        ("echo new > /rw/new && cat /ro/new", 0),
        ("echo changed > '/etc/one file'", 0),
    ] {
        let outcome = world.root_sh(script).run();
        assert_eq!(outcome.status.success(), code == 0, "{script}: {outcome:?}");
    }
    assert_eq!(fs::read_to_string(directory.join("new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "changed\n");
    // Nothing else of the directory around it is there.
    world.sh("ls /rw/../home/.. | grep -q app.flatimage").run().exits(1);
}

#[test]
fn read_only_includes_what_is_mounted_below() {
    let world = World::new();
    let directory = shared(&world);
    bind(&world, "ro", &directory, "/ro");
    let below = directory.join("below");
    let script = format!(
        "mount -t tmpfs none '{0}' && echo below > '{0}/f' && \
         \"$IMAGE\" fim-exec sh -c 'cat /ro/below/f; echo x > /ro/below/f || echo refused'",
        below.display()
    );
    let outcome = world.in_namespace(&script).run().succeeds().with_stdout("below\nrefused\n");
    outcome.complains_of(&["Read-only file system"]);
}

#[test]
fn device_nodes_open_through_dev_only() {
    let world = World::new();
    bind(&world, "dev", "/dev/zero", "/made/zero");
    bind(&world, "rw", "/dev/zero", "/made/closed");
    bind(&world, "ro", "/dev/zero", "/made/read");
    assert_eq!(world.sh("head -c 3 /made/zero | wc -c; echo x > /made/zero").prints(), "3");
    for name in ["closed", "read"] {
        world.root_sh(&format!("head -c 3 /made/{name}")).run().exits(1).complains_of(&["Permission denied"]);
    }
}

#[test]
fn sockets_can_be_connected_to() {
    let world = World::new();
    let path = world.path("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    assert_eq!(world.exec(&["probe", "unix", "/s/x"]).prints(), "connect=ENOENT");
    bind(&world, "rw", &path, "/s/x");
    assert_eq!(world.exec(&["probe", "unix", "/s/x"]).prints(), "connect=ok");
}

#[test]
fn words_are_expanded_at_each_start_and_their_order_is_kept() {
    let world = World::new();
    for name in ["one", "two"] {
        fs::create_dir(world.path(name)).unwrap();
        fs::write(world.path(name).join("name"), name).unwrap();
    }
    fs::write(world.path("home/in home"), "home\n").unwrap();
    bind(&world, "ro", "$WHICH", "$PLACE/x");
    bind(&world, "ro", "${FIM_DIR_SELF}/two", "/later");
    bind(&world, "ro", "~/in home", "/etc/note");
    let cat = |which: &str| {
        let command = world.sh("cat /there/x/name /later/name /etc/note").env("WHICH", world.path(which));
        command.env("PLACE", "/there").prints()
    };
    assert_eq!(cat("one"), "onetwohome");
    assert_eq!(cat("two"), "twotwohome");
    // From eleven on, the last one of a place still wins.
    for number in 0..11 {
        fs::write(world.path(number.to_string()), number.to_string()).unwrap();
        bind(&world, "ro", world.path(number.to_string()), "/etc/number");
    }
    assert_eq!(world.sh("cat /etc/number").env("WHICH", "/").env("PLACE", "/p").prints(), "10");
}

#[test]
fn a_missing_source_is_passed_over_or_an_error() {
    let world = World::new();
    bind(&world, "ro", "/no/such thing", "/x");
    bind(&world, "ro", "$NOTHING", "/y");
    let outcome = world.sh("ls -d /x /y 2>/dev/null | wc -l").run().succeeds().with_stdout("0\n");
    outcome.complains_of(&["fim: warning: bind 0 is passed over: '/no/such thing'", "bind 1 is passed over: ''"]);
    world.app(&["fim-bind", "del", "1"]).run().succeeds();
    let missing = world.path("later");
    world.app(&["fim-bind", "add", "--required", "ro"]).arg(&missing).arg("/z").run().succeeds();
    let started = world.sh("true").run().exits(125);
    started.complains_of(&["fim: bind 1: ", "later' is required", "not found", "fim-bind del 1"]);
    fs::write(&missing, "now\n").unwrap();
    assert_eq!(world.sh("cat /z").run().succeeds().text(), "now");
}

#[test]
fn destinations_that_are_no_place_are_refused() {
    for (dst, text) in [
        ("relative", "is not an absolute path"),
        ("/a/../../b", "is not an absolute path"),
        ("$NOTHING", "is not an absolute path"),
        ("/", "over the root"),
    ] {
        let world = World::new();
        bind(&world, "ro", "/etc", dst);
        world.sh("true").fails_naming(&["bind 0: ", text, "fim-bind del 0"]);
    }
    // A file of the image stands where a directory should be.
    let world = World::new();
    bind(&world, "ro", "/etc", "/etc/release/x");
    world.sh("true").fails_naming(&["cannot", "/etc/release/x", "Not a directory"]);
    let world = World::new();
    bind(&world, "ro", "/etc", "/etc/release");
    world.sh("true").fails_naming(&["/etc/release", "Not a directory"]);
}

#[test]
fn a_link_of_the_image_does_not_lead_to_the_host() {
    let world = World::with_tree(
        |tree| std::os::unix::fs::symlink("../../../../../../../tmp/way", tree.join("way")).unwrap(),
        &[],
    );
    let directory = shared(&world);
    bind(&world, "ro", &directory, "/way/out");
    // It leads to the instance's own /tmp.
    assert_eq!(world.sh("cat /tmp/way/out/file; readlink /way | wc -c").prints(), "host\n29");
    assert!(!Path::new("/tmp/way").exists());
}

/// Names in the writable layer that a bind could have made.
fn litter(world: &World) -> Vec<String> {
    let find = TestCommand::new("/usr/bin/find").arg(world.data().join("root")).args(["-mindepth", "1"]).prints();
    let root = world.data().join("root").display().to_string();
    find.lines().map(|line| line.trim_start_matches(&root).to_owned()).collect()
}

#[test]
fn mount_points_go_with_the_session_unless_they_are_used() {
    let world = World::new();
    let directory = shared(&world);
    world.sh("echo base > /base").run().succeeds();
    world.wait_for_end();
    let before = litter(&world);
    bind(&world, "ro", &directory, "/made/deep/er");
    bind(&world, "ro", directory.join("file"), "/made/file");
    bind(&world, "ro", &directory, "/keep");
    let mut first = world.sh("echo ready; cat").spawn();
    first.expect("ready");
    // Another instance comes and goes; the first still sees what it has.
    assert_eq!(world.sh("cat /made/file /made/deep/er/file").prints(), "host\nhost");
    world.app(&["fim-bind", "del", "2"]).run().succeeds();
    world.sh("echo mine > /keep/mine").run().succeeds();
    first.wait().succeeds();
    world.wait_for_end();
    let after = litter(&world);
    let new: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new, ["/keep", "/keep/mine"], "{after:?}");
    assert_eq!(fs::metadata(world.data().join("mount-points")).unwrap().len(), 0);
    assert_eq!(world.sh("ls -d /made/* | wc -l").prints(), "2");
}

#[test]
fn a_killed_session_leaves_mount_points_to_the_next() {
    let world = World::new();
    bind(&world, "ro", shared(&world), "/made/x");
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    let session = Tree::of(running.pid());
    let server = session.0.iter().find(|member| member.name == "fim-mount").expect("the session has a mount server");
    server.kill();
    running.wait_as_it_is().exits(125);
    world.wait_for_end();
    assert!(fs::metadata(world.data().join("mount-points")).unwrap().len() > 0, "nobody was killed in time");
    world.app(&["fim-bind", "del", "0"]).run().succeeds();
    // The next session removes them before anything runs.
    assert_eq!(world.sh("ls -d /made 2>/dev/null | wc -l").prints(), "0");
}

#[test]
fn what_the_guest_deleted_stays_deleted() {
    let world = World::new();
    // The mount point takes the place of a deleted directory of the image.
    world.root_sh("rm -r /usr/share/dir").run().succeeds();
    bind(&world, "ro", shared(&world), "/usr/share/dir");
    assert_eq!(world.sh("ls /usr/share/dir").prints(), "below\nfile");
    world.wait_for_end();
    world.app(&["fim-bind", "del", "0"]).run().succeeds();
    world.sh("ls /usr/share/dir").run().exits(1);
}

#[test]
fn a_hundred_binds_and_two_hundred_variables() {
    let world = World::new();
    let directory = shared(&world);
    let variables: Vec<String> = (0..200).map(|number| format!("V{number}={number}")).collect();
    world.app(&["fim-env", "add"]).args(&variables).run().succeeds();
    let script = "for i in $(seq 0 99); do \"$IMAGE\" fim-bind add ro \"$0\" /binds/$i > /dev/null || exit 1; done";
    world.host_sh(script).arg(&directory).run().succeeds();
    assert_eq!(world.sh("ls /binds | wc -l; cat /binds/99/file; echo $V199").prints(), "100\nhost\n199");
    world.assert_nothing_left();
}

#[test]
fn changes_of_the_host_are_seen_and_its_rights_count() {
    let world = World::new();
    let directory = shared(&world);
    bind(&world, "rw", &directory, "/rw");
    let mut running = world.sh("echo ready; cat; cat /rw/file").spawn();
    running.expect("ready");
    fs::remove_file(directory.join("file")).unwrap();
    fs::write(directory.join("file"), "again\n").unwrap();
    running.close_stdin();
    running.expect("again");
    running.wait().succeeds();
    // The caller's own rights are what counts.
    if !is_root() {
        bind(&world, "rw", "/etc/passwd", "/etc/theirs");
        world.sh("echo x >> /etc/theirs").run().exits(1).complains_of(&["Permission denied"]);
    }
    let mut killed = world.sh("echo ready; cat").spawn();
    killed.expect("ready");
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.wait().status.code(), None);
    world.assert_nothing_left();
}
