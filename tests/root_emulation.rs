//! Root emulation: what it remembers, what it answers, and that it reaches nothing but the guest's own. Every test runs
//! with one ID, for real root too.

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use harness::owners::{emulated, one_id, owned};
use harness::{TestCommand, Tree, World, is_root, need};

#[test]
fn the_owners_of_the_image_are_shown_and_change() {
    let world = owned();
    one_id(&world);
    assert_eq!(
        world.root_sh("stat -c %u:%g /owned /owned/file /owned/link /far /etc").prints(),
        "33:44\n33:44\n33:44\n70000:80000\n0:0"
    );
    // Reading and no change at all copy nothing up.
    world.root_sh("chown -R 33:44 /owned; chown -R root:root /etc /usr; cat /owned/file").run().succeeds();
    assert!(!world.upper("owned").exists() && !world.upper("usr").exists());
    world.root_sh("chown 0:0 /owned/file; chown :0 /owned").run().succeeds().quietly();
    assert_eq!(world.root_sh("stat -c %u:%g /owned /owned/file; cat /owned/file").prints(), "33:0\n0:0\ncontent");
    assert_eq!(world.root_sh("chown -h :0 /owned/link; stat -c %u:%g /owned/link").prints(), "33:0");
    assert_eq!(world.root_sh("chown -h 7 /owned/link; stat -c %u:%g /owned/link").prints(), "7:0");
    // In a later session, too, in which the link is one of the writable layer with a number of its own.
    world.wait_for_end();
    assert_eq!(world.root_sh("stat -c %u:%g /owned/link; chown -h 0 /owned/link").prints(), "7:0");
    assert_eq!(world.root_sh("stat -c %u:%g /owned/link").prints(), "0:0");
}

#[test]
fn a_static_busybox_keeps_owners_too() {
    let world = emulated();
    let script = r#"
        set -e; umask 022
        mkdir -p /home/ann; chown 1000:1000 /home/ann
        printf 'root:x:0:0::/:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n' > /etc/passwd
        printf 'root:x:0:\nann:x:1000:\n' > /etc/group
        su ann -c 'id -u; touch ~/file'
        touch /f; chown 33:44 /f; ln -s f /l; chown -h 5:6 /l; mkfifo /p; chown 7:8 /p; mknod /n b 8 1; chown 9:9 /n
        tar -cf /t.tar -C / f l p n home; mkdir /out; tar -xf /t.tar -C /out
        stat -c '%u:%g %n' /home/ann /home/ann/file /out/f /l /out/p /out/home/ann/file
        stat -c '%F %u %t:%T' /out/n
    "#;
    let expected = "1000\n1000:1000 /home/ann\n1000:1000 /home/ann/file\n33:44 /out/f\n5:6 /l\n7:8 /out/p\n\
                    1000:1000 /out/home/ann/file\nblock special file 9 8:1";
    assert_eq!(world.root_sh(script).prints(), expected);
    // Renamed, an object keeps its owner; a new one of the same name does not inherit it.
    let script = "mv /l /l2; mv /p /p2; ln -s x /l; mkfifo /p; stat -c '%u:%g %n' /l2 /p2 /l /p";
    assert_eq!(world.root_sh(script).prints(), "5:6 /l2\n7:8 /p2\n0:0 /l\n0:0 /p");
    // On the instance's own file systems for its life.
    let script = "cd /tmp; touch f; ln -s f l; chown 3:4 f; chown -h 5:6 l; stat -c '%u:%g' f l; ls -ln f";
    let shown = world.root_sh(script).prints();
    assert!(shown.starts_with("3:4\n5:6\n-rw-r--r--    1 3        4"), "{shown}");
    // The layer that a commit would take: attributes on files, lines in the ledger for the rest.
    let ledger = fs::read_to_string(world.data().join("owners")).unwrap();
    let link = fs::symlink_metadata(world.upper("l2")).unwrap();
    assert!(
        ledger.lines().any(|line| line.starts_with(&format!("{} ", link.ino())) && line.ends_with(" 5:6")),
        "{ledger}"
    );
}

#[test]
fn calls_of_i386_are_answered() {
    let world = emulated();
    let printed = world.root_sh("touch /f; probe owners32 /f 70000 80000; stat -c %u:%g /f").prints();
    let expected = "chown32=ok\nstat64=ok\nowner=70000:80000\nchown16=ok\nlstat64=ok\nowner=7:80000\nsetgroups32=ok\n\
                    setresgid32=ok\nsetuid32=ok\nids=70000:65534:80000\nsetuid16=EPERM\n7:80000";
    assert_eq!(printed, expected);
}

#[test]
fn instances_see_each_others_owners() {
    let world = emulated();
    let mut first = world.root_sh("ln -s x /l; touch /f; echo ready; read line; stat -c %u:%g /l /f").spawn();
    first.expect("ready");
    world.root_sh("chown -h 5:6 /l; chown 7:8 /f").run().succeeds().quietly();
    first.say("go\n");
    first.expect("5:6\n7:8");
    // A command in a live instance is in its emulation.
    let mut running = world.root_sh("echo ready; cat").spawn();
    running.expect("ready");
    let id = world.app(&["fim-instance", "list"]).prints();
    let id = id.lines().next().unwrap().split(':').next().unwrap().to_owned();
    let script = "chown 9:9 /f; stat -c %u:%g /f /l; su -s /bin/sh root -c 'id -u'";
    assert_eq!(world.app(&["fim-instance", "exec", &id, "sh", "-c", script]).prints(), "9:9\n5:6\n0");
}

#[test]
fn fim_exec_is_not_emulated() {
    let world = emulated();
    world.root_sh("touch /f; chown 33:44 /f").run().succeeds();
    let running = world.sh("echo ready; cat").spawn();
    let mut running = running;
    running.expect("ready");
    assert!(!running.tree().0.iter().any(|member| member.name == "fim-owners"));
    let own = harness::uid();
    assert_eq!(world.exec(&["stat", "-c", "%u", "/f"]).prints(), own.to_string());
    world.exec(&["chown", "33", "/f"]).run().exits(1);
    assert!(running.wait().succeeds().stderr.is_empty());
}

#[test]
fn emulation_reaches_nothing_of_the_host() {
    let world = emulated();
    let file = world.path("host-file");
    fs::write(&file, "host\n").unwrap();
    let open = File::options().read(true).write(true).open(&file).unwrap();
    let before = fs::metadata(&file).unwrap();
    // A file of the host that is open in the instance, by each way that leads to it.
    let script = r#"
        for path in /dev/stdin /proc/self/fd/0 /dev/fd/0; do chown 5:5 $path 2>/dev/null && echo "changed $path"; done
        (su -s /bin/sh nobody -c 'touch /proc/self/fd/0/x; mkdir /proc/1/root/x; touch /proc/1/cwd/x') 2>/dev/null
        chown 5:5 /proc/1/root /proc/1/cwd /proc/1/fd/3 /proc/1/root/.. /proc/self /proc /dev/null 2>/dev/null && echo changed
        probe race-owners >/dev/null
        stat -c %u:%g /dev/stdin
        cd /proc/1/cwd 2>/dev/null && echo entered
        echo end
    "#;
    let outcome = world.root_sh(script).stdin(open).run().succeeds();
    assert!(!outcome.text().contains("changed") && outcome.text().ends_with("\nend"), "{outcome:?}");
    let after = fs::metadata(&file).unwrap();
    assert_eq!((before.uid(), before.gid(), before.ctime_nsec()), (after.uid(), after.gid(), after.ctime_nsec()));
    let names = TestCommand::new(need("python3"))
        .args(["-c", "import os, sys; print(os.listxattr(sys.argv[1]))"])
        .arg(&file)
        .prints();
    assert_eq!(names, "[]");
}

#[test]
fn granted_files_of_the_host_keep_their_owners() {
    let world = World::with_tree(|_| {}, &["--perms", "network"]);
    one_id(&world);
    let before = fs::metadata("/etc/hosts").unwrap();
    let outcome = world.root_sh("stat -c %F /etc/hosts; chown 5:5 /etc/hosts").run();
    assert!(outcome.status.code() == Some(1) && outcome.text() == "regular file", "{outcome:?}");
    let after = fs::metadata("/etc/hosts").unwrap();
    assert_eq!((before.uid(), before.ctime(), before.ctime_nsec()), (after.uid(), after.ctime(), after.ctime_nsec()));
}

#[test]
fn the_supervisor_is_out_of_the_guests_reach() {
    let world = emulated();
    // It has no number inside, so it can be neither named, signalled, traced nor looked into.
    let seen = world
        .root_sh("cat /proc/[0-9]*/comm; kill -9 -1 2>/dev/null; echo alive; touch /f; chown 5:5 /f; stat -c %u:%g /f")
        .prints();
    assert!(!seen.contains("fim-owners") && seen.ends_with("alive\n5:5"), "{seen}");
    // Lying about oneself in the limit that carries the identity changes nothing but oneself.
    let script = "for n in 0 1 7378697629483820646 7378697629483820647; do ulimit -x $n 2>/dev/null; id -u; done; chown 3:3 /f; stat -c %u /f";
    let lied = world.root_sh(script).run().succeeds();
    assert!(lied.text().ends_with("\n3"), "{lied:?}");
    // What is not there gets the kernel's own answer.
    world.root_sh("chown 5:5 /nothing").run().exits(1).complains_of(&["No such file"]);
}

#[test]
fn odd_arguments_get_the_kernels_answers() {
    let mut worlds = vec![emulated()];
    if is_root() {
        // Without emulation the kernel itself answers.
        worlds.push(World::new());
    }
    let expected = "stat-path=EFAULT stat-buffer=EFAULT stat-flags=EINVAL statx-buffer=EFAULT stat-long=ENAMETOOLONG \
                    stat-empty=ENOENT fstat=EBADF chown-path=EFAULT chown-flags=EINVAL chown-long=ENAMETOOLONG \
                    fchown=EBADF chown-through-file=ENOTDIR chown-nothing=ok setuid=EINVAL setgroups-pointer=EFAULT \
                    setgroups-count=EINVAL setgroups-negative=EINVAL setgroups=ok getgroups-short=EINVAL \
                    getgroups-pointer=EFAULT getresuid=EFAULT setresuid=ok mkdir-path=EFAULT open-path=EFAULT \
                    mkdir-dots=EEXIST mkdir-nowhere=ENOENT symlink-text=EFAULT open-exclusive=EEXIST";
    for world in worlds {
        let printed = world.root_sh("touch /f; chown 3:3 /f; probe owner-faults /f").prints();
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    }
}

#[test]
fn the_end_of_the_supervisor_ends_the_instance_with_a_reason() {
    let world = emulated();
    let mut running = world.root_sh("echo ready; cat").spawn();
    running.expect("ready");
    let tree: Tree = running.tree();
    tree.named("fim-owners").kill();
    running.wait_as_it_is().exits(125).complains_of(&["fim: ", "keeps the owners of files", "ended"]);
    tree.wait_gone();
    world.assert_nothing_left();
    assert_eq!(world.root_sh("touch /f; chown 5 /f; stat -c %u /f").prints(), "5");
}

#[test]
fn in_a_container_with_a_notifier_of_its_own_fim_root_works_without() {
    let world = emulated();
    // A filter that allows everything, with a listener that stays open: what some container engines put on programs.
    let script = r#"
import ctypes, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(allow))
listener = libc.syscall(317, 1, 8, program)
assert listener >= 0, ctypes.get_errno()
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"#;
    let command = TestCommand::new(need("python3")).args(["-c", script]).arg(world.image());
    let words = ["fim-root", "sh", "-c", "id -u; touch /f; chown 5 /f || echo refused"];
    let outcome = world.equip(command.args(words)).env("FIM_DEBUG", "1").run().succeeds();
    // The instance goes on while this is told.
    let text = outcome.text();
    let (told, printed): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("D::"));
    assert!(told.iter().any(|line| line.starts_with("D::Root is not emulated")), "{outcome:?}");
    assert_eq!(printed, ["0", "refused"], "{outcome:?}");
    world.assert_nothing_left();
}

#[test]
fn the_supervisor_ends_with_the_instance() {
    let world = emulated();
    for name in ["fim-guest", "fim-mount"] {
        let mut running = world.root_sh("echo ready; cat").spawn();
        running.expect("ready");
        let tree: Tree = running.tree();
        tree.named(name).kill();
        running.wait_as_it_is().exits(125);
        tree.wait_gone();
    }
    let mut running = world.root_sh("echo ready; cat").spawn();
    running.expect("ready");
    let tree: Tree = running.tree();
    running.signal(nix::sys::signal::Signal::SIGKILL);
    tree.wait_gone();
    drop(running);
    world.assert_nothing_left();
}

/// Many processes at once: no answer is lost, none goes to another.
#[test]
fn many_processes_get_their_own_answers() {
    let world = emulated();
    let script = r#"
        mkdir /many
        for n in $(seq 1 40); do
            (touch /many/$n; chown $n:$n /many/$n
             su -s /bin/sh root -c "for k in 1 2 3 4 5; do stat -c %u:%g /many/$n; done" | sort -u > /many/$n.out) &
        done
        wait
        for n in $(seq 1 40); do [ "$(cat /many/$n.out)" = "$n:$n" ] || echo "$n: $(cat /many/$n.out)"; done
    "#;
    assert_eq!(world.root_sh(script).prints(), "");
}
