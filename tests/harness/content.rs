//! Worlds with images that share content.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Running, TestCommand, World, world};

/// An image at `name` in the world, of a tree with these files, which prints their own names where they are programs.
#[track_caller]
pub fn image(world: &World, name: &str, files: &[(&str, &str)], options: &[&str]) -> PathBuf {
    let tree = world.path(format!("{name}.tree"));
    fs::create_dir_all(&tree).unwrap();
    for (file, content) in files {
        let path = tree.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if content.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let image = world.path(name);
    world::build(&tree, &image, &[&["--boot", "none"], options].concat()).succeeds().quietly();
    image
}

/// A command on another image of the world.
#[track_caller]
pub fn on(world: &World, image: impl AsRef<Path>, args: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(world.path(image))).args(args)
}

/// `fim-content` of the world's own image, the consumer.
#[track_caller]
pub fn content(world: &World, args: &[&str]) -> TestCommand {
    world.app(&["fim-content"]).args(args)
}

/// A producer that shares these paths by a slot `s` for content `c`.
#[track_caller]
pub fn producer(world: &World, name: &str, files: &[(&str, &str)], slot: &[&str]) {
    image(world, name, files, &[]);
    on(world, name, &["fim-content", "slot", "s", "--content", "c"]).args(slot).run().succeeds().quietly();
}

/// A world whose image has the plug `p` for content `c`, with this target.
#[track_caller]
pub fn consumer(target: &str, options: &[&str]) -> World {
    let world = World::new();
    content(&world, &["plug", "p", "--content", "c", "--target", target]).args(options).run().succeeds().quietly();
    world
}

#[track_caller]
pub fn connect(world: &World, producer: &str) {
    content(world, &["connect", "p", producer]).run().succeeds().quietly();
}

/// An instance that waits for its stdin.
#[track_caller]
pub fn waiting(command: TestCommand) -> Running {
    let mut running = command.spawn();
    running.expect("ready");
    running
}
