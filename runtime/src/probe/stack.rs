//! What a session mounts: FUSE and the overlay.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::MsFlags;
use nix::unistd::{AccessFlags, access};

use super::namespaces::{POINT, enter, enter_slave};
use super::{CHECK, Refusal, Verdict, isolated};
use crate::fuse as server;
use crate::mount_server::{diagnose, overlay as stack};

/// For a data directory that will not do.
const ELSEWHERE: &str = "set FIM_DIR_DATA to a directory on another file system";

/// Opens the device, mounts it, and has the handshake done and a directory read.
pub fn fuse() -> Verdict {
    isolated(|| {
        enter()?;
        let device = diagnose::open_fuse()?;
        let none: Option<&str> = None;
        nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
            .map_err(diagnose::mount("change the propagation of", "/"))?;
        let options = server::mount_data(device.as_raw_fd(), 0, 0);
        nix::mount::mount(
            Some("fim"),
            POINT,
            Some("fuse.fim"),
            MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .map_err(diagnose::mount("mount", "the layers (FUSE)"))?;
        let serving = server::serve(device, Vec::new(), &server::Options::default())
            .map_err(|error| Refusal::io("serve a mount", error, "install a kernel of 5.10 or newer"))?;
        let read = fs::read_dir(POINT).map(Iterator::count);
        // Its threads end with the process.
        std::mem::forget(serving);
        read.map_err(|error| Refusal::io("read what FUSE shows", error, CHECK))?;
        Ok("/dev/fuse can be opened, mounted and read".to_owned())
    })
}

/// Stacks an overlay as a session does, and writes and executes in it. `place` holds the empty directories `root` and
/// `work` and belongs to the caller; everything in it is the probe's.
pub fn overlay(place: &Path) -> Verdict {
    isolated(|| {
        let scratch = place.join("probe");
        fs::create_dir(&scratch).map_err(|error| Refusal::io("make a directory", error, CHECK))?;
        enter_slave()?;
        let none: Option<&str> = None;
        nix::mount::mount(Some("fim"), &scratch, Some("tmpfs"), MsFlags::MS_NOSUID, none)
            .map_err(diagnose::mount("mount", "a tmpfs"))?;
        let (layers, target) = (scratch.join("layers"), scratch.join("target"));
        let made = fs::create_dir_all(layers.join("0/lower")).and_then(|()| fs::create_dir(&target));
        made.map_err(|error| Refusal::io("fill a tmpfs", error, CHECK))?;
        stack::mount(&layers, 1, None, place, &target, false)?.map_err(diagnose::overlay(place))?;
        let (below, file) = (target.join("lower"), target.join("file"));
        fs::write(below.join("file"), "")
            .and_then(|()| fs::rename(below.join("file"), &file))
            .and_then(|()| fs::remove_dir_all(&below))
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o700)))
            .map_err(|error| Refusal::io("write through the overlay", error, ELSEWHERE))?;
        // Whether its medium is mounted noexec must not matter.
        access(&file, AccessFlags::X_OK).map_err(|errno| Refusal::io("execute what was written", errno, ELSEWHERE))?;
        Ok("overlayfs with user extended attributes".to_owned())
    })
}
