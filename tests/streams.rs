//! Standard streams: whatever the caller has there is what the command gets.

mod harness;

use std::fs::{self, File};
use std::process::Stdio;

use harness::{TestCommand, World, need};

#[test]
fn stdin_stdout_and_stderr_are_three_streams() {
    let world = World::new();
    let outcome = world.sh("read word; echo \"out $word\"; echo err >&2; exit 3").input("in\n").run();
    assert_eq!(outcome.exits(3).with_stdout("out in\n").stderr(), "err\n");
}

#[test]
fn files_and_dev_null_work_as_streams() {
    let world = World::new();
    fs::write(world.path("input"), "from a file\n").unwrap();
    let output = File::create(world.path("output")).unwrap();
    world
        .sh("cat; echo error >&2")
        .stdin(File::open(world.path("input")).unwrap())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .run()
        .succeeds();
    assert_eq!(fs::read_to_string(world.path("output")).unwrap(), "from a file\nerror\n");
    let null = || Stdio::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    world.sh("cat; echo x; echo y >&2; exit 4").stdin(null()).stdout(null()).stderr(null()).run().exits(4);
}

#[test]
fn a_file_that_is_appended_to_is_appended_to() {
    let world = World::new();
    fs::write(world.path("log"), "before\n").unwrap();
    world.host_sh("\"$IMAGE\" fim-exec echo inside >> log && echo after >> log").run().succeeds();
    assert_eq!(fs::read_to_string(world.path("log")).unwrap(), "before\ninside\nafter\n");
}

#[test]
fn large_binary_data_passes_unchanged() {
    let world = World::new();
    let mut state = 7_u64;
    let words = (0..64 * 1024 * 1024 / 8).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = words.collect();
    let outcome = world.exec(&["cat"]).input(bytes.clone()).run().succeeds().quietly();
    assert!(outcome.stdout == bytes, "{} bytes came back, not the same {}", outcome.stdout.len(), bytes.len());
}

#[test]
fn closed_streams_stay_closed() {
    let world = World::new();
    // The exit code has a bit for each closed stream.
    for (redirection, bits) in [("<&-", 1), (">&-", 2), ("2>&-", 4), ("<&- >&-", 3), ("<&- >&- 2>&-", 7), ("", 0)] {
        let script = format!("exec \"$IMAGE\" fim-exec probe closed-streams {redirection}");
        world.host_sh(&script).run().exits(bits);
    }
}

#[test]
fn the_end_of_stdin_is_seen() {
    let world = World::new();
    let mut cat = world.sh("echo ready; cat; echo end").spawn();
    cat.expect("ready");
    cat.say("half\n");
    cat.expect("half");
    cat.close_stdin();
    cat.expect("end");
    cat.wait().succeeds().quietly();
}

#[test]
fn a_command_that_closes_its_stdout_goes_on() {
    let world = World::new();
    let script = "set -o pipefail; \"$IMAGE\" fim-exec sh -c 'exec >&-; cat >/dev/null; exit 5' </dev/null | cat";
    world.host_sh(script).run().exits(5).quietly();
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let world = World::new();
    let outcome = world.host_sh("\"$IMAGE\" fim-exec yes | head -n 1; echo \"${PIPESTATUS[@]}\"").run();
    // 128 + SIGPIPE, as without fim.
    outcome.succeeds().quietly().with_stdout("y\n141 0\n");
    for command in ["fim-help exec", "fim-inspect", "fim-version full"] {
        world.host_sh(&format!("\"$IMAGE\" {command} | true")).run().succeeds().quietly();
    }
}

#[test]
fn only_the_standard_streams_are_inherited() {
    let world = World::new();
    let script = "exec 3</etc/passwd 9</etc/hostname 200</etc; exec \"$IMAGE\" fim-exec probe descriptors";
    world.host_sh(script).run().succeeds().quietly().with_stdout("0 1 2 \n");
    let script = script.replace("fim-exec", "fim-root");
    world.host_sh(&script).run().succeeds().quietly().with_stdout("0 1 2 \n");
}

#[test]
fn a_directory_is_refused_as_a_stream() {
    let world = World::new();
    world.exec(&["ls"]).stdin(File::open("/etc").unwrap()).fails_naming(&["stdin is a directory", "/dev/null"]);
    let directory = || Stdio::from(File::open("/").unwrap());
    world.exec(&["ls"]).stdout(directory()).fails_naming(&["stdout is a directory"]);
    let refused = world.root(&["ls"]).stderr(directory()).run().exits(125);
    assert!(refused.stdout.is_empty());
}

#[test]
fn both_ends_in_the_guest_make_a_pipeline() {
    let world = World::new();
    let script = "\"$IMAGE\" fim-exec seq 1000 | \"$IMAGE\" fim-exec sort -rn | \"$IMAGE\" fim-root head -n 1";
    assert_eq!(world.host_sh(script).prints(), "1000");
}

#[test]
fn a_fifo_and_a_socket_work_as_streams() {
    let world = World::new();
    need("mkfifo");
    let script = "mkfifo pipe; \"$IMAGE\" fim-exec cat < pipe > out & echo through > pipe; wait; cat out";
    assert_eq!(world.host_sh(script).prints(), "through");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut &ours, b"by socket\n").unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let command: TestCommand = world.exec(&["cat"]).stdin(std::os::fd::OwnedFd::from(theirs));
    assert_eq!(command.prints(), "by socket");
}
