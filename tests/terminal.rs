//! A user before a terminal: the command has a terminal of the instance that behaves as the user's own.

mod harness;

use harness::{Terminal, World};

#[test]
fn the_command_has_a_terminal_of_the_instance() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    assert_eq!(terminal.run("$IMAGE fim-exec tty"), "/dev/pts/0");
    assert_eq!(terminal.run("$IMAGE fim-root tty"), "/dev/pts/0");
    assert_eq!(terminal.run("$IMAGE fim-exec sh -c 'ls -1 /dev/pts; echo hi >/dev/tty'"), "0\nptmx\nhi");
}

#[test]
fn the_window_size_is_the_users_and_follows_it() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    assert_eq!(terminal.run("$IMAGE fim-exec stty size"), "24 80");
    // The shell takes the signal between two commands.
    terminal.enter("$IMAGE fim-exec sh -c 'trap \"stty size; exit\" WINCH; echo u\"\"p; while :; do sleep 1; done'");
    terminal.expect("up");
    terminal.resize(33, 101);
    terminal.expect("33 101");
    terminal.prompt();
}

#[test]
fn the_interrupt_key_interrupts_only_the_command() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec sh -c 'echo u\"\"p; exec cat'; echo code=$?");
    terminal.expect("up");
    terminal.press("\x03");
    terminal.expect("code=130");
    terminal.prompt();
    // One that catches it goes on.
    terminal.enter("$IMAGE fim-exec probe signals; echo code=$?");
    terminal.expect("ready");
    for (key, number) in [("\x03", 2), ("\x1c", 3), ("\x1a", 20)] {
        terminal.press(key);
        terminal.expect(&format!("got {number}."));
    }
    let start = terminal.tree();
    nix::sys::signal::kill(start.0[1].pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    terminal.expect("code=9");
    terminal.prompt();
}

#[test]
fn the_suspend_key_gives_the_shell_back_and_fg_resumes() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let before = terminal.settings();
    terminal.enter("$IMAGE fim-exec sh -c 'echo u\"\"p; cat; exit 5'");
    terminal.expect("up");
    terminal.press("one\r");
    terminal.expect("one\none\n");
    terminal.press("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    assert_eq!(terminal.settings(), before, "the suspended program keeps the terminal");
    assert!(terminal.run("jobs").contains("Stopped"));
    terminal.enter("fg; echo code=$?");
    terminal.press("two\r");
    terminal.expect("two\ntwo\n");
    terminal.press("\x04");
    terminal.expect("code=5");
    terminal.prompt();
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_full_screen_program_works() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let before = terminal.settings();
    terminal.enter("$IMAGE fim-root vi /etc/note");
    terminal.expect("note");
    terminal.press("ifirst line\rsecond\x1b");
    // An escape that other keys follow at once would be taken for a function key.
    terminal.expect("- /etc/note [Modified]");
    terminal.press(":wq\r");
    terminal.prompt();
    assert_eq!(std::fs::read_to_string(world.upper("etc/note")).unwrap(), "first line\nsecond\n");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn raw_settings_of_the_command_are_its_own() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let before = terminal.settings();
    terminal.enter("$IMAGE fim-exec sh -c 'stty raw -echo; echo u\"\"p; head -c 3 | hexdump -C; exit 2'; echo code=$?");
    terminal.expect("up");
    // Keys that are signals and line editing otherwise.
    terminal.press("\x03\x04\x1a");
    terminal.expect("03 04 1a");
    terminal.expect("code=2");
    terminal.prompt();
    assert_eq!(terminal.settings(), before, "what the command left behind must not reach the user's terminal");
}

#[test]
fn an_interactive_shell_has_job_control() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec env PS1='inner> ' sh -i");
    terminal.expect("inner> ");
    terminal.enter("sh -c 'echo u\"\"p; exec cat'");
    terminal.expect("up");
    terminal.press("\x1a");
    terminal.expect("Stopped");
    terminal.expect("inner> ");
    terminal.enter("jobs");
    terminal.expect("Stopped");
    terminal.expect("inner> ");
    terminal.enter("fg");
    // The shell has left its line editor when it names the job; keys before that would be the shell's.
    terminal.expect("exec cat");
    terminal.enter("word");
    terminal.expect("word");
    terminal.press("\x03");
    terminal.expect("inner> ");
    terminal.enter("exit 3");
    terminal.prompt();
    assert_eq!(terminal.run("echo code=$?"), "code=3");
}

#[test]
fn the_boot_command_is_an_interactive_shell() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.enter("PS1='in''ner> ' $IMAGE");
    terminal.expect("inner> ");
    terminal.enter("tty; exit");
    terminal.expect("/dev/pts/0");
    terminal.prompt();
}

#[test]
fn a_pipeline_writes_to_the_terminal_in_lines() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    assert_eq!(terminal.run("$IMAGE fim-exec ls /usr/share/dir | cat"), "deep\none\ntwo");
    assert_eq!(terminal.run("echo typed | $IMAGE fim-exec cat"), "typed");
    assert_eq!(terminal.run("$IMAGE fim-exec ls /none 2>&1 >/dev/null | wc -l"), "1");
}

#[test]
fn a_command_at_the_head_of_a_pipeline_reads_the_terminal() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec cat | tee copy");
    terminal.press("typed line\r");
    terminal.expect("typed line\ntyped line\n");
    terminal.press("\x04");
    terminal.prompt();
    assert_eq!(std::fs::read_to_string(world.path("copy")).unwrap(), "typed line\n");
}

#[test]
fn a_background_start_runs_on() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let before = terminal.settings();
    terminal.run("mkfifo pipe");
    // Neither is it stopped for the terminal, nor does it take keys or settings away from the shell.
    terminal.run("$IMAGE fim-exec sh -c 'echo b\"\"g; exec sleep 1000' > pipe & read -r line < pipe; echo $line");
    assert_eq!(terminal.run("jobs -r | wc -l"), "1");
    assert_eq!(terminal.settings(), before);
    assert_eq!(terminal.run("kill %1; wait %1 2>/dev/null; echo code=$?").lines().last().unwrap(), "code=143");
}

#[test]
fn a_background_start_without_redirections_runs_on() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec sh -c 'echo b\"\"g; exec sleep 1000' &");
    terminal.expect("bg");
    assert_eq!(terminal.run("jobs -r | wc -l").lines().last().unwrap(), "1");
    terminal.enter("kill %1; wait %1; echo code=$?");
    terminal.expect("code=143");
}

#[test]
fn a_background_reader_is_stopped_until_it_is_brought_forward() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec cat & wait %1; jobs");
    terminal.expect("Stopped");
    terminal.prompt();
    terminal.enter("fg");
    terminal.press("word\r");
    terminal.expect("word\nword\n");
    terminal.press("\x04");
    terminal.prompt();
}

#[test]
fn a_mebibyte_of_output_is_complete_at_the_end() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    // 16384 lines of 63 characters and a newline.
    let shown = terminal.run("$IMAGE fim-exec sh -c 'yes $(printf %063d 7) | head -n 16384'");
    assert_eq!(shown.lines().count(), 16384);
    assert!(shown.lines().all(|line| line.len() == 63 && line.ends_with("07")));
}

#[test]
fn the_end_of_the_terminal_ends_the_command() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec sh -c 'echo u\"\"p; exec cat'");
    terminal.expect("up");
    let tree = terminal.tree();
    drop(terminal);
    tree.wait_gone();
    world.assert_nothing_left();
}

#[test]
fn a_command_with_streams_elsewhere_still_has_the_terminal() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    // As a program that asks for a password does.
    terminal.enter(
        "echo data | $IMAGE fim-exec sh -c 'cat >/dev/null; echo as\"\"k >/dev/tty; echo got $(head -n 1 </dev/tty)'",
    );
    terminal.expect("ask");
    terminal.press("secret\r");
    terminal.expect("got secret");
    terminal.prompt();
}

#[test]
fn line_ends_are_made_once() {
    let world = World::new();
    let mut terminal = Terminal::open_with_carriage_returns(&world);
    let mut shows = |line: &str, text: &str| {
        let shown = terminal.run(line).trim_matches(['\r', '\n']).to_owned();
        assert_eq!(shown, text, "{line}");
    };
    shows("$IMAGE fim-exec printf 'a\\nb\\n'", "a\r\nb");
    // The user's terminal stays as it is: what the instance's did is undone.
    shows("echo typed | $IMAGE fim-exec cat - /etc/release", "typed\r\nsmall");
    shows("$IMAGE fim-exec sh -c 'echo e >&2; echo f >&2' | cat", "e\r\nf");
    shows("echo x | $IMAGE fim-exec sh -c 'stty sane </dev/tty; printf \"a\\rb\\r\\nc\\r\"; cat'", "a\rb\r\r\nc\rx");
    shows("($IMAGE fim-exec printf 'a\\nb\\n' & wait)", "a\r\nb");
}

#[test]
fn a_program_that_only_polls_for_keys_behind_a_pipe_gets_them() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let before = terminal.settings();
    for line in ["echo data | $IMAGE fim-exec probe keys", "$IMAGE fim-exec probe keys | cat"] {
        terminal.enter(line);
        terminal.expect("ready");
        terminal.press("k");
        terminal.expect("key k");
        terminal.prompt();
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn a_program_that_polls_for_a_line_behind_a_pipe_gets_it() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    let before = terminal.settings();
    for line in ["echo data | $IMAGE fim-exec probe line", "$IMAGE fim-exec probe line | cat"] {
        terminal.enter(line);
        terminal.expect("ready");
        terminal.press("word\r");
        terminal.expect("line word");
        terminal.prompt();
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn what_a_pipeline_does_not_want_is_left_for_the_shell() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.run("mkfifo go");
    // It writes to the terminal by its general name, and reads none of it.
    terminal.enter("cat go | $IMAGE fim-exec sh -c 'exec 3>/dev/tty; echo u\"\"p >&3; cat; echo e\"\"nd >&3'");
    terminal.expect("up");
    terminal.press("echo later-$((1+1))\r");
    // Shown by the user's terminal as it comes, and by the command after that.
    terminal.expect("1))");
    std::fs::write(world.path("go"), "data\n").unwrap();
    terminal.expect("data\nend");
    terminal.expect("later-2");
}
