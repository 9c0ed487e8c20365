//! Worlds with layouts.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Outcome, World};

/// Adds a layout, as the words behind `fim-layout add`.
#[track_caller]
pub fn add(world: &World, line: &str) {
    world.app(&["fim-layout", "add"]).args(line.split(' ')).run().succeeds().quietly();
}

/// A world with layouts.
#[track_caller]
pub fn with(lines: &[&str]) -> World {
    let world = World::new();
    lines.iter().for_each(|line| add(&world, line));
    world
}

/// A world with layouts on a changed tree.
#[track_caller]
pub fn on_tree(change: impl FnOnce(&Path), lines: &[&str]) -> World {
    let world = World::with_tree(change, &[]);
    lines.iter().for_each(|line| add(&world, line));
    world
}

/// A file of the data of the first revision, on the host.
pub fn data(world: &World, name: &str) -> PathBuf {
    world.data().join("files/1/system").join(name)
}

/// Imports a YAML file.
pub fn import(world: &World, text: &str) -> Outcome {
    fs::write(world.path("layout.yaml"), text).unwrap();
    world.app(&["fim-layout", "import", "layout.yaml"]).run()
}

/// The example of snap's documentation.
pub const FOO: &str = "layout:
  /var/lib/foo:
    bind: $SNAP_DATA/var/lib/foo
  /usr/share/foo:
    bind: $SNAP/usr/share/foo
  /etc/foo.conf:
    bind-file: $SNAP_DATA/etc/foo.conf
";
