//! Putting what a plug gets in its place, which is the guest's: links of the image on the way must not lead it to where
//! the instance keeps something of its own.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::Error;
use super::apply::{attach, is_directory, open_point};
use super::points::Journal;
use crate::sys::mount::{self, Detached};

/// Where programs are told that the files of their application are (`FIM_ROOT_DIR`): a view of the root that shows no
/// mounts, so what lies below the root has to be mounted there, too.
const VIEW: &str = "/run/fim/root";
/// Directories whose content belongs to the instance. Files of the installation are below one of them.
const OWN: [&str; 5] = ["/proc", "/dev", "/sys", "/run", "/tmp"];
/// Files of the installation.
const FILES: &str = "/run/fim/data";

/// Mounts what the plug gets at `target`, and where that is in the root, in the view of it as well.
pub(super) fn place(plug: &str, mount: Detached, target: &Path, points: Option<&Journal>) -> Result<(), Error> {
    let failed = |why: String| Error::Content { plug: plug.to_owned(), target: target.to_owned(), why };
    let reason = |error: io::Error| failed(error.to_string());
    let existing = existing(target).map_err(reason)?;
    allowed(target, &existing).map_err(failed)?;
    let directory = is_directory(&mount).map_err(|errno| failed(errno.desc().to_owned()))?;
    if let Ok(metadata) = fs::metadata(target)
        && metadata.is_dir() != directory
    {
        let (is, gets) = if directory { ("a file", "a directory") } else { ("a directory", "a file") };
        return Err(failed(format!("there is {is} of the image, and the plug gets {gets}")));
    }
    let again = mount::clone_descriptor(&mount, true).map_err(|errno| failed(errno.desc().to_owned()))?;
    attach(mount, target, directory, points).map_err(|error| failed(crate::error::chain(&error)))?;
    // By its real path, which links may have made another one, also those that led nowhere before.
    let point = open_point(target).map_err(reason)?;
    let real = fs::read_link(format!("/proc/self/fd/{}", point.as_raw_fd())).map_err(reason)?;
    allowed(target, &real).map_err(failed)?;
    if real.starts_with(FILES) {
        return Ok(());
    }
    let seen = Path::new(VIEW).join(real.strip_prefix("/").unwrap_or(&real));
    attach(again, &seen, directory, None).map_err(|error| failed(crate::error::chain(&error)))
}

/// The deepest directory on the way to `target` that exists, without links.
fn existing(target: &Path) -> io::Result<PathBuf> {
    for path in target.ancestors() {
        match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Ok(PathBuf::from("/"))
}

/// Whether something of the image may be covered, or be made, at this real path.
fn allowed(target: &Path, real: &Path) -> Result<(), String> {
    let own = OWN.iter().find(|own| real.starts_with(own));
    match own {
        _ if target.starts_with(FILES) && real.starts_with(FILES) => Ok(()),
        _ if target.starts_with(FILES) => {
            Err(format!("a link leads from the files of the installation to {}", real.display()))
        }
        Some(own) => Err(format!("a link leads to {}, and what is in {own} is the instance's own", real.display())),
        None if real == Path::new("/") && target.parent().is_none() => Err("that is the whole root".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_instance_is_not_covered() {
        let may = |target: &str, real: &str| allowed(Path::new(target), Path::new(real));
        assert!(may("/opt/x", "/").is_ok() && may("/opt/x", "/usr/opt").is_ok() && may("/runner", "/runner").is_ok());
        assert!(may("/run/fim/data/1/system/x", "/run/fim/data/1/system").is_ok());
        for (target, real) in [
            ("/opt/x", "/proc/1"),
            ("/opt/x", "/run/fim/data/1/system"),
            ("/tmp/x", "/tmp"),
            ("/dev", "/dev"),
            ("/run/fim/data/1/system/x", "/usr"),
            ("/run/fim/data/1/system/x", "/run/fim"),
            ("/", "/"),
        ] {
            assert!(may(target, real).is_err(), "{target} {real}");
        }
    }
}
