//! A session bus of the host.

use super::{Running, TestCommand, World, need};

/// Starts a bus in the world's directory, whose path has a blank in it; returns its address, too.
pub fn session(world: &World) -> (Running, String) {
    let address = format!("unix:path={}", world.path("host bus").display().to_string().replace(' ', "%20"));
    need("dbus-daemon");
    let daemon = format!("exec dbus-daemon --session --nofork --print-address=1 '--address={address}'");
    let (uid, gid) = (super::uid(), super::gid());
    let mut bus = if super::is_root() {
        world.host_sh(&daemon)
    } else {
        // It wants to know the name of its user, which the host may not: here it does.
        let passwd = format!("cat /etc/passwd > passwd; echo test:x:{uid}:{gid}::/:/bin/sh >> passwd; ");
        let script = format!("{passwd} mount --bind passwd /etc/passwd; {daemon}");
        let ids = [format!("--map-user={uid}"), format!("--map-group={gid}")];
        world
            .equip(TestCommand::new(need("unshare")))
            .args(["-Um", "--keep-caps"])
            .args(ids)
            .args(["sh", "-c", &script])
    }
    .spawn();
    bus.expect("unix:path=");
    (bus, address)
}
