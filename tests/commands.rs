//! The `fim-` commands that print: dispatch, help, version, inspect, verify.

mod harness;

use harness::World;

#[test]
fn unknown_commands_are_refused() {
    let world = World::new();
    world.app(&["fim-nonsense"]).fails_naming(&["Unknown command: fim-nonsense", "Invalid fim command"]);
    world.app(&["fim-"]).fails_naming(&["Unknown command: fim-", "Invalid fim command"]);
    world.app(&["fim-EXEC", "ls"]).fails_naming(&["Unknown command: fim-EXEC"]);
    assert!(!world.data().exists(), "an error made a data directory");
}

#[test]
fn fim_exec_needs_a_program() {
    let world = World::new();
    world.app(&["fim-exec"]).fails_naming(&["Incorrect number of arguments for fim-exec"]);
    world.app(&["fim-root"]).fails_naming(&["Incorrect number of arguments for fim-root"]);
}

#[test]
fn help_goes_where_scripts_expect_it() {
    let world = World::new();
    let overview = world.app(&["fim-help"]).run().succeeds().with_stdout("");
    assert!(overview.stderr().starts_with("Flatimage - Portable Linux Applications\n"));
    let topic = world.app(&["fim-help", "exec", "ignored"]).prints();
    let lines: Vec<&str> = topic.lines().collect();
    assert_eq!(lines[0], "Flatimage - Portable Linux Applications");
    assert!(lines[1].starts_with("fim-exec : ") && lines[2].starts_with("Usage: fim-exec <program>"));
    for part in ["  <program> : ", "Note: ", "Example: fim-exec"] {
        assert!(lines.iter().any(|line| line.starts_with(part)), "no {part:?} in\n{topic}");
    }
    assert_eq!(world.app(&["fim-exec", "--help"]).prints(), topic);
    for wrong in ["nonsense", "help", "fim-exec", "EXEC"] {
        world.app(&["fim-help", wrong]).fails_naming(&[&format!("Invalid argument for help command: {wrong}")]);
    }
}

#[test]
fn version_prints_what_scripts_read() {
    let world = World::new();
    let short = world.app(&["fim-version", "short"]).prints();
    assert!(short.starts_with('v') && short[1..].split('.').count() == 3, "{short}");
    let full = world.app(&["fim-version", "FULL"]).prints();
    let json: serde_json::Value = serde_json::from_str(&full).unwrap();
    assert_eq!(json["VERSION"], short.as_str());
    let stamp = json["TIMESTAMP"].as_str().unwrap();
    assert!(stamp.len() == 14 && stamp.bytes().all(|byte| byte.is_ascii_digit()), "{stamp}");
    assert!(json["COMMIT"].is_string() && json["DISTRIBUTION"].is_string());
    world.app(&["fim-version"]).fails_naming(&["Missing op for 'fim-version'"]);
    world.app(&["fim-version", "nonsense"]).fails_naming(&["Invalid version operation"]);
    world.app(&["fim-version", "short", "x"]).fails_naming(&["Trailing arguments for fim-version: ['x',]"]);
}

#[test]
fn where_the_configuration_begins_is_told() {
    let world = World::new();
    let asked = |value: &str| world.exec(&["echo", "ran"]).env("FIM_MAIN_OFFSET", value).prints();
    let offset: usize = asked("1").parse().unwrap();
    assert_eq!(&std::fs::read(world.image()).unwrap()[offset..offset + 8], b"FIMSLOT\n");
    assert_eq!((asked("0"), asked("")), ("ran".to_owned(), "ran".to_owned()));
}

#[test]
fn inspect_and_verify_know_the_image() {
    let world = World::new();
    let json: serde_json::Value = serde_json::from_str(&world.app(&["fim-inspect", "--json"]).prints()).unwrap();
    assert_eq!(json["layers"].as_array().unwrap().len(), 1, "{json}");
    assert!(world.app(&["fim-inspect"]).prints().contains("small"));
    assert!(world.app(&["fim-verify"]).prints().contains("every digest matches"));
    world.app(&["fim-verify", "x"]).fails_naming(&["Trailing arguments for fim-verify: ['x',]"]);
    // The builder's own commands say the same.
    let tool = |command: &str| world.equip(harness::TestCommand::new(harness::FIM)).arg(command).arg(world.image());
    assert_eq!(tool("inspect").prints(), world.app(&["fim-inspect"]).prints());
    assert_eq!(tool("verify").prints(), world.app(&["fim-verify"]).prints());
}

#[test]
fn commands_that_only_read_create_nothing() {
    let world = World::new();
    for args in [&["fim-version", "short"][..], &["fim-help"], &["fim-inspect"], &["fim-verify"], &["fim-exec", "-h"]] {
        world.app(args).run().succeeds();
    }
    let names: Vec<_> = std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(std::fs::read_dir(world.path("runtime")).unwrap().count(), 0);
}

#[test]
fn other_words_go_to_the_boot_command() {
    let world = World::with_tree(|_| {}, &["--boot", "echo booted"]);
    for words in [&["--help"][..], &["-h"], &["exec", "ls"], &["FIM-exec"], &["fimexec"]] {
        assert_eq!(world.app(words).prints(), format!("booted {}", words.join(" ")));
    }
}
