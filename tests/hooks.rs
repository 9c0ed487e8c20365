//! Hooks: commands that an image runs when it is installed, configured and removed.

mod harness;

use std::fs;
use std::path::PathBuf;

use harness::{Running, TestCommand, World};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Gives the image of a world a hook that is a script.
fn hook(world: &World, kind: &str, script: &str) {
    world.app(&["fim-hook", "set", kind, "sh", "-c", script]).run().succeeds().quietly();
}

fn keyed(world: &World, key: &str, args: &[&str]) -> TestCommand {
    world.app(args).env("FIM_INSTANCE_KEY", key)
}

fn data(world: &World, key: &str) -> PathBuf {
    world.path(".app.flatimage.keys").join(key)
}

/// Files of the writable layer, without those that a session makes and removes.
fn upper(world: &World) -> Vec<String> {
    world.wait_for_end();
    let entries = fs::read_dir(world.data().join("root")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn waiting(command: TestCommand) -> Running {
    let running = command.spawn();
    running.expect_complaint("ready");
    running
}

#[test]
fn install_and_configure_run_before_the_first_command_and_once() {
    let world = World::new();
    hook(&world, "install", "echo install >> /log; echo data > $FIM_DATA/file; mkdir $FIM_COMMON/deep; echo told");
    hook(&world, "configure", "echo configure >> /log; cat $FIM_DATA/file >> /log");
    // What the command reads and prints is its own.
    let outcome = world.sh("cat; cat /log").input("input\n").run().succeeds();
    assert_eq!(outcome.text(), "input\ninstall\nconfigure\ndata");
    assert_eq!(outcome.stderr(), "told\n");
    assert_eq!(world.sh("cat /log; ls $FIM_COMMON").prints(), "install\nconfigure\ndata\ndeep");
    // Each installation has its own, whoever makes it and whatever its first command is.
    world.app(&["fim-key", "add", "foo"]).run().succeeds().quietly();
    assert!(!data(&world, "foo").join("root/log").exists());
    let shown = keyed(&world, "foo", &["fim-root", "wc", "-l", "/log"]).run().succeeds().complains_of(&["told"]).text();
    assert_eq!(shown, "3 /log");
    // Where nothing is kept, nothing is installed.
    assert_eq!(keyed(&world, "bar", &["fim-exec", "--ephemeral", "sh", "-c", "ls /log 2>&1 | wc -l"]).prints(), "1");
    assert!(!data(&world, "bar").exists());
    // Reset, it is as new.
    keyed(&world, "foo", &["fim-key", "reset", "foo"]).run().succeeds();
    keyed(&world, "foo", &["fim-exec", "cat", "/log"]).run().succeeds().complains_of(&["told"]);
    world.wait_for_end();
    world.app(&["fim-data", "clear", "--yes"]).run().succeeds();
    world.exec(&["true"]).run().succeeds().complains_of(&["told"]);
}

#[test]
fn an_install_hook_that_fails_leaves_nothing_and_runs_again() {
    // The documentation's trouble: the hook works in directories of a layout, fails, and cannot be run again.
    let world = World::new();
    world.app(&["fim-env", "add", "GOOD=no"]).run().succeeds();
    hook(
        &world,
        "install",
        "mkdir $FIM_DATA/sub /sub && echo x > /sub/x && rm /etc/release && test $GOOD = yes || exit 3",
    );
    for _ in 0..2 {
        world.exec(&["echo", "ran"]).run().exits(125).with_stdout("").complains_of(&[
            "the install hook of the image (sh -c ",
            "failed with exit code 3",
            "nothing of the installation was kept",
            "the next start runs its hooks again",
        ]);
        assert_eq!(upper(&world), [] as [&str; 0]);
        let left = ["files", "revision", "installing"].map(|name| world.data().join(name));
        assert!(left.iter().all(|path| fs::symlink_metadata(path).is_err()), "{left:?}");
    }
    // Repaired, it just works.
    world.app(&["fim-env", "set", "GOOD=yes"]).run().succeeds();
    assert_eq!(world.sh("cat /sub/x; ls $FIM_DATA").prints(), "x\nsub");
    // Nor does anything stay when what comes behind it fails; what was set for a key does.
    hook(&world, "configure", "false");
    keyed(&world, "foo", &["fim-perms", "set", "certs"]).run().succeeds();
    keyed(&world, "foo", &["fim-exec", "true"]).run().exits(125).complains_of(&["the configure hook", "exit code 1"]);
    assert!(!data(&world, "foo").join("root/sub").exists());
    assert_eq!(keyed(&world, "foo", &["fim-perms", "list"]).prints(), "certs");
    world.app(&["fim-hook", "clear", "configure"]).run().succeeds();
    assert_eq!(keyed(&world, "foo", &["fim-exec", "cat", "/sub/x"]).prints(), "x");
    // A program that is not there, and one that a signal ends.
    world.app(&["fim-hook", "set", "install", "no-such-program"]).run().succeeds();
    keyed(&world, "bar", &["fim-exec", "true"]).run().exits(125).complains_of(&["exit code 127"]);
    hook(&world, "install", "kill -9 $$");
    keyed(&world, "bar", &["fim-exec", "true"]).run().exits(125).complains_of(&["exit code 137"]);
}

#[test]
fn an_interrupted_installation_begins_anew() {
    let world = World::new();
    hook(&world, "install", "echo half > /half; echo ready >&2; test -e /go || exec sleep 1000");
    let running = waiting(world.exec(&["true"]));
    let tree = running.tree();
    running.signal(Signal::SIGTERM);
    running.wait().dies_of(Signal::SIGTERM);
    tree.wait_gone();
    assert_eq!(upper(&world), [] as [&str; 0]);
    assert!(!world.data().join("installing").exists());
    // Killed, and what waits for the hook, too: the next start cleans up.
    let running = waiting(world.exec(&["true"]));
    let tree = running.tree();
    let starters = tree.0.iter().filter(|member| member.name == tree.0[0].name);
    // The death of the first may be that of the others.
    starters.for_each(|member| member.end());
    running.wait().dies_of(Signal::SIGKILL);
    tree.wait_gone();
    world.wait_for_end();
    assert!(world.data().join("installing").exists() && world.upper("half").exists());
    hook(&world, "install", "test ! -e /half || exit 9");
    let outcome = world.sh("ls / | grep -c half").run().exits(1);
    outcome.complains_of(&["note: an installation was interrupted", "begins anew"]);
    assert!(!world.data().join("installing").exists());
}

#[test]
fn starts_at_once_install_once() {
    let world = World::new();
    hook(&world, "install", "echo x >> /log; echo x >> $FIM_COMMON/log");
    let running: Vec<_> = (0..5).map(|_| world.sh("cat /log $FIM_COMMON/log").spawn()).collect();
    for running in running {
        running.wait().succeeds().quietly().with_stdout("x\nx\n");
    }
}

#[test]
fn hooks_run_as_guests() {
    let world = World::new();
    world.app(&["fim-layout", "add", "/opt/conf", "symlink", "$FIM_DATA/conf"]).run().succeeds();
    hook(
        &world,
        "install",
        "echo conf > $FIM_DATA/conf; cat /opt/conf >> /log; id -u >> /log; echo $FIM_INSTANCE_KEY >> /log; \
         grep CapEff /proc/self/status >> /log; cat > /stdin",
    );
    let shown = keyed(&world, "foo", &["fim-exec", "sh", "-c", "cat /log /stdin"]).input("not the hook's").run();
    let expected = format!("conf\n{}\nfoo\nCapEff:\t0000000000000000\n", harness::uid());
    shown.succeeds().quietly().with_stdout(&expected);
}

#[test]
fn configure_runs_when_asked() {
    let world = World::new();
    hook(&world, "configure", "echo configured $FIM_INSTANCE_KEY >> /log; test ! -e /bad");
    // The first time is the installation's own.
    world.app(&["fim-hook", "run", "configure"]).run().succeeds().quietly();
    assert_eq!(world.sh("wc -l < /log").prints(), "1");
    world.app(&["fim-hook", "run", "configure"]).run().succeeds().quietly();
    assert_eq!(world.sh("wc -l < /log").prints(), "2");
    // One that fails later keeps everything.
    world.sh("touch /bad").run().succeeds();
    world.app(&["fim-hook", "run", "configure"]).fails_naming(&["the configure hook", "exit code 1"]);
    assert_eq!(world.sh("wc -l < /log").prints(), "3");
    keyed(&world, "foo", &["fim-hook", "run", "configure"]).run().succeeds();
    assert_eq!(keyed(&world, "foo", &["fim-exec", "cat", "/log"]).prints(), "configured foo");
}

#[test]
fn remove_runs_before_a_key_goes() {
    let world = World::new();
    hook(&world, "remove", "echo removing $FIM_INSTANCE_KEY; test ! -e /keep");
    world.app(&["fim-key", "add", "foo"]).run().succeeds();
    // What has never run has nothing to clean up.
    world.app(&["fim-key", "remove", "foo"]).run().succeeds().quietly().with_stdout("app_foo removed\n");
    world.app(&["fim-key", "add", "foo"]).run().succeeds();
    keyed(&world, "foo", &["fim-exec", "touch", "/keep"]).run().succeeds();
    let refused = ["removing foo", "'foo' was not removed", "its remove hook has failed", "fim-key remove foo --force"];
    world.app(&["fim-key", "remove", "foo"]).run().exits(125).complains_of(&refused);
    assert!(data(&world, "foo").join("root/keep").exists() && world.path("app_foo.flatimage").is_symlink());
    keyed(&world, "foo", &["fim-exec", "rm", "/keep"]).run().succeeds();
    // Not while something runs.
    let mut running = keyed(&world, "foo", &["fim-exec", "sh", "-c", "echo ready; cat"]).spawn();
    running.expect("ready");
    world.app(&["fim-key", "remove", "foo"]).fails_naming(&["in use by running instances"]);
    running.close_stdin();
    running.wait().succeeds();
    let outcome = world.app(&["fim-key", "remove", "foo"]).run().succeeds().with_stdout("app_foo removed\n");
    assert_eq!(outcome.stderr(), "removing foo\n");
    assert!(!data(&world, "foo").exists());
    // By force.
    keyed(&world, "bar", &["fim-exec", "touch", "/keep"]).run().succeeds();
    world.app(&["fim-key", "remove", "bar", "--force"]).run().succeeds().quietly();
    assert!(!data(&world, "bar").exists());
}

#[test]
fn hooks_are_the_images_and_wrong_words_change_nothing() {
    let world = World::new();
    let before = fs::read(world.image()).unwrap();
    for (args, why) in [
        (&[][..], "Missing op for 'fim-hook'"),
        (&["set"], "Missing kind of hook for 'set' (install, configure, remove)"),
        (&["set", "refresh", "true"], "Invalid kind of hook 'refresh'"),
        (&["set", "install"], "Missing command for 'set'"),
        (&["clear", "install", "x"], "Trailing arguments for fim-hook: ['x',]"),
        (&["run"], "Missing kind of hook for 'run'"),
        (&["run", "install"], "runs by itself before the first command"),
        (&["run", "configure"], "the image has no configure hook"),
        (&["frobnicate"], "Invalid hook operation 'frobnicate'"),
    ] {
        world.app(&["fim-hook"]).args(args).fails_naming(&[why]);
    }
    assert_eq!(fs::read(world.image()).unwrap(), before);
    hook(&world, "install", "true");
    world.app(&["fim-hook", "set", "INSTALL", "echo", "two words"]).run().succeeds();
    hook(&world, "remove", "true");
    let expected = json!({ "install": ["echo", "two words"], "remove": ["sh", "-c", "true"] });
    let listed: Value = serde_json::from_str(&world.app(&["fim-hook", "list", "--json"]).prints()).unwrap();
    let shown: Value = serde_json::from_str(&world.app(&["fim-inspect", "--json"]).prints()).unwrap();
    assert_eq!((&listed, &shown["config"]["hooks"]), (&expected, &expected));
    assert_eq!(world.app(&["fim-hook", "list"]).prints(), "install: echo two words\nremove: sh -c true");
    world.app(&["fim-hook", "clear", "remove"]).run().succeeds();
    assert_eq!(world.app(&["fim-hook", "list"]).prints(), "install: echo two words");
    world.app(&["fim-hook", "clear"]).run().succeeds();
    assert_eq!(world.app(&["fim-hook", "list"]).prints(), "");
    // An installation from before the image had hooks is installed.
    world.exec(&["true"]).run().succeeds();
    hook(&world, "install", "false");
    world.exec(&["true"]).run().succeeds().quietly();
}
