//! `fim-oci export`: what podman and our own builder make of it, and what is refused.

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use harness::{FIM, TestCommand, World, need};

/// Loads the archive and runs it as podman does for its users, but for control groups and networks, which the test's
/// namespaces have none of. Everything podman keeps lies in the working directory.
const PODMAN: &str = r#"
set -e
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
mount -t cgroup2 none /sys/fs/cgroup
p() {
    podman --root "$PWD/store" --runroot "$PWD/run" --storage-driver=vfs --storage-opt vfs.ignore_chown_errors=true \
        --cgroup-manager=cgroupfs "$@"
}
p load -q -i app.tar >/dev/null
p image exists localhost/team/app:1.0
p run --rm --volume /dev/pts:/dev/pts --cgroups=disabled --network=none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 \
    localhost/team/app:1.0 "$@"
rm -rf store run
"#;

/// A time that takes an extended header.
fn set_time(path: &Path) {
    let time = UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// What `stat` calls it.
const TIME: &str = "2020-09-13 12:26:40.123456789 +0000";

/// The kinds of objects and attributes that a tree may hold and every user may make.
fn rich_tree(tree: &Path) {
    fs::create_dir_all(tree.join("data/empty")).unwrap();
    let long = "n".repeat(150);
    for (name, content) in [("first", "same"), (&long, "long name"), ("with\nnewline", "x"), ("empty-file", "")] {
        fs::write(tree.join("data").join(name), content).unwrap();
    }
    fs::write(tree.join("data").join(OsStr::from_bytes(b"latin-\xe9")), "bytes").unwrap();
    fs::hard_link(tree.join("data/first"), tree.join("data/second")).unwrap();
    symlink(long, tree.join("data/link")).unwrap();
    symlink("/data/".to_owned() + &"t".repeat(120), tree.join("data/long-target")).unwrap();
    nix::unistd::mkfifo(&tree.join("data/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    xattr::set(tree.join("data/first"), "user.note", b"kept\0\xff").unwrap();
    let hole = fs::File::create(tree.join("data/sparse")).unwrap();
    hole.set_len(1 << 20).unwrap();
    set_time(&tree.join("data/sparse"));
}

/// Everything about a tree that an export keeps.
const LISTING: &str = "cd /; find data bin usr -print0 \
    | sort -z | xargs -0 stat -c '%n %F %a %s %y %N'; \
    find data bin usr -type f -print0 | sort -z | xargs -0 md5sum; stat -c %h data/first";

fn export(world: &World, file: &str, more: &[&str]) -> TestCommand {
    world.app(&["fim-oci", "export", file]).args(more).current_dir(world.path(""))
}

#[test]
fn podman_runs_what_is_exported() {
    let options = [
        "--boot",
        "sh -c",
        "--boot-arg",
        "echo \"$GREETING: $*\"; cat /etc/added; stat -c %y /usr/share",
        "--boot-arg",
        "name",
    ];
    let world = World::with_tree(
        |tree| set_time(&tree.join("usr/share")),
        &[&options[..], &["--env", "GREETING=hello  world"]].concat(),
    );
    world.sh("echo committed >/etc/added; rm /etc/release").prints();
    world.app(&["fim-layer", "commit", "binary"]).run().succeeds();
    world.sh("echo lost >/etc/added").prints();
    let outcome = export(&world, "app.tar", &["--name", "team/app:1.0"]).run().succeeds();
    let outcome = outcome.complains_of(&["note: changes in", "fim-layer commit"]);
    assert_eq!(outcome.text(), "Exported team/app:1.0 to 'app.tar'");
    need("podman");
    let run = TestCommand::new(need("unshare"))
        .args(["-r", "-m", "-C", "bash", "-c", PODMAN, "bash", "one", "two"])
        .current_dir(world.path(""))
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", world.path("home"));
    assert_eq!(run.prints(), format!("hello  world: one two\ncommitted\n{TIME}"));
}

#[test]
fn an_exported_image_is_built_again_as_it_was() {
    let world = World::with_tree(rich_tree, &["--boot", "cat", "--boot-arg", "/data/first", "--env", "A=b"]);
    export(&world, "app.tar", &[]).run().succeeds();
    let (listing, boot) = (world.sh(LISTING).prints(), world.app(&["fim-boot", "show"]).prints());
    assert!(listing.contains(TIME), "{listing}");
    need("tar");
    let script = "mkdir layout; tar -xf app.tar -C layout; layer=$(ls -S layout/blobs/sha256/* | head -n1); \
                  tar --full-time -tvzf $layer data/sparse";
    let told = world.host_sh(script).env("TZ", "UTC").prints();
    assert!(told.contains(TIME.trim_end_matches(" +0000")), "{told}");
    let again = World::empty();
    let build = TestCommand::new(FIM).arg("build").arg(world.path("app.tar")).arg("-o").arg(again.image());
    again.equip(build).args(["--level", "1", "-q"]).run().succeeds();
    let listed = again.sh(LISTING).prints();
    let differing: Vec<_> = listing.lines().zip(listed.lines()).filter(|(one, other)| one != other).collect();
    assert!(differing.is_empty() && listing.lines().count() == listed.lines().count(), "{differing:#?}");
    assert_eq!(again.app(&["fim-boot", "show"]).prints(), boot);
    assert_eq!(again.app(&["fim-env", "list"]).prints(), "A=b");
    assert_eq!(again.app(&[]).prints(), "same");
    let extracted = world.path("extracted");
    TestCommand::new(FIM).arg("extract").arg(again.image()).arg(&extracted).arg("-q").run().succeeds();
    assert_eq!(xattr::get(extracted.join("data/first"), "user.note").unwrap().unwrap(), b"kept\0\xff");
}

#[test]
fn the_same_image_gives_the_same_archive() {
    let world = World::new();
    for name in ["one.tar", "two.tar"] {
        export(&world, name, &[]).run().succeeds();
    }
    assert!(fs::read(world.path("one.tar")).unwrap() == fs::read(world.path("two.tar")).unwrap());
}

#[test]
fn what_cannot_be_exported_leaves_nothing() {
    let world = World::new();
    world.app(&["fim-oci"]).fails_naming(&["Missing op for 'fim-oci' (<export>)"]);
    world.app(&["fim-oci", "import"]).fails_naming(&["Invalid oci operation"]);
    world.app(&["fim-oci", "export"]).fails_naming(&["Missing file for 'export'"]);
    export(&world, "app.tar", &["more"]).fails_naming(&["Trailing arguments for fim-oci export: ['more',]"]);
    for name in ["Upper", "app:", "a b"] {
        export(&world, "app.tar", &["--name", name]).fails_naming(&["--name needs a name such as app:1.0"]);
    }
    fs::write(world.path("taken"), "mine").unwrap();
    export(&world, "taken", &[]).fails_naming(&["Destination file already exists: taken"]);
    export(&world, "missing/app.tar", &[]).fails_naming(&["missing", "No such file"]);
    assert_eq!(fs::read_to_string(world.path("taken")).unwrap(), "mine");
    // A full file system.
    let script = "mkdir -p small; mount -t tmpfs -o size=256k none small; cd small; ../app.flatimage fim-oci export app.tar; \
                  code=$?; ls -A >&2; exit $code";
    let full = world.in_namespace(script).current_dir(world.path("")).run();
    full.exits(125).complains_of(&["cannot export to app.tar: the file system is full", "nothing was left"]);
    // A damaged layer.
    let json: serde_json::Value = serde_json::from_str(&world.app(&["fim-inspect", "--json"]).prints()).unwrap();
    let number = |name: &str| json["layers"][0][name].as_u64().unwrap() as usize;
    let mut bytes = fs::read(world.image()).unwrap();
    let middle = number("offset") + number("size") / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(world.path("damaged"), bytes).unwrap();
    fs::rename(world.path("damaged"), world.image()).unwrap();
    TestCommand::new("/bin/chmod").arg("755").arg(world.image()).run().succeeds();
    let failed = export(&world, "app.tar", &[]).run();
    failed.exits(125).complains_of(&["cannot export to app.tar", "layer 0", "nothing was left"]);
    assert!(!world.path("app.tar").exists());
}
