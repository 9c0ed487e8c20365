//! Commits that are killed: at whatever system call, neither the layer nor the changes are lost or doubled, and the guest
//! sees the same tree.

mod harness;

use std::fs;

use harness::layers::{add_tree_program, assert_same, seen, upper_names, without_counts};
use harness::{Outcome, TestCommand, World, need};
use runtime::image::Image;

/// System calls that change something, and at how many of them a process is killed at most: of those that move data, the
/// first ones stand for all.
const CALLS: [(&str, u32); 12] = [
    ("write", 10),
    ("pwrite64", 3),
    ("fsync", 100),
    ("ftruncate", 100),
    ("rename", 100),
    ("renameat2", 100),
    ("linkat", 100),
    ("unlink", 100),
    ("unlinkat", 3),
    ("mkdir", 100),
    ("chmod", 100),
    ("utimensat", 100),
];

/// Runs a command that is killed when it is about to do one of these calls for the `count`th time.
fn killed(world: &World, call: &str, count: u32, words: &[&str]) -> Outcome {
    world
        .equip(TestCommand::new(need("strace")))
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"])
        .arg(format!("inject={call}:signal=SIGKILL:when={count}"))
        .arg(world.image())
        .args(words)
        .run()
}

/// How many layers there are, in the image and beside it.
fn layers(world: &World) -> usize {
    let image = Image::open(fs::File::open(world.image()).unwrap(), world.image()).unwrap().unwrap();
    image.config.layers.len() + managed(world)
}

fn managed(world: &World) -> usize {
    let files = fs::read_dir(world.data().join("layers")).into_iter().flatten();
    files.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "layer")).count()
}

fn change(world: &World, round: u32) {
    let script = format!(
        "echo {round} > /etc/changed; rm -rf /srv; mkdir /srv; echo {round} > /srv/only; rm -f /opt/app/share/first; \
         mkdir /opt/app/{round}; ln /etc/changed /opt/app/{round}/hard"
    );
    world.root_sh(&script).run().succeeds().quietly();
}

fn each_kill(target: &[&str]) {
    let world = World::with_tree(add_tree_program, &[]);
    let commit: Vec<&str> = ["fim-layer", "commit"].iter().chain(target).chain(&["--level", "0"]).copied().collect();
    let (mut round, mut kills) = (0, 0);
    change(&world, round);
    let mut before = seen(&world);
    for (call, most) in CALLS {
        for count in 1..=most {
            world.wait_for_end();
            let present = layers(&world);
            let outcome = killed(&world, call, count, &commit);
            kills += 1;
            let when = format!("{target:?} killed at {call} {count}: {outcome:?}");
            // Every other time a second commit comes first, else a start.
            let after = if kills % 2 == 0 {
                world.app(&commit).run();
                assert_eq!(upper_names(&world), [""; 0], "{when}");
                world.root(&["tree", "tree"]).run().succeeds().text()
            } else {
                world.root(&["tree", "tree"]).run().succeeds().text()
            };
            assert_same(&before, &after, &when);
            world.wait_for_end();
            let done = upper_names(&world).is_empty();
            assert_eq!(layers(&world), present + usize::from(done), "{when}");
            for left in ["commit", "committed"] {
                assert!(!world.data().join(left).exists(), "{left} is left: {when}");
            }
            if done {
                round += 1;
                change(&world, round);
                before = seen(&world);
            }
            if outcome.status.success() {
                break;
            }
        }
    }
    assert!(kills > 30, "only {kills} system calls were killed");
}

#[test]
fn a_commit_to_the_image_may_be_killed_at_any_moment() {
    each_kill(&["binary"]);
}

#[test]
fn a_commit_to_a_managed_layer_may_be_killed_at_any_moment() {
    each_kill(&["layer"]);
}

#[test]
fn merging_layers_may_be_killed_at_any_moment() {
    let world = World::with_tree(add_tree_program, &[]);
    let (mut round, mut kills) = (0, 0);
    for stack in ["layer", "binary"] {
        for (call, most) in CALLS {
            for count in 1..=most.min(5) {
                // Two or more layers to merge, and changes above them.
                while stack == "layer" && managed(&world) < 3 || stack == "binary" && layers(&world) < 3 {
                    change(&world, round);
                    world.app(&["fim-layer", "commit", stack, "--level", "0"]).run().succeeds();
                    round += 1;
                }
                let before = without_counts(&seen(&world));
                world.wait_for_end();
                let outcome = killed(&world, call, count, &["fim-layer", "squash", stack, "--level", "0"]);
                kills += 1;
                let after = without_counts(&seen(&world));
                assert_same(&before, &after, &format!("{stack} killed at {call} {count}: {outcome:?}"));
                if outcome.status.success() {
                    break;
                }
            }
        }
        fs::remove_dir_all(world.data().join("layers")).unwrap_or_default();
    }
    assert!(kills > 20, "only {kills} system calls were killed");
}
