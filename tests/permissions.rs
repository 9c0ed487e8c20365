//! What each permission gives, and that without it there is nothing.

mod harness;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use harness::{TestCommand, World, is_root, need, uid};
use serde_json::Value;

#[track_caller]
fn grant(world: &World, names: &str) {
    world.app(&["fim-perms", "set", names]).run().succeeds().quietly();
}

/// Runs a command for an image that lacks a permission, which must print the first text, and again with it granted.
#[track_caller]
fn denied_then_granted(
    world: &World,
    permission: &str,
    denied: &str,
    granted: &str,
    command: &dyn Fn() -> TestCommand,
) {
    assert_eq!(command().run().text(), denied, "without {permission}");
    grant(world, permission);
    assert_eq!(command().prints(), granted, "with {permission}");
    grant(world, "");
    assert_eq!(command().run().text(), denied, "after {permission} was taken back");
}

/// Gives a namespace a /dev of its own with the nodes that a start needs, and these empty directories and nodes.
fn devices(directories: &str, nodes: &str) -> String {
    format!(
        "set -e; mkdir dev; mount --rbind /dev dev; mount -t tmpfs none /dev; \
         for n in null zero full random urandom tty fuse; do : > /dev/$n; mount --bind dev/$n /dev/$n; done; \
         mkdir /dev/pts /dev/shm; mount --rbind dev/pts /dev/pts; ln -s /proc/self/fd /dev/fd; \
         for d in {directories}; do mkdir -p /dev/$d; done; \
         for n in {nodes}; do : > /dev/$n; mount --bind dev/zero /dev/$n; done; trap 'umount -l dev; rmdir dev' EXIT; "
    )
}

/// Bytes read of a device node, or why none.
const READ: &str = "head -c 2 $node 2>&1 | wc -c";

#[test]
fn home() {
    let world = World::new();
    let file = world.path("home/a file");
    fs::write(&file, "of the host\n").unwrap();
    let cat = || world.exec(&["sh", "-c", "cat \"$0\" 2>/dev/null || echo none", file.to_str().unwrap()]);
    denied_then_granted(&world, "home", "none", "of the host", &cat);
    grant(&world, "home");
    assert_eq!(world.sh("cd; pwd; echo made > made").prints(), world.path("home").display().to_string());
    assert_eq!(fs::read_to_string(world.path("home/made")).unwrap(), "made\n");
    // fim-root has a home of the image's.
    assert_eq!(world.root(&["sh", "-c", "cat \"$0\" || echo $HOME", file.to_str().unwrap()]).run().text(), "/root");
    // Only the home.
    world.exec(&["cat", world.image().to_str().unwrap()]).run().exits(1);
    grant(&world, "");
    world.wait_for_end();
    let left = TestCommand::new("/usr/bin/find").arg(world.data()).args(["-name", "made"]).prints();
    assert_eq!(left, "", "something of the home is in the image's data");
}

#[test]
fn media() {
    let world = World::new();
    let line = "mount -t tmpfs none /mnt && echo stick > /mnt/file && \
                exec \"$IMAGE\" fim-exec sh -c 'cat /mnt/file 2>/dev/null && echo new > /mnt/new || echo none'";
    denied_then_granted(&world, "media", "none", "stick", &|| world.in_namespace(line));
}

#[test]
fn a_stick_that_is_plugged_in_later_appears() {
    let world = World::new();
    grant(&world, "media");
    let script = "set -e; mount --make-rshared /; mount -t tmpfs none /mnt; mount --make-shared /mnt; mkdir /mnt/stick; \
                  mkfifo go out; \"$IMAGE\" fim-exec sh -c 'echo ready; read x; cat /mnt/stick/file' < go > out & \
                  exec 3> go 4< out; read -u 4 ready; mount -t tmpfs none /mnt/stick; echo plugged > /mnt/stick/file; \
                  echo >&3; cat <&4; wait";
    assert_eq!(world.in_namespace(script).prints(), "plugged");
}

/// A socket that somebody listens on, below the runtime directory of the world.
fn listener(world: &World, name: &str) -> UnixListener {
    let path = world.path("runtime").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    UnixListener::bind(path).unwrap()
}

#[test]
fn audio() {
    let world = World::new();
    let (_pulse, _pipewire) = (listener(&world, "pulse/native"), listener(&world, "pipewire-0"));
    let line = "for name in pulse/native pipewire-0; do probe unix $XDG_RUNTIME_DIR/$name; done; echo $PULSE_SERVER";
    let server = format!("unix:/run/user/{}/pulse/native", uid());
    let granted = format!("connect=ok\nconnect=ok\n{server}");
    denied_then_granted(&world, "audio", "connect=ENOENT\nconnect=ENOENT\n", &granted, &|| world.sh(line));
    let alsa = devices("snd", "snd/pcm")
        + "\"$IMAGE\" fim-exec sh -c 'node=/dev/snd/pcm; [ -e $node ] && "
        + READ
        + " || echo none'";
    denied_then_granted(&world, "audio", "none", "2", &|| world.in_namespace(&alsa));
}

#[test]
fn wayland() {
    let world = World::new();
    let _compositor = listener(&world, "wayland-7");
    let command = || world.sh("probe unix $XDG_RUNTIME_DIR/wayland-7").env("WAYLAND_DISPLAY", "wayland-7");
    denied_then_granted(&world, "wayland", "connect=ENOENT", "connect=ok", &command);
    // Without a display there is nothing to share, and no error.
    grant(&world, "wayland");
    assert_eq!(world.sh("probe unix $XDG_RUNTIME_DIR/wayland-7").prints(), "connect=ENOENT");
}

/// A socket of an X display that no other test uses.
fn display() -> (u32, PathBuf, UnixListener) {
    let directory = PathBuf::from("/tmp/.X11-unix");
    if fs::create_dir(&directory).is_ok() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
    }
    let number = 10_000 + std::process::id();
    let path = directory.join(format!("X{number}"));
    // Left by a process of the same number that was killed.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    (number, path, listener)
}

#[test]
fn xorg_with_and_without_an_authority_file() {
    let world = World::new();
    let (number, path, _server) = display();
    let line = format!("probe unix {}; cat $XAUTHORITY 2>/dev/null || echo none", path.display());
    let command = || world.sh(&line).env("DISPLAY", format!(":{number}.0"));
    denied_then_granted(&world, "xorg", "connect=ENOENT\nnone", "connect=ok\nnone", &|| command().input("none\n"));
    fs::write(world.path("home/.Xauthority"), "of home").unwrap();
    fs::write(world.path("authority"), "named").unwrap();
    grant(&world, "xorg");
    assert_eq!(command().prints(), "connect=ok\nof home");
    assert_eq!(command().env("XAUTHORITY", world.path("authority")).prints(), "connect=ok\nnamed");
    world.sh("echo x > $XAUTHORITY").env("DISPLAY", format!(":{number}")).run().exits(1);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_display_with_an_abstract_socket_only_is_named_and_takes_network() {
    use std::os::linux::net::SocketAddrExt;
    let world = World::new();
    let number = 20_000 + std::process::id();
    let name = format!("/tmp/.X11-unix/X{number}");
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _server = UnixListener::bind_addr(&address).unwrap();
    grant(&world, "xorg");
    let explained = world.app(&["fim-perms", "explain"]).env("DISPLAY", format!(":{number}")).prints();
    assert!(explained.contains("an abstract one, which takes the permission network"), "{explained}");
    let connect = || world.exec(&["probe", "abstract", &name]).env("DISPLAY", format!(":{number}"));
    assert_eq!(connect().prints(), "connect=ECONNREFUSED");
    grant(&world, "xorg,network");
    assert_eq!(connect().prints(), "connect=ok");
}

#[test]
fn shm() {
    let world = World::new();
    let name = format!("/dev/shm/fim-test-{}-{}", std::process::id(), uid());
    fs::write(&name, "host\n").unwrap();
    denied_then_granted(&world, "shm", "none", "host", &|| world.sh(&format!("cat {name} 2>/dev/null || echo none")));
    fs::remove_file(name).unwrap();
}

#[test]
fn devices_of_input_usb_gpu_and_optical() {
    let nodes = "dri/card0 dri/renderD128 nvidia0 nvidiactl input/event0 uinput bus/usb/one sr0 sg0 sg1 sda";
    let prelude = devices("dri input bus/usb", nodes);
    for (permission, shown) in [
        ("input", "/dev/input/event0 /dev/uinput"),
        ("usb", "/dev/bus/usb/one"),
        ("gpu", "/dev/dri/card0 /dev/dri/renderD128 /dev/nvidia0 /dev/nvidiactl"),
        ("optical", "/dev/sg0 /dev/sg1 /dev/sr0"),
    ] {
        let world = World::new();
        // What of them exists and can be read.
        let list = "for node in /dev/bus/usb/one /dev/dri/card0 /dev/dri/renderD128 /dev/input/event0 /dev/nvidia0 \
                    /dev/nvidiactl /dev/sda /dev/sg0 /dev/sg1 /dev/sr0 /dev/uinput; do \
                    [ ! -e $node ] || [ $(head -c 2 $node | wc -c) = 2 ] && [ -e $node ] && echo -n \"$node \"; done";
        let script = format!("{prelude} \"$IMAGE\" fim-exec sh -c '{list}; true'");
        denied_then_granted(&world, permission, "", &format!("{shown} "), &|| world.in_namespace(&script));
    }
}

#[test]
fn dev_shows_every_device_but_the_terminals_of_others() {
    let world = World::new();
    let script = devices("some", "some/node plain")
        + "echo x > /dev/shm/theirs; \"$IMAGE\" fim-exec sh -c \
                 'node=/dev/some/node; [ -e $node ] && "
        + READ
        + " || echo none; ls /dev/pts /dev/shm | grep -c .'";
    // The two names of directories, an empty line between them, and ptmx.
    denied_then_granted(&world, "dev", "none\n3", "2\n3", &|| world.in_namespace(&script));
    grant(&world, "dev,shm");
    let script = script.replace("ls /dev/pts /dev/shm | grep -c .", "cat /dev/shm/theirs");
    assert_eq!(world.in_namespace(&script).prints(), "2\nx");
}

#[test]
fn udev() {
    let world = World::new();
    let script = |line: &str| {
        format!(
            "set -e; mkdir -p run; mount --rbind /run run; mount -t tmpfs none /run; mkdir -p /run/udev/data; \
             echo of udev > /run/udev/data/x; \"$IMAGE\" fim-exec sh -c '{line}'"
        )
    };
    let read = script("cat /run/udev/data/x 2>/dev/null || echo none; ls /sys/bus 2>/dev/null | grep -c pci; true");
    denied_then_granted(&world, "udev", "none\n0", "of udev\n1", &|| world.in_namespace(&read));
    grant(&world, "udev");
    let write = script("echo x > /run/udev/data/x");
    world.in_namespace(&write).run().exits(1).complains_of(&["Read-only file system"]);
}

#[test]
fn network() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let command = || world.exec(&["probe", "tcp", &port]);
    denied_then_granted(&world, "network", "connect=ECONNREFUSED", "connect=ok", &command);
    let line = "mount -t tmpfs none /mnt && echo 192.0.2.7 of-the-host > /mnt/hosts && mount --bind /mnt/hosts /etc/hosts && \
                exec \"$IMAGE\" fim-exec sh -c 'cat /etc/hosts 2>/dev/null || echo none'";
    denied_then_granted(&world, "network", "none", "192.0.2.7 of-the-host", &|| world.in_namespace(line));
}

#[test]
fn resolver_files_that_are_links_are_followed_on_the_host_only() {
    // The image's own is a link to nowhere, as systemd-resolved leaves it.
    let world = World::with_tree(
        |tree| std::os::unix::fs::symlink("../run/systemd/resolve/stub.conf", tree.join("etc/resolv.conf")).unwrap(),
        &[],
    );
    grant(&world, "network");
    let line = "mount -t tmpfs none /mnt && echo nameserver 192.0.2.1 > /mnt/real && ln -s real /mnt/link && \
                mount --bind /mnt/link /etc/resolv.conf && exec \"$IMAGE\" fim-exec cat /etc/resolv.conf";
    assert_eq!(world.in_namespace(line).prints(), "nameserver 192.0.2.1");
}

#[test]
fn certificates() {
    let world = World::new();
    let line = "mount -t tmpfs none /etc/ssl && mkdir /etc/ssl/certs && echo of the host > /etc/ssl/certs/ca-certificates.crt && \
                exec \"$IMAGE\" fim-exec sh -c 'cat $SSL_CERT_FILE 2>/dev/null < /dev/null || echo none; echo $CURL_CA_BUNDLE'";
    denied_then_granted(&world, "certs", "", "of the host\n/run/fim/certs.pem", &|| world.in_namespace(line));
    assert!(!world.upper("etc/ssl").exists());
}

#[test]
fn fonts() {
    let world = World::new();
    let line = "mount -t tmpfs none /usr/share/fonts && echo font > /usr/share/fonts/a.ttf && exec \"$IMAGE\" fim-exec sh -c \
                'cat /run/fim/fonts/usr/share/fonts/a.ttf 2>/dev/null || echo none; grep -c include.*/etc/fonts ${FONTCONFIG_FILE:-/dev/null}'";
    denied_then_granted(&world, "fonts", "none\n0", "font\n1", &|| world.in_namespace(&format!("{line} || true")));
    assert!(!world.upper("usr/share/fonts").exists());
}

#[test]
fn locales() {
    let world = World::new();
    let line = "mount -t tmpfs none /usr/lib/locale && echo archive > /usr/lib/locale/locale-archive && \
                exec \"$IMAGE\" fim-exec sh -c 'cat /usr/lib/locale/locale-archive 2>/dev/null || echo none'";
    denied_then_granted(&world, "locale", "none", "archive", &|| world.in_namespace(line));
    world.wait_for_end();
    assert!(!world.upper("usr/lib/locale").exists(), "the mount point is left");
}

#[test]
fn the_driver_of_nvidia_is_found_through_the_loaders_cache_and_stays_outside() {
    let world = World::new();
    need("ldconfig");
    fs::create_dir(world.path("lib")).unwrap();
    let script = "set -e; echo 'int cuda;' | gcc -shared -x c -Wl,-soname,libcuda.so.1 -o lib/libcuda.so.1 -; \
                  echo $PWD/lib > conf; ldconfig -X -C cache -f conf; mount --bind cache /etc/ld.so.cache; \
                  exec \"$IMAGE\" fim-exec sh -c 'cmp /run/fim/gpu/libcuda.so.1 /run/fim/gpu/libcuda.so.1 2>/dev/null && \
                  echo same; echo $LD_LIBRARY_PATH; echo x > /run/fim/gpu/libcuda.so.1' 2>/dev/null";
    let command = || world.in_namespace(&format!("({script}) || true"));
    denied_then_granted(&world, "gpu", "", "same\n/run/fim/gpu", &command);
    assert!(!world.data().join("root/run").join("fim").exists());
}

#[test]
fn all_starts_on_a_host_that_has_nothing_of_it() {
    let world = World::new();
    grant(&world, "all");
    assert_eq!(world.exec(&["echo", "runs"]).prints(), "runs");
    assert_eq!(world.root(&["echo", "runs"]).prints(), "runs");
    world.exec(&["fim_portal", "true"]).fails_naming(&["may not run on the host"]);
    world.assert_nothing_left();
}

#[test]
fn explain_tells_what_a_start_would_share() {
    let world = World::new();
    let explain = || world.app(&["fim-perms", "explain"]);
    let none =
        "no permission is granted\nnamespaces of its own: cgroup ipc mount net pid user uts\nhost commands: none";
    assert_eq!(explain().prints(), none);
    let _compositor = listener(&world, "wayland-1");
    grant(&world, "home,wayland,network,xorg");
    world.app(&["fim-bind", "add", "ro", "$HOME/x", "/x"]).run().succeeds();
    world.app(&["fim-portal", "allow", "ls"]).run().succeeds();
    let text = explain().env("WAYLAND_DISPLAY", "wayland-1").prints();
    let runtime = world.path("runtime");
    for line in [
        "home".to_owned(),
        format!("  rw    {}", world.path("home").display()),
        format!("  rw    {}/wayland-1 -> /run/user/{}/wayland-1", runtime.display(), uid()),
        "  set   WAYLAND_DISPLAY=wayland-1".to_owned(),
        "  note  DISPLAY is not set: there is no X display".to_owned(),
        "  ro    /etc/hosts".to_owned(),
        "bind 0".to_owned(),
        format!("  ro    {}/x -> /x (not on this host: passed over)", world.path("home").display()),
        "namespaces of its own: cgroup ipc mount pid user uts".to_owned(),
        "host commands: ls".to_owned(),
    ] {
        assert!(text.lines().any(|other| other == line), "no {line:?} in\n{text}");
    }
    let json: Value = serde_json::from_str(&world.app(&["fim-perms", "explain", "--json"]).prints()).unwrap();
    assert_eq!(json["permissions"]["home"][0]["access"], "rw");
    assert_eq!(json["binds"][0]["present"], false);
    assert_eq!(json["portal"][0], "ls");
    assert!(!world.data().exists());
    if is_root() {
        // The order of names is that of the format; every one is explained.
        grant(&world, "all");
        let json: Value = serde_json::from_str(&world.app(&["fim-perms", "explain", "--json"]).prints()).unwrap();
        assert_eq!(json["permissions"].as_object().unwrap().len(), 18);
    }
}
