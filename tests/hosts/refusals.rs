//! Hosts on which no image can run, and what they say.

use super::harness::is_root;
use super::host::{FILTER, Host};

#[test]
fn userns_limit() {
    // The limit of a namespace holds for its own; the host's is left alone.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec sh -c \"$0\"";
    Host::new().through(&["unshare", "-Ur", "sh", "-c", script]).refuses("userns-limit");
}

#[test]
fn too_deep() {
    // One of its own for each level, and one more for a caller who is in one already.
    let script =
        "if unshare -Ur true 2>/dev/null; then exec unshare -Ur sh -c \"$0\" \"$0\" \"$1\"; fi; exec sh -c \"$1\"";
    Host::new().through(&["sh", "-c", "exec sh -c \"$0\" \"$0\" \"$1\"", script]).refuses("too-deep");
}

#[test]
fn seccomp() {
    // unshare, mount and clone, as containers do it.
    Host::new().through(&["python3", "-c", FILTER, "272,165,56", "1", "sh", "-c"]).refuses("seccomp");
}

#[test]
fn chroot() {
    let enter = if is_root() {
        "exec chroot --userspec=63999:63999 tree /bin/sh -c 'cd /; exec sh -c \"$0\"' \"$0\""
    } else {
        "exec chroot tree /bin/sh -c 'cd /; exec sh -c \"$0\"' \"$0\""
    };
    let script = "mkdir -p tree/bin tree/proc tree/dev tree/tmp; chmod 777 tree tree/tmp; cp /bin/busybox tree/bin
        for name in sh echo; do ln -s busybox tree/bin/$name; done
        cp \"$IMAGE\" tree/app; mount --rbind /proc tree/proc; mount --rbind /dev tree/dev";
    let host = Host::new().arranged(script).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    host.privileged()
        .through(&["sh", "-c", &format!("IMAGE=/app HOME=/tmp; export IMAGE HOME; {enter}")])
        .refuses("chroot");
}

#[test]
fn masked_proc() {
    Host::new().arranged("mount -t tmpfs -o ro none /proc/sys/fs").refuses("masked-proc");
}

#[test]
fn no_proc() {
    Host::new().arranged("mount -t tmpfs none /proc").refuses("no-proc");
}
