//! Detached instances: they outlive their start, and their output is kept in a log that stays small.

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use harness::{DEADLINE, TestCommand, World};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runtime::sys::process::pidfd_open;

/// Starts a detached instance; returns its ID as printed.
#[track_caller]
fn detach(world: &World, script: &str) -> String {
    let id = world.app(&["fim-exec", "--detach", "sh", "-c", script]).prints();
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()) && !id.is_empty(), "{id:?}");
    id
}

fn app(world: &World, words: &[&str]) -> TestCommand {
    world.app(&["fim-instance"]).args(words)
}

/// Process ID of the supervisor that the listing shows.
#[track_caller]
fn supervisor(world: &World, id: &str) -> Pid {
    let list = app(world, &["list"]).prints();
    let line = list.lines().find_map(|line| line.strip_prefix(&format!("{id}:")));
    Pid::from_raw(line.unwrap_or_else(|| panic!("no {id} in {list}")).parse().unwrap())
}

/// Waits until the log of an instance holds `text`.
#[track_caller]
fn expect_log(world: &World, id: &str, text: &str) {
    let mut running = app(world, &["logs", id, "--follow"]).spawn();
    running.expect(text);
}

#[test]
fn a_detached_start_prints_its_id_and_returns() {
    let world = World::new();
    let id = detach(&world, "echo ready; exec sleep 1000");
    assert_eq!(id, "0");
    assert_eq!(app(&world, &["exec", "0", "echo", "hello"]).prints(), "hello");
    let second = world.app(&["fim-root", "--detach", "sh", "-c", "id -u; exec sleep 1000"]).prints();
    assert_eq!(second, "1");
    expect_log(&world, "1", "0\n");
    for id in ["0", "1"] {
        app(&world, &["stop", id]).run().succeeds().quietly();
    }
    assert_eq!(app(&world, &["list"]).prints(), "");
    world.assert_nothing_left();
}

#[test]
fn the_supervisor_is_a_daemon() {
    let world = World::new();
    let id = detach(&world, "readlink /proc/self/fd/0; exec sleep 1000");
    let pid = supervisor(&world, &id);
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("cwd").to_str(), Some("/"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(stream).to_str(), Some("/dev/null"));
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Session and terminal: fields 6 and 7 of proc_pid_stat(5).
    assert_eq!((fields[3], fields[4]), (pid.to_string().as_str(), "0"));
    expect_log(&world, &id, "/dev/null\n");
    // What `kill` of the listed process does to any instance.
    let ended = pidfd_open(pid).unwrap();
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    harness::process::wait_readable(&ended, "the end of the supervisor");
    world.assert_nothing_left();
}

#[test]
fn output_goes_to_the_log_in_order_and_outlives_the_instance() {
    let world = World::new();
    let keeper = detach(&world, "exec sleep 1000");
    let id = detach(&world, "echo one; echo two >&2; printf three; exit 5");
    app(&world, &["wait", &id]).run().exits(5).quietly();
    assert_eq!(app(&world, &["logs", &id]).prints(), "one\ntwo\nthree");
    assert_eq!(app(&world, &["logs", &id, "--follow"]).prints(), "one\ntwo\nthree");
    // Waiting after the end works as often as one likes.
    app(&world, &["wait", &id]).run().exits(5).quietly();
    app(&world, &["stop", &keeper]).run().succeeds();
    app(&world, &["logs", &id]).fails_naming(&["No instances are running"]);
}

#[test]
fn following_ends_with_the_instance() {
    let world = World::new();
    let id = detach(&world, "trap 'echo last; exit' USR1; echo first; sleep 1000 & wait");
    let mut follower = app(&world, &["logs", &id, "--follow"]).spawn();
    follower.expect("first\n");
    app(&world, &["kill", &id, "USR1"]).run().succeeds();
    follower.expect("last\n");
    follower.wait().exits(0).quietly();
}

#[test]
fn the_log_keeps_the_newest_output_and_stays_small() {
    let world = World::new();
    let keeper = detach(&world, "exec sleep 1000");
    let id = detach(&world, "seq 1 500000");
    app(&world, &["wait", &id]).run().exits(0).quietly();
    let log = app(&world, &["logs", &id]).run().succeeds().quietly().text();
    assert!(log.len() > 512 * 1024 && log.len() <= 1024 * 1024, "{}", log.len());
    let numbers: Vec<u32> = log.lines().skip(1).map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&500_000));
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "the log has a gap");
    app(&world, &["stop", &keeper]).run().succeeds();
}

#[test]
fn the_first_word_only_detaches() {
    let world = World::new();
    world.exec(&["--detach"]).fails_naming(&["Incorrect number of arguments for fim-exec"]);
    world.root(&["--detach"]).fails_naming(&["Incorrect number of arguments for fim-root"]);
    assert_eq!(world.exec(&["echo", "--detach"]).prints(), "--detach");
    world.exec(&["env", "--", "--detach"]).run().exits(127);
    world.exec(&["--", "x"]).run().exits(127);
}

#[test]
fn an_error_of_the_start_is_the_callers() {
    let world = World::new();
    let line = world.path("no-directory/data");
    fs::write(world.path("no-directory"), "").unwrap();
    world.exec(&["--detach", "true"]).env("FIM_DIR_DATA", line).fails_naming(&["no-directory"]);
}

#[test]
fn a_command_that_is_not_found_says_so_in_the_log() {
    let world = World::new();
    let keeper = detach(&world, "exec sleep 1000");
    let id = world.exec(&["--detach", "/no/such/program"]).prints();
    app(&world, &["wait", &id]).run().exits(127);
    assert!(app(&world, &["logs", &id]).prints().contains("/no/such/program: no such file or directory"));
    app(&world, &["stop", &keeper]).run().succeeds();
}

#[test]
fn a_killed_supervisor_leaves_the_log_and_no_process() {
    let world = World::new();
    let keeper = detach(&world, "exec sleep 1000");
    let id = detach(&world, "echo before; exec sleep 1000");
    expect_log(&world, &id, "before\n");
    let tree = harness::Tree::of(supervisor(&world, &id));
    tree.0[0].kill();
    tree.wait_gone();
    app(&world, &["wait", &id]).run().exits(125);
    // The host daemon moves the log when it notices.
    let begin = Instant::now();
    while !sessions_ended(&world, &id) {
        assert!(begin.elapsed() < DEADLINE, "the log of a killed instance is not kept");
        std::thread::yield_now();
    }
    assert_eq!(app(&world, &["logs", &id]).prints(), "before");
    app(&world, &["stop", &keeper]).run().succeeds();
}

fn sessions_ended(world: &World, id: &str) -> bool {
    let session = fs::read_dir(world.sessions()).unwrap().next().unwrap().unwrap().path();
    fs::metadata(session.join("ended").join(id).join("log")).is_ok_and(|metadata| metadata.size() > 0)
}

#[test]
fn a_hang_up_of_the_terminal_does_not_end_it() {
    let world = World::new();
    let mut terminal = harness::Terminal::open(&world);
    assert_eq!(terminal.run("$IMAGE fim-exec --detach sleep 1000"), "0");
    let shell = terminal.tree();
    drop(terminal);
    shell.wait_gone();
    assert_eq!(app(&world, &["exec", "0", "echo", "alive"]).prints(), "alive");
    app(&world, &["stop", "0"]).run().succeeds();
}
