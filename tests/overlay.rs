//! The two overlays: what programs rely on holds over both, each goes on with what the other has written, and our own
//! takes over where the kernel's refuses.

mod harness;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use harness::{Running, TestCommand, World, debian, is_root, layers, need, world};
use nix::sys::signal::Signal;

/// Names of the kernel's overlay and of our own.
const KERNEL: &str = "bwrap";
const OWN: &str = "unionfs";

/// A world whose image has `/checks` with what `semantics.c` needs.
fn checks() -> World {
    World::with_tree(
        |tree| {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/overlay/semantics.c");
            TestCommand::new(need("gcc"))
                .env("PATH", "/usr/bin:/bin")
                .args(["-static", "-O1", "-pthread", "-o"])
                .arg(tree.join("bin/semantics"))
                .arg(source)
                .run()
                .succeeds();
            let checks = tree.join("checks");
            for name in ["sub/inner", "replaced", "nameless"] {
                fs::create_dir_all(checks.join(name)).unwrap();
            }
            for (name, content) in [
                ("file", "lower\n"),
                ("twin1", "twin\n"),
                ("sub/inner/leaf", "leaf\n"),
                ("sub/other", "other\n"),
                ("gone", "gone\n"),
                ("replaced/old", "old\n"),
                ("nameless/written", "written\n"),
                ("nameless/replaced", "replaced\n"),
                ("nameless/one", "twin\n"),
                ("big", &"b".repeat(1 << 20)),
            ] {
                fs::write(checks.join(name), content).unwrap();
            }
            fs::hard_link(checks.join("twin1"), checks.join("twin2")).unwrap();
            fs::hard_link(checks.join("nameless/one"), checks.join("nameless/two")).unwrap();
            symlink("file", checks.join("link")).unwrap();
            let sparse = fs::File::create(checks.join("sparse")).unwrap();
            sparse.set_len(4 << 20).unwrap();
            sparse.write_all_at(b"data", 1 << 20).unwrap();
        },
        &[],
    )
}

#[track_caller]
fn all_hold(command: TestCommand) {
    let outcome = command.run();
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert!(text.starts_with("all ") && outcome.status.success(), "{outcome:?}");
}

#[test]
fn what_programs_rely_on_holds_over_the_kernels_overlay() {
    all_hold(checks().exec(&["semantics", "/checks"]).env("FIM_OVERLAY", KERNEL));
}

#[test]
fn what_programs_rely_on_holds_over_our_own_overlay() {
    let world = checks();
    for name in [OWN, "overlayfs"] {
        all_hold(world.exec(&["semantics", "/checks", "--strict"]).env("FIM_OVERLAY", name));
        world.assert_nothing_left();
        fs::remove_dir_all(world.data()).unwrap();
    }
    // Also for root of the image, whose users are emulated or real, and without regard to case.
    all_hold(world.root(&["semantics", "/checks", "--strict"]).env("FIM_CASEFOLD", "1"));
}

#[test]
fn what_programs_rely_on_holds_with_plain_marks() {
    let world = checks();
    with_plain_marks(&world);
    // The kernel's overlay would not understand them, so that it is not even tried.
    let told = world.exec(&["true"]).env("FIM_DEBUG", "1").env("FIM_OVERLAY", KERNEL).run().succeeds();
    assert!(told.text().contains("Overlay type: UNIONFS_FUSE"), "{told:?}");
    all_hold(world.exec(&["semantics", "/checks", "--strict"]));
    world.wait_for_end();
    assert!(world.upper("checks/.wh.gone").is_file() && world.upper("checks/replaced/.wh..wh..opq").is_file());
    // Of a session with another kind of marks nothing is known.
    fs::write(world.data().join("marks"), "fim-marks 2 round\n").unwrap();
    world.exec(&["true"]).fails_naming(&["marks", "newer version", "FIM_DIR_DATA"]);
    for words in [&["fim-layer", "diff"][..], &["fim-exec", "--ephemeral", "true"]] {
        world.app(words).fails_naming(&["marks", "newer version", "FIM_DIR_DATA"]);
    }
    let commit = world.app(&["fim-layer", "commit", "layer"]).run().exits(125);
    commit.complains_of(&["marks", "newer version", "nothing was changed"]);
}

/// Makes the data directory as it is where the file system can hold nothing better.
fn with_plain_marks(world: &World) {
    for name in ["root", "work"] {
        fs::create_dir_all(world.data().join(name)).unwrap();
        fs::set_permissions(world.data().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(world.data().join("marks"), "fim-marks 1 plain\n").unwrap();
}

/// Changes of every kind, with names that look like marks.
const CHANGES: &str = "cd /srv && rm first second && echo again > second && mkdir .wh.d && echo in > .wh.d/.wh.f
    echo x > .wh.; echo y > .wh.third; cd /var && rm -r cache lib && mkdir lib && echo new > lib/first
    rm /opt/app/linked; ln /opt/app/share/first /opt/app/.wh.second; mkfifo /opt/pipe; chmod 750 /opt
    mv /home/user/first /home/user/.wh..wh..opq; chown 33:34 /home/user/second; ln -s to /home/link; rm /home/user/third";

#[test]
fn plain_marks_become_those_of_a_layer() {
    let world = layers::changeable();
    with_plain_marks(&world);
    world.root_sh(CHANGES).run().succeeds().quietly();
    let before = layers::seen(&world);
    world.wait_for_end();
    let reference = layers::changeable();
    reference.root_sh(CHANGES).env("FIM_OVERLAY", OWN).run().succeeds().quietly();
    reference.wait_for_end();
    // Whether a directory has another time depends on the second in which its tree was made; that of /opt has another mode.
    let is_sure = |line: &&str| !line.starts_with("M:0:0:") || *line == "M:0:0:/opt";
    let changes = |world: &World| {
        let diff = world.app(&["fim-layer", "diff"]).prints();
        diff.lines().filter(is_sure).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(changes(&world), changes(&reference));
    assert!(changes(&world).contains("A:3:0:/srv/.wh.d/.wh.f\n"), "{}", changes(&world));
    world.app(&["fim-layer", "commit", "binary", "--level", "0"]).run().succeeds().quietly();
    assert_eq!(layers::upper_names(&world), [""; 0]);
    let (before, after) = (layers::without_counts(&before), layers::without_counts(&layers::seen(&world)));
    layers::assert_same(&before, &after, "after a commit of plain marks");
    assert!(world.data().join("marks").exists());
    world.sh("rm -r /srv; ls /srv 2>&1 | wc -l").run().succeeds().with_stdout("1\n");
}

#[test]
fn throw_away_starts_show_what_our_own_overlay_has_written() {
    for plain in [true, false] {
        let world = layers::changeable();
        if plain {
            with_plain_marks(&world);
        }
        let kind = |command: TestCommand| if plain { command } else { command.env("FIM_OVERLAY", OWN) };
        kind(world.root_sh(CHANGES)).run().succeeds().quietly();
        let before = kind(world.root(&["tree", "tree"])).prints();
        world.wait_for_end();
        let upper = || world.host_sh("cd .app.flatimage.data && find . -printf '%p %s %T@ %m\\n' | sort").prints();
        let stored = upper();
        for _ in 0..2 {
            let shown = kind(world.app(&["fim-root", "--ephemeral", "tree", "tree"])).prints();
            let (before, shown) = (layers::without_counts(&before), layers::without_counts(&shown));
            layers::assert_same(&before, &shown, "thrown away");
            let script = "echo more >> /srv/second; rm -r /var; mkdir /new; cat /srv/second; ls -d /var 2>&1 | wc -l";
            let written = kind(world.app(&["fim-exec", "--ephemeral", "sh", "-c", script]));
            written.run().succeeds().quietly().with_stdout("again\nmore\n1\n");
            world.assert_nothing_left();
            let changed = |line: &&str| !line.contains(".lock ") && !line.starts_with(". ");
            let only = |text: &str| text.lines().filter(changed).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(only(&upper()), only(&stored), "the data directory is only read");
        }
    }
    // Names in any case are found in it, too.
    let world = World::new();
    world.sh("echo kept > /Kept").env("FIM_CASEFOLD", "1").run().succeeds().quietly();
    world.wait_for_end();
    let cat = world.app(&["fim-exec", "--ephemeral", "sh", "-c", "cat /kEPT; echo x > /KEPT; cat /Kept"]);
    assert_eq!(cat.env("FIM_CASEFOLD", "1").prints(), "kept\nx");
    assert_eq!(world.sh("cat /Kept").prints(), "kept");
}

/// Everything in the root, as a guest sees it: names, types, modes, sizes, targets and contents.
fn seen(world: &World, overlay: &str) -> String {
    let script =
        "cd / && find bin/lost etc usr made* 2>/dev/null | grep -v '^etc/passwd$' | sort | while read -r name; do
            stat -c '%n %F %a %s' \"$name\" | sed '/directory/s/ [0-9]*$//'
            [ -L \"$name\" ] && readlink \"$name\"
            [ -f \"$name\" ] && md5sum < \"$name\"
        done; true";
    let text = world.sh(script).env("FIM_OVERLAY", overlay).prints();
    world.wait_for_end();
    text
}

#[test]
fn each_overlay_goes_on_with_what_the_other_has_written() {
    let steps = [
        "rm /usr/share/dir/one; echo more >> /etc/release; mkdir /made; mkfifo /made/pipe; ln -s x /made/link",
        "mv /usr/share/dir /usr/share/other; mv /usr/share/other /usr/share/dir; ls /usr/share/dir > /etc/listed",
        "rm -r /usr/share/dir; mkdir /usr/share/dir; echo new > /usr/share/dir/new; chmod 600 /usr/share/plain",
        "mv /made /made2; mv /usr/share/plain /etc/plain; echo back > /usr/share/plain; ln /etc/plain /etc/twin",
        "rm -r /made2 /usr/share/dir; mkdir -p /usr/share/dir/deep; echo end > /usr/share/dir/two; rm /etc/twin",
    ];
    let reference = World::new();
    let mixed = [World::new(), World::new()];
    for (number, step) in steps.iter().enumerate() {
        reference.sh(step).env("FIM_OVERLAY", KERNEL).run().succeeds().quietly();
        reference.wait_for_end();
        let expected = seen(&reference, KERNEL);
        for (first, world) in mixed.iter().enumerate() {
            let kinds = [KERNEL, OWN];
            world.sh(step).env("FIM_OVERLAY", kinds[(number + first) % 2]).run().succeeds().quietly();
            world.wait_for_end();
            for kind in kinds {
                assert_eq!(seen(world, kind), expected, "after step {number}, seen by {kind}");
            }
        }
    }
}

#[test]
fn the_session_has_one_overlay() {
    let world = World::new();
    let mut first = world.sh("echo ready; cat").env("FIM_OVERLAY", OWN).spawn();
    first.expect("ready");
    world.exec(&["true"]).fails_naming(&["running: overlay userspace", "this start: overlay kernel"]);
    let with_case = world.exec(&["true"]).env("FIM_CASEFOLD", "1");
    with_case.fails_naming(&["this start: casefold on"]);
    // Two names of the same.
    assert_eq!(world.exec(&["echo", "joins"]).env("FIM_OVERLAY", "overlayfs").prints(), "joins");
    first.wait().succeeds();
}

#[test]
fn debug_output_names_the_overlay() {
    let world = World::new();
    for (name, token) in [(KERNEL, "BWRAP"), (OWN, "UNIONFS_FUSE"), ("overlayfs", "FUSE_OVERLAYFS")] {
        let outcome = world.exec(&["true"]).env("FIM_OVERLAY", name).env("FIM_DEBUG", "1").run().succeeds();
        let types: Vec<String> =
            outcome.text().lines().filter(|line| line.contains("Overlay type")).map(str::to_owned).collect();
        assert_eq!(types, [format!("D::Overlay type: {token}")]);
        world.wait_for_end();
    }
    world.app(&["fim-overlay", "set", "unionfs"]).run().succeeds().quietly();
    let outcome = world.exec(&["true"]).env("FIM_DEBUG", "1").run().succeeds();
    assert!(outcome.text().contains("Overlay type: UNIONFS_FUSE"), "{outcome:?}");
}

#[test]
fn instances_at_once_see_each_others_changes() {
    let world = World::new();
    let script = "echo ready; while read line; do echo \"$line\" > /etc/line; mv /etc/line /etc/told; echo done; done";
    let mut first = world.sh(script).env("FIM_OVERLAY", OWN).spawn();
    first.expect("ready");
    for round in ["one", "two"] {
        first.say(&format!("{round}\n"));
        first.expect("done");
        assert_eq!(world.exec(&["cat", "/etc/told"]).env("FIM_OVERLAY", OWN).prints(), round);
    }
    let count = "i=0; while [ $i -lt 200 ]; do echo $i >> /etc/log.$0; i=$((i+1)); done";
    let all: Vec<Running> =
        (0..4).map(|own| world.sh(count).arg(own.to_string()).env("FIM_OVERLAY", OWN).spawn()).collect();
    for running in all {
        running.wait().succeeds().quietly();
    }
    first.wait().succeeds();
    for own in 0..4 {
        assert_eq!(fs::read_to_string(world.upper(&format!("etc/log.{own}"))).unwrap().lines().count(), 200);
    }
    world.assert_nothing_left();
}

#[test]
fn the_death_of_the_server_ends_readers_and_instances_at_once() {
    let world = World::new();
    let mut running = world.sh("echo ready; while :; do cat /usr/share/noise > /dev/null; done");
    running = running.env("FIM_OVERLAY", OWN);
    let mut running = running.spawn();
    running.expect("ready");
    let tree = running.tree();
    tree.named("fim-mount").kill();
    running.wait_as_it_is().exits(125).complains_of(&["fim: ", "mount server"]);
    tree.wait_gone();
    world.assert_no_mounts();
    assert_eq!(world.exec(&["echo", "works"]).env("FIM_OVERLAY", OWN).prints(), "works");
    world.assert_nothing_left();
}

#[test]
fn what_was_written_survives_the_sudden_death_of_its_instance() {
    let world = World::new();
    // Never closed, never synchronised: it is in the kernel's cache when the instance is killed.
    let script = "exec 3>/etc/kept; cat /usr/share/noise >&3; echo ready; cat";
    let mut running = world.sh(script).env("FIM_OVERLAY", OWN).spawn();
    running.expect("ready");
    running.signal(Signal::SIGKILL);
    running.wait_as_it_is().dies_of(Signal::SIGKILL);
    world.assert_nothing_left();
    let noise = world.sh("md5sum < /usr/share/noise").prints();
    assert_eq!(world.sh("md5sum < /etc/kept").prints(), noise);
}

#[test]
fn twenty_thousand_small_files_come_and_go() {
    let world = World::new();
    for half in ["0", "1"] {
        let tree = world.path(half);
        for directory in 0..10 {
            let directory = tree.join(format!("{half}{directory}"));
            fs::create_dir_all(&directory).unwrap();
            for file in 0..1000 {
                fs::write(directory.join(file.to_string()), format!("{half} {file}\n")).unwrap();
            }
        }
        let archive = world.path(format!("{half}.tar"));
        TestCommand::new(need("tar")).arg("-C").arg(&tree).arg("-cf").arg(&archive).arg(".").run().succeeds();
        let unpacked = world.sh("mkdir -p /many && cd /many && tar -x").stdin(fs::File::open(archive).unwrap());
        unpacked.env("FIM_OVERLAY", OWN).run().succeeds().quietly();
    }
    let script = "cd /many && find . -type f | wc -l && cat 19/999 && mv 19 moved && cat moved/0 && ls 00 | wc -l \
                  && for name in *; do rm -r $name && echo removed $name; done && ls -A | wc -l";
    let mut running = world.sh(script).env("FIM_OVERLAY", OWN).spawn();
    // A loaded machine takes its time for all, but not for each.
    let removed = (0..19).map(|number| format!("removed {number:02}\n")).chain(["removed moved\n0\n".to_owned()]);
    for told in ["20000\n1 999\n1 0\n1000\n".to_owned()].into_iter().chain(removed) {
        running.expect(&told);
    }
    running.wait().succeeds().quietly();
    world.wait_for_end();
    assert_eq!(fs::read_dir(world.upper("many")).unwrap().count(), 0);
}

/// Runs the script on a host whose `data` is on an overlay, which the kernel takes for no upper directory.
fn on_an_overlay(world: &World, script: &str) -> TestCommand {
    for name in ["below", "above", "between", "data"] {
        fs::create_dir_all(world.path(name)).unwrap();
    }
    let mount = "mount -t overlay -o userxattr,lowerdir=below,upperdir=above,workdir=between none data && ";
    world.in_namespace(&format!("{mount}{script}")).env("FIM_DIR_DATA", "data/fim")
}

#[test]
fn where_the_kernel_refuses_our_own_overlay_takes_over() {
    let world = checks();
    let told = on_an_overlay(&world, "FIM_DEBUG=1 \"$IMAGE\" fim-exec true").run().succeeds();
    assert!(told.text().contains("Overlay type: UNIONFS_FUSE"), "{told:?}");
    // Without being asked, nothing is said.
    on_an_overlay(&world, "\"$IMAGE\" fim-exec true").run().succeeds().quietly().with_stdout("");
    all_hold(on_an_overlay(&world, "\"$IMAGE\" fim-exec semantics /checks --strict"));
    // It stayed there.
    let script = "\"$IMAGE\" fim-exec sh -c 'ls /checks/gone; echo x > /etc/kept' ; \"$IMAGE\" fim-exec cat /etc/kept";
    on_an_overlay(&world, script).run().succeeds().with_stdout("x\n").complains_of(&["/checks/gone"]);
}

#[test]
fn no_room_for_a_file_of_a_layer_is_an_error_and_the_file_stays() {
    let world = checks();
    fs::create_dir(world.path("data")).unwrap();
    // The file takes 1 MiB. It comes up with the first write, which the kernel sends on before it has answered fsync(2).
    let change = "echo x | dd of=/checks/big conv=notrunc,fsync 2>&1 | grep -o 'No space left'; head -c 3 /checks/big";
    let script = format!(
        "mount -t tmpfs -o size=512k,mode=755 none data
        \"$IMAGE\" fim-exec sh -c \"{change} > /dev/null; echo y > /checks/sub/other; cat /checks/sub/other\"
        flock data/fim/session.lock ls data/fim/root/checks data/fim/work/staging
        \"$IMAGE\" fim-exec head -c 3 /checks/big"
    );
    let command = world.in_namespace(&script).env("FIM_DIR_DATA", "data/fim").env("FIM_OVERLAY", OWN);
    command.run().succeeds().with_stdout("No space left\ny\ndata/fim/root/checks:\nsub\n\ndata/fim/work/staging:\nbbb");
}

#[test]
fn owners_and_devices_are_as_over_the_kernels_overlay() {
    for kind in [KERNEL, OWN] {
        let world = World::with_tree(
            |tree| {
                fs::write(tree.join("etc/theirs"), "x").unwrap();
                if is_root() {
                    std::os::unix::fs::chown(tree.join("etc/theirs"), Some(33), Some(34)).unwrap();
                }
            },
            &[],
        );
        let root = |script: &str| world.root_sh(script).env("FIM_OVERLAY", kind);
        let expected = if is_root() { "33:34".to_owned() } else { format!("{}:{}", harness::uid(), harness::gid()) };
        assert_eq!(root("stat -c %u:%g /etc/theirs").prints(), expected, "{kind}");
        root("echo y >> /etc/theirs; chown 5:6 /etc/release; ln -s x /etc/l; chown -h 7:8 /etc/l").run().succeeds();
        root("mkdir -m 2775 /etc/shared; chgrp 9 /etc/shared; chmod 4755 /etc/release").run().succeeds();
        world.wait_for_end();
        let shown = root("stat -c '%u:%g %a' /etc/theirs /etc/release /etc/shared; stat -c %u:%g /etc/l").prints();
        assert_eq!(shown, format!("{expected} 644\n5:6 4755\n0:9 2775\n7:8"), "{kind}");
        root("mknod /etc/null c 1 3 && : > /etc/null").run();
        assert!(!fs::metadata(world.upper("etc/null")).is_ok_and(|node| node.rdev() != 0), "{kind}");
    }
}

#[test]
fn packages_are_installed_over_our_own_overlay() {
    let world = World::empty();
    world::build(debian::minimal(), world.image(), &[]).succeeds().quietly();
    let package = debian::package_files().into_iter().find(|file| name(file).starts_with("cron-daemon-common_"));
    let package = package.expect("the packages of the tests have cron-daemon-common");
    let script = "cat > /tmp/x.deb && dpkg --unpack /tmp/x.deb > /tmp/log 2>&1 || { cat /tmp/log; exit 1; }";
    let installed = world.root_sh(script).env("FIM_OVERLAY", OWN).input(fs::read(package).unwrap());
    installed.run().succeeds().with_stdout("");
    world.wait_for_end();
    for kind in [KERNEL, OWN] {
        let state = world.root_sh("dpkg -s cron-daemon-common | grep Status").env("FIM_OVERLAY", kind).prints();
        assert_eq!(state, "Status: install ok unpacked");
        world.wait_for_end();
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Packs a layer that hides names of the image in the forms of other tools.
fn foreign_layer(world: &World) {
    let tree = world.path("foreign");
    fs::create_dir_all(tree.join("usr/share/dir/deep")).unwrap();
    // An empty file is a whiteout by its attribute, where the directory says that there are such.
    for name in ["usr/share/dir/one", "usr/share/dir/empty"] {
        fs::write(tree.join(name), "").unwrap();
        if !name.ends_with("empty") {
            xattr::set(tree.join(name), "user.overlay.whiteout", b"y").unwrap();
        }
    }
    xattr::set(tree.join("usr/share/dir"), "user.overlay.opaque", b"x").unwrap();
    fs::write(tree.join("usr/share/dir/deep/new"), "new\n").unwrap();
    // Only root of the host can make the other form.
    let opaque = if is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
    xattr::set(tree.join("usr/share/dir/deep"), opaque, b"y").unwrap();
    let pack = world.equip(TestCommand::new(need("mksquashfs")));
    pack.args(["foreign", "foreign.layer", "-noappend", "-quiet", "-no-progress"]).run().succeeds();
}

#[test]
fn whiteouts_of_other_tools_hide_over_each_overlay() {
    let world = World::new();
    foreign_layer(&world);
    let script = "ls /usr/share/dir /usr/share/dir/deep; cat /usr/share/dir/one 2>&1 | wc -l
        find /usr/share/dir -name one";
    let shown = "/usr/share/dir:\ndeep\nempty\ntwo\n\n/usr/share/dir/deep:\nnew\n1";
    for kind in [KERNEL, OWN] {
        let with = |script: &str| {
            let start = world.sh(script).env("FIM_OVERLAY", kind).env("FIM_LAYERS", "foreign.layer");
            start.env("FIM_DIR_DATA", world.path(kind))
        };
        assert_eq!(with(script).prints(), shown, "{kind}");
        // What is hidden can be made, and goes again for good.
        let remade =
            "cd /usr/share/dir && echo again > one && cat one && rm one && ls && mkdir one && ls one && rmdir one";
        assert_eq!(with(remade).prints(), "again\ndeep\nempty\ntwo", "{kind}");
        world.wait_for_end();
        assert_eq!(with(script).prints(), shown, "{kind}, later");
        world.wait_for_end();
    }
    let casefold = world.sh("ls /USR/share/DIR; ls /usr/share/dir/ONE 2>&1 | grep -c 'No such'");
    let casefold = casefold.env("FIM_CASEFOLD", "1").env("FIM_LAYERS", "foreign.layer");
    assert_eq!(casefold.prints(), "deep\nempty\ntwo\n1");
}

/// Runs the command on a host whose file systems know neither exchanging names nor refusing to replace one, as NFS: the
/// flags of renameat2(2) are not supported.
fn without_rename_flags(world: &World, words: &[&str]) -> TestCommand {
    let strace = world.equip(TestCommand::new(need("strace")));
    let strace = strace.args(["-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace=renameat2", "-e"]);
    strace.arg("inject=renameat2:error=EINVAL").arg(world.image()).args(words)
}

#[test]
fn file_systems_that_cannot_exchange_names_will_do() {
    let world = layers::changeable();
    let changes = ["fim-root", "sh", "-c", CHANGES];
    without_rename_flags(&world, &changes).env("FIM_OVERLAY", OWN).run().succeeds().quietly();
    world.wait_for_end();
    assert_eq!(fs::read_to_string(world.data().join("marks")).unwrap(), "fim-marks 1 plain\n");
    let before = without_rename_flags(&world, &["fim-root", "tree", "tree"]).prints();
    world.wait_for_end();
    let reference = layers::changeable();
    reference.root_sh(CHANGES).env("FIM_OVERLAY", OWN).run().succeeds().quietly();
    let wanted = names_of(&reference.root(&["tree", "tree"]).env("FIM_OVERLAY", OWN).prints());
    assert_eq!(names_of(&before), wanted);
    // What was written becomes layers and files there.
    let new = ["fim-layer", "commit", "file", "new.layer", "--level", "0"];
    without_rename_flags(&world, &new).run().succeeds().quietly();
    let create = ["fim-layer", "create", "home", "new.layer", "--level", "0"];
    without_rename_flags(&world, &create).run().exits(125).complains_of(&["already exists"]);
    let shown = world.root(&["tree", "tree"]).env("FIM_LAYERS", "new.layer").prints();
    assert_eq!(names_of(&shown), wanted);
}

/// The names in a tree.
fn names_of(tree: &str) -> Vec<String> {
    tree.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}
