//! Real programs of a Debian image with real servers of the host: they work with the permission and are refused without.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use harness::{DEADLINE, Running, TestCommand, World, need, world};

const PACKAGES: [&str; 9] = [
    "ca-certificates",
    "curl",
    "dbus-bin",
    "git",
    "libnotify-bin",
    "nodejs",
    "pulseaudio-utils",
    "python3",
    "x11-apps",
];

/// A world with an image of these programs, which is built once.
fn programs() -> World {
    static IMAGE: OnceLock<fs::File> = OnceLock::new();
    with_image(IMAGE.get_or_init(|| packed("programs", &PACKAGES)))
}

/// An image of a Debian with these packages. The file has no name any more, so that nothing has to be removed.
fn packed(name: &str, packages: &[&str]) -> fs::File {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("packed.flatimage");
    let tree = harness::debian::tree(name, packages);
    // Minutes for a program without optimisation, on a busy machine.
    let status = std::process::Command::new(harness::FIM)
        .args(["build", tree.to_str().unwrap(), "-o", image.to_str().unwrap(), "--level", "1", "--quiet"])
        .status();
    assert!(status.unwrap().success(), "cannot pack {}", tree.display());
    fs::File::open(image).unwrap()
}

fn with_image(image: &fs::File) -> World {
    let world = World::empty();
    world::copy(Path::new(&format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd())), world.image());
    world
}

#[track_caller]
fn grant(world: &World, names: &str) {
    world.app(&["fim-perms", "set", names]).run().succeeds().quietly();
}

/// Answers every request with one line.
fn web_server() -> u16 {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n");
        }
    });
    port
}

#[test]
fn curl_reaches_the_hosts_loopback_with_network_only() {
    let world = programs();
    let url = format!("http://127.0.0.1:{}/", web_server());
    let curl = || world.exec(&["curl", "-sS", &url]);
    curl().run().exits(7).complains_of(&["Failed to connect"]);
    grant(&world, "network");
    assert_eq!(curl().prints(), "hello");
    // Names are resolved by the host's files.
    let line = "mount -t tmpfs none /mnt && echo 192.0.2.7 of-the-host > /mnt/hosts && mount --bind /mnt/hosts /etc/hosts && \
                exec \"$IMAGE\" fim-exec getent hosts of-the-host";
    assert!(world.in_namespace(line).prints().starts_with("192.0.2.7 "));
}

/// Answers on port 53 that every name is 192.0.2.7.
const NAME_SERVER: &str = r#"
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    query, peer = server.recvfrom(512)
    end = query.index(b"\0", 12) + 5
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\7" if query[end - 3] == 1 else b""
    counts = b"\0\1" + (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0"
    server.sendto(query[:2] + b"\x85\x80" + counts + query[12:end] + answer, peer)
"#;

/// Prints the address of a name.
const RESOLVE: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    struct addrinfo *found, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    int error = argc > 1 ? getaddrinfo(argv[1], 0, &hints, &found) : EAI_NONAME;
    return puts(error ? "unknown" : inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr)) < 0;
}
"#;

#[test]
fn names_are_resolved_by_the_hosts_server_in_guests_of_glibc_and_musl() {
    let world = programs();
    fs::write(world.path("resolve.c"), RESOLVE).unwrap();
    fs::write(world.path("server.py"), NAME_SERVER).unwrap();
    need("musl-gcc");
    world.host_sh("musl-gcc -static -o resolve resolve.c").run().succeeds().quietly();
    world.app(&["fim-bind", "add", "ro", "$FIM_DIR_SELF/resolve", "/bin/resolve"]).run().succeeds();
    // A network of its own, where the port of name servers is free for everybody.
    let script = "set -e; /bin/busybox ip link set lo up; mount -t tmpfs none /mnt; \
                  echo nameserver 127.0.0.1 > /mnt/file; mount --bind /mnt/file /etc/resolv.conf; \
                  mkfifo ready; /usr/bin/python3 server.py > ready & trap 'kill $!' EXIT; read word < ready; \
                  \"$IMAGE\" fim-exec sh -c 'getent hosts name.example; resolve name.example'";
    let flags = if harness::is_root() { "-mn" } else { "-Urmn" };
    let resolve = || {
        let run = world.host_sh("rm -f ready; exec unshare $0 bash -c \"$1\"").args([flags, script]).run();
        run.succeeds().text().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(resolve(), ["unknown"]);
    grant(&world, "network");
    assert_eq!(resolve(), ["192.0.2.7", "name.example", "192.0.2.7"]);
}

#[test]
fn git_python_and_node_run_as_the_caller() {
    let world = programs();
    let script = "set -e; cd /tmp; git init -q r; cd r; git config user.email a@b.c; git config user.name a; \
                  echo x > f; git add f; git commit -qm first; git log --format=%s; \
                  python3 -c 'import os, json; print(json.dumps([os.getuid(), 6 * 7]))'; \
                  node -e 'console.log([1, 2, 3].map(x => x * x).join())'";
    let printed = world.sh(script).prints();
    assert_eq!(printed, format!("first\n[{}, 42]\n1,4,9", harness::uid()));
}

/// A session bus of the host with a notification daemon on it.
struct Bus {
    _bus: Running,
    daemon: Running,
    address: String,
}

/// Owns two names: one that the filter lets through and one that it does not.
const DAEMON: &str = r#"
import dbus, dbus.service, dbus.mainloop.glib
from gi.repository import GLib
dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
class Notifications(dbus.service.Object):
    @dbus.service.method("org.freedesktop.Notifications", in_signature="susssasa{sv}i", out_signature="u")
    def Notify(self, name, replaces, icon, summary, body, actions, hints, timeout):
        print("notified:", summary, body, flush=True)
        return 1
    @dbus.service.method("org.freedesktop.Notifications", out_signature="ssss")
    def GetServerInformation(self):
        return "test", "test", "1", "1.2"
    @dbus.service.method("org.freedesktop.Notifications", out_signature="as")
    def GetCapabilities(self):
        return ["body"]
bus = dbus.SessionBus()
names = [dbus.service.BusName(name, bus) for name in ("org.freedesktop.Notifications", "org.test.Secret")]
object = Notifications(bus, "/org/freedesktop/Notifications")
print("ready", flush=True)
GLib.MainLoop().run()
"#;

fn bus(world: &World) -> Bus {
    let (bus, address) = harness::bus::session(world);
    let mut daemon = world
        .equip(TestCommand::new("/usr/bin/python3"))
        .args(["-c", DAEMON])
        .env("DBUS_SESSION_BUS_ADDRESS", &address)
        .spawn();
    daemon.expect("ready");
    Bus { _bus: bus, daemon, address }
}

#[test]
fn notifications_reach_the_session_bus_with_dbus_user_only() {
    let world = programs();
    let mut bus = bus(&world);
    let notify = |text: &str| world.exec(&["notify-send", text, "body"]).env("DBUS_SESSION_BUS_ADDRESS", &bus.address);
    let refused = notify("refused").run();
    assert!(!refused.status.success(), "{refused:?}");
    grant(&world, "dbus_user");
    need("xdg-dbus-proxy");
    let outcome = notify("filtered").run().succeeds();
    assert!(outcome.stderr().is_empty(), "{outcome:?}");
    // Without the program that filters.
    let outcome = notify("plain").env("PATH", world.path("home")).run().succeeds();
    assert!(outcome.stderr().is_empty(), "{outcome:?}");
    bus.daemon.expect("notified: filtered body\nnotified: plain body\n");
    world.assert_nothing_left();
}

#[test]
fn the_filter_lets_only_named_services_through_and_ends_with_the_instance() {
    let world = programs();
    let bus = bus(&world);
    grant(&world, "dbus_user");
    let ping = |to: &str| {
        let to = format!("--dest={to}");
        let words = ["dbus-send", "--session", "--print-reply", &to, "/", "org.freedesktop.DBus.Peer.Ping"];
        world.exec(&words).env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
    };
    ping("org.freedesktop.Notifications").run().succeeds();
    ping("org.test.Secret").run().exits(1).complains_of(&["org.freedesktop.DBus.Error.ServiceUnknown"]);
    ping("org.test.Secret").env("FIM_DBUS_TALK", "org.test.*").run().succeeds();
    ping("org.test.Secret").env("PATH", world.path("home")).run().succeeds();
    // Whoever starts it may be killed: the filter goes too.
    let mut running = world.sh("echo ready; cat").env("DBUS_SESSION_BUS_ADDRESS", &bus.address).spawn();
    running.expect("ready");
    let members = running.tree();
    let filter = members.0.iter().find(|member| member.name == "xdg-dbus-proxy").expect("a filter runs");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    filter.wait_gone();
    drop(running);
    world.assert_nothing_left();
}

/// A bus of the system, in the place where programs look for it, and a guest that asks it before and after the grant.
const SYSTEM_BUS: &str = r#"
set -e
mount -t tmpfs none /run
mkdir /run/dbus
cat > /run/bus.conf <<'END'
<busconfig>
    <type>system</type>
    <listen>unix:path=/run/dbus/system_bus_socket</listen>
    <auth>EXTERNAL</auth>
    <policy context="default">
        <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
    </policy>
</busconfig>
END
coproc BUS { exec dbus-daemon --config-file=/run/bus.conf --nofork --print-address=1; }
read -r address <&"${BUS[0]}"
ask() {
    "$IMAGE" fim-exec dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetId
}
if ask; then exit 90; fi
"$IMAGE" fim-perms add dbus_system
ask
kill "$BUS_PID"
"#;

#[test]
fn the_system_bus_answers_with_dbus_system_only() {
    let world = programs();
    need("dbus-daemon");
    let outcome = world.in_namespace(SYSTEM_BUS).run().succeeds();
    let outcome = outcome.complains_of(&["/run/dbus/system_bus_socket: No such file or directory"]);
    assert!(outcome.text().starts_with("method return"), "{outcome:?}");
    world.assert_nothing_left();
}

#[test]
fn sound_reaches_the_server_with_audio_only() {
    let world = programs();
    need("pulseaudio");
    let mut server = world
        .host_sh(
            "exec pulseaudio -n --daemonize=no --exit-idle-time=-1 --use-pid-file=no --log-target=stderr -vv \
             --load='module-null-sink sink_name=silence' --load=module-native-protocol-unix 2>&1",
        )
        .spawn();
    server.expect("Daemon startup complete");
    let sinks = || world.exec(&["pactl", "list", "short", "sinks"]);
    let refused = sinks().run();
    assert!(!refused.status.success() && refused.stderr().contains("refused"), "{refused:?}");
    grant(&world, "audio");
    assert!(sinks().prints().contains("silence"));
    // What is played arrives.
    let play = world.exec(&["sh", "-c", "head -c 100000 /dev/zero | pacat --playback"]).run();
    assert!(play.status.success(), "{play:?}");
}

/// An X server of the host.
struct Display {
    _server: Running,
    name: String,
}

fn display(world: &World, options: &[&str]) -> Display {
    let mut server = world
        .equip(TestCommand::new(need("Xvfb")))
        .args(["-displayfd", "1", "-screen", "0", "320x240x24", "-nolisten", "tcp", "-noreset"])
        .args(options)
        .spawn();
    let number = server.line();
    Display { _server: server, name: format!(":{number}") }
}

/// Waits until the host sees a window of this name on the display and `enough` says so of a picture of the screen.
fn wait_for_window(
    world: &World,
    display: &Display,
    name: &str,
    authority: &Path,
    enough: impl Fn(&mut dyn Iterator<Item = [u8; 3]>) -> bool,
) {
    let host = |program: &str| {
        let command = world.equip(TestCommand::new(need(program))).env("DISPLAY", &display.name);
        command.env("XAUTHORITY", authority)
    };
    let begin = Instant::now();
    loop {
        // Both ask for the list of windows and then for each, and fail when one has gone away meanwhile: look again.
        let windows = host("xwininfo").args(["-root", "-tree"]).run();
        let picture = host("xwd").args(["-root", "-silent"]).run();
        let is_there = windows.text().contains(&format!("\"{name}\""));
        if is_there && picture.status.success() && enough(&mut pixels(&picture.stdout)) {
            return;
        }
        assert!(
            begin.elapsed() < DEADLINE,
            "nothing is seen of {name:?} on {}: {windows:?}\n{}",
            display.name,
            String::from_utf8_lossy(&picture.stderr)
        );
    }
}

/// The pixels of a picture of xwd(1), of 24 bits: blue, green, red and a filling (X11/XWDFile.h).
fn pixels(picture: &[u8]) -> impl Iterator<Item = [u8; 3]> {
    let number = |index: usize| u32::from_be_bytes(picture[index * 4..][..4].try_into().unwrap()) as usize;
    let (header, colours) = (number(0), number(19));
    picture[header + colours * 12..].chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2]])
}

/// An authority file for any display (Xauth(3), family 65535 is every host).
fn authority(path: &Path) -> PathBuf {
    let mut bytes = vec![0xff, 0xff, 0, 0, 0, 0];
    for text in [&b"MIT-MAGIC-COOKIE-1"[..], b"sixteen bytes of"] {
        bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text);
    }
    fs::write(path, bytes).unwrap();
    path.to_owned()
}

#[test]
fn an_x_program_shows_its_window_with_xorg_only() {
    let world = programs();
    let cookie = authority(&world.path("cookie"));
    for authority in [None, Some(cookie.as_path())] {
        let options: Vec<&str> = authority.iter().flat_map(|file| ["-auth", file.to_str().unwrap()]).collect();
        let display = display(&world, &options);
        let none = world.path("none");
        let file = authority.unwrap_or(&none);
        let logo = || world.exec(&["xlogo"]).env("DISPLAY", &display.name).env("XAUTHORITY", file);
        grant(&world, "");
        logo().run().exits(1).complains_of(&["Can't open display"]);
        grant(&world, "xorg");
        let running = logo().spawn();
        wait_for_window(&world, &display, "xlogo", file, |pixels| {
            pixels.collect::<std::collections::BTreeSet<_>>().len() > 1
        });
        running.signal(nix::sys::signal::Signal::SIGTERM);
        running.wait();
    }
    // With the cookie's file missing, the server says no.
    let display = display(&world, &["-auth", cookie.to_str().unwrap()]);
    world.exec(&["xlogo"]).env("DISPLAY", &display.name).run().exits(1);
}

#[test]
fn chromium_renders_a_page_with_its_own_sandbox_on() {
    let world = with_image(&packed("chromium", &["chromium", "dbus-x11", "fonts-dejavu-core"]));
    let display = display(&world, &[]);
    fs::write(world.path("page.html"), "<title>page</title><body style='background: #ff0000'></body>").unwrap();
    world.app(&["fim-bind", "add", "ro", "$FIM_DIR_SELF/page.html", "/page.html"]).run().succeeds();
    // It does not run as root with its sandbox on.
    world.app(&["fim-env", "add", "UID=1000", "GID=1000", "HOME=/home/user"]).run().succeeds();
    grant(&world, "xorg");
    let mut running = world
        .exec(&["chromium", "--no-first-run", "--disable-gpu", "--password-store=basic", "--ozone-platform=x11"])
        .args(["--window-position=0,0", "--window-size=320,240", "--app=file:///page.html"])
        .env("DISPLAY", &display.name)
        .spawn();
    let none = world.path("none");
    wait_for_window(&world, &display, "page", &none, |pixels| {
        pixels.filter(|pixel| *pixel == [0, 0, 255]).count() > 10_000
    });
    // Its renderers are in PID namespaces of their own, below the instance's.
    // A process may end before grep has come to it.
    let levels = "grep -hs ^NSpid: /proc/[0-9]*/status; true";
    let levels = world.app(&["fim-instance", "exec", "0", "sh", "-c", levels]).prints();
    assert!(levels.lines().any(|line| line.split_whitespace().count() > 2), "{levels}");
    running.close_stdin();
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait();
}
