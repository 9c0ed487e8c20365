//! Starts, ends and sudden deaths: whatever is killed, nothing stays behind and the next start works.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use harness::{Running, World, is_root, uid};
use nix::sys::signal::Signal;

/// An instance that waits for its stdin.
fn waiting(world: &World) -> Running {
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    running
}

fn works(world: &World) {
    assert_eq!(world.exec(&["echo", "works"]).prints(), "works");
}

#[test]
fn fifty_first_starts_at_once_share_one_session() {
    let world = World::new();
    let mut starts: Vec<Running> =
        (0..50).map(|_| world.sh("echo $$ >> /etc/starts; echo ready; cat").spawn()).collect();
    starts.iter_mut().for_each(|start| start.expect("ready"));
    // A daemon takes its name a moment after it was forked.
    let begin = std::time::Instant::now();
    let (trees, servers, hosts) = loop {
        let trees: Vec<_> = starts.iter().map(|start| (start.tree(), start)).collect();
        let count = |name: &str| trees.iter().flat_map(|(tree, _)| &tree.0).filter(|one| one.name == name).count();
        let (servers, hosts) = (count("fim-mount"), count("fim-host"));
        if (servers > 0 && hosts > 0) || begin.elapsed() > harness::DEADLINE {
            break (trees, servers, hosts);
        }
    };
    let all: Vec<String> =
        trees.iter().flat_map(|(tree, _)| &tree.0).map(|member| format!("{}:{}", member.pid, member.name)).collect();
    assert_eq!((servers, hosts), (1, 1), "{all:?}");
    let sessions: Vec<_> = fs::read_dir(world.sessions()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(sessions.len(), 1);
    let mut ids: Vec<u64> = fs::read_dir(sessions[0].join("instances"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..50).collect::<Vec<u64>>());
    let trees: Vec<_> = trees.into_iter().map(|(tree, _)| tree).collect();
    for (tree, start) in trees.into_iter().zip(starts) {
        start.wait().succeeds().quietly();
        tree.0
            .iter()
            .filter(|member| !["fim-mount", "fim-host"].contains(&member.name.as_str()))
            .for_each(|member| member.wait_gone());
    }
    assert_eq!(fs::read_to_string(world.upper("etc/starts")).unwrap().lines().count(), 50);
    world.assert_nothing_left();
}

/// It looks at the mount that it serves itself, and must not wait for its own answer for ever, locks in hand.
#[test]
fn a_mount_server_that_is_killed_while_it_mounts_ends() {
    dies_while_it_mounts(Signal::SIGKILL);
}

/// The kernel writes a core, and waits for every thread before it closes anything.
#[test]
fn a_mount_server_that_crashes_while_it_mounts_ends() {
    dies_while_it_mounts(Signal::SIGABRT);
}

fn dies_while_it_mounts(signal: Signal) {
    let world = World::new();
    let mut killed = 0;
    // On a loaded machine, most come and go before this process has seen them.
    for round in 0..1000 {
        if killed == 40 {
            break;
        }
        let start = world.exec(&["true"]).spawn();
        let server = loop {
            let server = start.tree().0.into_iter().find(|member| member.name == "fim-mount");
            if server.is_some() || !Path::new(&format!("/proc/{}/exe", start.pid())).exists() {
                break server;
            }
        };
        if let Some(server) = server {
            // Somewhere on its way, which takes a few milliseconds.
            let moment = std::time::Instant::now() + std::time::Duration::from_micros(round % 20 * 250);
            while std::time::Instant::now() < moment {
                std::hint::spin_loop();
            }
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(server.pid, signal);
            server.wait_gone();
            killed += 1;
        }
        start.wait_as_it_is();
    }
    assert!(killed == 40, "the mount server was seen {killed} times only");
    works(&world);
    world.assert_nothing_left();
}

#[test]
fn the_death_of_the_mount_server_ends_the_instances_with_a_reason() {
    let world = World::new();
    let first = waiting(&world);
    let second = waiting(&world);
    let (tree, other) = (first.tree(), second.tree());
    tree.named("fim-mount").kill();
    for instance in [first, second] {
        instance.wait_as_it_is().exits(125).complains_of(&["fim: ", "mount server"]);
    }
    tree.wait_gone();
    other.wait_gone();
    world.assert_no_mounts();
    works(&world);
    world.assert_nothing_left();
}

#[test]
fn the_death_of_the_host_daemon_disturbs_nobody() {
    let world = World::new();
    let mut first = waiting(&world);
    let tree = first.tree();
    tree.named("fim-host").kill();
    tree.named("fim-host").wait_gone();
    first.say("alive\n");
    first.expect("alive");
    // The next start begins another one and gets the next ID.
    let second = waiting(&world);
    // It takes its name a moment after it was forked.
    let end = std::time::Instant::now() + harness::DEADLINE;
    while !second.tree().0.iter().any(|member| member.name == "fim-host") {
        assert!(std::time::Instant::now() < end, "no host daemon was begun");
        std::thread::yield_now();
    }
    let session = fs::read_dir(world.sessions()).unwrap().next().unwrap().unwrap().path();
    let mut ids: Vec<_> =
        fs::read_dir(session.join("instances")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    ids.sort();
    assert_eq!(ids, ["0", "1"]);
    first.wait().succeeds().quietly();
    second.wait().succeeds().quietly();
    world.assert_nothing_left();
}

#[test]
fn the_death_of_the_guest_daemon_ends_its_instance() {
    let world = World::new();
    let (first, mut second) = (waiting(&world), waiting(&world));
    let tree = first.tree();
    tree.named("fim-guest").kill();
    first.wait_as_it_is().exits(125).complains_of(&["guest daemon"]);
    second.say("alive\n");
    second.expect("alive");
    second.wait().succeeds();
    tree.wait_gone();
    world.assert_nothing_left();
}

#[test]
fn the_death_of_a_start_ends_its_instance_alone() {
    let world = World::new();
    let (first, mut second) = (waiting(&world), waiting(&world));
    let instance: Vec<_> = first
        .tree()
        .0
        .into_iter()
        .filter(|member| !["fim-mount", "fim-host"].contains(&member.name.as_str()))
        .collect();
    first.signal(Signal::SIGKILL);
    first.wait_as_it_is().dies_of(Signal::SIGKILL);
    instance.iter().for_each(|member| member.wait_gone());
    second.say("alive\n");
    second.expect("alive");
    works(&world);
    second.wait().succeeds();
    world.assert_nothing_left();
}

#[test]
fn the_death_of_everything_at_once_leaves_a_session_that_is_reused() {
    for order in [
        ["fim-host", "fim-mount", "fim-guest"],
        ["fim-mount", "fim-host", "fim-guest"],
        ["fim-guest", "fim-host", "fim-mount"],
    ] {
        let world = World::new();
        let instance = waiting(&world);
        let tree = instance.tree();
        // The death of one may be that of the next.
        let members = order.map(|name| tree.named(name));
        members.iter().for_each(|member| member.end());
        instance.wait_as_it_is().exits(125);
        tree.wait_gone();
        world.assert_no_mounts();
        works(&world);
        world.assert_nothing_left();
    }
}

/// The last instance has gone, and the mount server has not noticed yet.
#[test]
fn a_session_that_is_just_ending_refuses_no_other_layers() {
    let world = World::new();
    fs::create_dir_all(world.path("tree/etc")).unwrap();
    fs::write(world.path("tree/etc/layer"), "other\n").unwrap();
    world.app(&["fim-layer", "create", "tree", "other.layer"]).run().succeeds();
    let instance = waiting(&world);
    let tree = instance.tree();
    let server = tree.named("fim-mount");
    server.hold();
    // What ends by itself may have to read from the server first.
    instance.signal(Signal::SIGKILL);
    instance.wait_as_it_is().dies_of(Signal::SIGKILL);
    let next = world.exec(&["cat", "/etc/layer"]).env("FIM_LAYERS", "other.layer").spawn();
    harness::process::wait_for_poll(next.pid());
    server.go_on();
    next.wait().succeeds().quietly().with_stdout("other\n");
    world.assert_nothing_left();
}

#[test]
fn an_image_that_is_deleted_while_it_runs_runs_on() {
    let world = World::new();
    let mut instance = waiting(&world);
    fs::remove_file(world.image()).unwrap();
    instance.say("alive\n");
    instance.expect("alive");
    instance.wait().succeeds().quietly();
    world.assert_nothing_left();
}

#[test]
fn an_image_that_is_replaced_while_it_runs_is_another_image() {
    let world = World::new();
    let old = waiting(&world);
    let new = World::with_tree(|tree| fs::write(tree.join("etc/release"), "new\n").unwrap(), &[]);
    fs::rename(world.image(), world.path("old")).unwrap();
    harness::world::copy(new.image(), world.image());
    // The data is in use by the old one, whose layers are not the new one's.
    world.exec(&["cat", "/etc/release"]).fails_naming(&["in use by instances", "another version", "FIM_DIR_DATA"]);
    let place = world.path("other");
    assert_eq!(world.exec(&["cat", "/etc/release"]).env("FIM_DIR_DATA", &place).prints(), "new");
    old.wait().succeeds();
    world.assert_nothing_left();
    assert_eq!(world.exec(&["cat", "/etc/release"]).prints(), "new");
}

#[test]
fn a_runtime_directory_that_a_crash_left_is_reused() {
    let world = World::new();
    let instance = waiting(&world);
    let session = fs::read_dir(world.sessions()).unwrap().next().unwrap().unwrap().path();
    instance.wait().succeeds();
    world.assert_nothing_left();
    fs::create_dir_all(session.join("instances/7")).unwrap();
    fs::set_permissions(&session, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(session.join("instances/7/record"), "garbage").unwrap();
    fs::write(session.join("index"), "no line").unwrap();
    fs::write(session.join("alive"), "a file, no pipe").unwrap();
    works(&world);
    world.assert_nothing_left();
}

#[test]
fn a_planted_runtime_directory_is_refused() {
    let world = World::new();
    let planted = world.sessions();
    fs::create_dir(world.path("elsewhere")).unwrap();
    symlink(world.path("elsewhere"), &planted).unwrap();
    world.exec(&["true"]).fails_naming(&["runtime/fim", "link", "XDG_RUNTIME_DIR"]);
    fs::remove_file(&planted).unwrap();
    fs::create_dir(&planted).unwrap();
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o777)).unwrap();
    world.exec(&["true"]).fails_naming(&["runtime/fim", "open to others", "0777"]);
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o700)).unwrap();
    works(&world);
}

#[test]
fn a_runtime_directory_of_another_user_is_refused() {
    let world = World::new();
    if is_root() {
        // Only root can give a directory away.
        fs::create_dir(world.sessions()).unwrap();
        fs::set_permissions(world.sessions(), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(world.sessions(), Some(4711), None).unwrap();
        world.exec(&["true"]).fails_naming(&["runtime/fim", "belongs to user 4711"]);
        std::os::unix::fs::chown(world.sessions(), Some(0), None).unwrap();
    } else {
        // A base that is not the caller's own is not used at all.
        let running = world.sh("echo ready").env("XDG_RUNTIME_DIR", "/usr").run();
        running.succeeds().quietly();
        assert!(!fs::exists("/usr/fim").unwrap());
    }
}

#[test]
fn without_a_runtime_directory_tmp_is_used() {
    let world = World::new();
    let mut running = world.sh("echo ready; cat").env_remove("XDG_RUNTIME_DIR").spawn();
    running.expect("ready");
    let base = format!("/tmp/fim-{}", uid());
    assert_eq!(fs::metadata(&base).unwrap().permissions().mode() & 0o7777, 0o700);
    let tree = running.tree();
    running.wait().succeeds();
    tree.wait_gone();
    assert!(!world.sessions().exists());
}

#[test]
fn data_of_another_user_is_refused() {
    let world = World::new();
    // Root gives a directory away; anybody else names one of root's.
    let (place, owner) = if is_root() {
        let place = world.path("theirs");
        fs::create_dir(&place).unwrap();
        std::os::unix::fs::chown(&place, Some(4711), None).unwrap();
        (place, 4711)
    } else {
        ("/usr".into(), 0)
    };
    let words = [&format!("belongs to user {owner}"), "FIM_DIR_DATA", place.to_str().unwrap()];
    world.exec(&["true"]).env("FIM_DIR_DATA", &place).fails_naming(&words);
    assert!(!place.join("root").join("etc").exists());
}

#[test]
fn a_lock_that_is_no_plain_file_is_refused() {
    let world = World::new();
    works(&world);
    world.assert_nothing_left();
    fs::remove_file(world.data().join("start.lock")).unwrap();
    symlink("/dev/null", world.data().join("start.lock")).unwrap();
    world.exec(&["true"]).fails_naming(&["start.lock"]);
    fs::remove_file(world.data().join("start.lock")).unwrap();
    works(&world);
}
