//! `fim build` of images of its own, of AppImages, and of several sources on top of each other.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use harness::{FIM, TestCommand, World, need, world};
use nix::sys::signal::Signal;

/// `fim build SOURCE... -o app.flatimage`.
fn build(world: &World, sources: &[&Path]) -> TestCommand {
    build_as(world, sources, world.image())
}

fn build_as(world: &World, sources: &[&Path], image: &Path) -> TestCommand {
    let command = TestCommand::new(FIM).arg("build").args(sources).arg("-o").arg(image);
    world.equip(command).args(["--level", "1", "-q"])
}

fn inspect(world: &World, image: &Path) -> serde_json::Value {
    let text = world.equip(TestCommand::new(FIM)).args(["inspect", "--json"]).arg(image).prints();
    serde_json::from_str(&text).unwrap()
}

/// An image of two layers, `lower.flatimage`, of which the upper one hides files of the lower one.
fn two_layers(world: &World) -> PathBuf {
    let (tree, upper) = (world.path("tree"), world.path("upper"));
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    fs::create_dir_all(upper.join("usr/share/dir")).unwrap();
    fs::write(upper.join("usr/share/dir/one"), "new one\n").unwrap();
    fs::write(upper.join("usr/share/extra"), "extra\n").unwrap();
    fs::hard_link(upper.join("usr/share/extra"), upper.join("usr/share/extra-link")).unwrap();
    make_opaque(world, &upper.join("usr/share/dir"));
    let image = world.path("lower.flatimage");
    build_as(world, &[&tree, &upper], &image)
        .args(["--boot", "cat /usr/share/extra", "--env", "A=1", "--perms", "network"])
        .run()
        .succeeds()
        .quietly();
    image
}

/// Marks a directory as overlayfs does when it is made anew over one of a lower layer.
fn make_opaque(world: &World, directory: &Path) {
    let mark = r#"python3 -c 'import os,sys; os.setxattr(sys.argv[1], "user.overlay.opaque", b"y")' "$DIRECTORY""#;
    need("python3");
    world.host_sh(mark).env("DIRECTORY", directory).run().succeeds();
}

/// What the two layers show together.
#[track_caller]
fn shows_both(world: &World) {
    assert_eq!(world.app(&[]).prints(), "extra");
    assert_eq!(
        world.sh("echo $A; ls /usr/share/dir; cat /usr/share/dir/one; stat -c %h /usr/share/extra").prints(),
        "1\none\nnew one\n2"
    );
    assert_eq!(world.exec(&["sha256sum", "/usr/share/noise"]).prints().len(), 64 + 2 + "/usr/share/noise".len());
}

#[test]
fn an_image_of_an_image_has_its_layers_and_settings() {
    let world = World::empty();
    let lower = two_layers(&world);
    build(&world, &[&lower]).run().succeeds().quietly();
    let (old, new) = (inspect(&world, &lower), inspect(&world, world.image()));
    assert_eq!(old["config"], new["config"]);
    assert_eq!(old["layers"].as_array().unwrap().len(), 2);
    for (old, new) in old["layers"].as_array().unwrap().iter().zip(new["layers"].as_array().unwrap()) {
        assert_eq!((&old["blake3"], &old["size"]), (&new["blake3"], &new["size"]));
    }
    shows_both(&world);
    // Options of the command line win.
    build(&world, &[&lower]).args(["-f", "--boot", "echo other", "--env", "A=2", "--name", "mine"]).run().succeeds();
    assert_eq!(world.app(&[]).prints(), "other");
    assert_eq!(inspect(&world, world.image())["config"]["name"], "mine");
}

#[test]
fn squash_merges_layers_as_an_overlay_shows_them() {
    let world = World::empty();
    let lower = two_layers(&world);
    let whiteouts = world.path("whiteouts");
    fs::create_dir_all(whiteouts.join("usr/share")).unwrap();
    // A tar can hold what only root could make: the whiteout of an overlay.
    let tar = world.path("whiteouts.tar");
    let script = "import tarfile,sys\nt=tarfile.open(sys.argv[1],'w')\ni=tarfile.TarInfo('usr/share/plain')\ni.type=tarfile.CHRTYPE\ni.devmajor=i.devminor=0\nt.addfile(i)\nt.close()";
    world.equip(TestCommand::new(need("python3"))).args(["-c", script]).arg(&tar).run().succeeds();
    let three = world.path("three.flatimage");
    build_as(&world, &[&lower, &tar], &three).run().succeeds().quietly();
    assert_eq!(inspect(&world, &three)["layers"].as_array().unwrap().len(), 3);
    build(&world, &[&three]).arg("--squash").run().succeeds().quietly();
    let squashed = inspect(&world, world.image());
    assert_eq!(squashed["layers"].as_array().unwrap().len(), 1);
    shows_both(&world);
    world.exec(&["cat", "/usr/share/plain"]).run().exits(1).complains_of(&["No such file"]);
    // The start-up set of the merged tree is found: the shell is stored as it is.
    let image = fs::read(world.image()).unwrap();
    let shell = fs::read("/bin/busybox").unwrap();
    assert!(image.windows(4096).any(|window| window == &shell[..4096]), "the shell is not stored as it is");
    build(&world, &[&world.path("tree"), &world.path("upper")])
        .args(["-f", "--squash"])
        .fails_naming(&["tree", "only the layers of images"]);
}

#[test]
fn a_damaged_image_is_no_source() {
    let world = World::empty();
    let lower = two_layers(&world);
    let size = fs::metadata(&lower).unwrap().len();
    let script = "printf '\\125\\252\\125' | dd of=lower.flatimage bs=1 seek=$AT conv=notrunc status=none";
    world.host_sh(script).env("AT", (size - 200_000).to_string()).run().succeeds();
    for squash in [&[][..], &["--squash"]] {
        build(&world, &[&lower]).args(squash).fails_naming(&["lower.flatimage"]);
        assert!(!world.image().exists());
    }
    build(&world, &[Path::new(FIM)]).fails_naming(&["an ELF program"]);
}

/// An AppImage of type 2: a small program with the mark, and a squashfs of `tree` behind it.
fn appimage(world: &World, tree: &Path, bits: &str) -> PathBuf {
    let path = world.path("app.AppImage");
    let script = r#"
        echo 'int main(void) { return 0; }' > runtime.c
        gcc -o "$OUT" runtime.c
        printf 'AI\002' | dd of="$OUT" bs=1 seek=8 conv=notrunc status=none
        mksquashfs "$TREE" payload -comp "$BITS" -root-owned -noappend -quiet -no-progress > /dev/null
        cat payload >> "$OUT"
    "#;
    need("mksquashfs");
    need("gcc");
    world.host_sh(script).env("OUT", &path).env("TREE", tree).env("BITS", bits).run().succeeds();
    path
}

#[test]
fn an_appimage_brings_its_files_and_its_apprun() {
    for compressor in ["gzip", "zstd", "xz"] {
        let world = World::empty();
        let tree = world.path("appdir");
        for name in ["bin", "usr/bin"] {
            fs::create_dir_all(tree.join(name)).unwrap();
        }
        world::copy(Path::new("/bin/busybox"), &tree.join("bin/busybox"));
        for applet in ["sh", "cat"] {
            symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        world::script(&tree.join("AppRun"), "#!/bin/sh\nexec \"$APPDIR/usr/bin/app\" \"$@\"\n");
        world::script(&tree.join("usr/bin/app"), "#!/bin/sh\necho app: \"$@\"\n");
        let source = appimage(&world, &tree, compressor);
        build(&world, &[&source]).run().succeeds().quietly();
        assert_eq!(world.app(&["a  b", "c"]).prints(), "app: a  b c");
        // Without its own shell, on a base that has one.
        fs::remove_dir_all(tree.join("bin")).unwrap();
        let (bare, base) = (appimage(&world, &tree, compressor), world.path("base"));
        fs::create_dir(&base).unwrap();
        world::small_tree(&base);
        build(&world, &[&base, &bare]).arg("-f").run().succeeds().quietly();
        assert_eq!(world.app(&["x"]).prints(), "app: x");
        assert_eq!(world.exec(&["cat", "/etc/release"]).prints(), "small");
    }
}

#[test]
fn bad_appimages_are_named() {
    let world = World::empty();
    let tree = world.path("appdir");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), vec![7; 100_000]).unwrap();
    let source = appimage(&world, &tree, "gzip");
    let cases = [
        ("truncate -s 40 app.AppImage", "cut off in its header"),
        ("truncate -s 2000 app.AppImage", "cut off at byte"),
        ("truncate -s -5000 app.AppImage", "cut off"),
        (
            "end=$(($(stat -c %s app.AppImage) - $(stat -c %s payload))); truncate -s $end app.AppImage; head -c 99999 /dev/zero >> app.AppImage",
            "no squashfs at byte",
        ),
        ("printf '\\001' | dd of=app.AppImage bs=1 seek=10 conv=notrunc status=none", "type 1"),
        ("printf '\\002' | dd of=app.AppImage bs=1 seek=5 conv=notrunc status=none", "no known kind"),
    ];
    for (damage, word) in cases {
        appimage(&world, &tree, "gzip");
        world.host_sh(damage).run().succeeds();
        build(&world, &[&source]).fails_naming(&["app.AppImage", word]);
        assert!(!world.image().exists(), "{damage}");
    }
}

/// A world with a host whose only tools to make a Debian are these scripts; `$TREE` is the small tree.
fn debian_host(tools: &[(&str, &str)]) -> World {
    let world = World::empty();
    let (tree, directory) = (world.path("tree"), world.path("tools"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&directory).unwrap();
    world::small_tree(&tree);
    for (name, script) in tools {
        world::script(&directory.join(name), &format!("#!/bin/bash\n{script}\n"));
    }
    world
}

/// `fim build --debian` on that host, by root of a namespace or by another user.
fn build_debian(world: &World, as_root: bool, arguments: &str) -> TestCommand {
    let become_user = if as_root { "" } else { "unshare --map-user=1000 --map-group=1000 --" };
    let line = format!(
        "mount -t tmpfs none /usr/sbin && ln -sf /usr/bin/unshare tools/unshare && PATH=$PWD/tools:/usr/bin:/bin && \
         exec {become_user} \"$FIM\" build -q --level 1 -o app.flatimage {arguments}"
    );
    let command = world.equip(TestCommand::new(need("unshare"))).args(["-r", "-m", "--", "bash", "-c", &line]);
    command.env("FIM", FIM).env("TREE", world.path("tree"))
}

const MMDEBSTRAP: &str = r#"echo "$*" > "$TREE/../called"; exec tar -C "$TREE" -c ."#;
const DEBOOTSTRAP: &str = r#"
echo "$*" > "$TREE/../called"
for target; do [[ $target == /* ]] && break; done
mkdir -p "$target/var/cache/apt/archives" && cp -r "$TREE"/. "$target" && touch "$target/var/cache/apt/archives/x.deb"
"#;

#[test]
fn a_debian_is_made_by_the_tool_that_the_host_has() {
    let world = debian_host(&[("mmdebstrap", MMDEBSTRAP), ("debootstrap", "exit 1")]);
    build_debian(&world, false, "--debian bash,g++ --suite trixie --mirror http://localhost/debian").run().succeeds();
    let called = fs::read_to_string(world.path("called")).unwrap();
    let expected = "--variant=minbase --format=tar --include=bash,g++ trixie - http://localhost/debian\n";
    assert_eq!(called, expected);
    assert_eq!(world.exec(&["cat", "/etc/release"]).prints(), "small");

    // What else is given lies on top.
    let world = debian_host(&[("debootstrap", DEBOOTSTRAP)]);
    fs::create_dir_all(world.path("more/etc")).unwrap();
    fs::write(world.path("more/etc/release"), "mine\n").unwrap();
    build_debian(&world, true, "more --debian ''").run().succeeds().quietly();
    let called = fs::read_to_string(world.path("called")).unwrap();
    assert!(called.starts_with("--variant=minbase stable /"), "{called}");
    assert_eq!(world.exec(&["cat", "/etc/release"]).prints(), "mine");
    assert_eq!(world.sh("ls /var/cache/apt/archives; ls -d /usr/share/dir").prints(), "/usr/share/dir");
    assert_nothing_beside(&world);
}

/// Only what the test and an image made lies in the world.
#[track_caller]
fn assert_nothing_beside(world: &World) {
    let known = ["app.flatimage", ".app.flatimage.data", "called", "home", "more", "runtime", "tools", "tree"];
    for entry in fs::read_dir(world.path(".")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()), "{name} is left");
    }
}

#[test]
fn a_debian_that_cannot_be_made_says_why() {
    let world = debian_host(&[]);
    build_debian(&world, true, "--debian bash")
        .fails_naming(&["neither mmdebstrap nor debootstrap", "apt-get install"]);
    build_debian(&world, true, "--debian -x").run().exits(125).complains_of(&["-x"]);
    build_debian(&world, true, "--debian 'a b'").run().exits(125).complains_of(&["no name of a package"]);
    build_debian(&world, true, "--suite x").run().exits(125).complains_of(&["--debian"]);
    build_debian(&world, true, "").run().exits(125).complains_of(&["SOURCE"]);
    let needs_root = debian_host(&[("debootstrap", DEBOOTSTRAP)]);
    build_debian(&needs_root, false, "--debian bash").fails_naming(&["debootstrap needs root", "mmdebstrap"]);
    let failing = "echo doing; echo E: no such package >&2; exit 3";
    for (tool, script) in [("mmdebstrap", failing.to_owned()), ("debootstrap", format!("{DEBOOTSTRAP} {failing}"))] {
        let world = debian_host(&[(tool, &script)]);
        build_debian(&world, true, "--debian bash").fails_naming(&[tool, "exit code 3", "E: no such package"]);
        assert!(!world.image().exists());
        assert_nothing_beside(&world);
    }
    let world = debian_host(&[("mmdebstrap", "tar -C \"$TREE\" -c . | head -c 100000")]);
    build_debian(&world, true, "--debian bash").fails_naming(&["cut off"]);
}

#[test]
fn an_interrupted_debian_leaves_nothing() {
    let script = format!("{DEBOOTSTRAP} exec 3<> \"$TREE/../pipe\"; echo made >&3; exec sleep 1000");
    let world = debian_host(&[("debootstrap", &script)]);
    nix::unistd::mkfifo(&world.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = fs::File::options().read(true).write(true).open(world.path("pipe")).unwrap();
    let running = build_debian(&world, true, "--debian bash").spawn();
    harness::process::wait_readable(&pipe, "the tool");
    running.signal(Signal::SIGTERM);
    running.wait().dies_of(Signal::SIGTERM);
    fs::remove_file(world.path("pipe")).unwrap();
    assert_nothing_beside(&world);
}
