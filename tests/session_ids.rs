//! Which IDs a session has: chosen once for a data directory, recorded, and never mixed.

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use harness::owners::{one_id, owned};
use harness::{TestCommand, World, is_root, need};
use nix::sys::signal::Signal;

#[test]
fn the_rung_is_recorded_and_shown() {
    let world = World::new();
    let debug = |command: TestCommand| -> Vec<String> {
        command.env("FIM_DEBUG", "1").run().succeeds().text().lines().map(str::to_owned).collect()
    };
    let has = |lines: &[String], line: &str| lines.iter().any(|other| other == line);
    let record = world.data().join("ids");
    let first = debug(world.exec(&["true"]));
    if is_root() {
        assert!(has(&first, "D::IDs of the session: every"), "{first:?}");
        assert_eq!(fs::read_to_string(&record).unwrap(), "fim-ids 1\nevery\n");
    } else {
        // Nothing is decided yet: all files are the caller's.
        assert!(has(&first, "D::IDs of the session: one") && !record.exists(), "{first:?}");
        let second = debug(world.root(&["true"]));
        assert!(has(&second, "D::IDs of the session: one, root emulated"), "{second:?}");
        assert_eq!(fs::read_to_string(&record).unwrap(), "fim-ids 1\none\n");
    }
}

#[test]
fn a_record_that_cannot_be_honoured_is_refused() {
    let world = World::new();
    let record = world.data().join("ids");
    one_id(&world);
    let ranges = "uid 0 4711 1\nuid 1 99999 65536\ngid 0 4711 1\ngid 1 99999 65536\n";
    fs::write(&record, format!("fim-ids 1\nsubordinate\n{ranges}")).unwrap();
    for command in [world.exec(&["true"]), world.root(&["true"])] {
        command.fails_naming(&[world.data().to_str().unwrap(), "users 99999:65536", "FIM_DIR_DATA"]);
    }
    for text in ["", "fim-ids 2\none\n", "fim-ids 1\nsubordinate\nuid x\n"] {
        fs::write(&record, text).unwrap();
        world.exec(&["true"]).fails_naming(&[record.to_str().unwrap(), "damaged", "FIM_DIR_DATA"]);
    }
    fs::write(&record, "fim-ids 1\nevery\n").unwrap();
    let command = if is_root() {
        // Root of a namespace that knows one ID.
        let words = ["-U", "--map-root-user", world.image().to_str().unwrap(), "fim-exec", "true"];
        world.equip(TestCommand::new(need("unshare")).args(words))
    } else {
        world.exec(&["true"])
    };
    command.fails_naming(&["made by real root", "start the image as root"]);
    fs::remove_file(&record).unwrap();
    assert_eq!(world.exec(&["echo", "works"]).prints(), "works");
}

/// Runs an image as a user to whom IDs are granted, in a mount namespace in which the host's files say so.
struct Granted<'a> {
    world: &'a World,
    passwd: PathBuf,
    grants: PathBuf,
}

/// A user that no host knows.
const USER: u32 = 63_999;

impl<'a> Granted<'a> {
    fn new(world: &'a World) -> Self {
        let (passwd, grants) = (world.path("passwd"), world.path("grants"));
        let known = fs::read_to_string("/etc/passwd").unwrap();
        fs::write(&passwd, format!("{known}\nfimtest:x:{USER}:{USER}::/:/bin/sh\n")).unwrap();
        fs::write(&grants, "fimtest:900000:65536\n").unwrap();
        for path in [world.path(""), world.path("home"), world.path("runtime"), world.image().to_owned()] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        Self { world, passwd, grants }
    }

    fn app(&self, words: &[&str]) -> TestCommand {
        let script = "set -e; mount --bind \"$GRANTS\" /etc/subuid; mount --bind \"$GRANTS\" /etc/subgid; \
                      mount --bind \"$PASSWD\" /etc/passwd; \
                      exec setpriv --reuid=63999 --regid=63999 --clear-groups \"$@\"";
        need("newuidmap");
        let command = TestCommand::new(need("unshare")).args(["--mount", "--", "sh", "-c", script, "sh"]);
        let command = command.arg(self.world.image()).args(words);
        self.world.equip(command).env("GRANTS", &self.grants).env("PASSWD", &self.passwd)
    }
}

#[test]
fn subordinate_ids_are_used_where_they_are_granted() {
    let world = World::new();
    if !is_root() {
        // This caller has none: the programs alone are not enough.
        let shown = world.root(&["true"]).env("FIM_DEBUG", "1").run().succeeds().text();
        assert!(shown.contains("one, root emulated"), "{shown}");
        return;
    }
    let user = Granted::new(&world);
    // The first start, as the user, chooses nothing; the first as root inside does.
    assert_eq!(user.app(&["fim-exec", "sh", "-c", "echo kept > /kept; id -u"]).prints(), USER.to_string());
    let script = "touch /f; chown 33:44 /f; ln -s x /l; chown -h 5:6 /l; stat -c '%u:%g %n' /f /l /kept; echo $(cat /proc/self/uid_map)";
    let shown = user.app(&["fim-root", "sh", "-c", script]).env("FIM_DEBUG", "1").run().succeeds().text();
    assert!(shown.contains("D::IDs of the session: subordinate\n"), "{shown}");
    assert!(shown.ends_with("33:44 /f\n5:6 /l\n0:0 /kept\n0 0 1 1 1 65536"), "{shown}");
    let file = fs::metadata(world.upper("f")).unwrap();
    assert_eq!((file.uid(), file.gid()), (900_032, 900_043));
    assert_eq!(fs::symlink_metadata(world.upper("l")).unwrap().uid(), 900_004);
    // As the caller, the same owners, and the caller's own files under the caller's own number.
    let printed = user.app(&["fim-exec", "stat", "-c", "%u:%g", "/f", "/kept"]).prints();
    assert_eq!(printed, format!("33:44\n{USER}:{USER}"));
    // Who really owns a file decides who may read it.
    user.app(&["fim-root", "sh", "-c", "echo secret > /f; chmod 600 /f"]).run().succeeds().quietly();
    user.app(&["fim-exec", "cat", "/f"]).run().exits(1).complains_of(&["Permission denied"]);
    // Without the grant, the data is refused and left alone.
    fs::write(&user.grants, "fimtest:800000:65536\n").unwrap();
    for verb in ["fim-exec", "fim-root"] {
        user.app(&[verb, "true"]).fails_naming(&["900000:65536", "/etc/subuid", "grant them again"]);
    }
    fs::write(&user.grants, "fimtest:900000:65536\n").unwrap();
    assert_eq!(user.app(&["fim-root", "cat", "/f"]).prints(), "secret");
}

#[test]
fn a_commit_has_the_owners_that_the_guest_saw() {
    if !is_root() {
        // Nobody grants IDs to this caller: what a commit keeps of the owners then, `commit` has many rounds of.
        let world = World::new();
        world.root(&["chown", "33:44", "/etc/release"]).run().succeeds();
        world.app(&["fim-layer", "commit", "binary"]).run().succeeds();
        assert_eq!(world.root(&["stat", "-c", "%u:%g", "/etc/release"]).prints(), "33:44");
        return;
    }
    let world = harness::layers::changeable();
    let user = Granted::new(&world);
    let seen = || user.app(&["fim-root", "tree", "tree"]).run().succeeds().text();
    for round in 501..506 {
        user.app(&["fim-root", "tree", "churn", &round.to_string(), "120"]).run().succeeds();
        // What only its owner may read, and a directory that nobody may enter.
        let script = "echo s > /srv/secret; chmod 400 /srv/secret; chown 33:44 /srv/secret; mkdir -p /srv/closed; \
                      touch /srv/closed/x; chown 55 /srv/closed; chmod 0 /srv/closed";
        user.app(&["fim-root", "sh", "-c", &format!("mkdir -p /srv; {script}")]).run().succeeds();
        let before = seen();
        assert!(before.contains("/srv/secret 100400 33:44") && before.contains("/srv/closed 040000 55:"), "{before}");
        user.app(&["fim-layer", "commit", "binary", "--level", "0"]).run().succeeds().quietly();
        assert_eq!(harness::layers::upper_names(&world), [""; 0]);
        assert!(!world.data().join("committed").exists());
        harness::layers::assert_same(&before, &seen(), &format!("round {round}"));
    }
    let before = seen();
    world.wait_for_end();
    // The same for real root with all IDs, and for one who has a single one.
    for name in ["every", "one"] {
        let other = World::empty();
        harness::world::copy(world.image(), other.image());
        if name == "one" {
            one_id(&other);
        }
        harness::layers::assert_same(&before, &harness::layers::seen(&other), name);
    }
}

#[test]
fn the_owners_of_the_image_are_real_with_subordinate_ids() {
    let world = owned();
    if !is_root() {
        assert_eq!(world.root(&["stat", "-c", "%u:%g", "/owned", "/far"]).prints(), "33:44\n70000:80000");
        return;
    }
    let user = Granted::new(&world);
    let script = "stat -c %u:%g /owned /owned/file /far /etc; echo more >> /owned/file; echo more >> /far; stat -c %u:%g /owned/file";
    // An ID beyond the granted ones is nobody's.
    let shown = user.app(&["fim-root", "sh", "-c", script]).run().succeeds().text();
    assert_eq!(shown, "33:44\n33:44\n65534:65534\n0:0\n33:44");
    assert_eq!(fs::metadata(world.upper("owned/file")).unwrap().uid(), 900_032);
    assert_eq!(fs::metadata(world.upper("far")).unwrap().uid(), 900_000 + 65_533);
}

#[test]
fn a_grant_that_is_too_small_or_refused_leaves_one_id() {
    let world = World::new();
    if !is_root() {
        // A grant to somebody else is none: /etc/subuid of this host may have some.
        world.root(&["true"]).run().succeeds().quietly();
        assert_eq!(fs::read_to_string(world.data().join("ids")).unwrap(), "fim-ids 1\none\n");
        return;
    }
    for (grant, refused) in [("fimtest:900000:1000\n", false), ("fimtest:900000:65536\n", true)] {
        let user = Granted::new(&world);
        fs::write(&user.grants, grant).unwrap();
        if refused {
            // newuidmap knows no such user by this passwd.
            fs::copy("/etc/passwd", &user.passwd).unwrap();
            fs::write(&user.grants, "63999:900000:65536\n").unwrap();
        }
        let script = "touch /f; chown 33:44 /f; stat -c %u:%g /f";
        let shown = user.app(&["fim-root", "sh", "-c", script]).env("FIM_DEBUG", "1").run().succeeds().text();
        assert!(shown.contains("one, root emulated\n") && shown.ends_with("33:44"), "{shown}");
        world.wait_for_end();
        fs::remove_dir_all(world.data()).unwrap();
    }
}

#[test]
fn a_live_session_keeps_its_ids() {
    let world = World::new();
    if !is_root() {
        let mut running = world.sh("echo ready; cat").spawn();
        running.expect("ready");
        assert_eq!(world.root_sh("touch /f; chown 5 /f; stat -c %u /f").prints(), "5");
        return;
    }
    let user = Granted::new(&world);
    let mut running = user.app(&["fim-exec", "sh", "-c", "echo ready; cat"]).spawn();
    running.expect("ready");
    // The session has one ID, and so has the data from now on.
    assert_eq!(user.app(&["fim-root", "sh", "-c", "touch /f; chown 5 /f; stat -c %u /f"]).prints(), "5");
    running.wait().succeeds();
    world.wait_for_end();
    assert_eq!(user.app(&["fim-root", "stat", "-c", "%u", "/f"]).prints(), "5");
    assert_eq!(fs::read_to_string(world.data().join("ids")).unwrap(), "fim-ids 1\none\n");
}

/// The last instance has gone, and the mount server has not noticed yet.
#[test]
fn a_session_that_is_just_ending_settles_nothing() {
    let world = World::new();
    let user = is_root().then(|| Granted::new(&world));
    let app = |words: &[&str]| user.as_ref().map_or_else(|| world.app(words), |user| user.app(words));
    let mut running = app(&["fim-exec", "sh", "-c", "echo ready; cat"]).spawn();
    running.expect("ready");
    let tree = running.tree();
    let server = tree.named("fim-mount");
    server.hold();
    // What ends by itself may have to read from the server first.
    running.signal(Signal::SIGKILL);
    running.wait_as_it_is().dies_of(Signal::SIGKILL);
    let next = app(&["fim-root", "true"]).spawn();
    harness::process::wait_for_poll(next.pid());
    server.go_on();
    next.wait().succeeds().quietly();
    let chosen = fs::read_to_string(world.data().join("ids")).unwrap();
    assert_eq!(chosen.lines().nth(1), Some(if is_root() { "subordinate" } else { "one" }), "{chosen}");
}
