//! `fim-instance exec`: a command in an instance behaves as if it ran in front of its user.

mod harness;

use harness::{Running, Terminal, TestCommand, Tree, World};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitPidFlag;

/// A world with instance 0.
struct Host {
    instance: Running,
    world: World,
}

impl Host {
    #[track_caller]
    fn new() -> Self {
        let world = World::new();
        let mut instance = world.sh("echo ready; exec sleep 1000").spawn();
        instance.expect("ready");
        Self { instance, world }
    }

    fn exec(&self, words: &[&str]) -> TestCommand {
        self.world.app(&["fim-instance", "exec", "0"]).args(words)
    }

    fn sh(&self, script: &str) -> TestCommand {
        self.exec(&["sh", "-c", script])
    }

    /// Starts the same command until it runs: its client has the first line of its output.
    #[track_caller]
    fn runs(&self, script: &str) -> Running {
        let mut running = self.sh(&format!("echo ready; {script}")).spawn();
        running.expect("ready");
        running
    }
}

#[test]
fn the_exit_code_is_the_commands() {
    let host = Host::new();
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)] {
        host.sh(script).run().exits(code).quietly();
    }
    host.exec(&["/no/such/program"]).run().exits(127).complains_of(&["/no/such/program"]);
    host.exec(&["no-such-program"]).run().exits(127);
    host.exec(&["/etc/release"]).run().exits(126);
}

#[test]
fn streams_keep_apart() {
    let host = Host::new();
    let outcome = host.sh("echo out; echo err >&2").run().succeeds().with_stdout("out\n");
    assert_eq!(outcome.stderr(), "err\n");
}

#[test]
fn input_and_its_end_are_passed_on() {
    let host = Host::new();
    let noise: Vec<u8> = (0..700_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let outcome = host.exec(&["cat"]).input(noise.clone()).run().succeeds().quietly();
    assert!(outcome.stdout == noise, "{} bytes came back of {}", outcome.stdout.len(), noise.len());
    assert_eq!(host.exec(&["wc", "-c"]).input("").run().succeeds().text(), "0");
}

#[test]
fn output_can_end_before_input_and_input_before_output() {
    let host = Host::new();
    let shell = |script: &str| host.world.host_sh(script);
    let first = "yes | $IMAGE fim-instance exec 0 head -n 1; echo ${PIPESTATUS[1]}";
    assert_eq!(shell(first).prints(), "y\n0");
    // The reader has gone: the command gets SIGPIPE as it would in front of it.
    let second = "$IMAGE fim-instance exec 0 yes | head -n 1; echo ${PIPESTATUS[0]}";
    assert_eq!(shell(second).prints(), "y\n141");
    // The command closes its input and goes on.
    assert_eq!(host.sh("exec <&-; echo still here").input("unread").prints(), "still here");
}

#[test]
fn merged_streams_keep_their_order() {
    let host = Host::new();
    let script = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let shown = host.world.host_sh(&format!("$IMAGE fim-instance exec 0 sh -c '{script}' 2>&1")).prints();
    let expected: Vec<String> = (0..500).flat_map(|i| [format!("out {i}"), format!("err {i}")]).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn much_data_goes_through_little_memory() {
    let host = Host::new();
    let script = "set -o pipefail; head -c 1073741824 /dev/zero | (ulimit -d 32768; exec $IMAGE fim-instance exec 0 cat) | wc -c";
    assert_eq!(host.world.host_sh(script).prints(), "1073741824");
}

#[test]
fn closed_streams_are_no_obstacle() {
    let host = Host::new();
    let shell = |script: &str| host.world.host_sh(script);
    assert_eq!(shell("$IMAGE fim-instance exec 0 wc -c <&-").prints(), "0");
    shell("$IMAGE fim-instance exec 0 sh -c 'exit 4' >&- 2>&- <&-").run().exits(4);
}

#[test]
fn the_callers_directory_and_environment_count() {
    let host = Host::new();
    assert_eq!(host.exec(&["pwd"]).current_dir("/etc").prints(), "/etc");
    let of = |name: &str| host.sh(&format!("echo ${name}")).env("GREETING", "hello  there").env("LD_PRELOAD", "");
    assert_eq!(of("{GREETING%there}").prints(), "hello");
    assert_eq!(of("{LD_PRELOAD-unset}").prints(), "unset");
    // Identity comes from the instance.
    let expected = host.world.sh("echo $USER $HOME").prints();
    assert_eq!(host.sh("echo $USER $HOME").prints(), expected);
}

#[test]
fn the_longest_environment_and_arguments_the_kernel_takes() {
    let host = Host::new();
    let mut command = host.exec(&["env"]);
    for index in 0..12 {
        command = command.env(&format!("LONG{index}"), "x".repeat(128 * 1024 - 100));
    }
    let shown = command.prints();
    let long: usize = shown.lines().filter(|line| line.starts_with("LONG")).map(str::len).sum();
    assert!(long > 12 * (128 * 1024 - 100), "{long}");
    let numbers = (0..100_000).map(|number| number.to_string());
    let shown = host.exec(&["sh", "-c", "echo $# $1 ${100000}", "sh"]).args(numbers).prints();
    assert_eq!(shown, "100000 0 99999");
}

#[test]
fn signals_for_the_client_reach_the_command() {
    let host = Host::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        let running = host.runs("exec sleep 1000");
        running.signal(signal);
        running.wait().exits(128 + signal as i32).quietly();
    }
}

#[test]
fn a_signal_during_a_long_request_is_not_lost_in_it() {
    let host = Host::new();
    let mut command = host.sh("trap 'echo got USR1' USR1; echo ready; while :; do read line; done");
    for index in 0..12 {
        command = command.env(&format!("LONG{index}"), "x".repeat(128 * 1024 - 100));
    }
    let mut running = command.spawn();
    running.expect("ready");
    running.signal(Signal::SIGUSR1);
    running.say("turn\n");
    running.expect("got USR1");
    running.signal(Signal::SIGTERM);
    running.wait().exits(143);
}

#[test]
fn the_command_of_a_killed_client_is_hung_up_then_killed_and_reaped() {
    let host = Host::new();
    let script = "trap 'echo hup > /tmp/hup' HUP; echo ready; while :; do sleep 1000 & wait; done";
    let mut running = host.sh(script).spawn();
    running.expect("ready");
    let tree = host.instance.tree();
    let monitor = tree.named("fim-exec");
    let command = Tree::of(monitor.pid);
    running.signal(Signal::SIGKILL);
    running.wait().dies_of(Signal::SIGKILL);
    command.wait_gone();
    assert_eq!(host.exec(&["cat", "/tmp/hup"]).prints(), "hup");
    // The monitor of the last command answers a moment before it ends.
    for member in host.instance.tree().0.iter().filter(|member| member.name == "fim-exec") {
        member.wait_gone();
    }
    let left: Vec<String> = host.instance.tree().0.into_iter().map(|member| member.name).collect();
    assert!(!left.iter().any(|name| name == "sh"), "{left:?}");
    assert_eq!(requests(&host.world), Vec::<String>::new());
}

/// Directories of requests that are left in instance 0.
fn requests(world: &World) -> Vec<String> {
    let session = std::fs::read_dir(world.sessions()).unwrap().next().unwrap().unwrap().path();
    let names = std::fs::read_dir(session.join("instances/0/requests")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn requests_leave_nothing() {
    let host = Host::new();
    for _ in 0..3 {
        host.exec(&["true"]).run().succeeds().quietly();
    }
    assert_eq!(requests(&host.world), Vec::<String>::new());
}

#[test]
fn an_instance_that_dies_ends_its_clients_at_once() {
    let host = Host::new();
    let clients: Vec<Running> = (0..3).map(|_| host.runs("exec sleep 1000")).collect();
    host.instance.signal(Signal::SIGKILL);
    for client in clients {
        client.wait().exits(125).complains_of(&["instance 0 has ended"]);
    }
}

#[test]
fn a_request_in_flight_survives_the_host_daemon_and_runs_once() {
    let host = Host::new();
    let tree = host.instance.tree();
    let daemon = tree.named("fim-host");
    nix::sys::signal::kill(daemon.pid, Signal::SIGSTOP).unwrap();
    let clients: Vec<Running> =
        (0..4).map(|number| host.sh(&format!("echo {number} >> /tmp/ran; echo done")).spawn()).collect();
    for client in &clients {
        harness::process::wait_for_poll(client.pid());
    }
    daemon.kill();
    for client in clients {
        client.wait().succeeds().quietly().with_stdout("done\n");
    }
    assert_eq!(host.sh("sort /tmp/ran").prints(), "0\n1\n2\n3");
}

/// A thousand clients of the host's shell, each with its own file for what it prints.
const CLIENTS: &str = r#"
mkdir out
for ((i = 1; i <= 1000; i++)); do
    "$IMAGE" fim-instance exec 0 sh -c "echo $i; exit $((i % 7))" < /dev/null > out/$i 2>&1 &
    clients[i]=$!
done
echo started
for ((i = 1; i <= 1000; i++)); do
    wait ${clients[i]}
    echo "$i:$?:$(< out/$i)"
done
"#;

#[test]
fn a_thousand_clients_at_once() {
    let host = Host::new();
    let tree = host.instance.tree();
    let daemon = tree.named("fim-host").pid;
    // Nobody is served before all have asked.
    nix::sys::signal::kill(daemon, Signal::SIGSTOP).unwrap();
    let mut clients = host.world.host_sh(CLIENTS).spawn();
    clients.expect("started");
    let asking = clients.tree().0;
    // The shell is one of them.
    assert_eq!(asking.len(), 1001);
    for client in &asking[1..] {
        harness::process::wait_for_poll(client.pid);
    }
    nix::sys::signal::kill(daemon, Signal::SIGCONT).unwrap();
    let expected: String = (1..=1000).map(|number| format!("{number}:{}:{number}\n", number % 7)).collect();
    clients.wait().succeeds().quietly().with_stdout(&format!("started\n{expected}"));
    assert_eq!(requests(&host.world), Vec::<String>::new());
}

#[test]
fn few_descriptors_are_enough() {
    let host = Host::new();
    let script = "ulimit -n 64; for i in 1 2 3; do $IMAGE fim-instance exec 0 echo $i; done";
    assert_eq!(host.world.host_sh(script).prints(), "1\n2\n3");
}

#[test]
fn a_session_with_few_descriptors_keeps_its_instances() {
    let world = World::new();
    let start = "ulimit -n 64; exec $IMAGE fim-exec sh -c 'echo ready; exec sleep 1000'";
    let mut first = world.host_sh(start).spawn();
    first.expect("ready");
    let _others: Vec<Running> = (0..80)
        .map(|_| {
            let mut other = world.sh("echo ready; exec sleep 1000").spawn();
            other.expect("ready");
            other
        })
        .collect();
    assert_eq!(world.app(&["fim-instance", "list"]).prints().lines().count(), 81);
    for id in ["0", "40", "80"] {
        assert_eq!(world.app(&["fim-instance", "exec", id, "echo", id]).prints(), id);
    }
}

#[test]
fn in_a_terminal_size_and_interrupt_are_the_commands() {
    let host = Host::new();
    let mut terminal = Terminal::open(&host.world);
    let before = terminal.settings();
    terminal.enter("$IMAGE fim-instance exec 0 env PS1=inner: sh");
    terminal.press("stty size; echo one-$((1+1))\r");
    assert!(terminal.expect("one-2").contains("24 80"));
    terminal.resize(30, 100);
    terminal.press("stty size; echo two-$((1+1))\r");
    assert!(terminal.expect("two-2").contains("30 100"));
    // Interrupt: the inner shell stays, its command ends.
    terminal.press("sh -c 'echo three-$((1+1)); exec sleep 1000'\r");
    terminal.expect("three-2");
    terminal.press("\x03");
    terminal.press("echo status-$?\r");
    terminal.expect("status-130");
    terminal.press("exit 7\r");
    terminal.prompt();
    assert_eq!(terminal.run("echo $?"), "7");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn in_a_terminal_the_client_is_interrupted_stopped_and_continued() {
    let host = Host::new();
    let mut terminal = Terminal::open(&host.world);
    let before = terminal.settings();
    let line = "$IMAGE fim-instance exec 0 sh -c 'echo rea''dy; while read line; do echo got-$line; done'";
    terminal.enter(line);
    terminal.expect("ready");
    terminal.press("one\r");
    terminal.expect("got-one");
    terminal.press("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    assert_eq!(terminal.settings(), before);
    terminal.enter("fg");
    terminal.press("two\r");
    terminal.expect("got-two");
    terminal.press("\x03");
    terminal.prompt();
    assert_eq!(terminal.run("echo $?"), "130");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn in_a_terminal_a_program_draws_and_reads_single_keys() {
    let host = Host::new();
    let mut terminal = Terminal::open(&host.world);
    terminal.enter("$IMAGE fim-instance exec 0 vi /tmp/note");
    terminal.expect("- /tmp/note");
    terminal.press("i");
    terminal.expect("I /tmp/note");
    terminal.press("hello from vi");
    terminal.expect("hello from vi");
    // It takes an escape for itself only when nothing follows at once.
    terminal.press("\x1b");
    terminal.expect("- /tmp/note");
    terminal.press(":wq\r");
    terminal.prompt();
    assert_eq!(terminal.run("$IMAGE fim-instance exec 0 cat /tmp/note"), "hello from vi");
    terminal.enter("$IMAGE fim-instance exec 0 top");
    terminal.expect("COMMAND");
    terminal.press("q");
    terminal.prompt();
}

#[test]
fn in_a_terminal_each_stream_goes_where_it_belongs() {
    let host = Host::new();
    let mut terminal = Terminal::open_with_carriage_returns(&host.world);
    let mut shows = |line: &str, text: &str| {
        assert_eq!(terminal.run(line).trim_matches(['\r', '\n']), text, "{line}");
    };
    shows("$IMAGE fim-instance exec 0 sh -c 'echo out; echo err >&2' > file", "err");
    shows("cat file; rm file", "out");
    shows("$IMAGE fim-instance exec 0 sh -c 'echo out; echo err >&2' 2> file", "out");
    shows("cat file; rm file", "err");
    shows("$IMAGE fim-instance exec 0 sh -c 'echo a >&2; echo b >&2' | cat", "a\r\nb");
    shows("$IMAGE fim-instance exec 0 sh -c 'echo out; echo err >&2; echo on >/dev/tty' > file 2> file2", "");
    shows("cat file file2", "out\r\nerr");
}

#[test]
fn in_a_terminal_a_program_that_only_polls_for_keys_gets_them() {
    let host = Host::new();
    let mut terminal = Terminal::open(&host.world);
    let before = terminal.settings();
    terminal.enter("$IMAGE fim-instance exec 0 probe keys | cat");
    terminal.expect("ready");
    terminal.press("k");
    terminal.expect("key k");
    terminal.prompt();
    assert_eq!(terminal.settings(), before);
}

#[test]
fn in_a_terminal_the_inner_shell_has_job_control() {
    let host = Host::new();
    let mut terminal = Terminal::open(&host.world);
    terminal.enter("$IMAGE fim-instance exec 0 env PS1=inner: sh -i");
    // It says when it goes on: before that, the key would interrupt the shell at its work.
    terminal.press("sh -c 'trap \"echo on-\\$((1+1))\" CONT; echo one-$((1+1)); while :; do sleep 0.1; done'\r");
    terminal.expect("one-2");
    terminal.press("\x1a");
    terminal.expect("Stopped");
    terminal.press("jobs; echo two-$((1+1))\r");
    assert!(terminal.expect("two-2").contains("sleep 0.1"));
    terminal.press("fg\r");
    terminal.expect("on-2");
    terminal.press("\x03");
    terminal.press("echo three-$((1+1))\r");
    terminal.expect("three-2");
    terminal.press("exit\r");
    terminal.prompt();
}

#[test]
fn in_the_background_of_a_terminal_it_does_not_stop() {
    let host = Host::new();
    let mut terminal = Terminal::open(&host.world);
    terminal.enter("$IMAGE fim-instance exec 0 sh -c 'echo back''ground' & wait; echo after-$((1+1))");
    let shown = terminal.expect("after-2");
    assert!(shown.contains("background") && !shown.contains("Stopped"), "{shown}");
}

#[test]
fn a_client_that_is_stopped_and_continued_without_a_terminal_goes_on() {
    let host = Host::new();
    let mut running = host.runs("read line; echo got-$line");
    running.signal(Signal::SIGTSTP);
    running.wait_for_state(WaitPidFlag::WSTOPPED);
    running.signal(Signal::SIGCONT);
    running.say("it\n");
    running.expect("got-it");
    running.wait().succeeds().quietly();
}
