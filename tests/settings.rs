//! The commands that read and change what is stored in the image: formats, texts and exit codes that scripts know.

mod harness;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use harness::{TestCommand, World, need};
use serde_json::{Value, json};

/// Runs a command that must succeed without a word on either stream.
#[track_caller]
fn silently(world: &World, words: &[&str]) {
    world.app(words).run().succeeds().quietly().with_stdout("");
}

fn parsed(world: &World, words: &[&str]) -> Value {
    serde_json::from_str(&world.app(words).prints()).unwrap()
}

#[test]
fn every_wrong_word_has_the_text_that_scripts_know_and_changes_nothing() {
    let world = World::new();
    silently(&world, &["fim-perms", "set", "home"]);
    world.app(&["fim-env", "add", "KEPT=1"]).run().succeeds();
    world.app(&["fim-bind", "add", "ro", "/a", "/b"]).run().succeeds();
    let before = parsed(&world, &["fim-inspect", "--json"]);
    for (line, text) in [
        ("fim-perms", "Missing op for fim-perms (add,del,list,set,clear)"),
        ("fim-perms grant home", "Invalid perms operation"),
        ("fim-perms add", "No arguments for 'ADD' command"),
        ("fim-perms del", "No arguments for 'DEL' command"),
        ("fim-perms SET", "No arguments for 'SET' command"),
        ("fim-perms add hme", "Invalid permission"),
        ("fim-perms add network,,shm", "Invalid permission"),
        ("fim-perms add none", "Invalid permission 'NONE'"),
        ("fim-perms add network,all", "Permission 'all' should not be used with others"),
        ("fim-perms add network shm", "Trailing arguments for fim-perms: ['shm',]"),
        ("fim-perms list x y", "Trailing arguments for fim-perms: ['x','y',]"),
        ("fim-perms clear x", "Trailing arguments for fim-perms: ['x',]"),
        ("fim-unshare", "Missing op for fim-unshare (add,clear,del,list,set)"),
        ("fim-unshare grant net", "Invalid unshare operation"),
        ("fim-unshare add", "No arguments for 'ADD' command"),
        ("fim-unshare add nt", "Invalid unshare option"),
        ("fim-unshare add none", "Invalid unshare option 'NONE'"),
        ("fim-unshare set all,net", "Unshare option 'all' should not be used with others"),
        ("fim-unshare add net pid", "Trailing arguments for fim-unshare: ['pid',]"),
        ("fim-env", "Missing op for 'fim-env' (add,del,list,set,clear)"),
        ("fim-env show", "Invalid env operation"),
        ("fim-env add", "Missing arguments for 'ADD'"),
        ("fim-env set", "Missing arguments for 'SET'"),
        ("fim-env del", "Missing arguments for 'DEL'"),
        ("fim-env set A=1 nothing", "Variable assignment 'nothing' is invalid"),
        ("fim-env add =x", "Variable assignment '=x' is invalid"),
        ("fim-env list x", "Trailing arguments for fim-env: ['x',]"),
        ("fim-env clear x", "Trailing arguments for fim-env: ['x',]"),
        ("fim-bind", "Missing op for 'fim-bind' command (add,del,list)"),
        ("fim-bind show", "Invalid bind operation"),
        ("fim-bind add rx /a /b", "Invalid bind type"),
        ("fim-bind add ro /a", "Incorrect number of arguments for 'add' (<ro,rw,dev> <src> <dst>)"),
        ("fim-bind add ro /a /b /c", "Incorrect number of arguments for 'add' (<ro,rw,dev> <src> <dst>)"),
        ("fim-bind del", "Incorrect number of arguments for 'del' (<index>)"),
        ("fim-bind del 0 1", "Incorrect number of arguments for 'del' (<index>)"),
        ("fim-bind del x", "Index argument for 'del' is not a number"),
        ("fim-bind del -1", "Index argument for 'del' is not a number"),
        ("fim-bind list x", "'list' command takes no arguments"),
        ("fim-boot", "Missing op for 'fim-boot' (<set|show|clear>)"),
        ("fim-boot run", "Invalid boot operation"),
        ("fim-boot set", "Missing program for 'set' operation"),
        ("fim-boot show x", "Trailing arguments for fim-boot: ['x',]"),
        ("fim-boot clear x", "Trailing arguments for fim-boot: ['x',]"),
        ("fim-overlay", "Missing op for 'fim-overlay' (<set|show>)"),
        ("fim-overlay get", "Invalid overlay operation"),
        ("fim-overlay set", "Missing argument for 'set'"),
        ("fim-overlay set aufs", "Invalid overlay type"),
        ("fim-overlay set bwrap x", "Trailing arguments for fim-overlay: ['x',]"),
        ("fim-overlay show x", "Trailing arguments for fim-overlay: ['x',]"),
        ("fim-notify", "Incorrect number of arguments for 'fim-notify' (<on|off>)"),
        ("fim-notify maybe", "Invalid notify operation"),
        ("fim-casefold", "Incorrect number of arguments for 'fim-casefold' (<on|off>)"),
        ("fim-casefold maybe", "Invalid casefold operation"),
        ("fim-remote", "Missing op for 'fim-remote' (<set|show|clear>)"),
        ("fim-remote get", "Invalid remote operation"),
        ("fim-remote set", "Missing URL for 'set' operation"),
        ("fim-remote set a b", "Trailing arguments for fim-remote: ['b',]"),
        ("fim-remote show x", "Trailing arguments for fim-remote: ['x',]"),
        ("fim-remote show", "No remote URL configured"),
        ("fim-version", "Missing op for 'fim-version'"),
        ("fim-version deps x", "Trailing arguments for fim-version: ['x',]"),
        ("fim-complete", "Missing shell for 'fim-complete'"),
        ("fim-complete tcsh", "no completions for the shell 'tcsh'"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        world.app(&words).fails_naming(&[text]).with_stdout("");
    }
    world.app(&["fim-perms", "add", ""]).fails_naming(&["Invalid permission ''"]);
    world.app(&["fim-remote", "set", "a\nb"]).fails_naming(&["the URL is not valid"]);
    assert_eq!(parsed(&world, &["fim-inspect", "--json"]), before);
    assert!(!world.data().exists(), "an error made a data directory");
}

#[test]
fn permissions_are_a_sorted_set() {
    let world = World::new();
    let list = || world.app(&["fim-perms", "list"]).prints().replace('\n', " ");
    assert_eq!(list(), "");
    silently(&world, &["fim-perms", "add", "XORG,home,"]);
    silently(&world, &["fim-perms", "ADD", "dbus_user,home"]);
    assert_eq!(list(), "dbus_user home xorg");
    assert_eq!(parsed(&world, &["fim-perms", "list", "--json"]), json!(["dbus_user", "home", "xorg"]));
    silently(&world, &["fim-perms", "del", "home,audio"]);
    assert_eq!(list(), "dbus_user xorg");
    silently(&world, &["fim-perms", "set", "gpu"]);
    assert_eq!(list(), "gpu");
    silently(&world, &["fim-perms", "set", ""]);
    assert_eq!(list(), "");
    silently(&world, &["fim-perms", "set", "all"]);
    assert_eq!(
        list(),
        "audio certs dbus_system dbus_user dev fonts gpu home input locale media network optical shm udev usb wayland xorg"
    );
    assert_eq!(world.app(&["fim-portal", "list"]).prints(), "");
    silently(&world, &["fim-perms", "del", "all"]);
    assert_eq!(list(), "");
    silently(&world, &["fim-perms", "add", "all"]);
    silently(&world, &["fim-perms", "clear"]);
    assert_eq!(list(), "");
}

#[test]
fn unshare_options_are_kept_and_listed() {
    let world = World::new();
    let list = || world.app(&["fim-unshare", "list"]).prints().replace('\n', " ");
    silently(&world, &["fim-unshare", "add", "pid,NET"]);
    assert_eq!(list(), "net pid");
    silently(&world, &["fim-unshare", "del", "all"]);
    assert_eq!(list(), "");
    silently(&world, &["fim-unshare", "set", "all"]);
    assert_eq!(
        parsed(&world, &["fim-unshare", "list", "--json"]),
        json!(["cgroup", "ipc", "net", "pid", "user", "uts"])
    );
    silently(&world, &["fim-unshare", "clear"]);
    // Without any option an instance is isolated all the same.
    assert_ne!(
        world.sh("readlink /proc/self/ns/net").prints(),
        std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap()
    );
}

#[test]
fn variables_are_stored_as_they_are_and_listed_expanded() {
    let world = World::new();
    let add = world.app(&["fim-env", "add", "Z=last", "A=two  words", "B=<$A|${Z}|$GIVEN|$(id)>"]).prints();
    assert_eq!(
        add,
        "Included variable 'Z' with value 'last'\nIncluded variable 'A' with value 'two  words'\n\
         Included variable 'B' with value '<$A|${Z}|$GIVEN|$(id)>'"
    );
    let list = || world.app(&["fim-env", "list"]).env("GIVEN", "g").prints();
    assert_eq!(list(), "A=two  words\nB=<two  words|last|g|$(id)>\nZ=last");
    assert_eq!(
        parsed(&world, &["fim-env", "list", "--json"]),
        json!({"A": "two  words", "B": "<$A|${Z}|$GIVEN|$(id)>", "Z": "last"})
    );
    assert_eq!(world.sh("echo \"$B\"").env("GIVEN", "g").prints(), "<two  words|last|g|$(id)>");
    // A second value takes the place of the first.
    world.app(&["fim-env", "add", "A="]).run().succeeds().with_stdout("Included variable 'A' with value ''\n");
    assert_eq!(list(), "A=\nB=<|last|g|$(id)>\nZ=last");
    assert_eq!(world.sh("echo \"${A-unset}\"").env("A", "host").prints(), "");
    let del = world.app(&["fim-env", "del", "B", "NONE"]).prints();
    assert_eq!(del, "Erase key 'B'\nKey 'NONE' not found for deletion");
    assert_eq!(world.app(&["fim-env", "set", "ONLY=1"]).prints(), "Included variable 'ONLY' with value '1'");
    assert_eq!(list(), "ONLY=1");
    silently(&world, &["fim-env", "clear"]);
    assert_eq!(list(), "");
}

#[test]
fn values_may_hold_anything() {
    let world = World::new();
    let odd: &[u8] = b"ODD=a\xff b=c\nd'\"\\";
    world.app(&["fim-env", "add"]).arg(OsStr::from_bytes(odd)).run().succeeds().quietly();
    assert_eq!(world.app(&["fim-env", "list"]).run().succeeds().stdout, [odd, b"\n"].concat());
    assert_eq!(world.sh("printf %s \"$ODD\"").run().succeeds().stdout, odd[4..]);
}

#[test]
fn commands_in_values_run_when_the_caller_says_so_only() {
    let world = World::new();
    world.app(&["fim-env", "add", "SUM=$(echo $((20 + 22))) of $(printf '%s' \"$WHAT\")"]).run().succeeds();
    for (word, result) in [("1", "42 of it"), ("0", "$(echo $((20 + 22))) of $(printf '%s' \"$WHAT\")")] {
        let command = |command: TestCommand| command.env("FIM_ENV_EXEC", word).env("WHAT", "it").prints();
        assert_eq!(command(world.app(&["fim-env", "list"])), format!("SUM={result}"));
        assert_eq!(command(world.sh("echo \"$SUM\"")), result);
    }
}

#[test]
fn binds_keep_their_order_and_their_words() {
    let world = World::new();
    assert_eq!(world.app(&["fim-bind", "list"]).prints(), "");
    assert_eq!(parsed(&world, &["fim-bind", "list", "--json"]), json!({}));
    for index in 0..12 {
        let add = world.app(&["fim-bind", "add", "RW", "$HOME/a b", &format!("/{index}")]).prints();
        assert_eq!(add, format!("Binding index is '{index}'"));
    }
    world.app(&["fim-bind", "add", "--required", "dev", "/dev/null", "/n"]).run().succeeds();
    let list = parsed(&world, &["fim-bind", "list"]);
    assert_eq!(list["10"], json!({"dst": "/10", "src": "$HOME/a b", "type": "rw"}));
    assert_eq!(list["12"], json!({"dst": "/n", "src": "/dev/null", "type": "dev", "required": true}));
    assert_eq!(world.app(&["fim-bind", "del", "2"]).prints(), "Erase element with index '2'");
    assert_eq!(world.app(&["fim-bind", "del", "99"]).prints(), "No element with index '99' found");
    let list = parsed(&world, &["fim-bind", "list"]);
    let order: Vec<_> = (0..12).map(|index| list[index.to_string()]["dst"].as_str().unwrap().to_owned()).collect();
    assert_eq!(order, ["/0", "/1", "/3", "/4", "/5", "/6", "/7", "/8", "/9", "/10", "/11", "/n"]);
}

#[test]
fn the_boot_command_is_shown_as_scripts_know_it() {
    let world = World::new();
    assert_eq!(world.app(&["fim-boot", "show"]).prints(), "{\n  \"args\": [],\n  \"program\": \"bash\"\n}");
    silently(&world, &["fim-boot", "set", "echo", "a b", "--x"]);
    let shown = "{\n  \"args\": [\n    \"a b\",\n    \"--x\"\n  ],\n  \"program\": \"echo\"\n}";
    assert_eq!(world.app(&["fim-boot", "show"]).prints(), shown);
    assert_eq!(world.app(&["more"]).prints(), "a b --x more");
    silently(&world, &["fim-boot", "clear"]);
    assert_eq!(world.app(&["-c", "echo shell"]).prints(), "shell");
}

#[test]
fn overlay_notify_casefold_and_remote_are_stored() {
    let world = World::new();
    let show = || world.app(&["fim-overlay", "show"]);
    assert_eq!(show().prints(), "BWRAP");
    silently(&world, &["fim-overlay", "set", "UnionFS"]);
    assert_eq!(show().prints(), "UNIONFS");
    assert_eq!(show().env("FIM_OVERLAY", "overlayfs").prints(), "OVERLAYFS");
    assert_eq!(show().env("FIM_OVERLAY", "nonsense").prints(), "UNIONFS");
    assert_eq!(parsed(&world, &["fim-overlay", "show", "--json"]), json!({"overlay": "UNIONFS"}));
    assert_eq!(world.exec(&["echo", "runs"]).prints(), "runs");
    silently(&world, &["fim-notify", "ON"]);
    silently(&world, &["fim-casefold", "on"]);
    let config = || parsed(&world, &["fim-inspect", "--json"])["config"].clone();
    assert_eq!((&config()["notify"], &config()["casefold"]), (&json!(true), &json!(true)), "{}", config());
    silently(&world, &["fim-notify", "off"]);
    silently(&world, &["fim-casefold", "none"]);
    assert_eq!((&config()["notify"], &config()["casefold"]), (&json!(false), &json!(false)));
    assert_eq!(world.app(&["fim-remote", "set", "https://x.org/y"]).prints(), "Set remote URL to 'https://x.org/y'");
    assert_eq!(world.app(&["fim-remote", "show"]).prints(), "https://x.org/y");
    assert_eq!(parsed(&world, &["fim-remote", "show", "--json"]), json!({"url": "https://x.org/y"}));
    assert_eq!(world.app(&["fim-remote", "clear"]).prints(), "Cleared remote URL");
    assert_eq!(parsed(&world, &["fim-remote", "show", "--json"]), json!({"url": null}));
}

#[test]
fn starts_are_announced_when_they_are_to_be() {
    let world = World::new();
    std::fs::create_dir(world.path("bin")).unwrap();
    harness::world::script(&world.path("bin/notify-send"), "#!/bin/sh\necho \"$@\" >> \"$TOLD\"\n");
    let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
    let told = world.path("told");
    let start = |words: &[&str]| world.exec(words).env("PATH", &path).env("TOLD", &told);
    silently(&world, &["fim-notify", "on"]);
    start(&["true"]).run().succeeds().quietly();
    assert!(!told.exists(), "there is no desktop integration");
    let change = |name: &str| {
        let desktop = format!("{{\"name\": \"{name}\"}}");
        runtime::image::update(world.image(), |config| -> Result<(), runtime::image::Error> {
            config.desktop = Some(desktop);
            Ok(())
        })
        .unwrap();
    };
    change("My App");
    // Nobody waits for it, but who reads the pipe does.
    world.host_sh("mkfifo told").run().succeeds();
    let mut running = start(&["cat"]).spawn();
    assert_eq!(world.host_sh("cat told").prints(), "-i flatimage_My App -- Started 'My App' FlatImage");
    running.say("on\n");
    running.expect("on");
    running.wait().succeeds().quietly();
    std::fs::remove_file(&told).unwrap();
    silently(&world, &["fim-notify", "off"]);
    start(&["true"]).run().succeeds().quietly();
    assert!(!told.exists());
}

#[test]
fn dependencies_have_licence_and_source() {
    let world = World::new();
    let deps = parsed(&world, &["fim-version", "deps"]);
    let nix = &deps["nix"];
    assert_eq!(nix["licenses"][0]["type"], "MIT");
    for key in ["sha", "source", "version"] {
        assert!(nix[key].as_str().is_some_and(|text| !text.is_empty()), "{nix}");
    }
    assert!(deps["libsquashfs"]["licenses"][0]["url"].as_str().unwrap().starts_with("https://"));
}

#[test]
fn every_command_has_help_a_page_for_man_and_completions() {
    let world = World::new();
    let overview = world.app(&["fim-help"]).run().succeeds().stderr();
    let commands: Vec<&str> =
        overview.lines().filter_map(|line| line.trim().strip_prefix("fim-")?.split(' ').next()).collect();
    assert!(commands.len() > 15, "{commands:?}");
    let bash = world.app(&["fim-complete", "bash"]).prints();
    for command in commands {
        assert!(bash.contains(&format!("fim-{command}")), "{command}");
        if command != "help" {
            assert!(world.app(&["fim-help", command]).prints().contains(&format!("\nfim-{command} : ")));
            let page = world.app(&["fim-help", command, "--man"]).prints();
            assert!(page.starts_with(&format!(".TH FIM-{} 1\n", command.to_uppercase())), "{page}");
        }
    }
    assert!(world.app(&["fim-help", "--man"]).prints().contains(".B fim-perms"));
    world.app(&["fim-help", "--man", "nonsense"]).fails_naming(&["Invalid argument for help command: nonsense"]);
    assert!(world.app(&["fim-complete", "zsh"]).prints().starts_with("#compdef 'app.flatimage'\n"));
    assert!(world.app(&["fim-complete", "fish"]).prints().contains("complete -c 'app.flatimage'"));
}

#[test]
fn bash_completes_commands_operations_and_lists() {
    let world = World::new();
    std::fs::write(world.path("completions"), world.app(&["fim-complete", "bash"]).run().succeeds().stdout).unwrap();
    let complete = |line: &str| {
        let script = r#"
            . ./completions
            read -ra COMP_WORDS <<<"$0"
            [[ $0 != *' ' ]] || COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _fim
            echo "${COMPREPLY[*]}""#;
        world.equip(TestCommand::new(need("bash"))).args(["-c", script, line]).prints()
    };
    assert_eq!(complete("app.flatimage fim-ov"), "fim-overlay");
    assert_eq!(complete("app.flatimage fim-overlay set "), "overlayfs unionfs bwrap");
    assert_eq!(complete("app.flatimage fim-perms add home,x"), "home,xorg");
    assert_eq!(complete("app.flatimage fim-perms list --"), "--json");
    assert_eq!(complete("app.flatimage fim-exec "), "--detach --ephemeral");
    assert_eq!(complete("app.flatimage fim-exec ls "), "");
}

#[test]
fn reading_creates_nothing_and_keeps_the_image_as_it_is() {
    let world = World::new();
    world.app(&["fim-env", "add", "A=1"]).run().succeeds();
    let before = std::fs::read(world.image()).unwrap();
    for line in [
        "fim-perms list",
        "fim-perms explain",
        "fim-env list",
        "fim-bind list",
        "fim-boot show",
        "fim-unshare list",
        "fim-overlay show",
        "fim-version deps",
        "fim-complete bash",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        world.app(&words).run().succeeds().quietly();
    }
    assert!(std::fs::read(world.image()).unwrap() == before);
    assert!(!world.data().exists() && !world.sessions().exists());
}
