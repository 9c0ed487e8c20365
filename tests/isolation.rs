//! What a guest cannot do and cannot see, tried from inside by a hostile program, as the caller and as root inside.

mod harness;

use std::fs::{self, File};
use std::net::TcpListener;

use harness::{TestCommand, World, is_root};

/// Every line that the probe prints for a command of the image.
fn lines(command: TestCommand) -> Vec<String> {
    command.prints().lines().map(str::to_owned).collect()
}

/// Both ways to run a command: as the caller and as root inside.
fn both<'a>(world: &'a World, words: &'a [&'a str]) -> [TestCommand; 2] {
    [world.exec(words), world.root(words)]
}

#[test]
fn the_hosts_files_are_not_there() {
    let world = World::new();
    fs::write(world.path("secret"), "secret\n").unwrap();
    for command in both(&world, &["ls", "-A", "/", "/tmp", "/run", "/dev/shm"]) {
        let listing = command.prints();
        assert!(!listing.contains("fim-test"), "{listing}");
        for name in ["work", "proc/kcore-of-the-host", "var", "boot", "lib"] {
            assert!(!listing.lines().any(|line| line == name), "{name} is in\n{listing}");
        }
    }
    let secret = world.path("secret");
    world.exec(&["cat"]).arg(&secret).run().exits(1);
    world.root(&["cat"]).arg(&secret).run().exits(1);
    // Neither from the root upwards, nor by what a process of ours has open.
    for script in ["cat /../../../etc/hostname", "cd /; cd ..; cat etc/hostname", "cat /proc/self/cwd/etc/hostname"] {
        world.sh(script).run().exits(1);
        world.root_sh(script).run().exits(1);
    }
}

#[test]
fn mountinfo_tells_no_path_of_the_host() {
    let world = World::new();
    for command in both(&world, &["cat", "/proc/self/mountinfo"]) {
        let table = command.prints();
        // But for the two directories of FIM_DATA and FIM_COMMON, which are bound from the data directory.
        let (own, table): (Vec<&str>, Vec<&str>) =
            table.lines().partition(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with("/run/fim/data/")));
        assert_eq!(own.len(), 2, "{own:#?}");
        let table = table.join("\n");
        for word in [world.path("").to_str().unwrap(), "app.flatimage", "fim-test", "/dev/vda"] {
            assert!(!table.contains(word), "{word} is in\n{table}");
        }
    }
}

#[test]
fn the_host_never_sees_a_mount() {
    let world = World::new();
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    world.assert_no_mounts();
    assert_eq!(fs::read_dir(world.data().join("root")).unwrap().filter(|entry| entry.is_err()).count(), 0);
    running.wait().succeeds();
    world.assert_nothing_left();
}

#[test]
fn the_hosts_processes_are_not_there() {
    let world = World::new();
    for command in both(&world, &["sh", "-c", "ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm; echo $$"]) {
        let printed = lines(command);
        assert!(printed[0].parse::<u32>().unwrap() <= 5, "{printed:?}");
        assert_eq!(printed[1], "fim-guest");
        assert!(printed[2].parse::<u32>().unwrap() < 10, "{printed:?}");
    }
    // This process is alive and no process inside has its number.
    let me = std::process::id().to_string();
    for command in both(&world, &["kill", "-0", &me]) {
        command.run().exits(1).complains_of(&["No such process"]);
    }
}

#[test]
fn the_guest_daemon_tells_and_gives_nothing() {
    let world = World::new();
    for file in ["root/", "cwd/"] {
        for command in both(&world, &["ls", &format!("/proc/1/{file}")]) {
            command.run().exits(1).with_stdout("");
        }
    }
    // A real root sees which names there are and nothing behind them.
    let script =
        "for f in /proc/1/fd/* /proc/1/ns/* /proc/1/map_files/*; do readlink $f; cat $f; ls $f/; done 2>/dev/null";
    for command in both(&world, &["sh", "-c", script]) {
        command.run().with_stdout("");
    }
    for file in ["environ", "maps", "mem", "auxv", "io", "syscall", "stack"] {
        for command in both(&world, &["cat", &format!("/proc/1/{file}")]) {
            let refused = command.run();
            assert!(refused.stdout.is_empty() && refused.status.code() == Some(1), "{file}: {refused:?}");
        }
    }
    for command in both(&world, &["readlink", "/proc/1/exe"]) {
        command.run().exits(1).with_stdout("");
    }
    let title = world.sh("tr '\\0' ' ' < /proc/1/cmdline").prints();
    assert_eq!(title.trim_end(), "fim: guest daemon");
    for command in both(&world, &["probe", "examine", "1"]) {
        assert_eq!(lines(command), ["ptrace=EPERM", "process_vm_readv=EPERM", "pidfd_getfd=EPERM", "setns=EPERM"]);
    }
    // Nor can it be ended.
    for command in both(&world, &["sh", "-c", "kill -9 1; kill -TERM 1; kill -STOP 1; echo alive"]) {
        assert!(command.run().succeeds().text().ends_with("alive"));
    }
}

#[test]
fn nothing_can_be_unmounted_moved_or_changed() {
    let world = World::new();
    let places = ["/proc", "/sys", "/dev", "/dev/null", "/dev/pts", "/tmp", "/run", "/"];
    for verb in ["mounts", "mounts-in-namespace"] {
        for command in both(&world, &["probe", verb]) {
            let printed = lines(command.args(places));
            assert_eq!(printed.len(), places.len() * 3);
            for line in printed {
                let (what, answer) = line.rsplit_once('=').unwrap();
                // A remount that asks for no change is the only thing that the kernel may grant, and only to the root
                // of a mount namespace of its own.
                let harmless = verb == "mounts-in-namespace" && what.ends_with("remount");
                assert!(["EPERM", "EINVAL", "EBUSY", "EACCES"].contains(&answer) || harmless, "{verb}: {line}");
            }
        }
    }
}

#[test]
fn nothing_can_be_uncovered() {
    let world = World::new();
    for verb in ["under", "under-in-namespace"] {
        for command in both(&world, &["probe", verb, "/", "/dev", "/proc", "/sys"]) {
            for line in lines(command) {
                let answer = line.rsplit_once('=').unwrap().1;
                // On /proc nothing lies for a caller who is not root, so that a copy shows what everybody sees.
                let nothing_below = line.starts_with("/proc ") && !is_root();
                assert!(["EPERM", "EINVAL"].contains(&answer) || nothing_below, "{verb}: {line}");
            }
        }
    }
}

#[test]
fn fim_exec_has_no_capability_and_can_gain_none() {
    let world = World::new();
    let status = world.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status").prints();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let status = world.root_sh("grep -E '^(NoNewPrivs|Seccomp:)' /proc/self/status").prints();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn dangerous_calls_are_refused() {
    let world = World::new();
    for command in both(&world, &["probe", "calls"]) {
        for line in lines(command.stdin(File::open("/dev/null").unwrap())) {
            let expected = match line.split_once('=').unwrap().0 {
                "clone3" | "x32" => "ENOSYS",
                "vsock" | "alg" => "EAFNOSUPPORT",
                _ => "EPERM",
            };
            assert!(line.ends_with(&format!("={expected}")), "{line}, not {expected}");
        }
    }
}

#[test]
fn dangerous_calls_are_refused_to_32_bit_code_too() {
    let world = World::new();
    for command in both(&world, &["probe", "calls32"]) {
        let printed = lines(command.stdin(File::open("/dev/null").unwrap()));
        assert_eq!(printed[0], "getpid=ok", "32-bit programs must run");
        for line in &printed[1..] {
            let expected = match line.split_once('=').unwrap().0 {
                "clone3" => "ENOSYS",
                "vsock" => "EAFNOSUPPORT",
                _ => "EPERM",
            };
            assert!(line.ends_with(&format!("={expected}")), "{line}, not {expected}");
        }
    }
}

#[test]
fn nested_user_namespaces_work() {
    let world = World::new();
    // The kernel lets root without capabilities make a namespace, but not map itself into it (user_namespaces(7)).
    let as_caller: &[&str] = if is_root() { &["unshare", "-U", "echo", "0"] } else { &["unshare", "-Ur", "id", "-u"] };
    assert_eq!(world.exec(as_caller).prints(), "0");
    assert_eq!(world.root(&["unshare", "-Ur", "id", "-u"]).prints(), "0");
}

#[test]
fn the_hosts_network_is_not_there_and_loopback_is() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    for command in both(&world, &["probe", "tcp", &port]) {
        assert_eq!(command.prints(), "connect=ECONNREFUSED");
    }
    for command in both(&world, &["probe", "loopback"]) {
        assert_eq!(command.prints(), "connect=ok");
    }
    for command in both(&world, &["sh", "-c", "ls /sys/class 2>/dev/null; ip -o link | wc -l"]) {
        assert_eq!(command.prints(), "1");
    }
}

#[test]
fn abstract_sockets_of_the_host_are_not_there() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let world = World::new();
    let name = format!("fim-test-{}", world.path("").display());
    let _server = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for command in both(&world, &["probe", "abstract", &name]) {
        assert_eq!(command.prints(), "connect=ECONNREFUSED");
    }
}

#[test]
fn the_kernels_knobs_cannot_be_turned() {
    let world = World::new();
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let knobs = [
        "sys/kernel/core_pattern",
        "sys/kernel/hostname",
        "sys/vm/drop_caches",
        "sysrq-trigger",
        "irq/default_smp_affinity",
    ];
    for knob in knobs {
        // A host without the knob has nothing to protect.
        let script = format!("[ -e /proc/{knob} ] || exit 1; echo h > /proc/{knob}");
        for command in both(&world, &["sh", "-c", &script]) {
            let refused = command.run();
            // With root inside, the instance's own host name is the instance's own business.
            let own = knob.ends_with("hostname") && refused.status.code() == Some(0);
            assert!(own || refused.status.code() == Some(1), "{knob}: {refused:?}");
        }
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

#[test]
fn sys_shows_the_processors_and_nothing_else() {
    let world = World::new();
    for command in both(&world, &["sh", "-c", "ls /sys; ls /sys/devices /sys/devices/system | sort -u | tr '\\n' ' '"])
    {
        let printed = command.prints();
        assert!(printed.starts_with("devices\n"), "{printed}");
        assert!(!printed.contains("block") && !printed.contains("pci"), "{printed}");
    }
    for command in both(&world, &["sh", "-c", "echo 0 > /sys/devices/system/cpu/cpu1/online"]) {
        command.run().exits(1);
    }
}

#[test]
fn devices_are_the_harmless_ones() {
    let world = World::new();
    for command in both(&world, &["sh", "-c", "find /dev -type b -o -type c | sort | tr '\\n' ' '"]) {
        let devices = "/dev/full /dev/null /dev/pts/ptmx /dev/random /dev/tty /dev/urandom /dev/zero ";
        assert_eq!(command.prints(), devices);
    }
    for path in ["/tmp/disk", "/disk"] {
        let words = ["mknod", path, "b", "254", "0"];
        world.exec(&words).run().exits(1);
        if is_root() {
            world.root(&words).run().exits(1);
        } else {
            // Root is emulated: an empty file stands for the device, and nothing is behind it.
            let script = format!("mknod {path} b 254 0; stat -c '%F %t:%T' {path}; echo x > {path}; cat {path}");
            assert_eq!(world.root_sh(&script).prints(), "block special file fe:0\nx");
        }
    }
    if !is_root() {
        assert!(fs::symlink_metadata(world.upper("disk")).unwrap().is_file());
    }
}

#[test]
fn two_instances_do_not_see_each_other() {
    let world = World::new();
    let mut first = world.sh("touch /tmp/mark /dev/shm/mark /run/user/*/mark; probe shm-make 4711; sleep 1000").spawn();
    first.expect("shmget=ok");
    let second = world.sh("ls /tmp /dev/shm /run/user/*; probe shm-find 4711; ps -o comm | grep -c sleep").run();
    let text = second.exits(1).text();
    assert!(!text.contains("mark") && text.contains("shmget=ENOENT") && text.ends_with('0'), "{text}");
    // What they share is the writable root.
    world.sh("echo shared > /etc/shared").run().succeeds();
    assert_eq!(world.root_sh("cat /etc/shared").prints(), "shared");
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.wait().exits(143);
}

#[test]
fn message_queues_are_each_instances_own() {
    let world = World::with_tree(|_| {}, &[]);
    std::os::unix::fs::symlink("app.flatimage", world.path("app_foo.flatimage")).unwrap();
    let name = format!("/fim-test-{}", std::process::id());
    let on_host = |verb: &str| world.equip(TestCommand::new(world.path("tree/bin/probe"))).args([verb, &name]);
    let foo = |words: &[&str]| world.equip(TestCommand::new(world.path("app_foo.flatimage"))).args(words);
    let (find, none) = (["probe", "mq-find", &name], "mq_open=ENOENT");
    let mut first = world.exec(&["probe", "mq-hold", &name]).spawn();
    first.expect("mq_open=ok");
    // Neither is it the host's, nor that of another instance of the session or of another key.
    assert_eq!(on_host("mq-find").prints(), none);
    for command in both(&world, &find).into_iter().chain([foo(&["fim-exec"]).args(find), foo(&["fim-root"]).args(find)])
    {
        assert_eq!(command.prints(), none);
    }
    assert_eq!(world.app(&["fim-instance", "exec", "0"]).args(find).prints(), "mq_open=ok");
    first.wait().succeeds().quietly();
    // And the other way round, also without any option of fim-unshare.
    let mut hosts = on_host("mq-hold").spawn();
    hosts.expect("mq_open=ok");
    assert_eq!(on_host("mq-find").prints(), "mq_open=ok");
    for clear in [false, true] {
        if clear {
            world.app(&["fim-unshare", "clear"]).run().succeeds().quietly();
        }
        for command in both(&world, &find) {
            assert_eq!(command.prints(), none);
        }
    }
    hosts.wait().succeeds();
    assert_eq!(on_host("mq-find").prints(), none, "the test leaves nothing");
}

#[test]
fn groups_of_the_caller_give_nothing_to_the_guest() {
    let world = World::new();
    let printed = world.exec(&["id", "-G"]).prints();
    // Groups that are not mapped show as the overflow group; root's own are all mapped.
    let allowed = [harness::gid().to_string(), "65534".to_owned(), "0".to_owned()];
    assert!(is_root() || printed.split(' ').all(|group| allowed.iter().any(|other| other == group)), "{printed}");
}

#[test]
fn a_set_user_id_program_of_the_image_gains_nothing() {
    let world = World::with_tree(
        |tree| {
            fs::copy("/bin/busybox", tree.join("bin/raised")).unwrap();
            fs::set_permissions(tree.join("bin/raised"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
        },
        &[],
    );
    let id = if is_root() { "0".to_owned() } else { harness::uid().to_string() };
    let shown =
        world.exec(&["sh", "-c", "ln -s /bin/raised /tmp/id; /tmp/id -u; grep CapEff /proc/self/status"]).prints();
    assert_eq!(shown, format!("{id}\nCapEff:\t0000000000000000"));
}

#[test]
fn the_programs_own_file_cannot_be_written_from_inside() {
    let world = World::new();
    let before = fs::read(world.image()).unwrap();
    for command in both(&world, &["sh", "-c", "for p in /proc/[0-9]*; do echo x >> $p/exe; done; echo done"]) {
        assert!(command.run().text().ends_with("done"));
    }
    assert!(fs::read(world.image()).unwrap() == before, "the image changed");
}
