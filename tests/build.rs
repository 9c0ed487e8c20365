//! `fim build` as its users call it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

const FIM: &str = env!("CARGO_BIN_EXE_fim");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with the tree `source` in it.
fn work() -> TempDir {
    let work = TempDir::new().unwrap();
    let source = work.path().join("source");
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::write(source.join("bin/sh"), "#!/bin/interpreter\n").unwrap();
    fs::write(source.join("bin/interpreter"), b"\x7fELF and a long rest. ".repeat(20_000)).unwrap();
    fs::write(source.join("text"), b"all work and no play\n".repeat(100_000)).unwrap();
    fs::write(source.join("noise"), noise(3 << 20)).unwrap();
    work
}

/// Bytes that hardly compress, always the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 & 0x3f
    });
    next.take(len).collect()
}

/// `fim build source -o OUTPUT OPTION...` in `work`.
fn build(work: &TempDir, output: &str, options: &[&str]) -> Output {
    let mut command = Command::new(FIM);
    command.args(["build", "source", "--level", "1", "-o", output]).args(options).current_dir(work.path());
    command.env_remove("SOURCE_DATE_EPOCH").output().unwrap()
}

#[track_caller]
fn assert_fails(output: &Output, reason: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains(reason) && output.stdout.is_empty(), "{stderr}");
}

#[track_caller]
fn assert_only(work: &TempDir, expected: &[&str]) {
    let names = fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, expected);
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let work = work();
    let options = ["--boot", "sh -c x", "--perms", "home,network", "--env", "A=b", "--name", "app"];
    assert!(build(&work, "first", &[&options[..], &["--threads", "1"]].concat()).status.success());
    let first = fs::read(work.path().join("first")).unwrap();
    for (run, threads) in ["4", "1", "3"].into_iter().enumerate() {
        let line = format!("umask 0{run}7; TZ=Asia/Tokyo exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &line, FIM, "build", "source", "--level", "1", "--force", "-o", "again"]);
        command.args(options).args(["--threads", threads]).current_dir(work.path());
        assert!(command.output().unwrap().status.success());
        assert!(first == fs::read(work.path().join("again")).unwrap(), "run {run} with {threads} threads differs");
        let mode = fs::metadata(work.path().join("again")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777 & !(run as u32 * 8 + 7), "the mode of the file is the umask's");
    }
    assert_only(&work, &["again", "first", "source"]);
}

#[test]
fn the_startup_set_is_stored_as_it_is() {
    let work = work();
    let size = |name: &str| fs::metadata(work.path().join(name)).unwrap().len();
    assert!(build(&work, "with", &[]).status.success());
    assert!(build(&work, "without", &["--no-startup-set"]).status.success());
    let growth = size("with") - size("without");
    assert!((300_000..3 << 20).contains(&growth), "grew by {growth}");
    // The interpreter of the shell is in the file as it is.
    let image = fs::read(work.path().join("with")).unwrap();
    let content = fs::read(work.path().join("source/bin/interpreter")).unwrap();
    assert!(image.windows(content.len().min(4096)).any(|window| window == &content[..window.len()]));
}

#[test]
fn a_tar_in_any_order_gives_the_image_of_its_directory() {
    let work = work();
    assert!(build(&work, "directory", &["--name", "app"]).status.success());
    let order = ["text", "noise", "bin/sh", "bin/interpreter"];
    for (source, sorted) in [("sorted.tar", true), ("unsorted.tar", false)] {
        let mut command = Command::new("tar");
        // The format that has times to the nanosecond.
        command.args(["--format=pax", "-C", "source", "-cf", source]).current_dir(work.path());
        if sorted {
            command.args(["--sort=name", "."]);
        } else {
            command.args(["--no-recursion", ".", "bin"]).args(order);
        }
        assert!(command.status().expect("these tests need the package tar").success());
        let mut command = Command::new(FIM);
        command.args(["build", source, "--level", "1", "-o", "tar", "--force", "--name", "app"]);
        assert!(command.current_dir(work.path()).output().unwrap().status.success());
        let (directory, tar) = (work.path().join("directory"), work.path().join("tar"));
        assert!(fs::read(directory).unwrap() == fs::read(tar).unwrap(), "{source}");
    }
}

#[test]
fn wrong_options_change_nothing_and_say_what_is_right() {
    let work = work();
    let cases: [(&[&str], &str); 10] = [
        (&["--level", "23"], "23"),
        (&["--block-size", "5K"], "a power of two from 4K to 1M"),
        (&["--perms", "everything"], "Invalid permission 'everything'; known: all,"),
        (&["--perms", "all,home"], "Permission 'all' should not be used with others"),
        (&["--env", "=x"], "Variable assignment '=x' is invalid"),
        (&["--threads", "0"], "0 threads: must be 1 to 1024"),
        (&["--nonsense"], "unexpected argument"),
        (&["-o", "source/app"], "the output"),
        (&["-o", "source"], "exists"),
        (&["-o", "missing/app"], "cannot create missing/app: No such file"),
    ];
    for (options, reason) in cases {
        let mut command = Command::new(FIM);
        command.args(["build", "source"]).args(options).current_dir(work.path());
        if !options.contains(&"-o") {
            command.args(["-o", "app"]);
        }
        assert_fails(&command.output().unwrap(), reason);
        assert_only(&work, &["source"]);
    }
    let missing = Command::new(FIM).args(["build", "/nonexistent", "-o", "app"]).current_dir(&work).output().unwrap();
    assert_fails(&missing, "/nonexistent: No such file");
    let none = Command::new(FIM).args(["build", "source"]).current_dir(&work).output().unwrap();
    assert_fails(&none, "--output");
}

#[test]
fn an_existing_output_is_replaced_only_when_asked() {
    let work = work();
    fs::write(work.path().join("app"), "mine").unwrap();
    assert_fails(&build(&work, "app", &[]), "app exists; give another --output, or --force");
    assert_eq!(fs::read(work.path().join("app")).unwrap(), b"mine");
    assert!(build(&work, "app", &["--force"]).status.success());
    assert!(fs::metadata(work.path().join("app")).unwrap().len() > 1 << 20);
    assert_only(&work, &["app", "source"]);
}

#[test]
fn a_pipe_gets_one_line_and_quiet_nothing() {
    let work = work();
    let output = build(&work, "app", &[]);
    assert_eq!((text(&output.stdout).lines().count(), text(&output.stderr)), (1, String::new()));
    let output = build(&work, "app", &["--force", "--quiet"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (Some(0), String::new(), String::new())
    );
}

#[test]
fn an_image_that_can_start_nothing_is_warned_of() {
    let work = work();
    fs::remove_file(work.path().join("source/bin/sh")).unwrap();
    let output = build(&work, "app", &[]);
    assert!(output.status.success() && text(&output.stderr).contains("neither a shell"), "{output:?}");
    let output = build(&work, "app", &["--force", "--boot", "interpreter"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn options_arrive_in_the_configuration() {
    let work = work();
    let mut command = Command::new(FIM);
    command.args(["build", "source", "-o", "app.flatimage", "--level", "1", "--perms", "Network,home"]);
    command.args(["--boot", "sh  -c", "--boot-arg", "a b", "--env", "A=1", "--env", "A=2"]).current_dir(&work);
    command.arg("--env").arg(std::ffi::OsStr::from_bytes(b"RAW=\xff\xfe"));
    assert!(command.output().unwrap().status.success());
    let output = Command::new(FIM).args(["inspect", "--json", "app.flatimage"]).current_dir(&work).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let config = &value["config"];
    assert_eq!(config["name"], "app");
    assert_eq!(config["boot"], serde_json::json!({ "args": ["-c", "a b"], "program": "sh" }));
    assert_eq!(config["env"], serde_json::json!({ "A": "2", "RAW": "\u{fffd}\u{fffd}" }));
    assert_eq!(config["permissions"], serde_json::json!(["home", "network"]));
}

/// A long build on a terminal, of which the bar has been seen.
fn begun(work: &TempDir) -> (Child, File) {
    fs::write(work.path().join("source/long"), noise(96 << 20)).unwrap();
    let size = libc::winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let mut command = Command::new(FIM);
    command.args(["build", "source", "-o", "app", "--level", "22", "--threads", "1"]).current_dir(work.path());
    command.env("TERM", "xterm").stdout(Stdio::null()).stderr(pty.slave);
    let child = command.spawn().unwrap();
    drop(command);
    let mut terminal = File::from(pty.master);
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !text(&seen).contains("MiB/") {
        let count = terminal.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
    (child, terminal)
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let work = work();
        let (mut child, _terminal) = begun(&work);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal as i32), "{signal}");
        assert_only(&work, &["source"]);
    }
}

/// A shell with a file system of `size` bytes at `work/small`, which needs no privilege on the host.
fn on_a_small_disk(work: &TempDir, size: u64, line: &str) -> Output {
    fs::create_dir_all(work.path().join("small")).unwrap();
    let line =
        format!("mount -t tmpfs -o size={size} none small || exit 99; {line}; code=$?; ls -A small >&2; exit $code");
    let mut command = Command::new("unshare");
    command.args(["-r", "-m", "sh", "-c", &line, FIM]).current_dir(work.path());
    command.output().expect("these tests need the package util-linux")
}

#[test]
fn a_full_disk_names_the_output_and_leaves_nothing() {
    let work = work();
    let program = fs::metadata(FIM).unwrap().len();
    for size in [program / 2, program + (2 << 20)] {
        let output = on_a_small_disk(&work, size, "\"$0\" build source -o small/app --level 1");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains("cannot write small/app: the file system is full"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "something was left: {stderr}");
    }
}

#[test]
fn an_output_may_have_the_longest_name() {
    let work = work();
    let name = "n".repeat(255);
    assert!(build(&work, &name, &[]).status.success());
    assert!(build(&work, &name, &["--force"]).status.success());
    assert!(Path::new(&work.path().join(name)).exists());
}
