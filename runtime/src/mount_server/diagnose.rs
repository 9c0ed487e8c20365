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
/// [`Error::Host`] naming the limit that forbids it.
pub fn unshare(flags: CloneFlags) -> Result<(), Error> {
    let Err(errno) = nix::sched::unshare(flags) else { return Ok(()) };
    const WHAT: &str = "cannot make a user namespace";
    if sysctl("user.max_user_namespaces").as_deref() == Some("0") {
        return Err(host(WHAT, "user.max_user_namespaces is 0", "try: sudo sysctl -w user.max_user_namespaces=15000"));
    }
    if sysctl("kernel.unprivileged_userns_clone").as_deref() == Some("0") {
        return Err(host(
            WHAT,
            "kernel.unprivileged_userns_clone is 0",
            "try: sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ));
    }
    let fix = match errno {
        Errno::ENOSPC => {
            "too many user namespaces exist or they are nested too deep; end some, or raise user.max_user_namespaces"
        }
        Errno::EINVAL => "the kernel was built without user namespaces (CONFIG_USER_NS), 5.11 or newer is needed",
        _ => "a seccomp or security policy forbids it (a container needs: --security-opt seccomp=unconfined)",
    };
    Err(host(WHAT, errno.desc(), fix))
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
        let what = format!("cannot {action} {object}");
        if matches!(errno, Errno::EPERM | Errno::EACCES) {
            if sysctl("kernel.apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
                return host(
                    &what,
                    "AppArmor restricts unprivileged user namespaces",
                    "try: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
                );
            }
            return host(
                &what,
                errno.desc(),
                "a security policy (container, AppArmor, SELinux) forbids mounts in user namespaces",
            );
        }
        let fix = if errno == Errno::ENODEV { "try: sudo modprobe fuse" } else { "check the kernel log" };
        host(&what, errno.desc(), fix)
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

/// A throw-away session that shows a writable layer, which our own overlay could only write to.
pub fn userspace_throw_away() -> Error {
    host(
        "cannot make a throw-away session",
        "only the kernel's overlay can show the writable layer of this image without writing to it",
        "use FIM_OVERLAY=bwrap and fim-casefold off, or FIM_DIR_DATA=$(mktemp -d) for an empty set that can be removed",
    )
}
