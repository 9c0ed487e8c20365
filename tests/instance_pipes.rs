//! The named pipes of a session: whatever is written into them, planted in their place or missing, others go on.

mod harness;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::{Running, Tree, World, gid, is_root, need, uid};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use runtime::request::Client;
use runtime::wire::body::{self, Reply};
use runtime::wire::{Doorbell, RequestId, Ring, frame};

#[track_caller]
fn sleeper(world: &World) -> Running {
    let mut running = world.sh("echo ready; exec sleep 1000").spawn();
    running.expect("ready");
    running
}

#[track_caller]
fn session(world: &World) -> PathBuf {
    fs::read_dir(world.sessions()).unwrap().next().expect("a session lives").unwrap().path()
}

fn works(world: &World) {
    assert_eq!(world.app(&["fim-instance", "exec", "0", "echo", "works"]).prints(), "works");
}

/// Writes bytes by hand.
#[track_caller]
fn write(pipe: &Path, bytes: &[u8]) {
    OpenOptions::new().write(true).open(pipe).unwrap().write_all(bytes).unwrap();
}

#[test]
fn everything_of_a_session_is_private() {
    let world = World::new();
    let _instance = sleeper(&world);
    let mut open = vec![world.sessions()];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.uid(), uid(), "{}", path.display());
        let directory = metadata.is_dir();
        if directory {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if directory || name.ends_with(".fifo") || name == "alive" {
            assert_eq!(metadata.mode() & 0o077, 0, "{} is open to others", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn garbage_in_every_pipe_harms_nobody() {
    let world = World::new();
    let instance = sleeper(&world);
    let session = session(&world);
    let exec = Ring::Exec { instance: 0, request: RequestId([7; 16]) };
    let unknown = Ring::Exec { instance: u64::MAX, request: RequestId([0; 16]) };
    let whole = Doorbell::encode(exec);
    let mut foreign = whole;
    foreign[4] = 99;
    let mut kind = whole;
    kind[6] = 99;
    let long = vec![b'F'; 60_000];
    let zeros = [0; 4096];
    for pipe in ["host.fifo", "instances/0/guest.fifo", "alive"] {
        let messages: [&[u8]; 9] = [
            b"garbage",
            &whole[..10],
            &whole,
            &foreign,
            &kind,
            &Doorbell::encode(unknown),
            &Doorbell::encode(Ring::Signal { instance: 0, number: 0 }),
            &long,
            &zeros,
        ];
        for message in messages {
            write(&session.join(pipe), message);
            works(&world);
        }
    }
    assert_eq!(world.app(&["fim-instance", "list"]).prints(), format!("0:{}", instance.pid()));
    let notes = fs::read_to_string(session.join("host.log")).unwrap();
    assert!(notes.contains("that are no message"), "{notes}");
    assert!(notes.contains("has ended"), "{notes}");
}

#[test]
fn a_flood_of_garbage_leaves_small_notes() {
    let world = World::new();
    let _instance = sleeper(&world);
    let session = session(&world);
    for _ in 0..2000 {
        write(&session.join("host.fifo"), &[b'x'; 512]);
    }
    works(&world);
    assert!(fs::metadata(session.join("host.log")).unwrap().len() < 80 * 1024);
}

/// The one reply to a request.
#[track_caller]
fn reply(client: &mut Client) -> Reply {
    harness::process::wait_readable(&client.result, "a reply");
    body::decode(&frame::read(&mut client.result).unwrap().expect("a reply and not the end")).unwrap()
}

#[test]
fn another_version_is_refused_with_a_reason() {
    let world = World::new();
    let _instance = sleeper(&world);
    let session = session(&world);
    let mut client = Client::create(&session.join("instances/0")).unwrap();
    let ring = Ring::Foreign { version: 9, instance: 0, request: client.id };
    write(&session.join("host.fifo"), &Doorbell::encode(ring));
    let Reply::Failed(text) = reply(&mut client) else { panic!("not refused") };
    assert!(text.contains("version 9"), "{text}");
    works(&world);
}

#[test]
fn a_request_that_is_no_request_is_refused_with_a_reason() {
    let world = World::new();
    let _instance = sleeper(&world);
    let session = session(&world);
    for (bytes, text) in [
        (frame::encode(b"").unwrap(), "empty"),
        (frame::encode(b"\x09\0rest").unwrap(), "version 9"),
        (frame::encode(&[1, 0, 255, 255, 255, 255, 255, 255, 255, 255]).unwrap(), "cannot be understood"),
        (vec![255; 8], "longer than 67108864 bytes"),
    ] {
        let mut client = Client::create(&session.join("instances/0")).unwrap();
        client.control.write_all(&bytes).unwrap();
        write(&session.join("host.fifo"), &Doorbell::encode(Ring::Exec { instance: 0, request: client.id }));
        assert_eq!(reply(&mut client), Reply::Accepted);
        let Reply::Failed(reason) = reply(&mut client) else { panic!("not refused: {text}") };
        assert!(reason.contains(text), "{reason}");
        client.remove();
        works(&world);
    }
}

#[test]
fn clients_that_open_and_never_write_hold_up_nobody() {
    let world = World::new();
    let instance = sleeper(&world);
    let session = session(&world);
    let _silent = OpenOptions::new().write(true).open(session.join("host.fifo")).unwrap();
    let _silent_too = OpenOptions::new().write(true).open(session.join("instances/0/guest.fifo")).unwrap();
    // One that was accepted and sends no request.
    let mut client = Client::create(&session.join("instances/0")).unwrap();
    write(&session.join("host.fifo"), &Doorbell::encode(Ring::Exec { instance: 0, request: client.id }));
    assert_eq!(reply(&mut client), Reply::Accepted);
    works(&world);
    let tree = instance.tree();
    let monitor = Tree::of(tree.named("fim-exec").pid);
    drop(client);
    monitor.wait_gone();
}

#[test]
fn a_request_that_a_killed_host_daemon_had_read_is_served_by_the_next() {
    let world = World::new();
    let instance = sleeper(&world);
    // Made, and the doorbell lost.
    let mut client = Client::create(&session(&world).join("instances/0")).unwrap();
    let tree = instance.tree();
    tree.named("fim-host").kill();
    tree.named("fim-host").wait_gone();
    works(&world);
    assert_eq!(reply(&mut client), Reply::Accepted);
}

#[test]
fn what_is_planted_in_place_of_a_pipe_is_refused() {
    let world = World::new();
    let instance = sleeper(&world);
    let session = session(&world);
    let pipe = session.join("host.fifo");
    fs::remove_file(&pipe).unwrap();
    for plant in [
        (|path: &Path| fs::write(path, "").unwrap()) as fn(&Path),
        |path| fs::create_dir(path).unwrap(),
        |path| symlink("/dev/null", path).unwrap(),
    ] {
        plant(&pipe);
        world.app(&["fim-instance", "exec", "0", "true"]).fails_naming(&["host.fifo"]);
        world.exec(&["true"]).fails_naming(&["host.fifo"]);
        let _ = fs::remove_file(&pipe).or_else(|_| fs::remove_dir(&pipe));
    }
    // A pipe that nobody reads is as good as a daemon that was killed: the next client begins another.
    nix::unistd::mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
    works(&world);
    assert!(world.app(&["fim-instance", "list"]).prints().contains(&format!("0:{}", instance.pid())));
}

#[test]
fn a_stale_session_directory_is_used_again() {
    let world = World::new();
    let instance = sleeper(&world);
    let session = session(&world);
    let tree = instance.tree();
    // All at once: nobody is left to clean up.
    let (host, server) = (tree.named("fim-host"), tree.named("fim-mount"));
    host.kill();
    host.wait_gone();
    server.kill();
    tree.wait_gone();
    instance.wait().exits(125);
    fs::create_dir_all(session.join("instances/7/requests")).unwrap();
    assert_eq!(world.app(&["fim-instance", "list"]).prints(), "");
    let _again = sleeper(&world);
    assert!(world.app(&["fim-instance", "list"]).prints().starts_with("0:"));
    works(&world);
}

/// Lines of the script that fills a small file system to the last inode and the last page, and its end.
const FULL: &str = r#"
set -eu
mount -t tmpfs -o size=256k,nr_inodes=40,mode=0700,uid=$OUTER,gid=$OUTER_GROUP small "$XDG_RUNTIME_DIR"
as_caller() { $AS "$@"; }
mkfifo "$HOME/ready"
as_caller "$IMAGE" fim-exec sh -c 'echo ready; exec sleep 1000' > "$HOME/ready" &
starter=$!
exec 3< "$HOME/ready"
read line <&3
as_caller "$IMAGE" fim-instance exec 0 echo before
i=0; while : > "$XDG_RUNTIME_DIR/fill$i"; do i=$((i+1)); done 2> /dev/null || :
echo "exec: $(as_caller "$IMAGE" fim-instance exec 0 true 2>&1; echo $?)"
echo "start: $(as_caller "$IMAGE" fim-exec true 2>&1; echo $?)"
as_caller "$IMAGE" fim-instance list | sed 's/:.*/: listed/'
rm "$XDG_RUNTIME_DIR"/fill*
as_caller "$IMAGE" fim-instance exec 0 echo after
as_caller "$IMAGE" fim-instance stop 0
wait $starter || echo "code $?"
"#;

#[test]
fn a_full_runtime_file_system_is_an_error_that_passes() {
    let world = World::new();
    let (options, inner) = if is_root() {
        (vec!["--mount"], String::new())
    } else {
        let inner = format!("unshare --user --map-user={} --map-group={}", uid(), gid());
        (vec!["--user", "--map-root-user", "--mount"], inner)
    };
    let ids = if is_root() { (uid(), gid()) } else { (0, 0) };
    let outcome = world
        .equip(harness::TestCommand::new(need("unshare")))
        .args(options)
        .arg(need("bash"))
        .args(["-c", FULL])
        .env("IMAGE", world.image())
        .env("AS", inner)
        .env("OUTER", ids.0.to_string())
        .env("OUTER_GROUP", ids.1.to_string())
        .run()
        .succeeds();
    let text = outcome.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2], lines[4]), ("before", "125", "125"), "{text}");
    for line in [lines[1], lines[3]] {
        assert!(line.contains("No space left on device"), "{text}");
    }
    assert_eq!(lines[5..], ["0: listed", "after", "code 143"], "{text}");
}

/// Voluntary context switches of every thread of these processes.
fn switches(processes: &[Pid]) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for pid in processes {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let status = thread.path().join("status");
            // One that was at the end of its work when it was listed.
            let Ok(text) = fs::read_to_string(&status) else { continue };
            let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            all.push((status.display().to_string(), count.trim().parse().unwrap()));
        }
    }
    all
}

/// Nothing happens for so long. An observation needs some length; nothing else waits for time here.
fn observe(milliseconds: u16) {
    let (silent, _open) = nix::unistd::pipe().unwrap();
    poll(&mut [PollFd::new(silent.as_fd(), PollFlags::POLLIN)], PollTimeout::from(milliseconds)).unwrap();
}

#[test]
fn idle_daemons_do_not_wake_up() {
    let world = World::new();
    let instance = sleeper(&world);
    works(&world);
    let id = world.exec(&["--detach", "sleep", "1000"]).prints();
    let list = world.app(&["fim-instance", "list"]).prints();
    let supervisor = list.lines().find_map(|line| line.strip_prefix(&format!("{id}:"))).unwrap().parse().unwrap();
    let trees = [instance.tree(), Tree::of(Pid::from_raw(supervisor))];
    let daemons: Vec<Pid> =
        trees.iter().flat_map(|tree| &tree.0).filter(|one| one.name != "sleep").map(|one| one.pid).collect();
    let names: Vec<&str> = trees.iter().flat_map(|tree| &tree.0).map(|one| one.name.as_str()).collect();
    for name in ["fim-host", "fim-mount", "fim-guest"] {
        assert!(names.contains(&name), "{names:?}");
    }
    // What was begun before may still end, and mounts of the host are news to a mount server.
    let mut before = switches(&daemons);
    let mut now = before.clone();
    for _ in 0..10 {
        observe(2000);
        before = std::mem::replace(&mut now, switches(&daemons));
        if now == before {
            break;
        }
    }
    assert_eq!(now, before);
    assert!(before.len() >= daemons.len(), "each has a thread: {before:?}");
    world.app(&["fim-instance", "stop", &id]).run().succeeds();
}

#[test]
fn the_pipes_follow_no_symlink() {
    let world = World::new();
    let _instance = sleeper(&world);
    let session = session(&world);
    let client = Client::create(&session.join("instances/0")).unwrap();
    let directory = session.join("instances/0/requests").join(client.id.name());
    let trap = world.path("trap");
    File::create(&trap).unwrap();
    fs::remove_file(directory.join("stdout")).unwrap();
    symlink(&trap, directory.join("stdout")).unwrap();
    write(&session.join("host.fifo"), &Doorbell::encode(Ring::Exec { instance: 0, request: client.id }));
    works(&world);
    assert_eq!(fs::metadata(&trap).unwrap().len(), 0);
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    assert!(OpenOptions::new().write(true).custom_flags(flags).open(directory.join("stdout")).is_err());
}
