//! `fim-layer`: creating, adding, listing, removing and extracting layers.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::process::wait_readable;
use harness::{FIM, Running, Terminal, World, is_root};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A directory with `/etc/layer` and a file of its own that say `name`.
fn tree(world: &World, name: &str) -> PathBuf {
    let tree = world.path(format!("tree-{name}"));
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/layer"), format!("{name}\n")).unwrap();
    fs::write(tree.join(format!("only-{name}")), name).unwrap();
    tree
}

/// A layer file of such a directory.
fn layer(world: &World, name: &str) -> PathBuf {
    let file = world.path(format!("{name}.layer"));
    let tree = tree(world, name);
    let words = ["fim-layer", "create", tree.to_str().unwrap(), file.to_str().unwrap(), "--level", "0"];
    let outcome = world.app(&words).run().succeeds().quietly();
    outcome.with_stdout("Gathering files to compress...\nFilesystem created without errors\n");
    file
}

fn list(world: &World) -> Vec<String> {
    world.app(&["fim-layer", "list"]).prints().lines().map(str::to_owned).collect()
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn wrong_words_are_refused_with_the_texts_that_scripts_know() {
    let world = World::new();
    let before = bytes(world.image());
    for (line, text) in [
        ("", "Missing op for 'fim-layer' (create,add,commit,list)"),
        ("burn", "Invalid layer operation"),
        ("create only", "create requires exactly two arguments (/path/to/dir /path/to/file.layer)"),
        ("add", "add requires exactly one argument (/path/to/file.layer)"),
        ("commit", "Missing op for 'commit' (binary,layer,file)"),
        ("commit burn", "Invalid commit operation"),
        ("commit file", "Missing path for 'file' operation"),
        ("commit binary x", "Trailing arguments for fim-layer commit: ['x',]"),
        ("list x", "Trailing arguments for fim-layer list: ['x',]"),
        ("create a b --level 10", "Invalid compression level '10'"),
        ("remove one", "Index of a layer is not a number"),
        ("rebase", "Missing op for 'rebase' (keep,commit,reset)"),
        ("rebase keep", "there is no writable layer to decide about"),
    ] {
        let words: Vec<&str> = ["fim-layer"].into_iter().chain(line.split_whitespace()).collect();
        world.app(&words).fails_naming(&[text]);
    }
    assert!(bytes(world.image()) == before && !world.data().exists());
}

#[test]
fn a_created_layer_can_be_added_and_is_seen() {
    let world = World::new();
    assert_eq!(list(&world).len(), 1);
    let file = layer(&world, "one");
    let outcome = world.app(&["fim-layer", "add", "one.layer"]).run().succeeds().quietly();
    outcome.with_stdout("Included novel layer from file 'one.layer'\n");
    assert_eq!(world.sh("cat /etc/layer /only-one /etc/release").prints(), "one\nonesmall");
    let lines = list(&world);
    let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.splitn(4, ':').collect()).collect();
    let image = world.image().to_str().unwrap();
    assert!(fields.len() == 2 && fields[0][0] == "0" && fields[1][0] == "1", "{lines:?}");
    assert!(fields.iter().all(|line| line[3] == image && line[1] != "0"), "{lines:?}");
    assert!(fields[1][2].parse::<u64>().unwrap() <= fs::metadata(file).unwrap().len());
    let json: Value = serde_json::from_str(&world.app(&["fim-layer", "list", "--json"]).prints()).unwrap();
    assert_eq!((&json[1]["index"], &json[1]["kind"], &json[1]["path"]), (&1.into(), &"embedded".into(), &image.into()));
    assert_eq!(json[1]["digest"].as_str().unwrap().len(), 64);
    world.app(&["fim-verify"]).run().succeeds();
    let inspected: Value = serde_json::from_str(&world.app(&["fim-inspect", "--json"]).prints()).unwrap();
    assert_eq!(inspected["layers"].as_array().unwrap().len(), 2);
}

#[test]
fn sources_and_destinations_that_will_not_do_are_named() {
    let world = World::new();
    let create = |from: &str, to: &str| world.app(&["fim-layer", "create", from, to]);
    fs::write(world.path("file"), "mine").unwrap();
    create("nothing", "new.layer").fails_naming(&["Source directory 'nothing' does not exist"]);
    create("file", "new.layer").fails_naming(&["Source 'file' is not a directory"]);
    create("home", "file").fails_naming(&["Destination file already exists: file"]);
    create("home", "missing/new.layer").fails_naming(&["missing/new.layer", "No such file"]);
    create("home", "home/new.layer").fails_naming(&["would pack itself"]);
    create("home", "/proc/new.layer").fails_naming(&["/proc"]);
    symlink("nowhere", world.path("dangling")).unwrap();
    create("home", "dangling").fails_naming(&["already exists"]);
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "mine");
    assert!(fs::read_dir(world.path("home")).unwrap().next().is_none());
}

#[test]
fn the_level_is_chosen_by_option_and_variable() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    let text: String = (0..200_000).map(|number: u64| format!("{} ", number * number % 9973)).collect();
    fs::write(source.join("text"), text).unwrap();
    let size = |name: &str, words: &[&str], level: &str| {
        let create = ["fim-layer", "create", "source", name];
        world.app(&create).args(words).env("FIM_COMPRESSION_LEVEL", level).run().succeeds();
        fs::metadata(world.path(name)).unwrap().len()
    };
    let (fast, small) = (size("a", &["--level", "0"], "9"), size("b", &["--level", "9"], "0"));
    assert!(small < fast, "{small} {fast}");
    assert_eq!(size("c", &[], "9"), small);
    assert_eq!(size("d", &[], "99"), small);
    assert_eq!(size("e", &[], "best"), size("f", &["--level", "7"], "0"));
}

#[test]
fn what_is_no_sound_layer_is_refused_and_the_image_stays_as_it_is() {
    let world = World::new();
    let good = layer(&world, "good");
    let before = bytes(world.image());
    let sound = bytes(&good);
    let refused = |name: &str, content: &[u8], words: &[&str]| {
        fs::write(world.path(name), content).unwrap();
        world.app(&["fim-layer", "add", name]).fails_naming(&[&[name][..], words].concat());
    };
    refused("empty", b"", &["too few"]);
    refused("junk", &[7; 5000], &["no squashfs archive"]);
    refused("short", &sound[..100], &["bytes, but only 100 are there"]);
    refused("cut", &sound[..sound.len() / 16], &["cut"]);
    let changed = |at: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        bytes
    };
    refused("newer", &changed(28, 5), &["version is 5.0, only 4.0 can be read"]);
    refused("lzma", &changed(20, 2), &["lzma"]);
    // The first byte of the inode table is part of the length of its block.
    let inodes = u64::from_le_bytes(sound[64..72].try_into().unwrap()) as usize;
    refused("hostile", &changed(inodes + 3, 0xff), &["hostile"]);
    world.app(&["fim-layer", "add", "nothing"]).fails_naming(&["nothing", "No such file"]);
    world.app(&["fim-layer", "add", "home"]).fails_naming(&["home", "no regular file"]);
    world.app(&["fim-layer", "add", world.image().to_str().unwrap()]).fails_naming(&["no squashfs archive"]);
    nix::unistd::mkfifo(&world.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.app(&["fim-layer", "add", "pipe"]).fails_naming(&["pipe", "no regular file"]);
    assert!(bytes(world.image()) == before);
}

#[test]
fn a_layer_on_an_image_that_cannot_be_written_is_refused() {
    let world = World::new();
    layer(&world, "one");
    fs::set_permissions(world.image(), fs::Permissions::from_mode(0o555)).unwrap();
    if !is_root() {
        world.app(&["fim-layer", "add", "one.layer"]).fails_naming(&["read-only"]);
    }
    let script = "mount --bind . . && mount -o remount,ro,bind . && cd $PWD && $IMAGE fim-layer add one.layer";
    world.in_namespace(script).run().exits(125).complains_of(&["cannot change the image"]);
    assert_eq!(list(&world).len(), 1);
}

#[test]
fn a_full_disk_leaves_the_image_byte_for_byte() {
    let world = World::new();
    world.host_sh("mkdir noise; head -c 6000000 /dev/urandom > noise/noise").run().succeeds();
    world.app(&["fim-layer", "create", "noise", "noise.layer", "--level", "0"]).run().succeeds();
    // Room for half of the layer.
    let script = r#"
        set -e
        need=$(stat -c %s $IMAGE); layer=$(stat -c %s noise.layer)
        mkdir small; mount -t tmpfs -o size=$((need + layer / 2)) none small
        cp --sparse=never $IMAGE small/app; before=$(sha256sum <small/app)
        code=0; small/app fim-layer add noise.layer || code=$?
        [ "$(sha256sum <small/app)" = "$before" ] && ls -A small
        rm small/app; head -c $((need + layer / 3)) /dev/zero >small/filling
        $IMAGE fim-layer create noise small/new.layer || code=$((code + $?))
        ls -A small
        exit $code
    "#;
    let outcome = world.in_namespace(script).run().exits(250);
    let outcome = outcome.with_stdout("app\nGathering files to compress...\nfilling\n");
    outcome.complains_of(&["the file system is full", "the image is as it was", "nothing was left"]);
}

#[test]
fn an_addition_that_is_killed_leaves_the_image_as_it_was() {
    let world = World::new();
    world.host_sh("mkdir noise; head -c 20000000 /dev/urandom > noise/noise").run().succeeds();
    world.app(&["fim-layer", "create", "noise", "noise.layer", "--level", "0"]).run().succeeds();
    let killed_in_time = || {
        let changes = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        changes.add_watch(&world.path(""), AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE).unwrap();
        let running = world.app(&["fim-layer", "add", "noise.layer"]).spawn();
        wait_readable(&changes, "the first write of the layer");
        running.signal(Signal::SIGKILL);
        running.wait_as_it_is();
        list(&world).len() == 1
    };
    // One that was quicker than this process has added its layer, which is as it should be, too.
    let attempts = (0..20).take_while(|_| !killed_in_time()).map(|_| {
        world.app(&["fim-verify"]).run().succeeds();
        world.app(&["fim-layer", "remove", "1"]).run().succeeds();
    });
    assert!(attempts.count() < 20, "no addition was killed in time");
    world.app(&["fim-verify"]).run().succeeds();
    assert_eq!(world.exec(&["cat", "/etc/release"]).prints(), "small");
    world.app(&["fim-layer", "add", "noise.layer"]).run().succeeds();
    world.app(&["fim-verify"]).run().succeeds();
    let names = world.host_sh("ls -A | grep fim-change || true").prints();
    assert_eq!(names, "", "a copy is left");
}

#[test]
fn a_running_instance_keeps_its_stack() {
    let world = World::new();
    layer(&world, "one");
    layer(&world, "two");
    world.app(&["fim-layer", "add", "one.layer"]).run().succeeds();
    let mut running = world.sh("cat /etc/layer; read word; cat /only-one; ls /only-two; echo; cat").spawn();
    running.expect("one");
    world.app(&["fim-layer", "remove", "1"]).run().succeeds().quietly();
    world.app(&["fim-layer", "add", "two.layer"]).run().succeeds();
    // The difference is named.
    let refused = world.exec(&["true"]).run().exits(125);
    refused.complains_of(&["in use by instances", "running: layer ", "this start: layer ", "FIM_DIR_DATA"]);
    running.say("go\n");
    running.expect("one");
    running.close_stdin();
    let outcome = running.wait();
    assert!(outcome.stderr().contains("/only-two"), "{outcome:?}");
    world.wait_for_end();
    assert_eq!(world.sh("cat /etc/layer; ls /only-*").prints(), "two\n/only-two");
}

#[test]
fn only_the_last_layer_is_removed_and_its_space_with_it() {
    let world = World::new();
    let before = fs::metadata(world.image()).unwrap();
    for name in ["one", "two"] {
        layer(&world, name);
        world.app(&["fim-layer", "add", &format!("{name}.layer")]).run().succeeds();
    }
    world.sh("echo mine > /etc/mine").run().succeeds();
    let remove = |index: &str| world.app(&["fim-layer", "remove", index]);
    remove("0").fails_naming(&["layer 0 is what the others build on"]);
    remove("1").fails_naming(&["not the last", "remove 2 first"]);
    remove("3").fails_naming(&["no layer 3"]);
    assert_eq!(list(&world).len(), 3);
    for index in ["2", "1"] {
        remove(index).run().succeeds().quietly().with_stdout("");
        world.app(&["fim-verify"]).run().succeeds();
    }
    let after = fs::metadata(world.image()).unwrap();
    assert_eq!((after.len(), after.permissions()), (before.len(), before.permissions()));
    // What was written on the removed layers stays, without a question.
    assert_eq!(world.sh("cat /etc/mine; ls /only-*").run().stdout, b"mine\n");
    remove("0").fails_naming(&["layer 0"]);
}

#[test]
fn additions_at_once_all_arrive() {
    let world = World::new();
    layer(&world, "one");
    // Held until all have begun: an image that is just being written cannot be executed (README, Limits).
    let lock = Flock::lock(fs::File::open(world.image()).unwrap(), FlockArg::LockExclusive).unwrap();
    let additions: Vec<Running> = (0..6).map(|_| world.app(&["fim-layer", "add", "one.layer"]).spawn()).collect();
    let setting = world.app(&["fim-env", "add", "A=1"]).spawn();
    drop(lock);
    for addition in additions {
        addition.wait().succeeds().quietly().with_stdout("Included novel layer from file 'one.layer'\n");
    }
    setting.wait().succeeds().quietly();
    assert_eq!(list(&world).len(), 7);
    world.app(&["fim-verify"]).run().succeeds();
    assert_eq!(world.app(&["fim-env", "list"]).prints(), "A=1");
}

#[test]
fn one_layer_is_extracted_with_its_marks() {
    let world = World::new();
    layer(&world, "one");
    world.app(&["fim-layer", "add", "one.layer"]).run().succeeds();
    world.sh("rm -r /usr/share/dir/deep; rm /usr/share/plain; echo new > /usr/share/dir/new").run().succeeds();
    world.app(&["fim-layer", "commit", "layer", "--level", "0"]).run().succeeds();
    let extract = |index: &str, to: &str| world.app(&["fim-layer", "extract", index, to]);
    extract("1", "out").run().succeeds().with_stdout("");
    let names = world.host_sh("cd out; find . | sort").prints();
    assert_eq!(names, ".\n./etc\n./etc/layer\n./only-one");
    extract("2", "changes").run().succeeds();
    assert_eq!(fs::read_to_string(world.path("changes/usr/share/dir/new")).unwrap(), "new\n");
    // What was taken away is still taken away by a layer that is made of it.
    world.app(&["fim-layer", "create", "changes", "again.layer", "--level", "0"]).run().succeeds();
    let again = world.sh("ls /usr/share /usr/share/dir").env("FIM_DIR_DATA", "fresh").env("FIM_LAYERS", "again.layer");
    assert_eq!(again.prints(), "/usr/share:\ndir\nnoise\n\n/usr/share/dir:\nnew\none\ntwo");
    extract("3", "none").fails_naming(&["there is no layer 3", "the stack has 3"]);
    extract("1", "out").fails_naming(&["out is not empty"]);
    fs::write(world.path("file"), "").unwrap();
    extract("1", "file").fails_naming(&["file"]);
    assert!(!world.path("none").exists());
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let world = World::new();
    world.host_sh("mkdir noise; for n in 1 2 3 4; do head -c 8000000 /dev/urandom > noise/$n; done").run().succeeds();
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-layer create noise noise.layer --level 7");
    terminal.expect(" MiB/");
    terminal.expect("files");
    terminal.expect("Filesystem created without errors");
    terminal.prompt();
}

#[test]
fn the_builder_takes_a_created_layer() {
    let world = World::new();
    layer(&world, "one");
    let command = harness::TestCommand::new(FIM).arg("build").arg(world.path("one.layer")).args(["-q", "-o"]);
    command.arg(world.path("other")).run().succeeds();
}
