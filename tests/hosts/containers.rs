//! Containers as podman makes them; what runs in them is a tree of busybox with an image.

use std::fs;

use super::harness::{Outcome, TestCommand, World, is_root, need, world};
use super::host::{REFUSAL, SMOKE, judge, refused};

/// Runs a script in a container with these options, whose root holds an image. Everything podman keeps lies in the
/// working directory and in mounts of this namespace, of control groups too, for crun takes one hierarchy only.
const PODMAN: &str = r#"
set -e
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
# In a user namespace it cannot be unmounted, but covered.
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
script=$1
shift
exec podman --root "$PWD/store" --runroot "$PWD/run" --storage-driver=vfs --cgroup-manager=cgroupfs run --rm \
    --network=none --cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 "$@" \
    --env HOME=/root --env IMAGE=/app --workdir /root --rootfs "$PWD/tree" /bin/sh -c "$script"
"#;

fn container(world: &World, options: &[&str], script: &str) -> Outcome {
    need("podman");
    let unshare = world.equip(TestCommand::new(need("unshare")));
    if is_root() {
        return unshare.args(["-m", "--", "bash", "-c", PODMAN, "bash", script]).args(options).run();
    }
    // Root of a user namespace with one ID, in which nothing can belong to the group of terminals.
    let unshare = unshare.args(["-r", "-m", "-C", "--", "bash", "-c", PODMAN, "bash", script]);
    unshare.args(["--volume", "/dev/pts:/dev/pts"]).args(options).run()
}

/// A world with a tree for a container.
fn with_tree() -> World {
    let world = World::new();
    let tree = world.path("tree");
    for name in ["proc", "dev", "sys", "tmp", "root", "run"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    world::small_tree(&tree);
    world::copy(world.image(), &tree.join("app"));
    world
}

#[test]
fn podman_privileged() {
    let world = with_tree();
    let outcome = container(&world, &["--privileged"], SMOKE).succeeds().with_stdout("smoke: all works\n");
    judge("privileged-container", outcome.stderr());
}

#[test]
fn podman_with_what_its_refusal_asks_for() {
    let world = with_tree();
    let outcome = container(&world, &["--device", "/dev/fuse"], REFUSAL);
    refused("masked-proc", &outcome.text(), &outcome.stderr());
    let options = ["--security-opt", "unmask=ALL", "--device", "/dev/fuse"];
    container(&world, &options, SMOKE).succeeds().with_stdout("smoke: all works\n");
}
