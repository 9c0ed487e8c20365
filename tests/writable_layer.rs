//! What the writable layer changes, dropping it, and layers that become one.

mod harness;

use std::fs;

use harness::layers::{assert_same, changeable, seen, upper_names, without_counts};
use harness::owners::one_id;
use harness::{Terminal, World};
use runtime::image::Image;

/// The lines of `fim-layer diff`, without what every start makes.
fn diff(world: &World) -> Vec<String> {
    let printed = world.app(&["fim-layer", "diff"]).prints();
    let made = ["/dev", "/proc", "/root", "/run", "/sys", "/tmp", "/etc/passwd", "/etc/group", "/etc"];
    let is_made = |line: &str| made.iter().any(|path| line.rsplit(':').next() == Some(path));
    printed.lines().filter(|line| !is_made(line)).map(str::to_owned).collect()
}

#[test]
fn the_difference_is_what_was_done() {
    let world = changeable();
    assert_eq!(diff(&world), [""; 0]);
    world
        .sh(
            "cd /srv; echo new > added; printf 1234567 > first; rm second; touch -d @5 third; mkdir -p d/e; ln -s x l; \
             rm -r /usr/share/dir; mkdir /usr/share/dir; echo n > /usr/share/dir/two; echo > \"$(printf 'a\\nb')\"; \
             touch -d @9 /srv /usr/share /usr/share/dir",
        )
        .run()
        .succeeds();
    let expected = [
        "M:0:0:/srv",
        "A:1:0:/srv/a\\x0ab",
        "A:4:0:/srv/added",
        "A:0:0:/srv/d",
        "A:0:0:/srv/d/e",
        "M:7:10:/srv/first",
        "A:0:0:/srv/l",
        "D:0:11:/srv/second",
        "M:10:10:/srv/third",
        "M:0:0:/usr/share",
        "M:0:0:/usr/share/dir",
        "D:0:0:/usr/share/dir/deep",
        "D:0:4:/usr/share/dir/one",
        "M:2:4:/usr/share/dir/two",
    ];
    let found = diff(&world);
    assert_eq!(found, expected);
    let json: serde_json::Value = serde_json::from_str(&world.app(&["fim-layer", "diff", "--json"]).prints()).unwrap();
    let second = json.as_array().unwrap().iter().find(|change| change["path"] == "/srv/second").unwrap();
    assert_eq!(*second, serde_json::json!({ "before": 11, "change": "D", "path": "/srv/second", "size": 0 }));
    // What was committed is no difference any more, and neither is a file that was only copied.
    world.app(&["fim-layer", "commit", "binary", "--level", "0"]).run().succeeds();
    world.sh("chmod 600 /srv/first; chmod 644 /srv/first").run().succeeds();
    assert!(world.upper("srv/first").exists());
    assert_eq!(diff(&world), [""; 0]);
}

#[test]
fn reset_drops_everything_once_somebody_agrees() {
    let world = World::new();
    let before = world.sh("ls -R /etc /usr").prints();
    world.app(&["fim-layer", "reset", "--yes"]).prints();
    world.sh("rm -r /usr/share; echo x > /etc/release; mkdir -m 000 /etc/closed; chmod 711 /").run().succeeds();
    world.app(&["fim-layer", "reset"]).fails_naming(&["cannot be undone", "--yes"]);
    assert_eq!(world.sh("cat /etc/release").prints(), "x");
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-layer reset; echo code=$?");
    terminal.expect("[y/N] ");
    terminal.press("n\r");
    assert!(terminal.prompt().contains("nothing was dropped\ncode=125"));
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    world.app(&["fim-layer", "reset", "--yes"]).fails_naming(&["cannot reset: instances use", ": 0;"]);
    drop(running);
    world
        .app(&["fim-layer", "reset", "--yes"])
        .run()
        .succeeds()
        .with_stdout("Dropped the changes of the writable layer\n");
    assert_eq!(upper_names(&world), [""; 0]);
    assert_eq!(world.sh("ls -R /etc /usr").prints(), before);
    assert_eq!(world.sh("stat -c %a /").prints(), "711", "what / is like is the data directory's");
}

/// Makes layers with changes upon changes.
fn layered(world: &World, target: &str, seed: u32, count: u32) {
    for round in 0..count {
        world.root(&["tree", "churn", &(seed + round).to_string(), "100"]).run().succeeds();
        world.app(&["fim-layer", "commit", target, "--level", "0"]).run().succeeds().quietly();
    }
    world.root(&["tree", "churn", &(seed + count).to_string(), "50"]).run().succeeds();
}

fn squash(world: &World, stack: &str, count: usize) {
    let before = seen(world);
    let printed = world.app(&["fim-layer", "squash", stack, "--level", "0"]).prints();
    assert_eq!(printed, format!("Merged {count} layers into one"));
    assert_same(&without_counts(&before), &without_counts(&seen(world)), stack);
    let again = world.app(&["fim-layer", "squash", stack, "--level", "0"]).prints();
    assert_eq!(again, "There are no two layers to merge");
}

fn image(world: &World) -> Image {
    Image::open(fs::File::open(world.image()).unwrap(), world.image()).unwrap().unwrap()
}

#[test]
fn the_layers_of_the_image_become_one_that_shows_the_same() {
    let world = changeable();
    layered(&world, "binary", 301, 6);
    let (before, len) = (image(&world), fs::metadata(world.image()).unwrap().len());
    squash(&world, "binary", 7);
    let after = image(&world);
    assert_eq!((after.config.layers.len(), after.slot_fault), (1, None));
    assert_eq!(after.superblock, before.superblock);
    assert!(fs::metadata(world.image()).unwrap().len() < len, "the space is given back");
    world.app(&["fim-verify"]).run().succeeds();
    // Nobody is asked about the writable layer: it was made on what the one layer shows.
    world.exec(&["true"]).run().succeeds().quietly();
}

#[test]
fn managed_layers_become_one_that_still_covers_the_image() {
    let world = changeable();
    one_id(&world);
    layered(&world, "layer", 401, 6);
    squash(&world, "layer", 6);
    let names: Vec<_> =
        fs::read_dir(world.data().join("layers")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["layer-000.layer"]);
    assert_eq!(image(&world).config.layers.len(), 1);
}
