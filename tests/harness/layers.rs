//! Worlds whose writable layer becomes layers.

use std::fs;
use std::path::Path;

use super::World;

/// Puts the program `/bin/tree` (tree.c) into a tree, and something to change.
pub fn add_tree_program(tree: &Path) {
    super::world::program(tree, "tree");
    for directory in ["var/lib/one/two", "var/cache", "opt/app/share", "srv", "home/user"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
        for name in ["first", "second", "third"] {
            fs::write(tree.join(directory).join(name), format!("{directory}/{name}\n")).unwrap();
        }
    }
    fs::hard_link(tree.join("srv/first"), tree.join("opt/app/linked")).unwrap();
    std::os::unix::fs::symlink("first", tree.join("srv/link")).unwrap();
}

/// A world with a tree that is worth changing.
pub fn changeable() -> World {
    World::with_tree(add_tree_program, &[])
}

/// Everything that a layer must keep of the root file system, one name a line.
#[track_caller]
pub fn seen(world: &World) -> String {
    world.root(&["tree", "tree"]).prints()
}

/// A tree without its numbers of links: a layer may count names that another layer covers.
pub fn without_counts(tree: &str) -> String {
    let uncounted =
        |line: &str| line.split(' ').filter(|word| !word.starts_with("links=")).collect::<Vec<_>>().join(" ");
    tree.lines().map(uncounted).collect::<Vec<_>>().join("\n")
}

/// Says where two trees differ.
#[track_caller]
pub fn assert_same(before: &str, after: &str, when: &str) {
    if before == after {
        return;
    }
    let lost: Vec<&str> = before.lines().filter(|line| !after.lines().any(|other| other == *line)).collect();
    let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
    panic!("{when}\nbefore: {lost:#?}\nafter: {new:#?}");
}

/// The names in the writable layer.
pub fn upper_names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.upper("")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
