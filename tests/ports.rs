//! Published ports: servers of an instance, reached from the host's loopback.

mod harness;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

use harness::{DEADLINE, Running, TestCommand, Tree, World, is_root, world};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// An image with the program `serve` (serve.c).
fn serving() -> World {
    let world = World::with_tree(|tree| world::program(tree, "serve"), &[]);
    symlink("app.flatimage", world.path("app_foo.flatimage")).unwrap();
    world
}

/// A port of the host that nobody has, for datagrams and for connections. It lies below those that the kernel gives out
/// by itself.
fn free_port() -> u16 {
    static LAST: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    loop {
        let step = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 20_000 + (std::process::id() as u16).wrapping_mul(97) % 10_000 + step;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        {
            return port;
        }
    }
}

fn foo(world: &World, words: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(world.path("app_foo.flatimage"))).args(words)
}

#[track_caller]
fn publish(world: &World, port: &str) {
    world.app(&["fim-port", "publish", port]).run().succeeds().quietly();
}

/// A world that publishes a port of the host for port 80 of a guest.
#[track_caller]
fn published() -> (World, u16) {
    let (world, port) = (serving(), free_port());
    publish(&world, &format!("{port}:80"));
    (world, port)
}

/// An instance in which a server has said that it listens.
#[track_caller]
fn server(world: &World, mode: &str, port: u16) -> Running {
    ready(world.exec(&["serve", mode, &port.to_string()]))
}

#[track_caller]
fn ready(command: TestCommand) -> Running {
    let mut running = command.spawn();
    running.expect("ready\n");
    running
}

#[track_caller]
fn connect(address: IpAddr, port: u16) -> TcpStream {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// What comes back when this is sent and the end is told.
#[track_caller]
fn exchange(address: IpAddr, port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address, port);
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    })
}

/// How a connection ends that says nothing. One that is reset at once may be so before connect(2) has returned.
fn end_of(port: u16) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(LOOPBACK[0], port), DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    uninterrupted(|| stream.read(&mut [0]))
}

/// What comes back to a client for datagrams, within its time.
fn receive(client: &UdpSocket, bytes: &mut [u8]) -> std::io::Result<usize> {
    uninterrupted(|| client.recv(bytes))
}

/// A call that has a time limit is interrupted when this process is stopped and continued, as by whoever saves and wakes
/// the machine (signal(7)); it is made again.
fn uninterrupted(mut call: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn is_free(port: u16) -> bool {
    LOOPBACK.iter().all(|address| {
        TcpStream::connect((*address, port)).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
}

/// Ends an instance and waits for that.
#[track_caller]
fn end(running: Running) {
    running.signal(Signal::SIGTERM);
    running.wait().exits(143);
}

#[test]
fn a_published_port_is_reached_by_both_versions_of_ip_and_ends_with_the_instance() {
    let (world, port) = published();
    assert!(is_free(port));
    let running = server(&world, "tcp", 80);
    for address in LOOPBACK {
        assert_eq!(exchange(address, port, b"hello"), b"hello");
    }
    end(running);
    assert!(is_free(port));
    // And again, at once.
    let running = server(&world, "tcp", 80);
    assert_eq!(exchange(LOOPBACK[0], port, b"again"), b"again");
    end(running);
    world.assert_nothing_left();
}

#[test]
fn a_detached_instance_publishes_too_and_a_server_by_one_version_of_ip_is_found() {
    let (world, port) = published();
    let id = world.exec(&["--detach", "serve", "tcp6", "80"]).prints();
    let mut log = world.app(&["fim-instance", "logs", &id, "--follow"]).spawn();
    log.expect("ready\n");
    for address in LOOPBACK {
        assert_eq!(exchange(address, port, b"hello"), b"hello");
    }
    world.app(&["fim-instance", "stop", &id]).run().succeeds();
    assert!(is_free(port));
}

#[test]
fn bytes_pass_unchanged_in_both_directions_at_once() {
    let (world, port) = published();
    let running = server(&world, "tcp", 80);
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|at| (at ^ (at >> 9)) as u8).collect();
    thread::scope(|scope| {
        for address in LOOPBACK {
            let bytes = &bytes;
            scope.spawn(move || assert!(exchange(address, port, bytes) == *bytes));
        }
    });
    end(running);
}

#[test]
fn whoever_does_not_read_holds_up_nobody_else() {
    let (world, port) = published();
    let running = server(&world, "tcp", 80);
    let mut idle = connect(LOOPBACK[0], port);
    idle.set_nonblocking(true).unwrap();
    // Until every buffer on the way is full: it never reads what comes back.
    let piece = [7; 64 * 1024];
    let begin = Instant::now();
    let mut sent = 0;
    let mut blocked = 0;
    while blocked < 50 {
        match idle.write(&piece) {
            Ok(len) => (sent, blocked) = (sent + len, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                blocked += 1;
                assert_eq!(exchange(LOOPBACK[0], port, b"other"), b"other");
            }
            Err(error) => panic!("{error}"),
        }
        assert!(begin.elapsed() < DEADLINE, "buffers grow without an end: {sent} bytes");
    }
    // What was held back comes when it is asked for.
    idle.set_nonblocking(false).unwrap();
    idle.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    idle.read_to_end(&mut back).unwrap();
    assert!(back.len() == sent && back.iter().all(|byte| *byte == 7));
    end(running);
}

#[test]
fn refusals_and_resets_of_the_guest_are_the_clients() {
    let (world, port) = published();
    let mut running = world.sh("echo up; read line; exec serve reset 80").spawn();
    running.expect("up\n");
    assert_eq!(end_of(port).unwrap_err().kind(), ErrorKind::ConnectionReset);
    running.say("go\n");
    running.expect("ready\n");
    assert_eq!(end_of(port).unwrap_err().kind(), ErrorKind::ConnectionReset);
    end(running);
}

#[test]
fn the_end_of_a_connection_is_told_to_the_guest() {
    let (world, port) = published();
    // Ends when its only client has said so.
    let listens = "until grep -qE ':0050 [0:]+ 0A ' /proc/net/tcp /proc/net/tcp6; do :; done; echo ready";
    let mut running = world.sh(&format!("({listens}) & nc -l -p 80; echo over")).spawn();
    running.expect("ready\n");
    let mut client = connect(LOOPBACK[0], port);
    client.write_all(b"text\n").unwrap();
    running.expect("text\n");
    client.write_all(b"more\n").unwrap();
    running.expect("more\n");
    client.shutdown(Shutdown::Write).unwrap();
    running.expect("over\n");
    running.wait().succeeds();
}

#[test]
fn datagrams_find_their_way_back_to_each_client() {
    for mode in ["udp", "udp6"] {
        let (world, port) = (serving(), free_port());
        publish(&world, &format!("{port}:53/udp"));
        let running = server(&world, mode, 53);
        let clients: Vec<UdpSocket> = [0, 0, 1]
            .map(|version| {
                let client = UdpSocket::bind(SocketAddr::new(LOOPBACK[version], 0)).unwrap();
                client.connect(SocketAddr::new(LOOPBACK[version], port)).unwrap();
                client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                client
            })
            .into();
        for round in 0..3 {
            for (number, client) in clients.iter().enumerate() {
                let text = format!("{round} {number}");
                let begin = Instant::now();
                let mut bytes = [0; 2048];
                // The first of them may look for the server by the version of IP that it does not have.
                let len = loop {
                    client.send(text.as_bytes()).unwrap();
                    match receive(client, &mut bytes) {
                        Ok(len) => break len,
                        Err(_) => assert!(begin.elapsed() < DEADLINE, "no answer"),
                    }
                };
                assert_eq!(String::from_utf8_lossy(&bytes[..len]), text);
            }
        }
        let large = vec![5; 60_000];
        clients[0].send(&large).unwrap();
        let mut bytes = vec![0; 65_536];
        let len = receive(&clients[0], &mut bytes).unwrap();
        assert!(bytes[..len] == large);
        end(running);
    }
}

#[test]
fn more_clients_than_are_remembered_and_more_connections_than_there_are_descriptors() {
    let (world, port) = published();
    let datagrams = free_port();
    publish(&world, &format!("{datagrams}:53/udp"));
    let mut running =
        world.host_sh("ulimit -n 160; exec \"$IMAGE\" fim-exec sh -c 'serve udp 53 & exec serve tcp 80'").spawn();
    running.expect("ready\n");
    running.expect("ready\n");
    // 8 fit into so few descriptors; the others get their turn when those have ended.
    let connections: Vec<TcpStream> = (0..40).map(|_| connect(LOOPBACK[0], port)).collect();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let byte = number as u8;
        connection.write_all(&[byte]).unwrap();
        let mut answer = [0];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [byte]);
    }
    for number in 0..400_u32 {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        // Who was silent for longest is forgotten.
        let mut answer = [0; 4];
        client.send_to(&number.to_le_bytes(), (Ipv4Addr::LOCALHOST, datagrams)).unwrap();
        let len = receive(&client, &mut answer).unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert_eq!((len, u32::from_le_bytes(answer)), (4, number));
    }
    assert_eq!(exchange(LOOPBACK[0], port, b"still here"), b"still here");
    end(running);
}

#[test]
fn two_keys_that_publish_the_same_port_hear_of_each_other() {
    let (world, port) = published();
    let running = server(&world, "who", 80);
    let image = world.image().to_str().unwrap().to_owned();
    let process = format!("process {}", running.pid());
    foo(&world, &["fim-exec", "true"]).fails_naming(&[
        &format!("port {port} of the host is in use by the default installation of {image}"),
        "instance 0",
        &process,
        "publish another",
    ]);
    foo(&world, &["fim-exec", "--detach", "true"]).fails_naming(&["the default installation", &process]);
    // Ports are a setting of each key's: with another one, both run at once.
    let other = free_port();
    foo(&world, &["fim-port", "clear"]).run().succeeds().quietly();
    foo(&world, &["fim-port", "publish", &format!("{other}:80")]).run().succeeds().quietly();
    assert_eq!(world.app(&["fim-port", "list"]).prints(), format!("{port}:80"));
    let second = ready(foo(&world, &["fim-exec", "serve", "who", "80"]));
    assert_eq!(exchange(LOOPBACK[0], port, b""), b"app\n");
    assert_eq!(exchange(LOOPBACK[0], other, b""), b"app_foo\n");
    end(running);
    foo(&world, &["fim-port", "inherit"]).run().succeeds();
    assert_eq!(foo(&world, &["fim-port", "list"]).prints(), format!("{port}:80"));
    // The other way round, the key is named.
    end(second);
    let second = ready(foo(&world, &["fim-exec", "serve", "who", "80"]));
    world.exec(&["true"]).fails_naming(&[&format!("port {port}"), "the instance key 'foo'", &image]);
    end(second);
    world.exec(&["true"]).run().succeeds().quietly();
    world.assert_nothing_left();
}

#[test]
fn a_program_of_the_host_that_has_the_port_is_named() {
    let (world, port) = published();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    world.exec(&["true"]).fails_naming(&[
        &format!("cannot publish port {port}:80"),
        &format!("in use by process {} (", std::process::id()),
        "end that",
    ]);
    drop(taken);
    // One version of IP is enough to be in the way.
    let taken = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
    world.exec(&["true"]).fails_naming(&[&format!("process {} (", std::process::id())]);
    drop(taken);
    // Datagrams are no connections.
    let _other = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    world.exec(&["true"]).run().succeeds().quietly();
    publish(&world, &format!("{port}:53/udp"));
    world.exec(&["true"]).fails_naming(&[&format!("port {port}:53/udp"), "in use by process"]);
    world.assert_nothing_left();
}

#[test]
fn the_first_instance_of_an_installation_has_the_port_and_the_second_says_so() {
    let (world, port) = published();
    let first = server(&world, "tcp", 80);
    let second = world.exec(&["true"]).run().succeeds();
    assert_eq!(
        second.stderr(),
        format!(
            "fim: note: port {port}:80 reaches instance 0 of this installation, which was first; it does not reach this one\n"
        )
    );
    end(first);
    let third = server(&world, "tcp", 80);
    assert_eq!(exchange(LOOPBACK[0], port, b"x"), b"x");
    end(third);
}

#[test]
fn with_the_hosts_network_nothing_is_published() {
    let (world, port) = published();
    world.app(&["fim-perms", "add", "network"]).run().succeeds();
    world.exec(&["true"]).fails_naming(&[
        &format!("port {port}:80"),
        "permission network",
        "host's own",
        "fim-port clear",
    ]);
    world.app(&["fim-port", "publish", "1234:80"]).fails_naming(&[
        "1234:80",
        "permission network",
        "host's own already",
    ]);
    world.app(&["fim-port", "clear"]).run().succeeds();
    world.exec(&["true"]).run().succeeds().quietly();
}

#[test]
fn privileged_ports_are_roots() {
    let world = serving();
    let first = 600 + std::process::id() as u16 % 200;
    let is_taken = |port: u16| is_root() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err();
    let port = (first..1024).find(|port| !is_taken(*port)).expect("a privileged port is free");
    let outcome = world.app(&["fim-port", "publish", &format!("{port}:80")]).run().succeeds();
    if is_root() {
        let outcome = outcome.quietly();
        assert!(outcome.stdout.is_empty());
        let running = server(&world, "tcp", 80);
        assert_eq!(exchange(LOOPBACK[0], port, b"root's"), b"root's");
        end(running);
    } else {
        outcome.complains_of(&[&format!("port {port} of the host is root's"), "1024"]);
        let (shown, other) = (format!("cannot publish port {port}:80"), format!("{}:80", u32::from(port) + 8000));
        world.exec(&["true"]).fails_naming(&[&shown, "below 1024", "are root's", &other]);
        world.assert_nothing_left();
    }
}

#[test]
fn words_that_are_no_ports_change_nothing() {
    let (world, port) = published();
    let known = format!("{port}:80");
    let app = |line: &str| world.app(&["fim-port"]).args(line.split_whitespace());
    for (line, words) in [
        ("", &["Missing op for 'fim-port'", "fim-help port"][..]),
        ("frobnicate", &["Invalid port operation 'frobnicate'"]),
        ("publish", &["Missing port", "HOST:GUEST"]),
        ("publish 80", &["Invalid port '80'", "lacks the port of the guest"]),
        ("publish 0:80", &["'0' is no number from 1 to 65535"]),
        ("publish 80:65536", &["'65536'", "1 to 65535"]),
        ("publish x:80", &["'x' is no number"]),
        ("publish 80:80/sctp", &["'sctp' is neither tcp nor udp"]),
        ("publish 81:80 82:80", &["Trailing arguments", "82:80"]),
        ("publish 81:80 --service", &["Missing name", "--service"]),
        ("publish 81:80 --service web", &["no service 'web'", "fim-service list"]),
        ("unpublish", &["Missing port"]),
        ("unpublish 9", &["port 9 is not published", &known]),
        ("unpublish 9/udp", &["port 9/udp is not published"]),
        ("unpublish x", &["Invalid port 'x'"]),
        ("list x", &["Trailing arguments"]),
        ("clear x", &["Trailing arguments"]),
        ("inherit", &["'inherit' is for installations with an instance key"]),
    ] {
        app(line).fails_naming(words);
        assert_eq!(app("list").prints(), known, "{line}");
    }
    app(&format!("publish {port}:81")).fails_naming(&["published already", &known, "unpublish"]);
    app(&format!("unpublish {port}:81")).fails_naming(&["is not published", &known]);
    app(&format!("publish {port}:53/udp")).run().succeeds();
    assert_eq!(app("list").prints(), format!("{known}\n{port}:53/udp"));
    let json: serde_json::Value = serde_json::from_str(&app("list --json").prints()).unwrap();
    assert_eq!(json[1], serde_json::json!({"guest": 53, "host": port, "protocol": "udp", "service": null}));
    app(&format!("unpublish {port}")).run().succeeds().quietly();
    assert_eq!(app("list").prints(), format!("{port}:53/udp"));
    app("clear").run().succeeds().quietly();
    assert_eq!(app("list").prints(), "");
    app("list --json").run().succeeds().with_stdout("[]\n");
}

#[test]
fn a_killed_starter_leaves_the_port_free_for_the_next_start() {
    let (world, port) = published();
    for _ in 0..5 {
        let running = server(&world, "tcp", 80);
        let tree = running.tree();
        tree.named("fim-ports");
        running.signal(Signal::SIGKILL);
        drop(running.wait());
        let next = server(&world, "tcp", 80);
        assert_eq!(exchange(LOOPBACK[0], port, b"next"), b"next");
        end(next);
        tree.wait_gone();
    }
    world.assert_nothing_left();
}

#[test]
fn ports_outlive_the_host_daemon_and_their_own_end_is_said() {
    let (world, port) = published();
    let running = server(&world, "tcp", 80);
    let tree = running.tree();
    let daemon = tree.named("fim-host");
    daemon.kill();
    daemon.wait_gone();
    assert_eq!(exchange(LOOPBACK[0], port, b"without a daemon"), b"without a daemon");
    tree.named("fim-ports").kill();
    running.expect_complaint("fim: warning: the published ports reach the instance no more");
    assert!(is_free(port));
    // The instance itself goes on.
    assert_eq!(world.app(&["fim-instance", "exec", "0", "echo", "alive"]).prints(), "alive");
    end(running);
    let id = world.exec(&["--detach", "serve", "tcp", "80"]).prints();
    let list = world.app(&["fim-instance", "list"]).prints();
    let supervisor = list.strip_prefix(&format!("{id}:")).unwrap().parse().unwrap();
    Tree::of(Pid::from_raw(supervisor)).named("fim-ports").kill();
    let mut log = world.app(&["fim-instance", "logs", &id, "--follow"]).spawn();
    log.expect("fim: the published ports reach the instance no more");
    world.app(&["fim-instance", "stop", &id]).run().succeeds();
}

#[test]
fn the_guest_sees_nothing_of_its_ports() {
    let (world, port) = published();
    let mut running = world.sh("serve tcp 80 & read line; cat /proc/[0-9]*/comm /proc/net/tcp /proc/net/tcp6").spawn();
    running.expect("ready\n");
    let stream = connect(LOOPBACK[0], port);
    running.say("look\n");
    let text = running.wait().succeeds().text();
    assert!(!text.contains("fim-ports") && text.contains("fim-guest"), "{text}");
    // The host's port is in no table of the guest; its own is.
    assert!(!text.contains(&format!(":{port:04X}")) && text.contains(":0050"), "{text}");
    drop(stream);
}

#[test]
fn an_idle_port_wakes_nobody() {
    let (world, port) = published();
    let running = server(&world, "tcp", 80);
    let mut client = connect(LOOPBACK[0], port);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let proxy = running.tree().named("fim-ports").pid;
    harness::process::wait_for_poll(proxy);
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{proxy}/status")).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    // An observation needs some length; nothing else here waits for time. What was begun before may still end in the first.
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut looks = vec![switches()];
    while looks.len() < 6 && (looks.len() < 2 || looks[looks.len() - 2] != looks[looks.len() - 1]) {
        assert!(client.read(&mut [0]).is_err());
        looks.push(switches());
    }
    assert_eq!(looks[looks.len() - 2], looks[looks.len() - 1], "{looks:?}");
    end(running);
}

#[test]
fn a_start_without_ports_has_no_process_for_them() {
    let world = World::new();
    let mut running = world.sh("echo up; read line").spawn();
    running.expect("up\n");
    let names: Vec<String> = running.tree().0.iter().map(|member| member.name.clone()).collect();
    assert!(!names.iter().any(|name| name == "fim-ports"), "{names:?}");
    running.wait();
}
