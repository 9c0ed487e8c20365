//! The portal: host commands from inside, for allowed names only, with everything of the caller but its environment.

mod harness;

use std::fs;
use std::path::PathBuf;

use harness::process::wait_readable;
use harness::world::script;
use harness::{Running, Terminal, TestCommand, World, need};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runtime::sys::process::pidfd_open;

/// A world whose image may run these host commands.
#[track_caller]
fn granted(names: &str) -> World {
    let world = World::new();
    world.app(&["fim-portal", "allow", names]).run().succeeds();
    world
}

/// An instance that waits for its stdin.
fn waiting(world: &World) -> Running {
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    running
}

/// A shell command on the host, asked for from inside.
fn host(world: &World, script: &str) -> TestCommand {
    world.exec(&["fim_portal", "sh", "-c", script])
}

#[test]
fn by_default_every_command_fails_naming_the_remedy() {
    let world = World::new();
    assert_eq!(world.app(&["fim-portal", "list"]).prints(), "");
    for command in [world.exec(&["fim_portal", "echo", "x"]), world.root(&["fim_portal", "echo", "x"])] {
        command.fails_naming(&["echo may not run on the host", "fim-portal allow echo"]).with_stdout("");
    }
    world.exec(&["fim_portal"]).run().exits(1).complains_of(&["name a command"]);
    // What is always there is no pipe and no program of ours.
    assert_eq!(world.sh("ls /run/fim; ls /run/fim/bin").prints().lines().last(), Some("fim_portal"));
    world.sh("test -e /run/fim/portal").run().exits(1);
    assert!(!world.upper("run/fim").exists(), "the writable layer holds what is the instance's own");
}

#[test]
fn other_names_than_the_allowed_are_refused() {
    let world = granted("echo");
    assert_eq!(world.exec(&["fim_portal", "echo", "a b", ""]).prints(), "a b ");
    assert_eq!(world.root(&["fim_portal", "echo", "root"]).prints(), "root");
    for name in ["sh", "ech", "echo2", "*", ""] {
        world.exec(&["fim_portal", name]).fails_naming(&["may not run on the host", "fim-portal allow"]);
    }
    for path in ["/bin/echo", "./echo", "../bin/echo"] {
        world.exec(&["fim_portal", path]).fails_naming(&["without its directory"]);
    }
    world.exec(&["fim_portal"]).run().exits(1).complains_of(&["name a command"]);
}

#[test]
fn the_list_is_kept_in_the_image() {
    let world = World::new();
    let list = || world.app(&["fim-portal", "list"]).prints();
    world.app(&["fim-portal", "allow", "ls,cat", "awk"]).run().succeeds().quietly().with_stdout("");
    assert_eq!(list(), "awk\ncat\nls");
    world.app(&["fim-portal", "ALLOW", "ls"]).run().succeeds().quietly();
    assert_eq!(list(), "awk\ncat\nls");
    let json: serde_json::Value = serde_json::from_str(&world.app(&["fim-portal", "list", "--json"]).prints()).unwrap();
    assert_eq!(json, serde_json::json!(["awk", "cat", "ls"]));
    world.app(&["fim-portal", "del", "cat,awk"]).run().succeeds().quietly();
    assert_eq!(list(), "ls");
    world.app(&["fim-portal", "del", "ls,cat"]).fails_naming(&["'cat' is not on the portal's list", "on it: ls"]);
    assert_eq!(list(), "ls");
    world.app(&["fim-portal", "clear"]).run().succeeds().quietly();
    assert_eq!(list(), "");
    world.exec(&["fim_portal", "ls"]).fails_naming(&["may not run"]);
}

#[test]
fn everything_can_be_allowed_but_not_silently() {
    let world = World::new();
    let outcome = world.app(&["fim-portal", "allow", "*"]).run().succeeds();
    outcome.complains_of(&["fim: warning: '*'", "every command"]);
    assert_eq!(world.app(&["fim-portal", "list"]).prints(), "*");
    assert_eq!(world.exec(&["fim_portal", "echo", "x"]).prints(), "x");
    world.exec(&["fim_portal", "/bin/echo"]).fails_naming(&["without its directory"]);
}

#[test]
fn wrong_words_change_nothing() {
    let world = granted("ls");
    let long = "x".repeat(256);
    for (words, text) in [
        (&[][..], "Missing op for fim-portal (allow,clear,del,list)"),
        (&["grant", "x"], "Invalid portal operation 'grant'"),
        (&["allow"], "No arguments for 'ALLOW' command"),
        (&["del"], "No arguments for 'DEL' command"),
        (&["allow", ""], "it is empty"),
        (&["allow", "cat,,awk"], "it is empty"),
        (&["allow", "cat", "/bin/sh"], "it has a slash"),
        (&["allow", ".."], "it is a directory"),
        (&["allow", "--json"], "it begins with a dash"),
        (&["allow", "a b"], "it holds a blank"),
        (&["allow", "a\nb"], "Invalid portal name 'a\\nb'"),
        (&["allow", &long], "longer than 255 bytes"),
        (&["clear", "ls"], "Trailing arguments for fim-portal: ['ls',]"),
        (&["list", "ls"], "Trailing arguments for fim-portal: ['ls',]"),
    ] {
        world.app(&["fim-portal"]).args(words).fails_naming(&[text]);
    }
    assert_eq!(world.app(&["fim-portal", "list"]).prints(), "ls");
}

#[test]
fn streams_are_the_callers_and_every_byte_arrives() {
    let world = granted("sh,cat");
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let outcome = world.exec(&["fim_portal", "cat"]).input(bytes.clone()).run().succeeds().quietly();
    assert!(outcome.stdout == bytes, "{} of {} bytes, or others", outcome.stdout.len(), bytes.len());
    let outcome = host(&world, "echo out; echo err >&2").run().succeeds().with_stdout("out\n");
    assert_eq!(outcome.stderr(), "err\n");
    // A command that reads nothing, a caller that has nothing, and one whose reader has gone.
    assert_eq!(host(&world, "exec 0<&-; echo closed").input(vec![0; 1 << 20]).prints(), "closed");
    assert_eq!(world.sh("fim_portal cat < /dev/null; echo $?").prints(), "0");
    assert_eq!(world.sh("fim_portal cat < /bin/busybox | cmp - /bin/busybox && echo same").prints(), "same");
    assert_eq!(world.sh("fim_portal sh -c 'while echo x; do :; done' 2>/dev/null | head -n 1").prints(), "x");
    // One file for both keeps its order.
    let both = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo $i >&2; done";
    let merged = world.sh(&format!("fim_portal sh -c '{both}' 2>&1")).prints();
    assert_eq!(merged, "1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9".replace(' ', "\n"));
}

#[test]
fn exit_codes_and_deaths_are_the_commands() {
    let world = granted("sh");
    let keeper = waiting(&world);
    for code in [0, 1, 2, 77, 124, 125, 126, 127, 128, 254, 255] {
        host(&world, &format!("exit {code}")).run().exits(code).quietly();
    }
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        host(&world, &format!("kill -{signal} $$")).run().exits(code);
    }
    keeper.wait().succeeds();
}

#[test]
fn a_missing_program_keeps_its_text_and_code() {
    let world = granted("no-such-program,plain,lost");
    world
        .exec(&["fim_portal", "no-such-program"])
        .run()
        .exits(1)
        .complains_of(&["fim: no-such-program: ", "program not found"]);
    // What cannot be executed is never handed to a shell.
    fs::create_dir(world.path("bin")).unwrap();
    script(&world.path("bin/plain"), "echo a shell read this\n");
    fs::write(world.path("bin/lost"), "").unwrap();
    for name in ["plain", "lost"] {
        world.exec(&["fim_portal", name]).env("PATH", world.path("bin")).run().exits(126).with_stdout("");
    }
}

#[test]
fn signals_reach_the_command() {
    let world = granted("sh");
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM"), (Signal::SIGUSR1, "USR1")] {
        let mut running = host(&world, &format!("trap 'exit 33' {name}; echo ready; while :; do read x; done")).spawn();
        running.expect("ready");
        running.signal(signal);
        running.wait().exits(33);
    }
    let mut running = host(&world, "echo ready; exec sleep 1000").spawn();
    running.expect("ready");
    running.signal(Signal::SIGTERM);
    running.wait().exits(143);
}

/// The process of the host that printed its number.
fn printed_process(running: &mut Running, file: &PathBuf) -> (Pid, std::os::fd::OwnedFd) {
    running.expect("ready");
    let pid = Pid::from_raw(fs::read_to_string(file).unwrap().trim().parse().unwrap());
    (pid, pidfd_open(pid).unwrap())
}

#[test]
fn a_command_ends_with_its_caller() {
    let world = granted("sh");
    let file = world.path("pid");
    let script = format!("echo $$ > {}; trap '' HUP; echo ready; while :; do sleep 1000; done", file.display());
    let mut running = host(&world, &script).spawn();
    let (pid, process) = printed_process(&mut running, &file);
    running.signal(Signal::SIGKILL);
    wait_readable(&process, &format!("the end of the host command {pid}"));
    drop(running);
    world.assert_nothing_left();
}

#[test]
fn the_environment_is_the_users_and_the_directory_is_home() {
    let world = granted("env,pwd,sh");
    let printed = world
        .sh("GUEST=inside LD_LIBRARY_PATH=/x FIM_Y=1 PATH=/run/fim/bin fim_portal env")
        .env("LD_PRELOAD_NOT", "0")
        .env("FIM_DEBUG", "0")
        .env("MINE", "two  words")
        .prints();
    let lines: Vec<&str> = printed.lines().collect();
    for line in ["MINE=two  words", &format!("HOME={}", world.path("home").display())] {
        assert!(lines.contains(&line), "{line} is missing in\n{printed}");
    }
    for word in ["GUEST=", "LD_", "FIM_", "/run/fim/bin"] {
        assert!(!printed.contains(word), "{word} is in\n{printed}");
    }
    let home = world.path("home").canonicalize().unwrap();
    assert_eq!(world.exec(&["fim_portal", "pwd"]).prints(), home.to_str().unwrap());
    // The instance's own starter counts, not who began the session.
    let keeper = waiting(&world);
    let own = world.exec(&["fim_portal", "sh", "-c", "echo $MINE"]).env("MINE", "second");
    assert_eq!(own.prints(), "second");
    keeper.wait().succeeds();
    // Nothing of the daemon's is inherited: the last one is the directory that ls itself reads.
    let world = granted("ls");
    assert_eq!(world.exec(&["fim_portal", "ls", "/proc/self/fd"]).prints(), "0\n1\n2\n3");
}

#[test]
fn long_command_lines_arrive() {
    let world = granted("sh");
    let words: Vec<String> = (0..1000).map(|_| "x".repeat(1000)).collect();
    let outcome = world.exec(&["fim_portal", "sh", "-c", "echo $# ${#1000}", "sh"]).args(&words).prints();
    assert_eq!(outcome, "1000 1000");
}

#[test]
fn many_instances_and_commands_at_once_keep_apart() {
    let world = granted("cat");
    let keeper = waiting(&world);
    let running: Vec<(usize, Running)> = (0..12)
        .map(|number| {
            let script = format!(
                "for i in 1 2 3 4 5 6; do echo {number}-$i | fim_portal cat > /tmp/out-$i & done; wait; cat /tmp/out-*"
            );
            (number, world.sh(&script).spawn())
        })
        .collect();
    for (number, running) in running {
        let expected: String = (1..=6).map(|i| format!("{number}-{i}\n")).collect();
        running.wait().succeeds().quietly().with_stdout(&expected);
    }
    assert_eq!(world.app(&["fim-instance", "exec", "0", "fim_portal", "cat"]).input("exec\n").prints(), "exec");
    keeper.wait().succeeds();
    world.assert_nothing_left();
}

#[test]
fn xdg_open_works_by_its_own_name() {
    let world = granted("xdg-open");
    fs::create_dir(world.path("bin")).unwrap();
    script(&world.path("bin/xdg-open"), "#!/bin/sh\nprintf '<%s>' \"$@\"\n");
    let path = world.path("bin").to_str().unwrap().to_owned();
    let opened = world.exec(&["xdg-open", "https://example.org/a b", "--x"]).env("PATH", &path).prints();
    assert_eq!(opened, "<https://example.org/a b><--x>");
    // Without the grant it is no command, and an image's own one goes first.
    world.app(&["fim-portal", "del", "xdg-open"]).run().succeeds();
    world.exec(&["xdg-open", "x"]).run().exits(127);
    let own = World::with_tree(|tree| script(&tree.join("bin/xdg-open"), "#!/bin/sh\necho own\n"), &[]);
    own.app(&["fim-portal", "allow", "xdg-open"]).run().succeeds();
    assert_eq!(own.exec(&["xdg-open"]).prints(), "own");
}

#[test]
fn a_terminal_is_a_terminal_on_the_host_too() {
    let world = granted("tty,stty,sh,cat");
    need("stty");
    let mut terminal = Terminal::open(&world);
    assert_eq!(terminal.run("$IMAGE fim-exec fim_portal stty size"), "24 80");
    assert!(terminal.run("$IMAGE fim-exec fim_portal tty").starts_with("/dev/pts/"));
    let size =
        "$IMAGE fim-exec fim_portal sh -c 'trap \"stty size; exit 5\" WINCH; echo up; while :; do sleep 1; done'";
    terminal.enter(size);
    terminal.expect("up\n");
    terminal.resize(30, 100);
    terminal.expect("30 100");
    terminal.prompt();
    assert_eq!(terminal.run("echo $?"), "5");
    terminal.enter("$IMAGE fim-exec fim_portal cat");
    terminal.enter("typed");
    terminal.expect("typed");
    terminal.press("\x03");
    terminal.prompt();
    assert_eq!(terminal.run("echo $?"), "130");
}

#[test]
fn without_a_grant_no_pipe_leads_out() {
    let world = World::new();
    // Some other instance of the same session is being asked things, so that pipes of the host do exist.
    let keeper = waiting(&world);
    let find =
        "find / -type p 2>/dev/null; for f in /proc/[0-9]*/fd/*; do test -p $f && readlink $f; done | grep -v '^pipe:'";
    for command in [world.sh(find), world.root_sh(find)] {
        command.run().with_stdout("");
    }
    for command in [world.exec(&["probe", "descriptors"]), world.root(&["probe", "descriptors"])] {
        assert_eq!(command.prints().trim(), "0 1 2");
    }
    // The monitor of a request from outside is as closed as PID 1.
    let look = "for d in /proc/[0-9]*; do test $(cat $d/comm) = fim-exec || continue; echo looked
            for f in $d/fd/* $d/cwd $d/exe $d/root; do readlink $f; cat $f; ls $f/; done; cat $d/environ $d/maps $d/mem
        done 2>/dev/null";
    assert_eq!(world.app(&["fim-instance", "exec", "0", "sh", "-c", look]).run().text(), "looked");
    // Its monitor goes a moment after its answer.
    keeper.tree().0.iter().filter(|member| member.name == "fim-exec").for_each(|member| member.wait_gone());
    let attack = "for d in /proc/[0-9]*; do test $(cat $d/comm) = fim-exec && probe examine ${d#/proc/}; done; true";
    let attacked = world.app(&["fim-instance", "exec", "0", "sh", "-c", attack]).prints();
    assert_eq!(attacked, "ptrace=EPERM\nprocess_vm_readv=EPERM\npidfd_getfd=EPERM\nsetns=EPERM");
    keeper.wait().succeeds();
}

#[test]
fn with_a_grant_nothing_can_be_planted() {
    let world = granted("echo");
    let attempts = "cd /run/fim/portal; set -- requests/*; d=$1
        mkdir x; mkdir requests/x; touch x $d/x; ln -s /etc $d/y; ln -s / requests/z; mkfifo $d/p; rm -rf $d portal.fifo
        mv $d requests/moved; ln $d/stdin $d/hard; chmod 777 . $d $d/stdin; echo x > $d/pending; mount -o remount,rw .";
    for command in [world.sh(attempts), world.root_sh(attempts)] {
        let outcome = command.run();
        assert!(outcome.stderr().lines().count() >= 12, "{outcome:?}");
    }
    let show = "cd /run/fim/portal; find . ! -type p ! -type d ! -name pending; find . -perm /077 ! -name pending; find . -type d | wc -l";
    for script in [show.to_owned(), format!("({attempts}) 2>/dev/null; {show}")] {
        // The portal itself, the requests, and the free places.
        assert_eq!(world.sh(&script).prints(), "6");
        assert_eq!(world.root_sh(&script).prints(), "6");
    }
    assert_eq!(world.exec(&["fim_portal", "echo", "x"]).prints(), "x");
}

/// Prints the doorbell for the place in `$d`, for a shell with printf.
const RING: &str = r#"ring() { printf 'FIMD\001\000\003\000\000\000\000\000\000\000\000\000'"$(basename $1 | sed 's/../\\x&/g')"; }
"#;

#[test]
fn garbage_disturbs_nobody() {
    let world = granted("echo,cat");
    let other = waiting(&world);
    let daemon = other.tree().named("fim-host").pid;
    let mut noise = b"garbage FIMD".to_vec();
    let mut state = 7_u64;
    for number in 0..10_000_u32 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut doorbell = *b"FIMD\x01\0\x03\0\0\0\0\0\0\0\0\0................";
        doorbell[16..24].copy_from_slice(&state.to_le_bytes());
        doorbell[4] = if number % 10 == 0 { 9 } else { 1 };
        doorbell[6] = (number % 7) as u8;
        noise.extend_from_slice(&doorbell);
    }
    noise.extend(std::iter::repeat_n(0xff, 100_000));
    world.sh("cat > /run/fim/portal/portal.fifo").input(noise).run().succeeds().quietly();
    // Places that are rung without anybody there, again and again.
    let empty = format!(
        "{RING} for i in 1 2 3 4 5 6 7 8 9 10; do for d in /run/fim/portal/requests/*; do ring $d; ring $d; done > /run/fim/portal/portal.fifo; done; fim_portal echo still"
    );
    assert_eq!(world.sh(&empty).prints(), "still");
    // Requests made by hand: too long, cut, of another version, for something else. Each is answered, none is run.
    for (bytes, answer) in [
        (r"\377\377\377\377", "cannot read the request: the message is longer than 8388608 bytes"),
        (r"\003\000\000\000\001\000x", "the message cannot be understood"),
        (r"\003\000\000\000\011\000x", "the message has version 9"),
        (r"\000\000\000\000", "the message cannot be understood: it is empty"),
        (&format!(r"\044\000\000\000\001\000\001{}", r"\000".repeat(33)), " may not run on the host"),
    ] {
        // Behind the frame that accepts the request and the head of the one that refuses it.
        let script = format!(
            "{RING} set -- /run/fim/portal/requests/*; d=$1
            exec 3<>$d/stdin 4<>$d/stdout 5<>$d/stderr 6<>$d/control 7<>$d/result
            ring $d > /run/fim/portal/portal.fifo; printf '{bytes}' >&6
            dd bs=1 count=24 <&7 >/dev/null 2>&1; dd bs=1 count={} <&7 2>/dev/null",
            answer.len()
        );
        assert_eq!(world.sh(&script).prints(), answer, "{bytes}");
    }
    assert_eq!(world.sh("fim_portal echo after").prints(), "after");
    assert_eq!(other.tree().named("fim-host").pid, daemon, "the host daemon was replaced");
    other.wait().succeeds();
    world.assert_nothing_left();
}

#[test]
fn a_guest_that_takes_all_places_harms_itself_only() {
    let world = granted("sh,echo");
    let mut greedy = world
        .sh("mkfifo /tmp/up; i=0; while [ $i -lt 32 ]; do
                fim_portal sh -c 'echo up; exec sleep 1000' > /tmp/up & read x < /tmp/up; i=$((i + 1))
             done; fim_portal echo one too many; echo code $?; cat")
        .spawn();
    greedy.expect("code 125");
    assert_eq!(world.exec(&["fim_portal", "echo", "others work"]).prints(), "others work");
    greedy.wait().complains_of(&["32 host commands of this instance run already"]);
    world.assert_nothing_left();
}

#[test]
fn a_killed_host_daemon_is_replaced_by_the_next_start() {
    let world = granted("echo,cat");
    let mut first = world.sh("echo ready; while read line; do fim_portal echo $line; echo code $?; done").spawn();
    first.expect("ready");
    first.say("one\n");
    first.expect("one\ncode 0");
    // A command that runs is not disturbed.
    let mut running = world.exec(&["fim_portal", "cat"]).spawn();
    running.say("a\n");
    running.expect("a\n");
    let tree = first.tree();
    tree.named("fim-host").kill();
    tree.named("fim-host").wait_gone();
    running.say("b\n");
    running.expect("b\n");
    first.say("two\n");
    first.expect("code 125");
    running.wait().succeeds();
    assert_eq!(world.exec(&["fim_portal", "echo", "next"]).prints(), "next");
    first.say("three\n");
    first.expect("three\ncode 0");
    first.wait().succeeds().complains_of(&["the host daemon of this session was killed"]);
    world.assert_nothing_left();
}
