//! Hosts on which /dev/fuse cannot be opened: layers are extracted once, to a cache.

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::process::wait_readable;
use harness::{FIM, Terminal, TestCommand, World, is_root, need, world};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;

/// Makes a /dev without FUSE; the words that follow are run there.
const WITHOUT_FUSE: &str = r#"
set -e
mkdir -p olddev
mount --rbind /dev olddev
mount -t tmpfs -o mode=755 none /dev
for name in null zero full random urandom tty; do
    touch /dev/$name
    mount --bind olddev/$name /dev/$name
done
mkdir /dev/pts /dev/shm
mount --rbind olddev/pts /dev/pts
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
umount -l olddev
rmdir olddev
exec "$@"
"#;

/// A script for the shell of a host without FUSE, for root of the host or of a namespace; `$IMAGE` is the image.
fn without_fuse(world: &World, script: &str) -> TestCommand {
    let ids: &[&str] = if is_root() { &[] } else { &["-r"] };
    let command = world.equip(TestCommand::new(need("unshare"))).args(ids);
    let command = command.args(["-m", "--", "bash", "-c", WITHOUT_FUSE, "bash", "bash", "-c", script]);
    command.env("IMAGE", world.image()).env("XDG_CACHE_HOME", world.path("cache"))
}

fn cache(world: &World) -> PathBuf {
    world.path("cache/fim")
}

/// What lies in the cache, sorted.
fn cached(world: &World) -> Vec<String> {
    let entries = fs::read_dir(cache(world)).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts that no layer looks as if it could be used.
#[track_caller]
fn nothing_is_cached(world: &World) {
    let names = cached(world);
    assert!(names.iter().all(|name| name.ends_with(".lock")), "{names:?}");
}

/// A world with an image whose layer takes long to extract.
fn large() -> World {
    let noise = |tree: &Path| {
        let noise = fs::read(tree.join("usr/share/noise")).unwrap();
        for number in 0..64 {
            let mut content = noise.clone();
            content[0] = number;
            fs::write(tree.join(format!("usr/share/noise-{number}")), content).unwrap();
        }
    };
    World::with_tree(noise, &[])
}

#[test]
fn an_image_runs_and_its_layers_are_extracted_once() {
    let world = World::new();
    let first =
        without_fuse(&world, "$IMAGE fim-exec cat /etc/release; $IMAGE fim-root sh -c 'echo kept > /etc/note'").run();
    let first = first.succeeds().with_stdout("small\n").complains_of(&["/dev/fuse", "No such file", "cache/fim, once"]);
    assert_eq!(first.stderr().lines().count(), 1, "{first:?}");
    let names = cached(&world);
    assert_eq!(names.len(), 2, "{names:?}");
    let before = fs::metadata(cache(&world).join(&names[0])).unwrap();
    let script = "$IMAGE fim-exec sh -c 'cat /etc/note; sha256sum /usr/share/noise; ls -l /usr/share/dir | wc -l'";
    let second = without_fuse(&world, script).run().succeeds().quietly().text();
    assert!(second.starts_with("kept\n") && second.ends_with("noise\n4"), "{second}");
    let after = fs::metadata(cache(&world).join(&names[0])).unwrap();
    assert_eq!((before.ino(), before.ctime()), (after.ino(), after.ctime()));
    // With FUSE the same data is used, and nothing is said.
    assert_eq!(world.exec(&["cat", "/etc/note"]).prints(), "kept");
    world.assert_nothing_left();
}

#[test]
fn owners_are_those_that_a_mounted_image_has() {
    let world = World::empty();
    let script = r#"
        python3 -c 'import tarfile
t = tarfile.open("owned.tar", "w")
for name, kind, uid in [("dir", tarfile.DIRTYPE, 7), ("dir/file", tarfile.REGTYPE, 12345), ("root", tarfile.REGTYPE, 0)]:
    i = tarfile.TarInfo(name)
    i.type, i.uid, i.gid, i.mode = kind, uid, uid, 0o755
    t.addfile(i)
t.close()'
    "#;
    world.host_sh(script).run().succeeds();
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    let build = TestCommand::new(FIM).arg("build").args([&tree, &world.path("owned.tar")]).arg("-o").arg(world.image());
    world.equip(build).args(["--level", "1", "-q"]).run().succeeds().quietly();
    // Root of the host knows every user, anybody else but one.
    let look = "stat -c '%u %g %a' /dir /dir/file /root";
    let mounted = world.root_sh(look).prints();
    world.assert_nothing_left();
    let found = without_fuse(&world, "exec $IMAGE fim-root sh -c \"$LOOK\"").env("LOOK", look).run().succeeds().text();
    assert_eq!(found, mounted);
    let noted = "cd cache/fim; for name in dir dir/file root; do \
                 python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], \"user.fim.owner\"))' */$name 2>/dev/null || echo none; done";
    let expected = if is_root() { "none\nnone\nnone" } else { "b'7:7'\nb'12345:12345'\nnone" };
    assert_eq!(world.host_sh(noted).run().text(), expected);
}

#[test]
fn a_closed_device_is_named_with_its_mode() {
    let world = World::new();
    // A mount without devices refuses root too, as a mode refuses others.
    let script = "mount --bind /dev/fuse /dev/fuse && mount -o remount,bind,nodev /dev/fuse && \
                  exec \"$IMAGE\" fim-exec cat /etc/release";
    let ids: &[&str] = if is_root() { &[] } else { &["-r"] };
    let command = world.equip(TestCommand::new(need("unshare"))).args(ids).args(["-m", "--", "bash", "-c", script]);
    let command = command.env("IMAGE", world.image()).env("XDG_CACHE_HOME", world.path("cache"));
    let outcome = command.run().succeeds().with_stdout("small\n");
    outcome
        .complains_of(&["fim: note: cannot mount the image: /dev/fuse: permission denied (its mode is", "chmod 0666"]);
    assert_eq!(cached(&world).len(), 2);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let world = World::new();
    let script = "mkdir cache; mount -t tmpfs -o ro none cache; exec $IMAGE fim-exec true";
    let outcome = without_fuse(&world, script).run().exits(125);
    outcome.complains_of(&["/dev/fuse", "modprobe fuse", "cache/fim", "Read-only file system"]);
    world.assert_nothing_left();
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    let world = World::empty();
    let (tree, upper, tar) = (world.path("tree"), world.path("upper"), world.path("whiteouts.tar"));
    fs::create_dir(&tree).unwrap();
    world::small_tree(&tree);
    fs::create_dir_all(upper.join("usr/share/dir")).unwrap();
    fs::write(upper.join("usr/share/dir/only"), "only\n").unwrap();
    need("python3");
    let script = r#"
        python3 -c 'import os; os.setxattr("upper/usr/share/dir", "user.overlay.opaque", b"y")'
        python3 -c 'import tarfile
t = tarfile.open("whiteouts.tar", "w")
i = tarfile.TarInfo("usr/share/plain")
i.type = tarfile.CHRTYPE
t.addfile(i)
t.close()'
    "#;
    world.host_sh(script).run().succeeds();
    let build = TestCommand::new(FIM).arg("build").args([&tree, &upper, &tar]).arg("-o").arg(world.image());
    world.equip(build).args(["--level", "1", "-q"]).run().succeeds().quietly();
    let script = "ls -R /usr/share; cat /etc/release";
    let expected = world.sh(script).prints();
    assert!(expected.contains("only") && !expected.contains("plain") && !expected.contains("two"), "{expected}");
    world.assert_nothing_left();
    let found = without_fuse(&world, &format!("$IMAGE fim-exec sh -c '{script}'")).run().succeeds().text();
    assert_eq!(found, expected);
    assert_eq!(cached(&world).len(), 6);
}

#[test]
fn layers_outside_of_the_image_are_extracted_too() {
    let world = World::new();
    for name in ["a", "b"] {
        fs::create_dir_all(world.path("layer/etc")).unwrap();
        fs::write(world.path("layer/etc/layer"), name).unwrap();
        world.app(&["fim-layer", "create", "layer", &format!("{name}.layer")]).run().succeeds();
    }
    let script =
        "export FIM_LAYERS=a.layer:b.layer; $IMAGE fim-exec cat /etc/layer; $IMAGE fim-exec --ephemeral cat /etc/layer";
    let outcome = without_fuse(&world, script).run().succeeds().with_stdout("bb");
    assert_eq!(outcome.stderr().matches("once").count(), 1, "{outcome:?}");
    assert_eq!(cached(&world).len(), 6, "{:?}", cached(&world));
    // A file that has changed is another layer, and what is none is not hidden.
    fs::copy(world.path("a.layer"), world.path("b.layer")).unwrap();
    without_fuse(&world, script).run().succeeds().with_stdout("aa");
    fs::write(world.path("b.layer"), "junk").unwrap();
    let outcome = without_fuse(&world, script).run().exits(125).with_stdout("");
    outcome.complains_of(&["/b.layer", "too few"]);
}

#[test]
fn a_committed_layer_hides_what_it_did() {
    let world = World::new();
    let look = "$IMAGE fim-root sh -c 'find /usr /etc | sort; cat /usr/share/dir/*; stat -c %a%F /usr/share/*'";
    let script = format!(
        "$IMAGE fim-root sh -c 'cd /usr/share; rm -r dir noise; mkdir dir; echo n > dir/new; chmod 711 dir; mkfifo pipe' && \
         {look} > before && $IMAGE fim-layer commit binary --level 0 > /dev/null && {look} > after && \
         grep -q dir/new after && ! grep -q noise after && cmp before after"
    );
    without_fuse(&world, &script).run().succeeds().with_stdout("");
    assert_eq!(cached(&world).iter().filter(|name| name.ends_with(".lock")).count(), 2, "one for each layer");
}

#[test]
fn processes_at_once_extract_once() {
    let world = large();
    let script = r#"
        for number in 1 2 3 4; do
            FIM_DIR_DATA=$PWD/data-$number $IMAGE fim-exec cat /etc/release &
        done
        wait
    "#;
    let outcome = without_fuse(&world, script).run().succeeds().with_stdout(&"small\n".repeat(4));
    assert_eq!(outcome.stderr().matches("once").count(), 1, "{outcome:?}");
    assert_eq!(cached(&world).len(), 2);
}

/// Starts the image and returns when its layer is being extracted.
fn extracting(world: &World) -> harness::Running {
    fs::create_dir_all(cache(world)).unwrap();
    for path in [world.path("cache"), cache(world)] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let changes = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    changes.add_watch(&cache(world), AddWatchFlags::IN_CREATE).unwrap();
    let running = without_fuse(world, "exec $IMAGE fim-exec cat /etc/release").spawn();
    loop {
        wait_readable(&changes, "the begin of the extraction");
        let events = changes.read_events().unwrap();
        let name = |event: &nix::sys::inotify::InotifyEvent| event.name.clone().unwrap_or_default();
        if events.iter().any(|event| name(event).to_string_lossy().ends_with(".part")) {
            return running;
        }
    }
}

#[test]
fn an_extraction_that_is_killed_leaves_nothing_usable() {
    let world = large();
    let running = extracting(&world);
    running.signal(Signal::SIGKILL);
    running.wait_as_it_is();
    assert!(cached(&world).iter().any(|name| name.ends_with(".part")), "it was killed too late to prove anything");
    assert!(cached(&world).iter().all(|name| name.contains('.')), "{:?}", cached(&world));
    let listed = world.app(&["fim-cache", "list"]).env("XDG_CACHE_HOME", world.path("cache")).prints();
    assert!(listed.ends_with(":incomplete"), "{listed}");
    without_fuse(&world, "$IMAGE fim-exec cat /etc/release").run().succeeds().with_stdout("small\n");
    assert_eq!(cached(&world).len(), 2, "{:?}", cached(&world));
}

#[test]
fn an_extraction_that_is_interrupted_leaves_nothing() {
    let world = large();
    let running = extracting(&world);
    running.signal(Signal::SIGINT);
    running.wait().dies_of(Signal::SIGINT);
    nothing_is_cached(&world);
    world.assert_nothing_left();
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let world = large();
    world::script(&world.path("without"), WITHOUT_FUSE);
    let mut terminal = Terminal::open(&world);
    let ids = if is_root() { "" } else { "-r " };
    terminal.enter(&format!("unshare {ids}-m bash ./without $IMAGE fim-exec cat /etc/release"));
    terminal.expect("once");
    terminal.expect(" MiB/");
    terminal.expect("files");
    terminal.expect("small");
    terminal.prompt();
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left() {
    let world = large();
    let script = r#"
        mkdir -p cache
        mount -t tmpfs -o size=16M none cache
        code=0
        $IMAGE fim-exec true || code=$?
        find cache -type f ! -name '*.lock' -o -name '*.part'
        exit $code
    "#;
    let outcome = without_fuse(&world, script).run().exits(125).with_stdout("");
    outcome.complains_of(&["No space left", "cache/fim", "XDG_CACHE_HOME"]);
}

#[test]
fn a_cache_that_is_not_the_callers_is_refused() {
    let world = World::new();
    let start = "code=0; $IMAGE fim-exec true || code=$?; ls elsewhere; exit $code";
    fs::create_dir_all(world.path("elsewhere")).unwrap();
    fs::create_dir_all(world.path("cache")).unwrap();
    symlink(world.path("elsewhere"), cache(&world)).unwrap();
    let refused = |script: &str, words: &[&str]| {
        without_fuse(&world, script).run().exits(125).with_stdout("").complains_of(words);
    };
    refused(start, &["cache/fim is not a directory but a link", "XDG_CACHE_HOME"]);
    fs::remove_file(cache(&world)).unwrap();
    fs::create_dir(cache(&world)).unwrap();
    fs::set_permissions(cache(&world), fs::Permissions::from_mode(0o777)).unwrap();
    refused(start, &["cache/fim is open to others"]);
    fs::set_permissions(cache(&world), fs::Permissions::from_mode(0o700)).unwrap();
    // Nobody but root can give a directory away; in a user's namespace that of root is a stranger's.
    let strange = if is_root() { "chown 12345 cache/fim" } else { "mount --bind /usr cache/fim" };
    refused(&format!("{strange}; {start}"), &["cache/fim belongs to user", "XDG_CACHE_HOME"]);
}

#[test]
fn a_planted_layer_is_not_used() {
    let world = World::new();
    without_fuse(&world, "$IMAGE fim-exec true").run().succeeds();
    world.assert_nothing_left();
    let name = cached(&world)[0].clone();
    fs::rename(cache(&world).join(&name), world.path("moved")).unwrap();
    fs::remove_file(world.path("moved/etc/release")).unwrap();
    symlink(world.path("moved"), cache(&world).join(&name)).unwrap();
    without_fuse(&world, "$IMAGE fim-exec cat /etc/release").run().exits(125).with_stdout("").complains_of(&[&name]);
    assert!(!cached(&world).iter().any(|name| name.ends_with(".part")), "{:?}", cached(&world));
}

#[test]
fn clear_removes_what_nobody_uses() {
    let closed = |tree: &Path| {
        fs::create_dir_all(tree.join("closed/inner")).unwrap();
        fs::write(tree.join("closed/inner/file"), "x").unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    };
    let world = World::with_tree(closed, &[]);
    let script = r#"
        $IMAGE fim-cache list
        id=$($IMAGE fim-exec --detach sleep 1000)
        $IMAGE fim-cache list
        $IMAGE fim-cache clear && exit 1
        $IMAGE fim-exec cat /etc/release
        $IMAGE fim-instance kill $id KILL
    "#;
    let outcome = without_fuse(&world, script).run().succeeds();
    let outcome = outcome.complains_of(&["layers are in use and were not removed", "end the instances"]);
    let text = outcome.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(":in use") && lines[1..] == ["Removed 0 layers of 0 bytes", "small"], "{text}");
    world.assert_nothing_left();
    let with_cache = |words: &[&str]| world.app(words).env("XDG_CACHE_HOME", world.path("cache"));
    assert!(with_cache(&["fim-cache", "list"]).prints().ends_with(":unused"));
    let listed: serde_json::Value =
        serde_json::from_str(&with_cache(&["fim-cache", "LIST", "--json"]).prints()).unwrap();
    assert_eq!(listed[0]["state"], "unused");
    assert!(with_cache(&["fim-cache", "clear"]).prints().starts_with("Removed 1 layers of "));
    assert_eq!(cached(&world), [""; 0]);
    assert_eq!(with_cache(&["fim-cache", "list"]).prints(), "");
    with_cache(&["fim-cache"]).fails_naming(&["Missing op for 'fim-cache'"]);
    with_cache(&["fim-cache", "burn"]).fails_naming(&["Invalid cache operation"]);
    with_cache(&["fim-cache", "clear", "all"]).fails_naming(&["Trailing arguments for fim-cache: ['all',]"]);
}

#[test]
fn a_damaged_layer_is_not_extracted() {
    let world = World::new();
    let size = fs::metadata(world.image()).unwrap().len();
    let flip = "printf '\\125\\252\\125' | dd of=$IMAGE bs=1 seek=$AT conv=notrunc status=none";
    world.host_sh(flip).env("AT", (size - 400_000).to_string()).run().succeeds();
    let outcome = without_fuse(&world, "$IMAGE fim-exec true").run().exits(125);
    outcome.complains_of(&["cannot extract /", "fim-verify", "nothing of it was left"]);
    nothing_is_cached(&world);
}

#[test]
fn our_own_overlay_is_refused_with_a_reason() {
    let world = World::new();
    for (name, value) in [("FIM_OVERLAY", "unionfs"), ("FIM_CASEFOLD", "1")] {
        let outcome = without_fuse(&world, "\"$IMAGE\" fim-exec true").env(name, value).run().exits(125);
        outcome.complains_of(&["userspace overlay", "/dev/fuse", "fim-overlay set bwrap", "fim-casefold off"]);
    }
    nothing_is_cached(&world);
}

#[test]
fn shared_content_is_extracted_too() {
    let world = harness::content::consumer("$FIM_ROOT_DIR/x", &[]);
    let on = |image: &str, args: &[&str]| harness::content::on(&world, image, args).run().succeeds();
    world::copy(world.image(), &world.path("one.flatimage"));
    on("one.flatimage", &["fim-content", "unplug", "p"]);
    on("one.flatimage", &["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/usr/share/dir"]);
    on("one.flatimage", &["fim-root", "sh", "-c", "rm /usr/share/dir/one; echo 2 > /usr/share/dir/two"]);
    on("one.flatimage", &["fim-layer", "commit", "binary"]);
    harness::content::producer(
        &world,
        "two.flatimage",
        &[("d/f", "f\n")],
        &["--read", "$SNAP/d", "--write", "$SNAP_COMMON"],
    );
    for image in ["one.flatimage", "two.flatimage"] {
        harness::content::connect(&world, image);
    }
    let script = "$IMAGE fim-exec sh -c 'cd /x; cat two f; ls; touch f || touch common/g'";
    let outcome = without_fuse(&world, script).run().succeeds().with_stdout("2\nf\ncommon\ndeep\nf\ntwo\n");
    outcome.complains_of(&["/dev/fuse", "cache/fim, once", "Read-only file system"]);
    assert!(world.path(".two.flatimage.data/files/common/system/g").exists());
    // Four layers: the image's, two of the first producer, one of the second.
    assert_eq!(cached(&world).iter().filter(|name| !name.ends_with(".lock")).count(), 3, "the first two are the same");
    world.assert_nothing_left();
}
