//! Package managers and users in an image: owners of files are real, or remembered, whoever starts the image.

mod harness;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::thread;

use harness::{TestCommand, Tree, World, debian, is_root, need, world};

/// Has the world's data directory kept with one ID, as every unprivileged caller without subordinate IDs has it: so
/// that root is emulated for real root too.
fn one_id(world: &World) {
    for name in ["root", "work"] {
        fs::create_dir_all(world.data().join(name)).unwrap();
    }
    fs::write(world.data().join("ids"), "fim-ids 1\none\n").unwrap();
}

/// A small world in which root is emulated.
fn emulated() -> World {
    let world = World::new();
    one_id(&world);
    world
}

/// Debian with a home of these permissions, as the caller has it and with root emulated.
fn debians(options: &[&str]) -> Vec<World> {
    let make = || {
        let world = World::empty();
        world::build(debian::minimal(), world.image(), options).succeeds().quietly();
        world
    };
    let emulated = make();
    one_id(&emulated);
    // For a caller without privileges both are the same.
    if is_root() { vec![make(), emulated] } else { vec![emulated] }
}

/// The packages as an archive for the image's tar.
fn archive() -> Vec<u8> {
    let names = debian::package_files();
    let names = names.iter().map(|file| file.file_name().unwrap());
    let tar = TestCommand::new(need("tar")).arg("-C").arg(debian::packages()).arg("-c").args(names).run().succeeds();
    tar.stdout
}

/// Prints mode, owner and name of what the packages bring along with owners and modes of their own.
const SHOW: &str = "stat -c '%a %U:%G %n' /usr/bin/at /usr/bin/crontab /var/spool/cron/atjobs /var/spool/cron/crontabs \
     /usr/lib/dbus-1.0/dbus-daemon-launch-helper";

const SHOWN: &str = "6755 daemon:daemon /usr/bin/at
2755 root:crontab /usr/bin/crontab
1770 daemon:daemon /var/spool/cron/atjobs
1730 root:crontab /var/spool/cron/crontabs
4754 root:messagebus /usr/lib/dbus-1.0/dbus-daemon-launch-helper";

#[test]
fn dpkg_installs_files_of_several_owners() {
    for world in debians(&[]) {
        // Some packages want others configured before they are unpacked, which dpkg leaves to whoever calls it.
        let script = "cd /tmp && tar -x && export DEBIAN_FRONTEND=noninteractive
            for round in 1 2 3; do dpkg -i *.deb >log 2>&1 && exit; done; cat log; exit 1";
        world.root_sh(script).input(archive()).run().succeeds();
        // In a later run, with the users that the packages made.
        assert_eq!(world.root_sh(SHOW).prints(), SHOWN);
        assert_eq!(world.root_sh("dpkg --audit; su -s /bin/sh daemon -c 'id -un; id -gn'").prints(), "daemon\ndaemon");
        // For `fim-exec` nothing is emulated: what has one owner shows that one.
        if !is_root() {
            assert_eq!(world.exec(&["stat", "-c", "%u", "/usr/bin/at"]).prints(), harness::uid().to_string());
        }
    }
}

/// A package archive on a port of this host: the packages and their index.
fn serve_packages() -> u16 {
    let index: String = debian::package_files()
        .iter()
        .map(|file| {
            let control = TestCommand::new(need("dpkg-deb")).arg("-f").arg(file).prints();
            let sum = TestCommand::new(need("sha256sum")).arg(file).prints();
            let (sum, name) = (sum.split(' ').next().unwrap(), file.file_name().unwrap().to_str().unwrap());
            format!("{control}\nFilename: ./{name}\nSize: {}\nSHA256: {sum}\n\n", fs::metadata(file).unwrap().len())
        })
        .collect();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in server.incoming() {
            answer(client.unwrap(), &index);
        }
    });
    port
}

/// Answers one request and closes.
fn answer(mut client: TcpStream, index: &str) {
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let name = unquoted(request.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default());
    let content = if name == "Packages" {
        Some(index.as_bytes().to_vec())
    } else {
        debian::package_files()
            .iter()
            .find(|file| file.file_name().is_some_and(|file| file == name.as_str()))
            .map(|file| fs::read(file).unwrap())
    };
    let (status, content) = content.map_or(("404 Not Found", Vec::new()), |content| ("200 OK", content));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
    // A client that has gone asks no more.
    let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(&content));
}

/// A name without percent signs: apt quotes some bytes.
fn unquoted(name: &str) -> String {
    let mut parts = name.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        plain.push_str(&part[2..]);
    }
    plain
}

#[test]
fn apt_installs_local_and_downloaded_packages() {
    let port = serve_packages();
    for world in debians(&["--perms", "network"]) {
        let script = format!(
            "set -e; export DEBIAN_FRONTEND=noninteractive
             echo 'deb [trusted=yes] http://127.0.0.1:{port} ./' > /etc/apt/sources.list
             apt-get -q update
             stat -c '%U %a' /var/lib/apt/lists/partial
             apt-get -q -y install --no-install-recommends at cron
             cd /tmp && tar -x
             apt-get -q -y install --no-install-recommends ./dbus_*.deb ./dbus-*.deb"
        );
        let installed = world.root_sh(&script).input(archive()).run().succeeds();
        assert!(installed.text().contains("\n_apt 700\n"), "{installed:?}");
        // Whoever downloads has given up root, and apt has made sure of it.
        for word in ["unsandboxed", "Could not switch", "Operation not permitted", "E:"] {
            assert!(!installed.stderr().contains(word), "{word}: {installed:?}");
        }
        assert_eq!(world.root_sh(SHOW).prints(), SHOWN);
    }
}

#[test]
fn users_are_made_and_own_what_they_make() {
    for world in debians(&[]) {
        let script = r#"
            set -e; umask 022
            useradd -m -s /bin/sh ann; useradd -m -s /bin/sh bob
            su ann -c 'id -un; id -gn; cd; umask 027; touch file; mkdir dir; ln -s file link; mkfifo pipe'
            su - ann -c 'umask 022; echo x > made; : > made; set -C; echo y > exclusive; chgrp ann made'
            ! su ann -c 'chown bob ~/file' 2>/dev/null
            ! su ann -c 'chgrp bob ~/file' 2>/dev/null
            ! su ann -c 'chown ann /etc/hostname' 2>/dev/null
            cd /home/ann; stat -c '%U:%G %a %F %n' . .profile file dir link pipe made exclusive
        "#;
        let shown = world.root_sh(script).prints();
        let expected = "ann
ann
ann:ann 700 directory .
ann:ann 644 regular file .profile
ann:ann 640 regular empty file file
ann:ann 750 directory dir
ann:ann 777 symbolic link link
ann:ann 640 fifo pipe
ann:ann 644 regular empty file made
ann:ann 644 regular file exclusive";
        assert_eq!(shown, expected);
        let later =
            world.root_sh("cd /home/ann; stat -c '%U:%G %a %F %n' . .profile file dir link pipe made exclusive");
        assert_eq!(later.prints(), expected.strip_prefix("ann\nann\n").unwrap());
    }
}

#[test]
fn a_process_that_gave_up_root_does_not_get_it_back() {
    for world in debians(&[]) {
        let script = r#"
            print "$< $> $( $)\n";
            $> = 0; print "euid $>\n"; $< = 0; print "uid $<\n"; $) = 0; print "egid ", $) + 0, "\n";
            print chown(5, 5, "/etc/hostname") ? "changed" : "kept", "\n";
            system("id -u; id -g; id -G");
        "#;
        let words = ["setpriv", "--reuid=42", "--regid=42", "--groups=7", "perl", "-e", script];
        let printed = world.root(&words).prints();
        assert_eq!(printed, "42 42 42 7 42 7\neuid 42\nuid 42\negid 42\nkept\n42\n42\n42 7");
        // A saved ID leads back.
        let script =
            r#"$> = 42; print "$>\n"; $> = 0; print "$>\n"; chown 5, 5, "/etc/hostname" or die "$!"; print "done\n""#;
        assert_eq!(world.root(&["perl", "-e", script]).prints(), "42\n0\ndone");
    }
}

#[test]
fn tools_that_set_owners_work() {
    for world in debians(&[]) {
        let script = r#"
            set -e; cd /srv; umask 022
            install -o www-data -g mail -m 4750 /bin/true one
            mkdir -p tree/sub; touch tree/sub/file; ln -s file tree/sub/link; chown -R 12:34 tree; chown -h 56 tree/sub/link
            tar -cf tree.tar tree; rm -r tree; tar -xf tree.tar
            cp -a tree copy; mv tree/sub/link tree/sub/renamed
            # A new owner takes the bits that lend the old one; a file made anew is root's.
            stat -c '%a %u:%g %n' one; chown www-data one
            rm copy/sub/file; touch copy/sub/file
            ln one hard; chown :5 hard
            chown --from=12 13 tree tree/sub
            stat -c '%a %u:%g %n' one hard tree tree/sub tree/sub/* copy copy/sub/*
        "#;
        let expected = "4750 33:8 one
750 33:5 one
750 33:5 hard
755 13:34 tree
755 13:34 tree/sub
644 12:34 tree/sub/file
777 56:34 tree/sub/renamed
755 12:34 copy
644 0:0 copy/sub/file
777 56:34 copy/sub/link";
        assert_eq!(world.root_sh(script).prints(), expected);
    }
}

/// A world whose image has owners of its own: `/owned` and what lies in it belong to 33:44, `/far` to 70000:80000.
fn owned() -> World {
    let world = World::empty();
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    fs::create_dir(tree.join("owned")).unwrap();
    fs::write(tree.join("owned/file"), "content").unwrap();
    std::os::unix::fs::symlink("file", tree.join("owned/link")).unwrap();
    fs::write(tree.join("far"), "").unwrap();
    // Only root can give such owners to a directory; an archive holds any.
    let tar = world.path("tree.tar");
    let pack = |words: &[&str]| {
        TestCommand::new(need("tar")).arg("-C").arg(&tree).arg("-f").arg(&tar).args(words).run().succeeds().quietly();
    };
    pack(&["-c", "--exclude=./owned", "--exclude=./far", "--owner=0", "--group=0", "."]);
    pack(&["-r", "--owner=33", "--group=44", "./owned"]);
    pack(&["-r", "--owner=70000", "--group=80000", "./far"]);
    world::build(&tar, world.image(), &[]).succeeds().quietly();
    world
}

#[test]
fn the_owners_of_the_image_are_shown_and_change() {
    let world = owned();
    one_id(&world);
    assert_eq!(
        world.root_sh("stat -c %u:%g /owned /owned/file /owned/link /far /etc").prints(),
        "33:44\n33:44\n33:44\n70000:80000\n0:0"
    );
    // Reading and no change at all copy nothing up.
    world.root_sh("chown -R 33:44 /owned; chown -R root:root /etc /usr; cat /owned/file").run().succeeds();
    assert!(!world.upper("owned").exists() && !world.upper("usr").exists());
    world.root_sh("chown 0:0 /owned/file; chown :0 /owned").run().succeeds().quietly();
    assert_eq!(world.root_sh("stat -c %u:%g /owned /owned/file; cat /owned/file").prints(), "33:0\n0:0\ncontent");
    assert_eq!(world.root_sh("chown -h :0 /owned/link; stat -c %u:%g /owned/link").prints(), "33:0");
    assert_eq!(world.root_sh("chown -h 0 /owned/link; stat -c %u:%g /owned/link").prints(), "0:0");
}

#[test]
fn a_static_busybox_keeps_owners_too() {
    let world = emulated();
    let script = r#"
        set -e; umask 022
        mkdir -p /home/ann; chown 1000:1000 /home/ann
        printf 'root:x:0:0::/:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n' > /etc/passwd
        printf 'root:x:0:\nann:x:1000:\n' > /etc/group
        su ann -c 'id -u; touch ~/file'
        touch /f; chown 33:44 /f; ln -s f /l; chown -h 5:6 /l; mkfifo /p; chown 7:8 /p; mknod /n b 8 1; chown 9:9 /n
        tar -cf /t.tar -C / f l p n home; mkdir /out; tar -xf /t.tar -C /out
        stat -c '%u:%g %n' /home/ann /home/ann/file /out/f /l /out/p /out/home/ann/file
        stat -c '%F %u %t:%T' /out/n
    "#;
    let expected = "1000\n1000:1000 /home/ann\n1000:1000 /home/ann/file\n33:44 /out/f\n5:6 /l\n7:8 /out/p\n\
                    1000:1000 /out/home/ann/file\nblock special file 9 8:1";
    assert_eq!(world.root_sh(script).prints(), expected);
    // Renamed, an object keeps its owner; a new one of the same name does not inherit it.
    let script = "mv /l /l2; mv /p /p2; ln -s x /l; mkfifo /p; stat -c '%u:%g %n' /l2 /p2 /l /p";
    assert_eq!(world.root_sh(script).prints(), "5:6 /l2\n7:8 /p2\n0:0 /l\n0:0 /p");
    // On the instance's own file systems for its life.
    let script = "cd /tmp; touch f; ln -s f l; chown 3:4 f; chown -h 5:6 l; stat -c '%u:%g' f l; ls -ln f";
    let shown = world.root_sh(script).prints();
    assert!(shown.starts_with("3:4\n5:6\n-rw-r--r--    1 3        4"), "{shown}");
    // The layer that a commit would take: attributes on files, lines in the ledger for the rest.
    let ledger = fs::read_to_string(world.data().join("owners")).unwrap();
    let link = fs::symlink_metadata(world.upper("l2")).unwrap();
    assert!(
        ledger.lines().any(|line| line.starts_with(&format!("{} ", link.ino())) && line.ends_with(" 5:6")),
        "{ledger}"
    );
}

#[test]
fn calls_of_i386_are_answered() {
    let world = emulated();
    let printed = world.root_sh("touch /f; probe owners32 /f 70000 80000; stat -c %u:%g /f").prints();
    let expected = "chown32=ok\nstat64=ok\nowner=70000:80000\nchown16=ok\nlstat64=ok\nowner=7:80000\nsetgroups32=ok\n\
                    setresgid32=ok\nsetuid32=ok\nids=70000:65534:80000\nsetuid16=EPERM\n7:80000";
    assert_eq!(printed, expected);
}

#[test]
fn instances_see_each_others_owners() {
    let world = emulated();
    let mut first = world.root_sh("ln -s x /l; touch /f; echo ready; read line; stat -c %u:%g /l /f").spawn();
    first.expect("ready");
    world.root_sh("chown -h 5:6 /l; chown 7:8 /f").run().succeeds().quietly();
    first.say("go\n");
    first.expect("5:6\n7:8");
    // A command in a live instance is in its emulation.
    let mut running = world.root_sh("echo ready; cat").spawn();
    running.expect("ready");
    let id = world.app(&["fim-instance", "list"]).prints();
    let id = id.lines().next().unwrap().split(':').next().unwrap().to_owned();
    let script = "chown 9:9 /f; stat -c %u:%g /f /l; su -s /bin/sh root -c 'id -u'";
    assert_eq!(world.app(&["fim-instance", "exec", &id, "sh", "-c", script]).prints(), "9:9\n5:6\n0");
}

#[test]
fn fim_exec_is_not_emulated() {
    let world = emulated();
    world.root_sh("touch /f; chown 33:44 /f").run().succeeds();
    let running = world.sh("echo ready; cat").spawn();
    let mut running = running;
    running.expect("ready");
    assert!(!running.tree().0.iter().any(|member| member.name == "fim-owners"));
    let own = harness::uid();
    assert_eq!(world.exec(&["stat", "-c", "%u", "/f"]).prints(), own.to_string());
    world.exec(&["chown", "33", "/f"]).run().exits(1);
    assert!(running.wait().succeeds().stderr.is_empty());
}

#[test]
fn the_rung_is_recorded_and_shown() {
    let world = World::new();
    let debug = |command: TestCommand| command.env("FIM_DEBUG", "1").run().succeeds().text();
    let record = world.data().join("ids");
    let first = debug(world.exec(&["true"]));
    if is_root() {
        assert!(first.contains("D::IDs of the session: every\n"), "{first}");
        assert_eq!(fs::read_to_string(&record).unwrap(), "fim-ids 1\nevery\n");
    } else {
        // Nothing is decided yet: all files are the caller's.
        assert!(first.contains("D::IDs of the session: one\n") && !record.exists(), "{first}");
        let second = debug(world.root(&["true"]));
        assert!(second.contains("D::IDs of the session: one, root emulated\n"), "{second}");
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

#[test]
fn emulation_reaches_nothing_of_the_host() {
    let world = emulated();
    let file = world.path("host-file");
    fs::write(&file, "host\n").unwrap();
    let open = File::options().read(true).write(true).open(&file).unwrap();
    let before = fs::metadata(&file).unwrap();
    // A file of the host that is open in the instance, by each way that leads to it.
    let script = r#"
        for path in /dev/stdin /proc/self/fd/0 /dev/fd/0; do chown 5:5 $path 2>/dev/null && echo "changed $path"; done
        (su -s /bin/sh nobody -c 'touch /proc/self/fd/0/x; mkdir /proc/1/root/x; touch /proc/1/cwd/x') 2>/dev/null
        chown 5:5 /proc/1/root /proc/1/cwd /proc/1/fd/3 /proc/1/root/.. /proc/self /proc /dev/null 2>/dev/null && echo changed
        probe race-owners >/dev/null
        stat -c %u:%g /dev/stdin
        cd /proc/1/cwd 2>/dev/null && echo entered
        echo end
    "#;
    let outcome = world.root_sh(script).stdin(open).run().succeeds();
    assert!(!outcome.text().contains("changed") && outcome.text().ends_with("\nend"), "{outcome:?}");
    let after = fs::metadata(&file).unwrap();
    assert_eq!((before.uid(), before.gid(), before.ctime_nsec()), (after.uid(), after.gid(), after.ctime_nsec()));
    let names = TestCommand::new(need("python3"))
        .args(["-c", "import os, sys; print(os.listxattr(sys.argv[1]))"])
        .arg(&file)
        .prints();
    assert_eq!(names, "[]");
}

#[test]
fn granted_files_of_the_host_keep_their_owners() {
    let world = World::with_tree(|_| {}, &["--perms", "network"]);
    one_id(&world);
    let before = fs::metadata("/etc/hosts").unwrap();
    let outcome = world.root_sh("stat -c %F /etc/hosts; chown 5:5 /etc/hosts").run();
    assert!(outcome.status.code() == Some(1) && outcome.text() == "regular file", "{outcome:?}");
    let after = fs::metadata("/etc/hosts").unwrap();
    assert_eq!((before.uid(), before.ctime(), before.ctime_nsec()), (after.uid(), after.ctime(), after.ctime_nsec()));
}

#[test]
fn the_supervisor_is_out_of_the_guests_reach() {
    let world = emulated();
    // It has no number inside, so it can be neither named, signalled, traced nor looked into.
    let seen = world
        .root_sh("cat /proc/[0-9]*/comm; kill -9 -1 2>/dev/null; echo alive; touch /f; chown 5:5 /f; stat -c %u:%g /f")
        .prints();
    assert!(!seen.contains("fim-owners") && seen.ends_with("alive\n5:5"), "{seen}");
    // Lying about oneself in the limit that carries the identity changes nothing but oneself.
    let script = "for n in 0 1 7378697629483820646 7378697629483820647; do ulimit -x $n 2>/dev/null; id -u; done; chown 3:3 /f; stat -c %u /f";
    let lied = world.root_sh(script).run().succeeds();
    assert!(lied.text().ends_with("\n3"), "{lied:?}");
    // What is not there gets the kernel's own answer.
    world.root_sh("chown 5:5 /nothing").run().exits(1).complains_of(&["No such file"]);
}

#[test]
fn odd_arguments_get_the_kernels_answers() {
    let mut worlds = vec![emulated()];
    if is_root() {
        // Without emulation the kernel itself answers.
        worlds.push(World::new());
    }
    let expected = "stat-path=EFAULT stat-buffer=EFAULT stat-flags=EINVAL statx-buffer=EFAULT stat-long=ENAMETOOLONG \
                    stat-empty=ENOENT fstat=EBADF chown-path=EFAULT chown-flags=EINVAL chown-long=ENAMETOOLONG \
                    fchown=EBADF chown-through-file=ENOTDIR chown-nothing=ok setuid=EINVAL setgroups-pointer=EFAULT \
                    setgroups-count=EINVAL setgroups-negative=EINVAL setgroups=ok getgroups-short=EINVAL \
                    getgroups-pointer=EFAULT getresuid=EFAULT setresuid=ok mkdir-path=EFAULT open-path=EFAULT \
                    mkdir-dots=EEXIST mkdir-nowhere=ENOENT symlink-text=EFAULT open-exclusive=EEXIST";
    for world in worlds {
        let printed = world.root_sh("touch /f; chown 3:3 /f; probe owner-faults /f").prints();
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    }
}

#[test]
fn the_end_of_the_supervisor_ends_the_instance_with_a_reason() {
    let world = emulated();
    let mut running = world.root_sh("echo ready; cat").spawn();
    running.expect("ready");
    let tree: Tree = running.tree();
    tree.named("fim-owners").kill();
    running.wait_as_it_is().exits(125).complains_of(&["fim: ", "keeps the owners of files", "ended"]);
    tree.wait_gone();
    world.assert_nothing_left();
    assert_eq!(world.root_sh("touch /f; chown 5 /f; stat -c %u /f").prints(), "5");
}

#[test]
fn in_a_container_with_a_notifier_of_its_own_fim_root_works_without() {
    let world = emulated();
    // A filter that allows everything, with a listener that stays open: what some container engines put on programs.
    let script = r#"
import ctypes, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(allow))
listener = libc.syscall(317, 1, 8, program)
assert listener >= 0, ctypes.get_errno()
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"#;
    let command = TestCommand::new(need("python3")).args(["-c", script]).arg(world.image());
    let words = ["fim-root", "sh", "-c", "id -u; touch /f; chown 5 /f || echo refused"];
    let outcome = world.equip(command.args(words)).env("FIM_DEBUG", "1").run().succeeds();
    assert!(
        outcome.text().contains("D::Root is not emulated") && outcome.text().ends_with("0\nrefused"),
        "{outcome:?}"
    );
    world.assert_nothing_left();
}

#[test]
fn the_supervisor_ends_with_the_instance() {
    let world = emulated();
    for name in ["fim-guest", "fim-mount"] {
        let mut running = world.root_sh("echo ready; cat").spawn();
        running.expect("ready");
        let tree: Tree = running.tree();
        tree.named(name).kill();
        running.wait_as_it_is().exits(125);
        tree.wait_gone();
    }
    let mut running = world.root_sh("echo ready; cat").spawn();
    running.expect("ready");
    let tree: Tree = running.tree();
    running.signal(nix::sys::signal::Signal::SIGKILL);
    tree.wait_gone();
    drop(running);
    world.assert_nothing_left();
}

/// Many processes at once: no answer is lost, none goes to another.
#[test]
fn many_processes_get_their_own_answers() {
    let world = emulated();
    let script = r#"
        mkdir /many
        for n in $(seq 1 40); do
            (touch /many/$n; chown $n:$n /many/$n
             su -s /bin/sh root -c "for k in 1 2 3 4 5; do stat -c %u:%g /many/$n; done" | sort -u > /many/$n.out) &
        done
        wait
        for n in $(seq 1 40); do [ "$(cat /many/$n.out)" = "$n:$n" ] || echo "$n: $(cat /many/$n.out)"; done
    "#;
    assert_eq!(world.root_sh(script).prints(), "");
}
