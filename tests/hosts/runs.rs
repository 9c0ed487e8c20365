//! Hosts on which everything works.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::harness::is_root;
use super::host::{FILTER, Host};

#[test]
fn plain() {
    Host::new().runs("plain");
}

#[test]
fn few_descriptors() {
    Host::new().through(&["prlimit", "--nofile=64", "sh", "-c"]).runs("few-descriptors");
}

#[test]
fn umask() {
    Host::new().through(&["sh", "-c", "umask 077; exec sh -c \"$0\""]).runs("umask");
}

#[test]
fn closed_streams() {
    for closed in ["<&-", "2>&-", "<&- 2>&-"] {
        Host::new().through(&["sh", "-c", &format!("exec sh -c \"$0\" {closed}")]).runs("closed-streams");
    }
    // What has no stdout can be seen by its exit code only.
    let silent = Host::new();
    silent.run("\"$IMAGE\" fim-exec sh -c 'echo lost; exit 3' >&-; test $? = 3").succeeds();
    silent.run("\"$IMAGE\" fim-exec sh -c 'exit 4' <&- >&- 2>&-; test $? = 4").succeeds();
}

#[test]
fn no_home() {
    Host::new().without("HOME").runs("no-home");
}

#[test]
fn no_runtime_dir() {
    let host = Host::new().without("XDG_RUNTIME_DIR").arranged("new_tmp mode=1777");
    host.runs("no-runtime-dir");
}

#[test]
fn noexec_tmp() {
    Host::new().arranged("new_tmp mode=1777,noexec").runs("noexec-tmp");
}

#[test]
fn read_only_tmp() {
    Host::new().arranged("new_tmp mode=1777; mount -o remount,bind,ro /tmp").runs("read-only-tmp");
}

#[test]
fn full_tmp() {
    let script = "new_tmp mode=1777,size=64k; ! head -c 100000 /dev/zero > /tmp/full 2>/dev/null";
    Host::new().arranged(script).runs("full-tmp");
}

#[test]
fn noexec_data() {
    let script = "mkdir data; mount -t tmpfs -o mode=1777,noexec none data";
    let host = Host::new().arranged(script);
    let data = host.world.path("data/here").to_str().unwrap().to_owned();
    let host = host.env("FIM_DIR_DATA", &data);
    host.run("\"$IMAGE\" fim-exec sh -c 'cp /bin/busybox /true && /true'").succeeds().quietly();
    fs::remove_dir(host.world.path("data")).unwrap();
    host.runs("noexec-data");
}

#[test]
fn memfd_noexec() {
    if is_root() {
        // The switch belongs to a PID namespace, whose /proc the caller must see.
        let script = "mount -t proc proc /proc; echo 2 > /proc/sys/vm/memfd_noexec";
        Host::new().arranged(script).with_processes().runs("memfd-noexec");
    }
    // What the kernel then answers to memfd_create.
    Host::new().through(&["python3", "-c", FILTER, "319", "13", "sh", "-c"]).runs("memfd-noexec");
}

#[test]
fn hidepid() {
    Host::new().arranged("mount -t proc -o hidepid=2 proc /proc").with_processes().runs("hidepid");
}

#[test]
fn read_only_file() {
    let host = Host::new();
    fs::set_permissions(host.world.image(), fs::Permissions::from_mode(0o555)).unwrap();
    host.runs("read-only-file");
}

#[test]
fn tmpfs() {
    let script =
        "mkdir stick; mount -t tmpfs -o mode=1777 none stick; cp \"$IMAGE\" stick/app; export IMAGE=$PWD/stick/app";
    Host::new().arranged(script).runs("tmpfs");
}

#[test]
fn no_attributes() {
    let script =
        "mkdir stick; mount -t ramfs -o mode=1777 none stick; mkdir -m 1777 stick/home; export HOME=$PWD/stick/home
        cp \"$IMAGE\" stick/app; export IMAGE=$PWD/stick/app";
    Host::new().arranged(script).runs("no-attributes");
}

#[test]
fn read_only_medium() {
    let script = "mkdir stick; mount -t tmpfs none stick; cp \"$IMAGE\" stick/app; mount -o remount,bind,ro stick
        export IMAGE=$PWD/stick/app";
    Host::new().arranged(script).runs("read-only-medium");
}

#[test]
fn read_only_directory() {
    let host = Host::new();
    let stick = host.world.path("stick");
    fs::create_dir(&stick).unwrap();
    super::harness::world::copy(host.world.image(), &stick.join("app"));
    fs::set_permissions(&stick, fs::Permissions::from_mode(0o555)).unwrap();
    let image = stick.join("app").to_str().unwrap().to_owned();
    host.env("IMAGE", &image).runs("read-only-directory");
}

#[test]
fn overlay() {
    let script = "mkdir stick; mount -t tmpfs none stick; mkdir stick/lower stick/upper stick/work stick/root
        mount -t overlay -o userxattr,lowerdir=stick/lower,upperdir=stick/upper,workdir=stick/work none stick/root
        chmod 777 stick/root; cp \"$IMAGE\" stick/root/app; export IMAGE=$PWD/stick/root/app";
    Host::new().arranged(script).runs("overlay");
}

#[test]
fn no_fuse() {
    let script = "mount --bind /dev/fuse /dev/fuse; mount -o remount,bind,nodev /dev/fuse";
    Host::new().arranged(script).runs("no-fuse");
}

#[test]
fn root_of_namespace() {
    Host::new().through(&["unshare", "-r", "sh", "-c"]).runs("root-of-namespace");
}

#[test]
fn nested() {
    let inner = "cat > /tmp/app && chmod 755 /tmp/app && cd /tmp && IMAGE=/tmp/app exec sh -c \"$1\"";
    let outer = format!("exec \"$IMAGE\" fim-exec sh -c '{inner}' sh \"$0\" < \"$IMAGE\"");
    Host::new().through(&["sh", "-c", &outer]).runs("nested");
}
