//! Our own overlay as the session's root.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Error, Request, diagnose, io_error, owners};
use crate::fuse;
use crate::fuse::overlay::{Marks, Writable};
use crate::squashfs::Archive;
use crate::sys::process;

/// File in the data directory that says that its marks are plain; without it they are the kernel's.
const RECORD: &str = "marks";
/// What it holds. Changing what the marks are needs another number.
const PLAIN: &str = "fim-marks 1 plain\n";

/// Whether a data directory has marks that the kernel's overlay does not understand.
pub(super) fn is_recorded(data: &Path) -> bool {
    fs::symlink_metadata(data.join(RECORD)).is_ok()
}

/// The marks of a data directory: the kernel's where its file system can hold them, so that either overlay can go on with
/// it. A choice for the others is recorded, and kept when the directory comes to another file system.
fn settle(data: &Path) -> Result<Marks, Error> {
    let path = data.join(RECORD);
    let error = |action| io_error(action, path.display().to_string());
    match File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(PLAIN.len() as u64 + 1).read_to_string(&mut text).map_err(error("read"))?;
            if text == PLAIN {
                return Ok(Marks::Plain);
            }
            Err(error("understand")(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged, or of a newer version; set FIM_DIR_DATA to another directory",
            )))
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            if fuse::overlay::takes_kernel_marks(&data.join("work")).map_err(error("choose"))? {
                return Ok(Marks::Kernel);
            }
            // Whole or not at all.
            let draft = data.join("marks.new");
            fs::write(&draft, PLAIN).and_then(|()| fs::rename(&draft, &path)).map_err(error("write"))?;
            Ok(Marks::Plain)
        }
        Err(other) => Err(error("read")(other)),
    }
}

/// Mounts and serves it at the session's root, with `root` and `work` of `data` as its writable side.
pub(super) fn serve(
    request: &Request,
    data: &Path,
    archives: Vec<Arc<Archive>>,
    device: OwnedFd,
    casefold: bool,
) -> Result<fuse::Server, Error> {
    let marks = settle(data)?;
    // One descriptor for each file that is open in the session, and for many directories.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    // The kernel has applied the mask of whoever makes something.
    process::set_umask(0);
    let root = request.directory.join("root");
    let options = fuse::mount_data(device.as_raw_fd(), 0, 0);
    mount(Some("fim"), &root, Some("fuse.fim"), MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(diagnose::mount("mount", "the writable root (FUSE)"))?;
    let (upper, work) = (data.join("root"), data.join("work"));
    let writable = Writable { upper: &upper, work: &work, marks, casefold };
    let options = fuse::Options { owners: owners(&request.ids), ..fuse::Options::default() };
    fuse::overlay::serve(device, archives, &writable, &options)
        .map_err(io_error("serve the writable root in", data.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_settled_once() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("work")).unwrap();
        assert_eq!(settle(data.path()).unwrap(), Marks::Kernel);
        assert!(!is_recorded(data.path()));
        fs::write(data.path().join(RECORD), PLAIN).unwrap();
        assert_eq!(settle(data.path()).unwrap(), Marks::Plain);
        assert!(is_recorded(data.path()));
        for text in ["", "fim-marks 2 plain\n", "fim-marks 1 plain\nx"] {
            fs::write(data.path().join(RECORD), text).unwrap();
            assert!(settle(data.path()).is_err(), "{text:?}");
        }
    }
}
