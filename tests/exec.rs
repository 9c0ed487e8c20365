//! `fim-exec`, `fim-root` and the boot command: arguments, environment, directory and exit code are the command's own.

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use harness::{World, gid, is_root, uid};

/// Prints every argument between angle brackets.
const SHOW: &str = "for word; do printf '<%s>' \"$word\"; done";

#[test]
fn arguments_arrive_as_they_were_given() {
    let world = World::new();
    let words = ["", " ", "a b", "line\nbreak", "-x", "--help", "--", "$HOME", "`id`", "*", "'\"", "\\", "ümläut", ""];
    let shown = words.map(|word| format!("<{word}>")).concat();
    assert_eq!(world.sh(SHOW).arg("sh").args(words).prints(), shown);
    assert_eq!(world.root_sh(SHOW).arg("sh").args(words).prints(), shown);
}

#[test]
fn arguments_need_not_be_text() {
    let world = World::new();
    let word = OsStr::from_bytes(b"\xff\xfe\x01");
    let outcome = world.exec(&["printf", "%s"]).arg(word).run().succeeds().quietly();
    assert_eq!(outcome.stdout, word.as_bytes());
}

#[test]
fn a_hundred_thousand_arguments_arrive() {
    let world = World::new();
    let words = (0..100_000).map(|number| (number % 10).to_string());
    assert_eq!(world.exec(&["probe", "count"]).args(words).prints(), "100000 100000");
}

#[test]
fn an_environment_of_one_and_a_half_mebibytes_arrives() {
    let world = World::new();
    let value = "x".repeat(100 * 1024);
    let command = (0..15)
        .fold(world.sh("env | grep '^BIG' | wc -c"), |command, number| command.env(&format!("BIG{number:02}"), &value));
    assert_eq!(command.prints(), (15 * ("BIG00=\n".len() + value.len())).to_string());
}

#[test]
fn every_exit_code_is_the_commands_own() {
    let world = World::new();
    // One session for all of them.
    let mut keeper = world.sh("echo ready; cat").spawn();
    keeper.expect("ready");
    for code in 0..=255 {
        world.exec(&["sh", "-c", "exit $0", &code.to_string()]).run().exits(code).quietly();
    }
    keeper.wait().succeeds();
}

#[test]
fn a_signal_that_ends_the_command_adds_128() {
    let world = World::new();
    // Hangup, interrupt, quit, abort, kill, segmentation fault, broken pipe, terminate, a real-time one.
    for signal in [1, 2, 3, 6, 9, 11, 13, 15, 40] {
        world.exec(&["probe", "raise", &signal.to_string()]).run().exits(128 + signal).quietly();
    }
    world.root_sh("kill -KILL $$").run().exits(137);
}

#[test]
fn a_missing_program_is_127() {
    let world = World::new();
    world.exec(&["no-such-program"]).run().exits(127).complains_of(&["no-such-program", "not found"]);
    world.exec(&["/no/such/program"]).run().exits(127).complains_of(&["/no/such/program", "no such file"]);
    world.exec(&["./nothing"]).run().exits(127);
    world.exec(&[""]).run().exits(127);
    world.root(&["no-such-program"]).run().exits(127);
}

#[test]
fn what_cannot_be_executed_is_126() {
    let world = World::new();
    world.exec(&["/usr/share/plain"]).run().exits(126).complains_of(&["/usr/share/plain", "permission denied"]);
    world.exec(&["/usr/share"]).run().exits(126).complains_of(&["is a directory"]);
    world.exec(&["lost"]).run().exits(126).complains_of(&["interpreter"]);
}

#[test]
fn a_script_without_an_interpreter_line_is_read_by_the_shell() {
    let world = World::new();
    assert_eq!(world.exec(&["no-interpreter-line", "a b"]).prints(), "script: a b");
}

#[test]
fn words_of_the_shell_work_with_arguments_intact() {
    let world = World::new();
    assert_eq!(world.exec(&["command", "-v", "probe"]).prints(), "/bin/probe");
    assert_eq!(world.exec(&["type", "$(touch /tmp/x)"]).run().exits(127).text(), "$(touch /tmp/x): not found");
}

#[test]
fn the_program_word_is_never_evaluated() {
    let world = World::new();
    world.exec(&["$(echo ls)"]).run().exits(127);
    world.exec(&["`echo ls`"]).run().exits(127);
    world.exec(&["ls; true"]).run().exits(127);
}

#[test]
fn the_working_directory_is_kept_where_the_guest_has_it() {
    let world = World::new();
    assert_eq!(world.exec(&["pwd"]).current_dir("/etc").prints(), "/etc");
    assert_eq!(world.sh("echo $PWD").current_dir("/etc").env("PWD", "/nonsense").prints(), "/etc");
    let home = if is_root() { "/root".to_owned() } else { world.path("home").display().to_string() };
    // The image has no /var.
    assert_eq!(world.exec(&["pwd"]).current_dir("/var").prints(), home);
    assert_eq!(world.root(&["pwd"]).current_dir("/var").prints(), "/root");
}

#[test]
fn without_a_home_that_can_be_entered_it_is_the_root() {
    let world = World::with_tree(|tree| fs::write(tree.join("root"), "no directory\n").unwrap(), &[]);
    assert_eq!(world.root(&["pwd"]).prints(), "/");
}

#[test]
fn the_environment_is_the_callers_without_what_would_reach_into_the_guest() {
    let world = World::new();
    let printed = world
        .exec(&["env"])
        .env("LD_PRELOAD", "/x.so")
        .env("LD_LIBRARY_PATH", "/x")
        .env("FIM_DIR_LAYERS", "/x")
        .env("EDITOR", "vi -x")
        .env("EMPTY", "")
        .env("TERM", "screen")
        .env("PATH", "/opt/mine:/usr/bin:/bin:/usr/sbin:/sbin")
        .prints();
    let has = |line: &str| assert!(printed.lines().any(|other| other == line), "no {line:?} in\n{printed}");
    has("EDITOR=vi -x");
    has("EMPTY=");
    has("TERM=screen");
    has("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/mine:/run/fim/bin");
    has(&format!("XDG_RUNTIME_DIR=/run/user/{}", uid()));
    has("FIM_DIST=small");
    has(&format!("FIM_BIN_SELF={}", world.image().display()));
    has(&format!("FIM_DIR_SELF={}", world.path("").display().to_string().trim_end_matches('/')));
    has("FIM_DIR_RUNTIME=/run/fim");
    for absent in ["LD_", "FIM_DIR_LAYERS", "FIM_DIR_DATA", "FIM_DIR_RUNTIME_HOST"] {
        assert!(!printed.lines().any(|line| line.starts_with(absent)), "{absent} in\n{printed}");
    }
    assert_eq!(world.sh("echo $TERM").prints(), "xterm");
}

#[test]
fn fim_exec_is_the_caller_and_fim_root_is_root() {
    let world = World::new();
    let ids = "echo $(id -u) $(id -g) $USER $HOME";
    assert_eq!(world.root_sh(ids).env("USER", "ann").prints(), "0 0 root /root");
    let expected = if is_root() {
        "0 0 root /root".to_owned()
    } else {
        format!("{} {} ann {}", uid(), gid(), world.path("home").display())
    };
    assert_eq!(world.sh(ids).env("USER", "ann").prints(), expected);
}

#[test]
fn the_caller_has_a_name_in_the_guest() {
    let world = World::new();
    let name = if is_root() { "root" } else { "ann" };
    assert_eq!(world.exec(&["whoami"]).env("USER", "ann").prints(), name);
    assert_eq!(world.exec(&["id", "-gn"]).env("USER", "ann").prints(), name);
    assert_eq!(world.root(&["whoami"]).prints(), "root");
    // It is shown, not written into the image's data.
    assert_eq!(world.sh("cat /etc/release").prints(), "small");
    assert!(!fs::read_to_string(world.upper("etc/passwd")).unwrap_or_default().contains(name));
}

#[test]
fn an_entry_of_the_image_wins_over_the_synthesised_one() {
    let entry = format!("builtin:x:{}:{}:::/bin/sh\n", uid(), gid());
    let world = World::with_tree(|tree| fs::write(tree.join("etc/passwd"), &entry).unwrap(), &[]);
    assert_eq!(world.exec(&["whoami"]).env("USER", "ann").prints(), "builtin");
    assert_eq!(world.exec(&["cat", "/etc/passwd"]).prints(), entry.trim_end());
}

#[test]
fn the_boot_command_gets_the_arguments_behind_its_own() {
    let options = ["--boot", "printf <%s>", "--boot-arg", "a b"];
    let world = World::with_tree(|_| {}, &options);
    assert_eq!(world.app(&[]).prints(), "<a b>");
    assert_eq!(world.app(&["c d", "", "--help", "-x"]).prints(), "<a b><c d><><--help><-x>");
}

#[test]
fn without_a_boot_command_it_is_a_shell_of_the_image() {
    let world = World::new();
    assert_eq!(world.app(&[]).input("echo from $0; exit 7\n").run().exits(7).text(), "from /bin/sh");
    assert_eq!(world.app(&["-c", "echo $1", "sh", "a b"]).prints(), "a b");
}

#[test]
fn stored_variables_reach_the_command() {
    let world = World::with_tree(|_| {}, &["--env", "GREETING=two  words $HOME", "--env", "RAW=$(id)"]);
    assert_eq!(world.root_sh("echo \"$GREETING|$RAW\"").prints(), "two  words /root|$(id)");
}

#[test]
fn a_name_says_nothing_about_the_role() {
    let world = World::new();
    let link = world.path("fim-guest");
    std::os::unix::fs::symlink(world.image(), &link).unwrap();
    let by_link = world.equip(harness::TestCommand::new(&link));
    assert_eq!(by_link.args(["fim-exec", "echo", "works"]).prints(), "works");
    // A link uses the data of the file it leads to.
    assert!(world.data().is_dir() && !world.path(".fim-guest.data").exists());
}

#[test]
fn a_moved_or_read_only_image_runs() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let moved = world.path("other name");
    fs::rename(world.image(), &moved).unwrap();
    fs::set_permissions(&moved, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(world.equip(harness::TestCommand::new(&moved)).args(["fim-exec", "echo", "ok"]).prints(), "ok");
}

#[test]
fn nothing_on_the_host_is_needed() {
    // Not a variable is set, and the directory is the root.
    let world = World::new();
    let command = harness::TestCommand::new(world.image()).current_dir("/").env("FIM_DIR_DATA", world.path("data"));
    let command = command.env("XDG_RUNTIME_DIR", world.path("runtime"));
    assert_eq!(command.args(["fim-exec", "/bin/echo", "ok"]).prints(), "ok");
    assert!(Path::new("/").join("bin").exists());
}
