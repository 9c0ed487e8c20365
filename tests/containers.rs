//! `fim build` of container images made by podman, and bad ones as its users meet them.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness::{FIM, TestCommand, World, need, world};
use tempfile::TempDir;

/// Makes two images, the second with files of the first removed, and saves them in every format. Everything podman
/// keeps lies in the working directory; in a user namespace it needs neither subordinate IDs nor a passwd entry.
const PODMAN: &str = r#"
set -e
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
p() { podman --root "$PWD/store" --runroot "$PWD/run" --storage-driver=vfs "$@"; }
p build -q --isolation=chroot -t localhost/app:1 . >&2
container=$(p create localhost/app:1)
root=$(p mount "$container")
rm "$root/app/sub/gone"
rm -r "$root/app/whole"
mkdir "$root/app/whole"
echo new >"$root/app/whole/new"
p umount "$container" >&2
p commit -q "$container" localhost/app:2 >&2
for format in docker-archive oci-archive oci-dir; do p save -q --format $format -o $format localhost/app:2; done
p save -q --format docker-archive --multi-image-archive -o several localhost/app:1 localhost/app:2
# What belongs to nobody else can be removed by the caller.
rm -rf store run
"#;

const CONTAINERFILE: &str = r#"
FROM scratch
COPY tree /
COPY more /app/
ENV GREETING="hello  world" PATH=/bin:/app
WORKDIR /app
USER nobody
EXPOSE 80
ENTRYPOINT ["/bin/sh", "-c", "echo \"$GREETING\" from $PWD: $(cat file) \"$@\"", "sh"]
CMD ["and more"]
"#;

/// The directory with what podman saved.
fn saved() -> &'static Path {
    static SAVED: OnceLock<TempDir> = OnceLock::new();
    let directory = SAVED.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["tree/bin", "tree/app/sub", "tree/app/whole", "more", "home"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        world::copy(Path::new("/bin/busybox"), &at("tree/bin/busybox"));
        for applet in ["sh", "cat", "ls", "find", "stat", "sort"] {
            symlink("busybox", at("tree/bin").join(applet)).unwrap();
        }
        for (name, content) in [
            ("tree/app/file", "old"),
            ("tree/app/sub/gone", "gone"),
            ("tree/app/whole/old", "old"),
            ("more/file", "changed"),
            ("Containerfile", CONTAINERFILE),
        ] {
            fs::write(at(name), content).unwrap();
        }
        fs::hard_link(at("tree/app/sub/gone"), at("tree/app/hard")).unwrap();
        need("podman");
        TestCommand::new(need("unshare"))
            .args(["-r", "-m", "bash", "-c", PODMAN])
            .current_dir(directory.path())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", at("home"))
            .run()
            .succeeds();
        directory
    });
    directory.path()
}

/// A world without an image whose command line is `fim build SOURCE -o app.flatimage`.
fn build(world: &World, source: &Path) -> TestCommand {
    let command = TestCommand::new(FIM).arg("build").arg(source).arg("-o").arg(world.image()).args(["--level", "1"]);
    world.equip(command)
}

#[test]
fn every_format_of_podman_becomes_the_same_running_image() {
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let world = World::empty();
        let outcome = build(&world, &saved().join(format)).run().succeeds();
        let outcome = outcome.complains_of(&["does not keep the user nobody", "80/tcp", "--perms network"]);
        assert_eq!(outcome.stderr().lines().count(), 1, "{outcome:?}");
        assert_eq!(world.app(&[]).prints(), "hello  world from /app: changed and more", "{format}");
        assert_eq!(world.app(&["x y"]).prints(), "hello  world from /app: changed and more x y", "{format}");
        let found = world.sh("cd /app; find . | sort; stat -c %h hard").prints();
        assert_eq!(found, ".\n./file\n./hard\n./sub\n./whole\n./whole/new\n1", "{format}");
        // What is not kept on request.
        build(&world, &saved().join(format)).args(["-fq", "--boot", "cat", "--boot-arg", "/app/file"]).run().quietly();
        assert_eq!(world.app(&[]).prints(), "changed");
    }
}

#[test]
fn one_of_several_images_is_named() {
    let world = World::empty();
    let several = saved().join("several");
    build(&world, &several).fails_naming(&["several images", "localhost/app:1", "localhost/app:2", "--tag"]);
    build(&world, &several)
        .args(["--tag", "app:3"])
        .fails_naming(&["holds no image called \"app:3\"", "localhost/app:1"]);
    build(&world, &several).args(["--platform", "linux/mips"]).args(["--tag", "app:1"]).fails_naming(&["linux/mips"]);
    assert!(!world.image().exists());
    build(&world, &several).args(["--tag", "app:1", "-q"]).run().succeeds().quietly();
    assert_eq!(world.exec(&["cat", "/app/sub/gone"]).prints(), "gone");
}

/// Copies a saved image into the world and changes it.
fn changed(world: &World, format: &str, script: &str) -> PathBuf {
    let copy = world.path("source");
    let outcome = world.host_sh(&format!("cp -r \"$FROM\" source && {script}")).env("FROM", saved().join(format)).run();
    outcome.succeeds();
    copy
}

#[test]
fn damaged_and_hostile_images_are_refused_and_nothing_is_left() {
    let layer = "blob=$(ls -S source/blobs/sha256/* | head -n1)";
    let cases: [(&str, String, &[&str]); 6] = [
        (
            "oci-dir",
            format!("{layer}; printf X | dd of=$blob bs=1 seek=999 conv=notrunc status=none"),
            &["digest", "damaged"],
        ),
        ("oci-dir", format!("{layer}; truncate -s -1 $blob"), &["bytes where"]),
        ("oci-dir", format!("{layer}; rm $blob; ln -s /etc/passwd $blob"), &["leads out of the directory"]),
        ("oci-dir", "echo '{' > source/index.json".to_owned(), &["index.json", "not as it should be"]),
        ("oci-archive", "truncate -s 100K source".to_owned(), &["source", "cut off"]),
        ("docker-archive", "truncate -s 1M source".to_owned(), &["source", "cut off"]),
    ];
    for (format, script, words) in cases {
        let world = World::empty();
        let source = changed(&world, format, &script);
        build(&world, &source).fails_naming(words);
        let mut names: Vec<_> =
            fs::read_dir(world.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["home", "runtime", "source"], "{script}");
    }
}

#[test]
fn gigabytes_of_zeros_are_refused_unless_allowed() {
    let world = World::empty();
    let script = "truncate -s 1200M zeros && tar -cf - zeros | zstd -q -1 -o source && rm zeros";
    world.host_sh(script).run().succeeds();
    let source = world.path("source");
    assert!(fs::metadata(&source).unwrap().len() < 5 << 20);
    build(&world, &source).fails_naming(&["\"zeros\"", "unpacks to more than 1073741824 bytes", "--max-unpacked"]);
    build(&world, &source).args(["--max-unpacked", "9M"]).fails_naming(&["more than 9437184 bytes"]);
    assert!(!world.image().exists());
}
