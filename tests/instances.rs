//! Instances: how they are listed and numbered, and how they end. The transcripts of the manual are typed as printed
//! there.

mod harness;

use std::time::Instant;

use harness::{DEADLINE, Running, Terminal, World, is_root, uid};
use nix::sys::signal::Signal;

/// An instance that has started and stays.
#[track_caller]
fn sleeper(world: &World) -> Running {
    let mut running = world.sh("echo ready; exec sleep 1000").spawn();
    running.expect("ready");
    running
}

fn list(world: &World) -> String {
    world.app(&["fim-instance", "list"]).prints()
}

/// The lines of the listing, once there are so many.
#[track_caller]
fn lines(world: &World, count: usize) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let lines: Vec<String> = list(world).lines().map(str::to_owned).collect();
        if lines.len() == count {
            return lines;
        }
        assert!(begin.elapsed() < DEADLINE, "waiting for {count} instances: {lines:?}");
    }
}

#[track_caller]
fn ids(world: &World, count: usize) -> Vec<u64> {
    lines(world, count).iter().map(|line| line.split_once(':').unwrap().0.parse().unwrap()).collect()
}

/// Starts a background job as typed; returns its process ID as the shell shows it, before any word of other jobs.
#[track_caller]
fn background(terminal: &mut Terminal, line: &str) -> String {
    let shown = terminal.run(line);
    let first = shown.lines().next().unwrap_or_default();
    first.split_once("] ").unwrap_or_else(|| panic!("no job number: {shown:?}")).1.trim().to_owned()
}

#[test]
fn transcript_of_the_basic_example() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let first = background(&mut terminal, "./app.flatimage fim-exec sleep 1000 &");
    lines(&world, 1);
    let second = background(&mut terminal, "./app.flatimage fim-root sleep 1000 &");
    lines(&world, 2);
    assert_eq!(terminal.run("./app.flatimage fim-instance list"), format!("0:{first}\n1:{second}"));
    assert_eq!(terminal.run("./app.flatimage fim-instance exec 0 id -u"), uid().to_string());
    assert_eq!(terminal.run("./app.flatimage fim-instance exec 1 id -u"), "0");
    for id in ["0", "1"] {
        let shown = terminal.run(&format!("./app.flatimage fim-instance exec {id} ps aux"));
        let commands: Vec<&str> = shown.lines().filter(|line| line.contains("sleep 1000")).collect();
        assert_eq!(commands.len(), 1, "{shown}");
        assert!(shown.lines().any(|line| line.contains(" 1 ") && line.contains("guest")), "{shown}");
        assert!(!shown.contains("flatimage"), "{shown}");
    }
    let greeting = terminal.run("./app.flatimage fim-instance exec 0 echo \"Hello from instance 0\"");
    assert_eq!(greeting, "Hello from instance 0");
    let directory = std::fs::canonicalize(world.path("")).unwrap();
    // The directory of the caller does not exist in the image, so that home is next.
    let shown = terminal.run("./app.flatimage fim-instance exec 1 pwd");
    assert!(shown == "/root" || shown == directory.to_str().unwrap(), "{shown}");
    terminal.run("kill %1 %2");
    lines(&world, 0);
}

#[test]
fn transcript_of_the_lifecycle() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let pid = background(&mut terminal, "./app.flatimage fim-exec sleep 100 &");
    assert_eq!(lines(&world, 1), [format!("0:{pid}")]);
    assert_eq!(terminal.run("./app.flatimage fim-instance exec 0 echo \"Still running\""), "Still running");
    terminal.run(&format!("kill {pid}"));
    lines(&world, 0);
    assert!(!terminal.run("./app.flatimage fim-instance list").contains("0:"));
}

#[test]
fn transcript_of_the_numbers() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let mut pids = Vec::new();
    for count in 1..=3 {
        pids.push(background(&mut terminal, "./app.flatimage fim-exec sleep 100 &"));
        lines(&world, count);
    }
    let shown = terminal.run("./app.flatimage fim-instance list");
    assert_eq!(shown, format!("0:{}\n1:{}\n2:{}", pids[0], pids[1], pids[2]));
    terminal.run(&format!("kill {}", pids[1]));
    assert_eq!(lines(&world, 2), [format!("0:{}", pids[0]), format!("2:{}", pids[2])]);
    pids.push(background(&mut terminal, "./app.flatimage fim-exec sleep 100 &"));
    assert_eq!(lines(&world, 3), [format!("0:{}", pids[0]), format!("2:{}", pids[2]), format!("3:{}", pids[3])]);
    for pid in [&pids[0], &pids[2], &pids[3]] {
        terminal.run(&format!("kill {pid}"));
    }
    lines(&world, 0);
}

#[test]
fn transcript_of_the_help() {
    let world = World::new();
    let help = world.app(&["fim-help", "instance"]).prints();
    for line in [
        "fim-instance : Manage running instances",
        "Usage: fim-instance <exec> <id> [args...]",
        "  <exec> : Run a command in a running instance",
        "  <id> : ID of the instance in which to execute the command",
        "  <args> : Arguments for the 'exec' command",
        "Example: fim-instance exec 0 echo hello",
        "  <list> : Lists current instances",
    ] {
        assert!(help.lines().any(|shown| shown == line), "{line:?} is missing in:\n{help}");
    }
}

#[test]
fn the_exit_of_the_highest_does_not_free_its_number() {
    let world = World::new();
    let _first = sleeper(&world);
    let second = sleeper(&world);
    second.signal(Signal::SIGTERM);
    second.wait().exits(143);
    let _third = sleeper(&world);
    assert_eq!(ids(&world, 2), [0, 2]);
}

#[test]
fn a_new_session_begins_at_zero() {
    let world = World::new();
    for _ in 0..2 {
        let running = sleeper(&world);
        assert_eq!(ids(&world, 1), [0]);
        drop(running);
        world.assert_nothing_left();
    }
}

#[test]
fn concurrent_starts_get_consecutive_numbers_while_the_host_daemon_dies() {
    const COUNT: usize = 200;
    let world = World::new();
    let first = sleeper(&world);
    let mut others: Vec<Running> = (1..COUNT / 2).map(|_| world.exec(&["sleep", "1000"]).spawn()).collect();
    first.tree().named("fim-host").kill();
    others.extend((COUNT / 2..COUNT).map(|_| world.exec(&["sleep", "1000"]).spawn()));
    assert_eq!(ids(&world, COUNT), (0..COUNT as u64).collect::<Vec<_>>());
    drop(others);
    drop(first);
}

/// The programs that the host daemons of this world run from.
fn host_daemons(world: &World) -> Vec<String> {
    let ours = format!("fim: host daemon of {}", world.sessions().display());
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let daemons = processes
        .filter(|process| std::fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.starts_with(&ours)));
    daemons.map(|process| std::fs::read_link(process.join("exe")).unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_killed_host_daemon_is_replaced_and_gives_no_number_twice() {
    let world = World::new();
    let first = sleeper(&world);
    let second = sleeper(&world);
    second.signal(Signal::SIGTERM);
    second.wait().exits(143);
    let tree = first.tree();
    tree.named("fim-host").kill();
    tree.named("fim-host").wait_gone();
    // A client begins another daemon, which knows the living and the numbers of the dead.
    assert_eq!(world.app(&["fim-instance", "exec", "0", "echo", "still here"]).prints(), "still here");
    // That daemon is no process of the image file, which must be free to be changed.
    assert_eq!(host_daemons(&world), ["/memfd:fim (deleted)"]);
    let _third = sleeper(&world);
    assert_eq!(ids(&world, 2), [0, 2]);
    assert_eq!(world.app(&["fim-instance", "exec", "2", "echo", "here too"]).prints(), "here too");
}

/// Lines of a script that runs in a PID namespace of its own, where it chooses the numbers of processes.
const NUMBERS: &str = r#"
set -eu
last=/proc/sys/kernel/ns_last_pid
mkfifo "$HOME/ready"
begin() {
    "$IMAGE" fim-exec sh -c 'echo ready; exec sleep 1000' > "$HOME/ready" &
    starter=$!
    read -r line < "$HOME/ready"
}
ids() { "$IMAGE" fim-instance list | cut -d : -f 1 | tr '\n' ' '; }
begin
# Over the highest number to the lowest.
echo $(($(< /proc/sys/kernel/pid_max) - 40)) > $last
before=$starter
begin
until ((starter < before)); do before=$starter; begin; done
echo "listed: $(ids)"
echo "newest: $("$IMAGE" fim-instance exec "$("$IMAGE" fim-instance list | tail -n 1 | cut -d : -f 1)" echo works)"
# A number of the dead is given to another process while nobody notices the death.
for comm in /proc/[0-9]*/comm; do
    if [[ $(cat "$comm" 2> /dev/null) == fim-host ]]; then kill -KILL "$(basename "$(dirname "$comm")")"; fi
done
dead=$("$IMAGE" fim-instance list | tail -n 1 | cut -d : -f 1)
kill -KILL $starter
wait $starter || :
# Whatever else ends just now may still hold it, and whatever begins may take it.
stranger=
until [[ $stranger == "$starter" ]]; do
    if [[ $stranger ]]; then kill -KILL $stranger; fi
    echo $((starter - 1)) > $last
    sleep 1000 &
    stranger=$!
done
[[ -e $(echo "$XDG_RUNTIME_DIR"/fim/*/instances/$dead/record) ]] || { echo "the record has gone" >&2; exit 1; }
echo "listed: $(ids)"
for operation in exec kill stop; do
    word=$([[ $operation != exec ]] || echo true)
    echo "$operation: $("$IMAGE" fim-instance $operation $dead $word 2>&1 > /dev/null | cut -d : -f 2; echo ${PIPESTATUS[0]})"
done
kill -0 $starter
begin
echo "listed: $(ids)"
"#;

#[test]
fn numbers_of_processes_that_begin_anew_mislead_nobody() {
    let world = World::new();
    let flags = if harness::is_root() { "-mp" } else { "-Urmp" };
    let outcome = world
        .equip(harness::TestCommand::new(harness::need("unshare")))
        .args([flags, "--fork", "--kill-child", "--mount-proc"])
        .arg(harness::need("bash"))
        .args(["-c", NUMBERS])
        .env("IMAGE", world.image())
        .run()
        .succeeds();
    // All processes of the namespace ended with it at once, so that nobody was left to do this.
    std::fs::remove_dir_all(world.sessions()).unwrap();
    let text = outcome.text();
    let lines: Vec<&str> = text.lines().collect();
    let ids = |line: &str| -> Vec<u64> {
        let ids = line.strip_prefix("listed: ").unwrap_or_else(|| panic!("{text}"));
        ids.split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    let all = ids(lines[0]);
    assert!(all.len() >= 2 && all == (0..all.len() as u64).collect::<Vec<_>>(), "{text}");
    assert_eq!(lines[1], "newest: works");
    let living = &all[..all.len() - 1];
    assert_eq!(ids(lines[2]), living, "{text}");
    for (operation, line) in ["exec", "kill", "stop"].iter().zip([lines[3], lines[5], lines[7]]) {
        assert_eq!(line, format!("{operation}:  Instance index out of bounds"), "{text}");
    }
    assert_eq!([lines[4], lines[6], lines[8]], ["125"; 3], "{text}");
    // The number of the dead is not given again.
    let mut then = living.to_vec();
    then.push(all.len() as u64);
    assert_eq!(ids(lines[9]), then, "{text}");
}

#[test]
fn the_listing_in_json_tells_what_runs() {
    let world = World::new();
    let running = sleeper(&world);
    let shown = world.app(&["fim-instance", "list", "--json"]).prints();
    let list: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let entry = &list[0];
    assert_eq!(entry["id"], 0);
    assert_eq!(entry["pid"], running.pid().as_raw());
    assert_eq!(entry["user"], "exec");
    assert_eq!(entry["command"], serde_json::json!(["sh", "-c", "echo ready; exec sleep 1000"]));
    assert!(entry["memory_bytes"].as_u64().unwrap() > 0, "{shown}");
    assert!(entry["uptime_seconds"].is_u64());
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn without_instances_the_listing_is_empty_and_creates_nothing() {
    let world = World::new();
    assert_eq!(list(&world), "");
    assert_eq!(world.app(&["fim-instance", "list", "--json"]).prints(), "[]");
    assert_eq!(world.app(&["fim-instance", "stats"]).prints().lines().count(), 1);
    assert!(!world.data().exists());
    assert!(!world.sessions().exists());
}

#[test]
fn bad_words_are_refused() {
    let world = World::new();
    let none = ["No instances are running"];
    for words in [&["exec", "0", "true"][..], &["stop", "0"], &["kill", "0"], &["wait", "0"], &["logs", "0"]] {
        world.app(&["fim-instance"]).args(words).fails_naming(&none);
    }
    let ended = sleeper(&world);
    let _lives = sleeper(&world);
    ended.signal(Signal::SIGTERM);
    ended.wait().exits(143);
    let out_of_bounds = "Instance index out of bounds";
    for (words, text) in [
        (&[][..], "Missing op for 'fim-instance' (<exec|list>"),
        (&["nonsense"], "nonsense"),
        (&["exec"], "Missing 'id' argument for 'fim-instance'"),
        (&["exec", "1"], "Missing 'cmd' argument for 'fim-instance'"),
        (&["exec", "-1", "true"], "Id argument must be a digit"),
        (&["exec", "x", "true"], "Id argument must be a digit"),
        (&["exec", "", "true"], "Id argument must be a digit"),
        (&["exec", "0", "true"], out_of_bounds),
        (&["exec", "7", "true"], out_of_bounds),
        (&["exec", "99999999999999999999999999999", "true"], out_of_bounds),
        (&["stop", "7"], out_of_bounds),
        (&["kill", "0"], out_of_bounds),
        (&["wait", "0"], out_of_bounds),
        (&["logs", "0"], out_of_bounds),
        (&["logs", "1"], "no log"),
        (&["kill", "1", "NONSENSE"], "Unknown signal 'NONSENSE'"),
        (&["kill", "1", "TERM", "x"], "Trailing arguments for fim-instance: ['x',]"),
        (&["stop", "1", "--timeout"], "--timeout takes whole seconds"),
        (&["stop", "1", "x"], "Trailing arguments for fim-instance: ['x',]"),
        (&["wait", "1", "x"], "Trailing arguments for fim-instance: ['x',]"),
        (&["list", "hello", "world"], "Trailing arguments for fim-instance: ['hello','world',]"),
        (&["stats", "x"], "Trailing arguments for fim-instance: ['x',]"),
    ] {
        world.app(&["fim-instance"]).args(words).fails_naming(&[text]);
    }
    assert_eq!(ids(&world, 1), [1]);
}

#[test]
fn operations_are_matched_in_any_case() {
    let world = World::new();
    let _lives = sleeper(&world);
    assert!(world.app(&["fim-instance", "LIST"]).prints().starts_with("0:"));
    assert_eq!(world.app(&["fim-instance", "Exec", "0", "echo", "x"]).prints(), "x");
}

#[test]
fn kill_sends_signals_by_name_and_number() {
    let world = World::new();
    let script = "trap 'echo got USR1' USR1; trap 'echo got HUP' HUP; echo ready; while :; do read line; done";
    let mut running = world.sh(script).spawn();
    running.expect("ready");
    for (signal, name) in [("USR1", "USR1"), ("sigusr1", "USR1"), ("10", "USR1"), ("SIGHUP", "HUP"), ("1", "HUP")] {
        world.app(&["fim-instance", "kill", "0", signal]).run().succeeds().quietly();
        running.say("turn\n");
        running.expect(&format!("got {name}"));
    }
    world.app(&["fim-instance", "kill", "0"]).run().succeeds().quietly();
    running.wait().exits(143).quietly();
}

#[test]
fn killing_the_command_ends_the_start_with_its_code() {
    let world = World::new();
    let running = sleeper(&world);
    world.app(&["fim-instance", "kill", "0", "KILL"]).run().succeeds().quietly();
    running.wait().exits(137).quietly();
}

#[test]
fn stop_returns_when_the_instance_has_ended() {
    let world = World::new();
    let running = sleeper(&world);
    world.app(&["fim-instance", "stop", "0"]).run().succeeds().quietly();
    assert_eq!(list(&world), "");
    running.wait().exits(143).quietly();
}

#[test]
fn stop_kills_what_does_not_end_in_time() {
    let world = World::new();
    let mut running = world.sh("trap '' TERM; echo ready; exec sleep 1000").spawn();
    running.expect("ready");
    world.app(&["fim-instance", "stop", "0", "--timeout", "0"]).run().succeeds().quietly();
    running.wait().exits(137).quietly();
}

#[test]
fn stop_ends_a_command_that_is_stopped() {
    let world = World::new();
    let running = sleeper(&world);
    running.signal(Signal::SIGTSTP);
    running.wait_for_state(nix::sys::wait::WaitPidFlag::WSTOPPED);
    world.app(&["fim-instance", "stop", "0"]).run().succeeds().quietly();
    running.wait().exits(143).quietly();
}

#[test]
fn wait_returns_the_exit_code_of_the_command() {
    let world = World::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let mut running = world.sh(&format!("echo ready; read line; {script}")).spawn();
        running.expect("ready");
        let id = ids(&world, 1)[0].to_string();
        // Several may wait. The first word of each on its standard error would be a failure.
        let waiters: Vec<Running> = (0..3).map(|_| world.app(&["fim-instance", "wait", &id]).spawn()).collect();
        running.say("go\n");
        running.wait().exits(code);
        for waiter in waiters {
            let outcome = waiter.wait();
            // One that began after the end of the session cannot know.
            if outcome.status.code() != Some(code) {
                outcome.exits(125).complains_of(&["No instances are running"]);
            }
        }
        world.assert_nothing_left();
    }
}

#[test]
fn wait_says_when_the_code_cannot_be_known() {
    let world = World::new();
    let running = sleeper(&world);
    let _keeps_the_session = sleeper(&world);
    let waiter = world.app(&["fim-instance", "wait", "0"]).spawn();
    harness::process::wait_for_poll(waiter.pid());
    running.signal(Signal::SIGKILL);
    waiter.wait().exits(125).complains_of(&["cannot be known"]);
    running.wait().dies_of(Signal::SIGKILL);
}

#[test]
fn the_table_shows_what_runs() {
    let world = World::new();
    let running = sleeper(&world);
    let table = world.app(&["fim-instance", "stats"]).prints();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "USER", "UPTIME", "CPU%", "MEM", "COMMAND"]);
    assert_eq!(lines[1][..3], ["0", &running.pid().to_string(), "exec"]);
    assert!(table.ends_with("sh -c echo ready; exec sleep 1000"), "{table}");
    let json = world.app(&["fim-instance", "stats", "--json"]).prints();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json[0]["cpu_percent"].is_number() && json[0]["memory_bytes"].is_u64(), "{json}");
}

#[test]
fn the_table_on_a_terminal_is_renewed_until_q_and_leaves_the_terminal_as_it_was() {
    let world = World::new();
    let _running = sleeper(&world);
    let mut terminal = Terminal::open(&world);
    let before = terminal.settings();
    for end in ["q", "\x03"] {
        terminal.enter("./app.flatimage fim-instance stats");
        for _ in 0..2 {
            terminal.expect("COMMAND");
            terminal.expect("exec sleep 1000");
        }
        terminal.press(end);
        terminal.prompt();
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn sessions_of_other_images_and_data_directories_do_not_meet() {
    let (world, other) = (World::new(), World::new());
    let _one = sleeper(&world);
    let _other = sleeper(&other);
    let elsewhere = |words: &[&str]| world.app(words).env("FIM_DIR_DATA", world.path("elsewhere"));
    let mut third = elsewhere(&["fim-exec", "sh", "-c", "echo ready; exec sleep 1000"]).spawn();
    third.expect("ready");
    assert_eq!(ids(&world, 1), [0]);
    assert_eq!(ids(&other, 1), [0]);
    let shown = elsewhere(&["fim-instance", "list"]).prints();
    assert_eq!(shown, format!("0:{}", third.pid()));
    elsewhere(&["fim-instance", "stop", "0"]).run().succeeds().quietly();
    third.wait().exits(143);
}

#[test]
fn root_and_user_are_what_the_instance_is() {
    let world = World::new();
    let mut root = world.root_sh("echo ready; exec sleep 1000").spawn();
    root.expect("ready");
    let of = |id: &str, words: &[&str]| world.app(&["fim-instance", "exec", id]).args(words).prints();
    assert_eq!(of("0", &["sh", "-c", "echo $(id -u) $USER $HOME"]), "0 root /root");
    let _user = sleeper(&world);
    assert_eq!(of("1", &["id", "-u"]), uid().to_string());
    if is_root() {
        assert_eq!(of("1", &["sh", "-c", "echo $HOME"]), "/root");
    }
}
