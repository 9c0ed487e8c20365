//! `fim extract` as its users call it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const FIM: &str = env!("CARGO_BIN_EXE_fim");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fim(work: &TempDir, line: &str) -> Output {
    Command::new(FIM).args(line.split_whitespace()).current_dir(work.path()).output().unwrap()
}

#[track_caller]
fn assert_works(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[track_caller]
fn assert_fails(output: &Output, reason: &str) {
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(125) && stderr.contains(reason), "{stderr}");
}

/// A directory with `source` and the image `app` made of it.
fn image() -> TempDir {
    let work = TempDir::new().unwrap();
    let source = work.path().join("source");
    fs::create_dir_all(source.join("sub/deep")).unwrap();
    fs::write(source.join("sub/file"), b"some text ".repeat(100_000)).unwrap();
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    fs::write(source.join("noise"), noise.take(1 << 20).collect::<Vec<_>>()).unwrap();
    fs::hard_link(source.join("sub/file"), source.join("hard")).unwrap();
    symlink("/etc/passwd", source.join("link")).unwrap();
    symlink("sub", source.join("alias")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 40_000_000).unwrap();
    fs::set_permissions(source.join("sub/deep"), fs::Permissions::from_mode(0o1755)).unwrap();
    assert_works(&fim(&work, "build source -o app --level 1 --boot x"));
    work
}

/// Type, mode, time, links, size and target of everything under `root`.
fn listing(root: &Path) -> String {
    let mut find = Command::new("find");
    find.args([".", "-printf", "%P %y %m %U:%G %T@ %n %s %l\\n"]).current_dir(root);
    let output = find.output().unwrap();
    let text = text(&output.stdout);
    // Sizes of directories are the file system's own affair.
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let size = if words[1] == "d" { "" } else { words[6] };
            [&words[..5], &[if words[1] == "d" { "" } else { words[5] }, size], &words[7..]].concat().join(" ")
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

#[track_caller]
fn assert_same(work: &TempDir, copy: &str) {
    let [source, copy] = ["source", copy].map(|name| work.path().join(name));
    assert_eq!(listing(&source), listing(&copy));
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).args([&source, &copy]).output().unwrap();
    assert!(diff.status.success(), "{}", text(&diff.stdout));
}

#[test]
fn what_was_packed_comes_out() {
    let work = image();
    let output = fim(&work, "extract app copy");
    assert_works(&output);
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()));
    assert_same(&work, "copy");
    assert!(fs::metadata(work.path().join("copy/sparse")).unwrap().blocks() * 512 < 1 << 20);
    fs::create_dir(work.path().join("empty")).unwrap();
    assert_works(&fim(&work, "extract app empty"));
    assert_same(&work, "empty");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 4, "nothing else is left");
}

#[test]
fn a_directory_in_use_is_not_touched() {
    let work = image();
    let before = listing(&work.path().join("source"));
    assert_fails(&fim(&work, "extract app source"), "source is not empty; name a directory that does not exist");
    assert_eq!(listing(&work.path().join("source")), before);
    assert_fails(&fim(&work, "extract app app"), "cannot extract to app: Not a directory");
    assert_fails(&fim(&work, "extract app missing/copy"), "make that directory first");
    symlink("nowhere", work.path().join("dangling")).unwrap();
    assert_fails(&fim(&work, "extract app dangling"), "cannot extract to dangling");
    assert_fails(&fim(&work, "extract nothing copy"), "nothing");
    assert_fails(&fim(&work, "extract app"), "DIRECTORY");
    fs::create_dir(work.path().join("here")).unwrap();
    let mut here = Command::new(FIM);
    here.args(["extract", "../app", "."]).current_dir(work.path().join("here"));
    assert_fails(&here.output().unwrap(), ". is the current directory");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 4, "nothing else is left");
}

#[test]
fn a_changed_byte_is_noticed_and_nothing_is_left() {
    let work = image();
    let output = fim(&work, "inspect app --json");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let layer = &value["config"].is_object().then(|| value["layers"][0].clone()).unwrap();
    let middle = layer["offset"].as_u64().unwrap() + layer["size"].as_u64().unwrap() / 2;
    let file = File::options().read(true).write(true).open(work.path().join("app")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    drop(file);
    let output = fim(&work, "extract app copy");
    assert_fails(&output, "fim verify app");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 2, "{}", text(&output.stderr));
}

#[test]
fn layers_are_merged() {
    let work = image();
    let upper = work.path().join("upper");
    fs::create_dir_all(upper.join("sub")).unwrap();
    fs::write(upper.join("sub/new"), "new").unwrap();
    fs::write(upper.join("hard"), "covered").unwrap();
    let layer = work.path().join("layer");
    let out = File::options().read(true).write(true).create_new(true).open(&layer).unwrap();
    let packing = runtime::pack::Options::default();
    runtime::pack::Layer::directory(upper).pack(&out, 0, &packing, &mut ()).unwrap();
    let facts = runtime::image::LayerFacts { kind: runtime::image::LayerKind::Squashfs, inodes: 4, unpacked: 10 };
    let mut data = File::open(&layer).unwrap();
    runtime::image::append_layer(&work.path().join("app"), &mut data, facts).unwrap();
    assert_works(&fim(&work, "extract app copy"));
    let copy = work.path().join("copy");
    assert_eq!(fs::read_to_string(copy.join("sub/new")).unwrap(), "new");
    assert_eq!(fs::read_to_string(copy.join("hard")).unwrap(), "covered");
    assert_eq!(fs::metadata(copy.join("sub/file")).unwrap().len(), 1_000_000);
}

/// As root everything is restored without a word; others are told once what is not.
#[test]
fn what_needs_privilege_is_told_once() {
    let work = TempDir::new().unwrap();
    fs::create_dir(work.path().join("source")).unwrap();
    for name in ["a", "b"] {
        fs::write(work.path().join("source").join(name), name).unwrap();
    }
    let mut tar = Command::new("tar");
    tar.args(["--owner=12345", "--group=12345", "-cf", "app.tar", "-C", "source", "a", "b"]).current_dir(&work);
    assert!(tar.status().unwrap().success());
    assert_works(&fim(&work, "build app.tar -o app --level 1 --boot x"));
    let output = fim(&work, "extract app copy");
    assert_works(&output);
    let owner = fs::metadata(work.path().join("copy/a")).unwrap().uid();
    let stderr = text(&output.stderr);
    if nix::unistd::geteuid().is_root() {
        assert_eq!((owner, stderr.as_str()), (12_345, ""));
    } else {
        assert_eq!(owner, nix::unistd::geteuid().as_raw());
        // The two files and the root, which the tar does not have and so belongs to 0.
        assert!(stderr.starts_with("fim: note: not restored: 3 owners; ") && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let work = image();
    fs::create_dir(work.path().join("small")).unwrap();
    let line = "mount -t tmpfs -o size=512k none small || exit 99; \"$0\" extract app small/copy; code=$?; \
                ls -A small >&2; exit $code";
    let mut command = Command::new("unshare");
    command.args(["-r", "-m", "sh", "-c", line, FIM]).current_dir(work.path());
    let output = command.output().expect("these tests need the package util-linux");
    assert_fails(&output, "No space left on device");
    assert_eq!(text(&output.stderr).lines().count(), 1, "something was left: {}", text(&output.stderr));
}
