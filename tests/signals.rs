//! Signals: those for the process that the user started reach the command, and what happens to the command is seen
//! outside.

mod harness;

use std::os::unix::process::ExitStatusExt;

use harness::World;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitPidFlag;

#[test]
fn signals_reach_the_command() {
    use Signal::*;
    let world = World::new();
    let mut running = world.exec(&["probe", "signals"]).spawn();
    running.expect("ready");
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGURG, SIGTERM] {
        running.signal(signal);
        running.expect(&format!("got {}.", signal as i32));
    }
    running.wait().exits(9);
}

#[test]
fn a_command_that_a_signal_ends_ends_the_start_with_128_and_its_number() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGALRM] {
        let world = World::new();
        let mut running = world.exec(&["sh", "-c", "echo ready; exec sleep 1000"]).spawn();
        running.expect("ready");
        let tree = running.tree();
        running.signal(signal);
        running.wait_as_it_is().exits(128 + signal as i32).quietly();
        tree.wait_gone();
        world.assert_nothing_left();
    }
}

#[test]
fn killing_the_start_ends_everything_in_the_instance() {
    let world = World::new();
    let script = "sleep 1000 & (setsid sleep 1000 &) ; trap '' TERM HUP; echo ready; wait";
    let mut running = world.sh(script).spawn();
    running.expect("ready");
    let tree = running.tree();
    running.signal(Signal::SIGKILL);
    running.wait_as_it_is().dies_of(Signal::SIGKILL);
    tree.wait_gone();
    world.assert_nothing_left();
}

#[test]
fn orphans_end_with_the_command() {
    let world = World::new();
    // The orphan holds stdout: its end is the end of the stream, which `wait` waits for.
    let mut running = world.sh("(setsid sleep 1000 &); echo ready; read line").spawn();
    running.expect("ready");
    let tree = running.tree();
    running.close_stdin();
    running.wait().exits(1);
    tree.wait_gone();
    world.assert_nothing_left();
}

#[test]
fn orphans_are_reaped_while_the_instance_lives() {
    let world = World::new();
    // A shell that is replaced never waits for its child; PID 1 must not keep the orphan's orphan as a zombie.
    let script = "mkfifo /tmp/p; (sh -c 'exec 3>/tmp/p; exit' &); cat /tmp/p; \
                  until ! ps -o stat,comm | grep -q '^Z.*sh'; do :; done; echo reaped";
    assert_eq!(world.sh(script).prints(), "reaped");
}

#[test]
fn ignored_signals_stay_ignored() {
    let world = World::new();
    let script = "trap '' HUP INT USR1 PIPE; exec \"$IMAGE\" fim-exec probe ignored";
    assert_eq!(world.host_sh(script).prints(), "1 2 10 13 ");
    assert_eq!(world.host_sh("exec \"$IMAGE\" fim-root probe ignored").prints(), "");
    // And the command lives on when they come.
    let script = "trap '' HUP; exec \"$IMAGE\" fim-exec sh -c 'echo ready; cat; exit 6'";
    let mut running = world.host_sh(script).spawn();
    running.expect("ready");
    running.signal(Signal::SIGHUP);
    running.say("still here\n");
    running.expect("still here");
    running.wait().exits(6);
}

#[test]
fn a_broken_pipe_is_an_error_where_the_caller_ignores_sigpipe() {
    let world = World::new();
    let script = "trap '' PIPE; \"$IMAGE\" fim-exec sh -c 'yes; echo code $? >&2' | head -n 1";
    let outcome = world.host_sh(script).run().succeeds().with_stdout("y\n");
    assert!(outcome.stderr().contains("code 1"), "{outcome:?}");
}

#[test]
fn a_command_that_stops_stops_the_start_and_both_go_on() {
    let world = World::new();
    let mut running = world.sh("echo ready; kill -STOP $$; echo continued; exit 4").spawn();
    running.expect("ready");
    running.wait_for_state(WaitPidFlag::WSTOPPED);
    running.signal(Signal::SIGCONT);
    running.expect("continued");
    running.wait().exits(4);
}

#[test]
fn suspending_the_start_suspends_the_command() {
    let world = World::new();
    let mut running = world.sh("echo ready; read line; echo $line; exit 3").spawn();
    running.expect("ready");
    running.signal(Signal::SIGTSTP);
    running.wait_for_state(WaitPidFlag::WSTOPPED);
    let inner = running.tree();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", inner.named("sh").pid)).unwrap();
    assert!(state.contains(") T "), "{state}");
    running.signal(Signal::SIGCONT);
    running.say("again\n");
    running.expect("again");
    assert_eq!(running.wait().status.into_raw() >> 8, 3);
}

#[test]
fn a_stopped_start_that_is_killed_leaves_nothing() {
    let world = World::new();
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    let tree = running.tree();
    running.signal(Signal::SIGSTOP);
    running.wait_for_state(WaitPidFlag::WSTOPPED);
    running.signal(Signal::SIGKILL);
    running.wait_as_it_is().dies_of(Signal::SIGKILL);
    tree.wait_gone();
    world.assert_nothing_left();
}
