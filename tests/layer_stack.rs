//! The stack of a start: its order at any count, layers outside of the image, and what happens to those that are bad.

mod harness;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;

use harness::{World, is_root, need};

/// Makes the layer file `file` in which `/etc/layer` and `/by/NAME` say `name`.
fn layer(world: &World, file: &str, name: &str) -> PathBuf {
    let (tree, file) = (world.path(format!("tree-{name}")), world.path(file));
    for directory in ["etc", "by"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    for path in ["etc/layer".to_owned(), format!("by/{name}")] {
        fs::write(tree.join(path), format!("{name}\n")).unwrap();
    }
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let words = ["fim-layer", "create", tree.to_str().unwrap(), file.to_str().unwrap(), "--level", "0"];
    world.app(&words).run().succeeds().quietly();
    file
}

/// `count` layers in the directory `many`, called 0, 1, … without zeros in front. Made by one process: there are many.
fn many(world: &World, count: usize) {
    need("mksquashfs");
    let script = r#"
        mkdir many tree; cd tree; mkdir etc by
        for number in $(seq 0 $((COUNT - 1))); do
            echo $number > etc/layer; rm -f by/*; echo $number > by/$number
            mksquashfs . ../many/$number -noappend -quiet -no-progress -root-owned -comp gzip > /dev/null
        done
    "#;
    world.host_sh(script).env("COUNT", count.to_string()).run().succeeds();
}

/// The layer that wins, and how many are there.
const TOP: &str = "cat /etc/layer; ls /by | wc -l";

#[test]
fn the_order_is_that_of_the_image_the_variable_and_the_managed_layers() {
    let world = World::new();
    layer(&world, "embedded.layer", "embedded");
    world.app(&["fim-layer", "add", "embedded.layer"]).run().succeeds();
    assert_eq!(world.sh(TOP).prints(), "embedded\n1");
    world.wait_for_end();
    let (a, b) = (layer(&world, "a b.layer", "a"), layer(&world, "b.layer", "b"));
    let with = |value: &str| world.sh(TOP).env("FIM_LAYERS", value);
    assert_eq!(with(&format!("{}:{}", a.display(), b.display())).prints(), "b\n3");
    world.wait_for_end();
    // Blanks mean nothing, variables are replaced, relative paths are the caller's.
    assert_eq!(with("b.layer:$NAME:").env("NAME", "a b.layer").prints(), "a\n3");
    world.wait_for_end();
    layer(&world, ".app.flatimage.data/layers/layer-2.layer", "managed-2");
    layer(&world, ".app.flatimage.data/layers/layer-010.layer", "managed-10");
    fs::write(world.data().join("layers/notes.txt"), "mine").unwrap();
    assert_eq!(with("b.layer").prints(), "managed-10\n4");
    let listed = world.app(&["fim-layer", "list"]).env("FIM_LAYERS", "b.layer").prints();
    let names: Vec<&str> = listed.lines().map(|line| line.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["app.flatimage", "app.flatimage", "b.layer", "layer-2.layer", "layer-010.layer"]);
    assert!(listed.lines().skip(2).all(|line| line.split(':').nth(1) == Some("0")), "{listed}");
    // And the writable layer on top.
    world.wait_for_end();
    world.sh("echo mine > /etc/layer").run().succeeds();
    assert_eq!(world.sh("cat /etc/layer").prints(), "mine");
}

#[test]
fn thirteen_layers_of_a_directory_are_stacked_by_number() {
    let world = World::new();
    many(&world, 13);
    fs::write(world.path("many/README"), "no layer").unwrap();
    fs::create_dir(world.path("many/directory")).unwrap();
    let start = world.sh(TOP).env("FIM_LAYERS", "many").env("FIM_DEBUG", "1").run().succeeds();
    let text = start.text();
    assert!(text.ends_with("\n12\n13"), "{text}");
    let many = world.path("many");
    let token = format!("Mounting layer from '{}/9' with offset '0'", many.display());
    assert!(text.contains(&token) && text.contains("Overlay layer '13'"), "{text}");
}

#[test]
fn many_layers_work_and_too_many_are_refused() {
    let world = World::new();
    many(&world, 128);
    assert_eq!(world.sh(TOP).env("FIM_LAYERS", "many").prints(), "127\n128");
    world.wait_for_end();
    // Each file once is enough to be counted.
    let list = |times: usize| vec!["many"; times].join(":");
    let most = format!("{}:{}", list(3), (0..15).map(|number| format!("many/{number}")).collect::<Vec<_>>().join(":"));
    assert_eq!(world.sh(TOP).env("FIM_LAYERS", &most).prints(), "14\n128");
    world.wait_for_end();
    let outcome = world.exec(&["true"]).env("FIM_LAYERS", format!("{most}:many/0")).run().exits(125);
    outcome.complains_of(&["401 layers (1 in the image, 400 outside of it)", "at most 400"]);
}

#[test]
fn many_layers_show_what_few_show() {
    let world = World::new();
    // Deletions, a directory made anew, one that was replaced by a file and the other way round, links, odd names.
    for script in [
        "rm /usr/share/plain; rm -r /usr/share/dir/deep; mkdir -p /opt/a/b; echo 1 > /opt/a/b/c; ln /opt/a/b/c /opt/hard",
        "rm -r /usr/share/dir; mkdir /usr/share/dir; echo new > /usr/share/dir/only; rm -r /opt/a; echo file > /opt/a",
        "rm /opt/a; mkdir /opt/a; echo back > /usr/share/plain; chmod 700 /opt; ln -s only /usr/share/dir/link; mkfifo /opt/pipe",
    ] {
        world.sh(script).run().succeeds();
        world.wait_for_end();
        world.app(&["fim-layer", "commit", "layer", "--level", "0"]).run().succeeds();
    }
    let show =
        "cd /; find bin opt usr -exec stat -c '%n %F %a %u %s %Y %N' {} +; find opt usr -type f -exec md5sum {} +";
    let seen = |layers: &str| {
        let outcome = world.sh(show).env("FIM_LAYERS", layers).prints();
        world.wait_for_end();
        let mut lines: Vec<String> = outcome.lines().map(str::to_owned).collect();
        // The order is the file system's. (/etc has the account files, which every start writes.)
        lines.sort();
        lines
    };
    let few = seen("");
    assert!(few.iter().any(|line| line.contains("/only")) && !few.iter().any(|line| line.contains("deep")), "{few:?}");
    fs::create_dir(world.path("empty")).unwrap();
    world.app(&["fim-layer", "create", "empty", "empty.layer"]).run().succeeds();
    let many = seen(&["empty.layer"; 20].join(":"));
    let only = |one: &[String], other: &[String]| one.iter().filter(|line| !other.contains(line)).cloned().collect();
    let difference: [Vec<String>; 2] = [only(&few, &many), only(&many, &few)];
    assert_eq!(difference, [Vec::<String>::new(), Vec::new()]);
    // And what is written on them is the same.
    let write = "rm -r /usr/share/dir; rm /opt/pipe; echo more >> /usr/share/plain; mv /usr/share/noise /opt; ls -R /usr/share /opt";
    let written = world.sh(write).env("FIM_LAYERS", ["empty.layer"; 20].join(":")).prints();
    assert!(!written.contains("only") && written.contains("noise") && !written.contains("pipe"), "{written}");
    world.wait_for_end();
    assert_eq!(world.sh("ls -R /usr/share /opt").prints(), written);
}

#[test]
fn an_invalid_layer_is_named_and_nothing_runs() {
    let world = World::new();
    let good = fs::read(layer(&world, "good.layer", "good")).unwrap();
    fs::create_dir(world.path("set")).unwrap();
    fs::copy(world.path("good.layer"), world.path("set/1")).unwrap();
    let start = |layers: &str| world.sh("echo ran; touch /ran").env("FIM_LAYERS", layers);
    let refused = |layers: &str, words: &[&str]| {
        start(layers).fails_naming(words).with_stdout("");
        world.wait_for_end();
        assert!(!world.upper("ran").exists());
    };
    fs::write(world.path("junk"), [9; 5000]).unwrap();
    refused("good.layer:junk", &["/junk", "no squashfs archive"]);
    fs::write(world.path("set/2"), &good[..1000.min(good.len() / 16)]).unwrap();
    refused("set", &["/set/2", "are there"]);
    let mut newer = good.clone();
    newer[28] = 5;
    fs::write(world.path("newer"), &newer).unwrap();
    refused("newer", &["/newer", "only 4.0 can be read"]);
    nix::unistd::mkfifo(&world.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused("pipe", &["/pipe", "no regular file"]);
    fs::create_dir_all(world.data().join("layers")).unwrap();
    fs::write(world.data().join("layers/layer-000.layer"), "junk").unwrap();
    refused("", &["layers/layer-000.layer", "too few"]);
    fs::remove_file(world.data().join("layers/layer-000.layer")).unwrap();
    symlink("nowhere", world.path("dangling")).unwrap();
    // Missing ones are passed over, as ever, but not silently.
    let outcome = start("dangling:good.layer:missing").run().succeeds().with_stdout("ran\n");
    outcome.complains_of(&["/dangling, which does not exist", "/missing, which does not exist"]);
}

#[test]
fn a_layer_that_may_not_be_read_is_named() {
    let world = World::new();
    let file = layer(&world, "closed.layer", "closed");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let start = world.sh(TOP).env("FIM_LAYERS", "closed.layer");
    // Root may read everything.
    if is_root() {
        assert_eq!(start.prints(), "closed\n1");
    } else {
        start.fails_naming(&["/closed.layer", "ermission denied"]);
    }
}

#[test]
fn other_layers_are_another_session() {
    let world = World::new();
    layer(&world, "a.layer", "a");
    layer(&world, "b.layer", "b");
    let mut running = world.sh("echo ready; cat").env("FIM_LAYERS", "a.layer:b.layer").spawn();
    running.expect("ready");
    assert_eq!(world.sh(TOP).env("FIM_LAYERS", "./a.layer:b.layer").prints(), "b\n2");
    for other in ["b.layer:a.layer", "a.layer", ""] {
        let outcome = world.exec(&["true"]).env("FIM_LAYERS", other).run().exits(125);
        outcome.complains_of(&["with other layers", "running: layer ", ".layer (4096 bytes", "FIM_DIR_DATA"]);
    }
    // A file that was changed is another layer.
    fs::copy(world.path("b.layer"), world.path("new")).unwrap();
    fs::rename(world.path("new"), world.path("b.layer")).unwrap();
    let outcome = world.exec(&["true"]).env("FIM_LAYERS", "a.layer:b.layer").run().exits(125);
    outcome.complains_of(&["running: layer 2", "this start: layer 2"]);
    // What runs can be used all the same.
    assert_eq!(world.app(&["fim-instance", "exec", "0", "cat", "/etc/layer"]).prints(), "b");
    running.close_stdin();
    running.wait().succeeds();
}

#[test]
fn a_layer_that_is_cut_while_it_runs_gives_an_error_to_its_readers() {
    let world = World::new();
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    world.host_sh("head -c 3000000 /dev/urandom > tree/noise; echo small > tree/small").run().succeeds();
    world.app(&["fim-layer", "create", "tree", "noise.layer"]).run().succeeds();
    fs::copy(world.path("noise.layer"), world.path("gone.layer")).unwrap();
    let script = "cat /small; read word; cat /noise > /dev/null; echo $?; dd if=/noise bs=4096 count=1 skip=500 status=none | wc -c; \
                  cat /etc/release; read word; echo written > /etc/new; cat /etc/new";
    let mut running = world.sh(script).env("FIM_LAYERS", "noise.layer").spawn();
    running.expect("small");
    let file = fs::File::options().write(true).open(world.path("noise.layer")).unwrap();
    file.set_len(200_000).unwrap();
    running.say("go\n");
    running.expect("1\n0\n");
    running.expect("small");
    // Even without a single byte.
    file.set_len(0).unwrap();
    file.write_all_at(b"junk", 0).unwrap();
    running.say("go\n");
    running.expect("written");
    running.close_stdin();
    let outcome = running.wait().succeeds();
    assert!(outcome.stderr().contains("Input/output error"), "{outcome:?}");
    assert!(fs::read_to_string(world.data().join("errors.log")).unwrap().contains("layer 1"));
    world.wait_for_end();
    // One that is deleted is there until the end.
    let mut running = world.sh("cat /small; read word; cat /noise | wc -c").env("FIM_LAYERS", "gone.layer").spawn();
    running.expect("small");
    fs::remove_file(world.path("gone.layer")).unwrap();
    running.say("go\n");
    running.expect("3000000");
    running.close_stdin();
    running.wait().succeeds();
}
