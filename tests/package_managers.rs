//! Package managers and users in an image: owners of files are real, or remembered, whoever starts the image.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use harness::debian::{INSTALL, SHOW, SHOWN, archive};
use harness::owners::one_id;
use harness::{TestCommand, World, debian, is_root, need, world};

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

#[test]
fn dpkg_installs_files_of_several_owners() {
    for world in debians(&[]) {
        world.root_sh(INSTALL).input(archive()).run().succeeds();
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

/// The image in the hands of another: a directory and a home with nothing in them, and for real root another user.
struct Receiver {
    world: World,
    as_user: bool,
}

impl Receiver {
    fn of(image: &Path, as_user: bool) -> Self {
        let world = World::empty();
        world::copy(image, world.image());
        if as_user {
            let tree = [world.path(""), world.path("home"), world.path("runtime"), world.image().to_owned()];
            tree.iter().for_each(|path| std::os::unix::fs::chown(path, Some(OTHER), Some(OTHER)).unwrap());
        }
        Self { world, as_user }
    }

    fn app(&self, words: &[&str]) -> TestCommand {
        if !self.as_user {
            return self.world.app(words);
        }
        let ids = [format!("--reuid={OTHER}"), format!("--regid={OTHER}"), "--clear-groups".to_owned()];
        self.world.equip(TestCommand::new(need("setpriv")).args(ids).arg(self.world.image()).args(words))
    }
}

/// A user of no account.
const OTHER: u32 = 63_998;

#[test]
fn what_was_installed_is_handed_on_in_one_file() {
    let port = serve_packages();
    for world in debians(&[]) {
        world.app(&["fim-perms", "set", "network"]).run().succeeds().quietly();
        let script = format!(
            "set -e; export DEBIAN_FRONTEND=noninteractive
             echo 'deb [trusted=yes] http://127.0.0.1:{port} ./' > /etc/apt/sources.list
             apt-get -q update; apt-get -q -y install --no-install-recommends at cron dbus; apt-get clean"
        );
        world.root_sh(&script).run().succeeds();
        let files = world.root_sh("dpkg -L at cron dbus-bin dbus-daemon dbus-system-bus-common | wc -l").prints();
        assert!(files.parse::<u32>().unwrap() > 100, "{files}");
        let version = world.exec(&["dbus-daemon", "--version"]).prints();
        assert!(version.starts_with("D-Bus Message Bus Daemon"), "{version}");
        world.app(&["fim-layer", "commit", "binary"]).run().succeeds();
        world.app(&["fim-boot", "set", "dbus-daemon", "--version"]).run().succeeds().quietly();
        world.app(&["fim-perms", "clear"]).run().succeeds().quietly();
        // Both whose and which: by the same kind of caller, and by root's ordinary user.
        for as_user in if is_root() { vec![false, true] } else { vec![false] } {
            let receiver = Receiver::of(world.image(), as_user);
            assert_eq!(receiver.app(&[]).prints(), version);
            assert_eq!(receiver.app(&["fim-root", "sh", "-c", SHOW]).prints(), SHOWN, "as_user: {as_user}");
            let audit = "dpkg --audit; dpkg -s cron | grep ^Status; su -s /bin/sh daemon -c 'id -un'";
            let shown = receiver.app(&["fim-root", "sh", "-c", audit]).prints();
            assert_eq!(shown, "Status: install ok installed\ndaemon");
            receiver.world.assert_nothing_left();
        }
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
