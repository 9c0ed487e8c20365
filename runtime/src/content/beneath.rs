//! Opening what a guest has made, below a directory of its installation: no link of the guest's leads out of it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

use super::Kind;

/// A path below a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Refused {
    /// The whole path.
    pub path: PathBuf,
    /// Why not.
    pub why: String,
}

/// Opens (`O_PATH`) what is at `path` below `directory`, and tells what it is. Links are followed as long as they stay
/// below. With `make`, directories that are missing are made.
///
/// # Errors
/// Nothing there; a link that leads out, into another file system or in circles; no permission.
pub fn beneath(directory: &Path, path: &Path, make: bool) -> Result<(OwnedFd, Kind), Refused> {
    let whole = if path.as_os_str().is_empty() { directory.to_owned() } else { directory.join(path) };
    let refused = |why: String| Refused { path: whole.clone(), why };
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let root = options.open(directory).map_err(|error| refused(error.to_string()))?;
    let made = if make { make_all(&root, path) } else { Ok(()) };
    let opened = made.and_then(|()| open(&root, path)).map_err(|errno| refused(reason(errno)))?;
    let stat = nix::sys::stat::fstat(&opened).map_err(|errno| refused(errno.desc().to_owned()))?;
    let kind = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR { Kind::Directory } else { Kind::File };
    Ok((opened, kind))
}

fn open(root: &File, path: &Path) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    openat2(root.as_fd(), path, how)
}

/// Makes the directories of `path` that are missing, each in the one that was opened before.
fn make_all(root: &File, path: &Path) -> nix::Result<()> {
    let mut made = PathBuf::new();
    for name in path {
        let parent = open(root, &made)?;
        made.push(name);
        match open(root, &made) {
            Err(Errno::ENOENT) => {}
            other => {
                other?;
                continue;
            }
        }
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Err(errno) if errno != Errno::EEXIST => return Err(errno),
            _ => {}
        }
    }
    Ok(())
}

fn reason(errno: Errno) -> String {
    match errno {
        Errno::EXDEV => "it leads out of the directory that is shared, by a link or another file system".to_owned(),
        Errno::ELOOP => "its links lead in circles".to_owned(),
        Errno::ENOENT => {
            "there is no such file; start the producer first, or have the path of the slot end with / for a \
                          directory that is made"
                .to_owned()
        }
        errno => errno.desc().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_below() {
        let base = tempfile::tempdir().unwrap();
        let (shared, outside) = (base.path().join("shared"), base.path().join("outside"));
        fs::create_dir_all(shared.join("in")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(shared.join("in/file"), "x").unwrap();
        for (to, name) in
            [("in", "good"), ("../outside", "up"), ("/etc", "root"), ("loop", "loop"), ("/proc/self/root", "magic")]
        {
            symlink(to, shared.join(name)).unwrap();
        }
        let kind = |path: &str| beneath(&shared, Path::new(path), false).map(|(_, kind)| kind);
        assert_eq!(kind("").unwrap(), Kind::Directory);
        assert_eq!(kind("in").unwrap(), Kind::Directory);
        assert_eq!(kind("good/file").unwrap(), Kind::File);
        for (path, why) in [
            ("up", "leads out"),
            ("root", "leads out"),
            ("root/passwd", "leads out"),
            ("magic", "leads out"),
            ("loop", "circles"),
            ("none", "no such file"),
            ("in/file/x", "Not a directory"),
        ] {
            let error = kind(path).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(&format!("shared/{path}")), "{path}: {error}");
        }
        // The directory itself must not be a link.
        symlink(&shared, base.path().join("link")).unwrap();
        assert!(beneath(&base.path().join("link"), Path::new("in"), false).is_err());
    }

    #[test]
    fn what_is_missing_is_made_below_only() {
        let base = tempfile::tempdir().unwrap();
        let (shared, outside) = (base.path().join("shared"), base.path().join("outside"));
        fs::create_dir(&shared).unwrap();
        fs::create_dir(&outside).unwrap();
        assert_eq!(beneath(&shared, Path::new("a/b"), true).unwrap().1, Kind::Directory);
        assert!(shared.join("a/b").is_dir());
        symlink("../outside", shared.join("up")).unwrap();
        assert!(beneath(&shared, Path::new("up/x"), true).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
