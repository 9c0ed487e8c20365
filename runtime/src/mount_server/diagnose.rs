//! Why the host said no, and what to do about it. Each cause is read from where the kernel keeps it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::CloneFlags;

use super::Error;

fn host(what: &str, why: impl Into<String>, fix: &str) -> Error {
    Error::Host { what: what.to_owned(), why: why.into(), fix: fix.to_owned() }
}

fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

/// Opens /dev/fuse.
///
/// # Errors
/// [`Error::Host`] naming the mode of the device, or its absence, and the command that helps.
pub fn open_fuse() -> Result<OwnedFd, Error> {
    const WHAT: &str = "cannot mount the image";
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(device) => Ok(device.into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mode = fs::metadata("/dev/fuse").map(|metadata| metadata.mode() & 0o7777).unwrap_or_default();
            Err(host(
                WHAT,
                format!("/dev/fuse: permission denied (its mode is {mode:04o})"),
                "try: sudo chmod 0666 /dev/fuse",
            ))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) || error.raw_os_error() == Some(libc::ENODEV) => {
            Err(host(
                WHAT,
                format!("/dev/fuse: {error}"),
                "try: sudo modprobe fuse (in a container: pass the device in)",
            ))
        }
        Err(error) => Err(host(WHAT, format!("/dev/fuse: {error}"), "check the device node")),
    }
}

/// unshare(2) with a user namespace among the flags.
///
/// # Errors
/// [`Error::Host`] naming what forbids it.
pub fn unshare(flags: CloneFlags) -> Result<(), Error> {
    let Err(errno) = nix::sched::unshare(flags) else { return Ok(()) };
    let (why, fix) = Surroundings::look().forbids_user_namespace(errno);
    Err(Error::Host { what: "cannot make a user namespace".to_owned(), why, fix })
}

/// What the kernel tells a process about where it runs.
#[derive(Debug, Default)]
struct Surroundings {
    /// `user.max_user_namespaces`; none where the kernel knows no user namespaces.
    limit: Option<String>,
    /// `kernel.unprivileged_userns_clone` of Debian's kernels and others.
    unprivileged: Option<String>,
    /// Whether a system call filter is installed.
    filtered: bool,
    /// Whether the root of this process is the root of a mount.
    whole_root: bool,
    /// The AppArmor profile or SELinux domain of this process.
    label: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns` of Ubuntu's kernels.
    restricted: bool,
}

impl Surroundings {
    fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let label = fs::read_to_string("/proc/self/attr/current").ok();
        Self {
            limit: sysctl("user.max_user_namespaces"),
            unprivileged: sysctl("kernel.unprivileged_userns_clone"),
            filtered: status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")),
            whole_root: mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")),
            label: label.map(|label| label.trim_matches(['\0', '\n']).to_owned()).filter(|label| label != "unconfined"),
            restricted: sysctl("kernel.apparmor_restrict_unprivileged_userns").as_deref() == Some("1"),
        }
    }

    /// Why unshare(2) answered this, and the command that helps.
    fn forbids_user_namespace(&self, errno: Errno) -> (String, String) {
        let (why, fix) = match (errno, self) {
            (_, Self { limit: Some(limit), .. }) if limit == "0" => {
                ("user.max_user_namespaces is 0", "try: sudo sysctl -w user.max_user_namespaces=15000")
            }
            (_, Self { unprivileged: Some(switch), .. }) if switch == "0" => {
                ("kernel.unprivileged_userns_clone is 0", "try: sudo sysctl -w kernel.unprivileged_userns_clone=1")
            }
            (Errno::ENOSPC | Errno::EUSERS, _) => (
                "as many exist as user.max_user_namespaces allows, or 32 are nested here",
                "try: sudo sysctl -w user.max_user_namespaces=60000, or start it in fewer nested containers",
            ),
            (Errno::EINVAL | Errno::ENOSYS, Self { limit: None, .. }) => (
                "the kernel was built without them (CONFIG_USER_NS)",
                "install a kernel of 5.12 or newer with CONFIG_USER_NS=y",
            ),
            (Errno::EPERM, Self { whole_root: false, .. }) => (
                "this is a chroot, in which the kernel forbids it",
                "start it outside, or enter the tree by: sudo systemd-nspawn -D DIRECTORY",
            ),
            (_, Self { filtered: true, .. }) => (
                "a system call filter (seccomp) forbids it, as in containers",
                "start the container with --security-opt seccomp=unconfined",
            ),
            _ => return self.policy(errno),
        };
        (why.to_owned(), fix.to_owned())
    }

    /// Why mount(2) answered this to root of a user namespace, and the command that helps.
    fn forbids_mounts(&self, errno: Errno) -> (String, String) {
        if self.filtered && self.label.is_none() && !self.restricted {
            let why = "a system call filter (seccomp) forbids mounts, as in containers";
            return (why.to_owned(), "start the container with --security-opt seccomp=unconfined".to_owned());
        }
        self.policy(errno)
    }

    /// A security module that says no.
    fn policy(&self, errno: Errno) -> (String, String) {
        const PROFILE: &str = "allow it for this image: fim-doctor --apparmor | sudo apparmor_parser -r";
        match (&self.label, self.restricted) {
            (_, true) => (
                "AppArmor restricts user namespaces of ordinary users to programs with a profile".to_owned(),
                PROFILE.to_owned(),
            ),
            (Some(label), false) => (format!("the security policy {label} forbids it"), PROFILE.to_owned()),
            (None, false) => {
                let fix = "see which policy (AppArmor, SELinux, container) forbids it: sudo dmesg";
                (errno.desc().to_owned(), fix.to_owned())
            }
        }
    }
}

/// A refused ID map.
pub fn id_map(error: io::Error) -> Error {
    host(
        "cannot map the caller's IDs",
        error.to_string(),
        "mount /proc, and allow user namespaces in the security policy that refuses it",
    )
}

/// A refused mount(2).
pub fn mount(action: &'static str, object: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| {
        let (why, fix) = match errno {
            Errno::EPERM | Errno::EACCES => Surroundings::look().forbids_mounts(errno),
            Errno::ENODEV => (errno.desc().to_owned(), "try: sudo modprobe fuse".to_owned()),
            _ => (errno.desc().to_owned(), "check the kernel log".to_owned()),
        };
        Error::Host { what: format!("cannot {action} {object}"), why, fix }
    }
}

/// Memory that cannot hold the marks of an overlay.
pub fn memory(error: io::Error) -> Error {
    host(
        "cannot keep the writes of a throw-away session in memory",
        format!("tmpfs has no user extended attributes ({error})"),
        "that takes Linux 6.6; set FIM_DIR_DATA to a temporary directory instead of --ephemeral",
    )
}

/// A refused overlay.
pub fn overlay(data: &Path) -> impl FnOnce(Errno) -> Error {
    move |errno| {
        let what = format!("cannot stack the writable layer in {} on the image (overlayfs)", data.display());
        let fix = match errno {
            Errno::EPERM => "the kernel is older than 5.11, or a security policy forbids it",
            Errno::ENODEV => "try: sudo modprobe overlay",
            Errno::EINVAL => {
                "its file system has no user extended attributes or is an overlay itself; set FIM_DIR_DATA to a directory on another file system (ext4, xfs, btrfs, tmpfs)"
            }
            Errno::ESTALE | Errno::EBUSY => "it is in use by another overlay; set FIM_DIR_DATA to another directory",
            _ => "set FIM_DIR_DATA to a directory on another file system",
        };
        host(&what, errno.desc(), fix)
    }
}

/// A session that needs our own overlay on a host where nothing can be served.
pub fn userspace_without_fuse() -> Error {
    host(
        "cannot stack the writable layer on the image",
        "the userspace overlay (fim-overlay set unionfs, fim-casefold on, or data on a file system that the kernel's overlay refuses) needs /dev/fuse, which cannot be opened",
        "make /dev/fuse available, or use fim-overlay set bwrap, fim-casefold off and a FIM_DIR_DATA on ext4, xfs, btrfs or tmpfs",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings { limit: Some("1000".to_owned()), whole_root: true, ..Surroundings::default() }
    }

    #[test]
    fn each_cause_is_told_from_the_others() {
        let text = |value: &str| Some(value.to_owned());
        for (around, errno, expected) in [
            (Surroundings { limit: text("0"), ..surroundings() }, Errno::ENOSPC, "max_user_namespaces is 0"),
            (Surroundings { unprivileged: text("0"), ..surroundings() }, Errno::EPERM, "userns_clone is 0"),
            (surroundings(), Errno::ENOSPC, "32 are nested"),
            (Surroundings { limit: None, ..surroundings() }, Errno::EINVAL, "CONFIG_USER_NS"),
            (Surroundings { whole_root: false, filtered: true, ..surroundings() }, Errno::EPERM, "chroot"),
            (Surroundings { filtered: true, ..surroundings() }, Errno::EPERM, "seccomp"),
            (Surroundings { filtered: true, ..surroundings() }, Errno::ENOSYS, "seccomp"),
            (Surroundings { label: text("lxc (enforce)"), ..surroundings() }, Errno::EACCES, "policy lxc (enforce)"),
            (Surroundings { restricted: true, ..surroundings() }, Errno::EPERM, "programs with a profile"),
            (surroundings(), Errno::EPERM, "not permitted"),
        ] {
            let (why, fix) = around.forbids_user_namespace(errno);
            assert!(why.contains(expected) && !fix.is_empty(), "{around:?} {errno}: {why}; {fix}");
        }
    }

    #[test]
    fn a_policy_on_mounts_goes_before_a_filter() {
        let filtered = Surroundings { filtered: true, ..surroundings() };
        assert!(filtered.forbids_mounts(Errno::EPERM).0.contains("seccomp"));
        let restricted = Surroundings { restricted: true, ..filtered };
        assert!(restricted.forbids_mounts(Errno::EPERM).0.contains("AppArmor"));
    }
}
