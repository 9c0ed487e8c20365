//! Worlds in which owners and users matter.

use std::fs;

use super::{TestCommand, World, need, world};

/// Has the world's data directory kept with one ID, as every unprivileged caller without subordinate IDs has it: so
/// that root is emulated for real root too.
pub fn one_id(world: &World) {
    for name in ["root", "work"] {
        fs::create_dir_all(world.data().join(name)).unwrap();
    }
    fs::write(world.data().join("ids"), "fim-ids 1\none\n").unwrap();
}

/// A small world in which root is emulated.
pub fn emulated() -> World {
    let world = World::new();
    one_id(&world);
    world
}

/// A world whose image has owners of its own: `/owned` and what lies in it belong to 33:44, `/far` to 70000:80000.
pub fn owned() -> World {
    let world = World::empty();
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    fs::create_dir(tree.join("owned")).unwrap();
    fs::write(tree.join("owned/file"), "content").unwrap();
    std::os::unix::fs::symlink("file", tree.join("owned/link")).unwrap();
    fs::write(tree.join("far"), "").unwrap();
    // Only root can give such owners to a directory; an archive holds any.
    let tar = world.path("tree.tar");
    let pack = |words: &[&str]| {
        TestCommand::new(need("tar")).arg("-C").arg(&tree).arg("-f").arg(&tar).args(words).run().succeeds().quietly();
    };
    pack(&["-c", "--exclude=./owned", "--exclude=./far", "--owner=0", "--group=0", "."]);
    pack(&["-r", "--owner=33", "--group=44", "./owned"]);
    pack(&["-r", "--owner=70000", "--group=80000", "./far"]);
    world::build(&tar, world.image(), &[]).succeeds().quietly();
    world
}
