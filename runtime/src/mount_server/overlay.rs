//! The kernel overlay: layers below, the data directory above.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::{Error, diagnose, io_error};
use crate::cache::Extracted;
use crate::sandbox::points::{self, Point};
use crate::session::directory::probe_user_xattr;
use crate::session::ephemeral;

/// Lower directories from the top down, relative to the FUSE mount: `2:1:0`.
fn lower(count: usize) -> String {
    (0..count).rev().map(|index| index.to_string()).collect::<Vec<_>>().join(":")
}

/// Names extracted layers `0`, `1`, … in `directory`, as the FUSE mount does: in a file system of the session's own, by
/// links, which the kernel follows when it mounts.
pub(super) fn name_directories(layers: &[Extracted], directory: &Path) -> Result<(), Error> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("fim"), directory, Some("tmpfs"), flags, Some("mode=700"))
        .map_err(diagnose::mount("mount", "a place for the layers (tmpfs)"))?;
    for (index, layer) in layers.iter().enumerate() {
        let name = directory.join(index.to_string());
        symlink(&layer.tree, &name).map_err(io_error("name the layer", layer.tree.display().to_string()))?;
    }
    Ok(())
}

/// Makes a place in memory for what a throw-away session writes, with `root` and `work` in it.
pub(super) fn memory(data: &Path) -> Result<PathBuf, Error> {
    let place = data.join(ephemeral::MEMORY);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("fim"), &place, Some("tmpfs"), flags, Some("mode=700"))
        .map_err(diagnose::mount("mount", "a place in memory (tmpfs)"))?;
    for name in ["work", "root"] {
        let directory = place.join(name);
        fs::create_dir(&directory).map_err(io_error("make", directory.display().to_string()))?;
    }
    probe_user_xattr(&place.join("root")).map_err(diagnose::memory)?;
    Ok(place)
}

/// Makes mount points in memory, at the place where the overlay is to be mounted.
pub(super) fn lay_out(root: &Path, points: &[Point]) -> Result<(), Error> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("fim"), root, Some("tmpfs"), flags, Some("mode=755"))
        .map_err(diagnose::mount("mount", "a place for mount points (tmpfs)"))?;
    points::lay_out(root, points);
    Ok(())
}

/// Mounts the overlay of `count` layers below `layers`, `top` on them, with `writable/root` as the writable layer at
/// `target`; what `target` shows until then is the lowest layer when `on_target`. The inner error is the kernel's own.
pub(crate) fn mount(
    layers: &Path,
    count: usize,
    top: Option<&Path>,
    writable: &Path,
    target: &Path,
    on_target: bool,
) -> Result<Result<(), Errno>, Error> {
    let open = |path: &Path| File::open(path).map_err(io_error("open", path.display().to_string()));
    let (upper, work) = (open(&writable.join("root"))?, open(&writable.join("work"))?);
    let top = top.map(open).transpose()?;
    let on_top = top.as_ref().map_or_else(String::new, |top| format!("/proc/thread-self/fd/{}:", top.as_raw_fd()));
    let bottom = on_target.then(|| open(target)).transpose()?;
    let below =
        bottom.as_ref().map_or_else(String::new, |bottom| format!(":/proc/thread-self/fd/{}", bottom.as_raw_fd()));
    // Short relative names keep 400 layers within the one page that mount(2) takes, and descriptors spare any path
    // from being parsed for commas and colons.
    std::env::set_current_dir(layers).map_err(io_error("enter", layers.display().to_string()))?;
    let options = format!(
        "userxattr,lowerdir={on_top}{}{below},upperdir=/proc/thread-self/fd/{},workdir=/proc/thread-self/fd/{}",
        lower(count),
        upper.as_raw_fd(),
        work.as_raw_fd()
    );
    let mounted = nix::mount::mount(Some("fim"), target, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()));
    // Whatever came of it, the directory must not be kept busy.
    let _ = std::env::set_current_dir("/");
    if mounted.is_ok() {
        super::open_work(writable);
    }
    Ok(mounted)
}

#[cfg(test)]
mod tests {
    use super::lower;

    #[test]
    fn the_top_layer_comes_first() {
        assert_eq!(lower(1), "0");
        assert_eq!(lower(12), "11:10:9:8:7:6:5:4:3:2:1:0");
        let most = lower(super::super::MAX_LAYERS).len();
        assert!(most < 3900, "{most} bytes leave no room for the rest of a page");
    }
}
