//! Committing the writable layer: the tree that the guest sees is the same before and after, whatever was done to it.

mod harness;

use std::fs;

use harness::World;
use harness::layers::{assert_same, changeable, seen, upper_names};
use harness::owners::one_id;

/// Ten rounds of changes, each committed to the target.
fn rounds(world: &World, target: &str, seed: u64) {
    for round in 0..10 {
        world.root(&["tree", "churn", &(seed + round).to_string(), "120"]).run().succeeds();
        let before = seen(world);
        world.app(&["fim-layer", "commit", target, "--level", "0"]).run().succeeds().quietly();
        assert_eq!(upper_names(world), [""; 0], "round {round}");
        assert_same(&before, &seen(world), &format!("seed {seed}, round {round}"));
    }
}

#[test]
fn the_tree_is_the_same_after_each_of_ten_commits() {
    let world = changeable();
    rounds(&world, "binary", 1);
    // Somebody else gets the file alone.
    let other = World::empty();
    harness::world::copy(world.image(), other.image());
    assert_same(&seen(&world), &seen(&other), "without the data directory");
}

#[test]
fn the_tree_is_the_same_where_root_is_emulated() {
    let world = changeable();
    one_id(&world);
    rounds(&world, "binary", 101);
}

#[test]
fn the_tree_is_the_same_with_each_commit_in_a_file_of_its_own() {
    let world = changeable();
    rounds(&world, "layer", 201);
    for number in 0..10 {
        assert!(world.data().join(format!("layers/layer-{number:03}.layer")).is_file());
    }
}

#[test]
fn nothing_to_commit_is_an_error_that_makes_nothing() {
    let world = World::new();
    world.app(&["fim-layer", "commit", "binary"]).fails_naming(&["nothing to commit", "FIM_DIR_DATA"]);
    assert!(!world.data().exists());
}

#[test]
fn running_instances_are_named_and_refused() {
    let world = World::new();
    let mut running = world.sh("echo x > /etc/made; echo ready; cat").spawn();
    running.expect("ready");
    let len = fs::metadata(world.image()).unwrap().len();
    world.app(&["fim-layer", "commit", "binary"]).fails_naming(&[
        "cannot commit: instances use",
        ": 0;",
        "fim-instance stop",
    ]);
    assert_eq!(fs::metadata(world.image()).unwrap().len(), len);
    drop(running);
}
