//! Places where no layout may be.

use runtime::sandbox::layout::Kept;

const DEVICES: &str = "devices of the instance are there, and only permissions add to them";
const FIRMWARE: &str = "the host's kernel takes its firmware from a directory of that name";
const MODULES: &str = "the host's kernel takes its modules from a directory of that name";
const OWN: &str = "it is made anew for each instance, with what fim itself needs below /run/fim";
const SNAPD: &str = "it belongs to snapd, and programs look there for snaps of the host";

/// Each with everything below, and by all its names: /lib may be a link to /usr/lib, and /var/run to /run.
pub const KEPT: &[Kept] = &[
    Kept { path: "/boot", reason: "it belongs to the machine: boot loader and kernel" },
    Kept { path: "/dev", reason: DEVICES },
    Kept { path: "/home", reason: "homes of users are there; the permission home shares the caller's" },
    Kept { path: "/lib/firmware", reason: FIRMWARE },
    Kept { path: "/usr/lib/firmware", reason: FIRMWARE },
    Kept { path: "/lib/modules", reason: MODULES },
    Kept { path: "/usr/lib/modules", reason: MODULES },
    Kept { path: "/lost+found", reason: "file systems keep there what they repair" },
    Kept { path: "/media", reason: "the user's media are there; the permission media shares them" },
    Kept { path: "/proc", reason: "it shows the processes of the instance, and what shows there is the kernel's" },
    Kept { path: "/run", reason: OWN },
    Kept { path: "/var/run", reason: OWN },
    Kept { path: "/sys", reason: "it shows the machine, and what shows there is the kernel's" },
    Kept { path: "/tmp", reason: "each instance has an empty one of its own" },
    Kept { path: "/var/lib/snapd", reason: SNAPD },
    Kept { path: "/var/snap", reason: SNAPD },
];
