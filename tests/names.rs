//! Names that a host has once: those of a bus, of sockets, of shared memory. Installations of one file do not get into
//! each other's way, and hear of each other where they would.

mod harness;

use std::os::unix::fs::symlink;

use harness::{Running, TestCommand, World, need, world};

const NAME: &str = "org.example.Server";

/// An image with the program `own` (own.c) that is granted the session bus, a link for the key `foo`, and a bus.
fn site() -> (World, Running, String) {
    let world = World::with_tree(|tree| world::program(tree, "own"), &["--perms", "dbus_user"]);
    symlink("app.flatimage", world.path("app_foo.flatimage")).unwrap();
    need("xdg-dbus-proxy");
    let (bus, address) = harness::bus::session(&world);
    (world, bus, address)
}

fn on(command: TestCommand, bus: &str, owns: &str) -> TestCommand {
    command.env("DBUS_SESSION_BUS_ADDRESS", bus).env("FIM_DBUS_OWN", owns)
}

fn foo(world: &World, words: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(world.path("app_foo.flatimage"))).arg("fim-exec").args(words)
}

#[track_caller]
fn answers(command: TestCommand, text: &str) -> Running {
    let mut running = command.spawn();
    running.expect(text);
    running
}

#[test]
fn a_name_that_another_key_has_is_an_error_that_names_the_key() {
    let (world, _bus, bus) = site();
    let first = answers(on(foo(&world, &["own", NAME]), &bus, NAME), "owner=1\n");
    let image = world.image().to_str().unwrap().to_owned();
    let process = format!("(instance 0, process {})", first.pid());
    let key = format!("the instance key 'foo' of {image} {process}");
    for owns in [NAME, "org.example.*", "org.other.Name,org.example.Server"] {
        let refused = on(world.exec(&["own", NAME]), &bus, owns);
        refused.fails_naming(&["the D-Bus name org.example.", "cannot be owned", &key, "FIM_DBUS_OWN"]);
    }
    on(world.exec(&["--detach", "true"]), &bus, NAME).fails_naming(&[&key]);
    // Another name is nobody's business, and neither is who wants none: the filter refuses that one.
    let other = answers(on(world.exec(&["own", "org.example.Other"]), &bus, "org.example.Other"), "owner=1\n");
    let denied = on(world.exec(&["own", NAME]), &bus, "").run().succeeds();
    assert_eq!(denied.text(), "error=org.freedesktop.DBus.Error.ServiceUnknown");
    // Another instance of the same key may start; who owns the name is settled on the bus.
    assert_eq!(on(foo(&world, &["own", NAME]), &bus, NAME).run().succeeds().text(), "owner=3");
    first.wait().succeeds();
    let second = answers(on(world.exec(&["own", NAME]), &bus, NAME), "owner=1\n");
    on(foo(&world, &["true"]), &bus, NAME).fails_naming(&["the default installation of", &image]);
    second.wait().succeeds();
    other.wait().succeeds();
    world.assert_nothing_left();
}

#[test]
fn without_the_grant_or_on_another_bus_names_do_not_meet() {
    let (world, _bus, bus) = site();
    let first = answers(on(foo(&world, &["own", NAME]), &bus, NAME), "owner=1\n");
    on(world.exec(&["true"]), "unix:path=/no/such/bus", NAME).run().succeeds();
    world.app(&["fim-perms", "clear"]).run().succeeds();
    on(world.exec(&["true"]), &bus, NAME).run().succeeds().quietly();
    first.wait().succeeds();
}

#[test]
fn socket_activation_is_refused_with_the_reason() {
    let world = World::new();
    let activated = |pid: &str, count: &str, rest: &str| {
        world.host_sh(&format!("export LISTEN_PID={pid} LISTEN_FDS={count}; exec \"$IMAGE\" fim-exec {rest}"))
    };
    for rest in ["true", "--detach true"] {
        activated("$$", "1", rest).fails_naming(&["socket activation is not supported", "LISTEN_FDS", "fim-port"]);
    }
    assert!(!world.data().exists());
    // What was meant for somebody else.
    activated("1", "1", "true").run().succeeds().quietly();
    activated("$$", "0", "true").run().succeeds().quietly();
}

#[test]
fn shared_memory_and_sockets_of_one_name_are_each_keys_own() {
    let world = World::new();
    symlink("app.flatimage", world.path("app_foo.flatimage")).unwrap();
    let script = "ls /dev/shm; probe shm-find 4711; echo x > /dev/shm/postgres; probe shm-make 4711; echo ready; cat";
    let default = answers(world.sh(script), "ready\n");
    let keyed = answers(foo(&world, &["sh", "-c", script]), "ready\n");
    for running in [default, keyed] {
        // Nothing was there before, and each could make its own.
        assert_eq!(running.wait().succeeds().text(), "shmget=ENOENT\nshmget=ok\nready");
    }
    assert!(!std::path::Path::new("/dev/shm/postgres").exists());
    // Abstract sockets are those of a network: each key has `@postgres.sock` for itself, unless it has the host's.
    let name = format!("postgres-{}", std::process::id());
    let network = |command: TestCommand| command.prints();
    let look = ["readlink", "/proc/self/ns/net"];
    let spaces = [network(world.exec(&look)), network(foo(&world, &look))];
    assert_ne!(spaces[0], spaces[1]);
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _host = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    for command in [world.exec(&["probe", "abstract", &name]), foo(&world, &["probe", "abstract", &name])] {
        assert_eq!(command.prints(), "connect=ECONNREFUSED");
    }
    // A named socket of a shared directory lies in each key's own /run.
    let make = "[ ! -e /run/postgres.socket ] && mkfifo /run/postgres.socket && echo made";
    assert_eq!(network(world.sh(make)), "made");
    assert_eq!(network(foo(&world, &["sh", "-c", make])), "made");
}
