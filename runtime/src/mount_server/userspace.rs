//! Our own overlay as the session's root.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};

use super::{Error, Request, diagnose, io_error, serving};
use crate::fuse;
use crate::fuse::overlay::Writable;
use crate::session::marks;
use crate::squashfs::Archive;
use crate::sys::{descriptor, process};

/// Mounts and serves it at the session's root, with `root` and `work` of `data` as its writable side.
pub(super) fn serve(
    request: &Request,
    data: &Path,
    archives: Vec<Arc<Archive>>,
    device: OwnedFd,
    casefold: bool,
) -> Result<fuse::Server, Error> {
    let marks = marks::settle(data)?;
    // One descriptor for each file that is open in the session, and for many directories.
    descriptor::raise_limit();
    // The kernel has applied the mask of whoever makes something.
    process::set_umask(0);
    let root = request.directory.join("root");
    let options = fuse::mount_data(device.as_raw_fd(), 0, 0);
    mount(Some("fim"), &root, Some("fuse.fim"), MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(diagnose::mount("mount", "the writable root (FUSE)"))?;
    let (upper, work) = (data.join("root"), data.join("work"));
    let writable = Writable { upper: &upper, work: &work, marks, casefold };
    fuse::overlay::serve(device, archives, &writable, &serving(request))
        .map_err(io_error("serve the writable root in", data.display().to_string()))
}
