//! Mount points that instances make in the writable root, where the image lacks them: each is written down before it is
//! made, and the session's last act is to remove those that are still empty.
//!
//! They cannot be removed earlier: removing a mount point detaches what another instance has mounted there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Permission bits of a file that is a mount point of a layout. The sticky bit means nothing on a file; here it tells an empty
/// file that nobody has put there.
pub(crate) const MODE: u32 = 0o1644;

/// A mount point that instances are going to need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Absolute path of the root.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// Makes mount points in a directory that is to be the lowest layer of a session, where they show unless a layer has
/// something at their paths. One that cannot be made is made by the instance that needs it.
pub fn lay_out(directory: &Path, points: &[Point]) {
    for point in points {
        let path = directory.join(inside(&point.path));
        if path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_err()) {
            continue;
        }
        // What is there already was asked for twice.
        let _ = if point.is_directory {
            fs::create_dir(&path)
        } else {
            File::options().write(true).create_new(true).mode(MODE).open(&path).map(drop)
        };
    }
}

/// File in the data directory that lists them, each with a NUL behind it.
pub const FILE: &str = "mount-points";

/// Where mount points are written down. Only what is made below the root's own file system is; the rest ends with the
/// instance.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens the list of a data directory.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(data: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options.open(data.join(FILE)).map(Self)
    }

    /// For what must be closed by others.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    pub(super) fn record(&self, path: &Path) -> io::Result<()> {
        // One write: several instances may be at it.
        (&self.0).write_all(&[path.as_os_str().as_bytes(), b"\0"].concat())
    }
}

/// Most links that are followed on the way to one mount point, as many as the kernel follows (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Makes what is missing of `target`, an absolute path of the guest, whose root this process has: directories, and a
/// file at the end unless `is_directory`. A link to what does not exist is followed: images often have one as
/// /etc/resolv.conf.
///
/// # Errors
/// As mkdir(2) and open(2); `ELOOP`.
pub fn make(target: &Path, is_directory: bool, journal: Option<&Journal>) -> io::Result<()> {
    follow(target, is_directory, journal, MAX_LINKS)
}

fn follow(target: &Path, is_directory: bool, journal: Option<&Journal>, links: u32) -> io::Result<()> {
    let mut missing: Vec<&Path> = target.ancestors().take_while(|path| fs::metadata(path).is_err()).collect();
    missing.reverse();
    let Some(parent) = missing.first().and_then(|path| path.parent()) else { return Ok(()) };
    // Links on the way lead to where it is really made.
    let mut place = fs::canonicalize(parent)?;
    let journal = journal.filter(|_| is_of_the_root(&place));
    for path in missing {
        place.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        if let Ok(link) = fs::read_link(&place) {
            let links = links.checked_sub(1).ok_or(nix::errno::Errno::ELOOP)?;
            place.pop();
            // A relative link begins where it lies; an absolute one replaces that.
            let rest = target.strip_prefix(path).unwrap_or(Path::new(""));
            place.push(link);
            place.extend(rest);
            return follow(&place, is_directory, journal, links);
        }
        if let Some(journal) = journal {
            journal.record(&place)?;
        }
        let made = if is_directory || path != target {
            fs::create_dir(&place)
        } else {
            File::options().write(true).create_new(true).open(&place).map(drop)
        };
        match made {
            // Another instance was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_of_the_root(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    device(directory) == device(Path::new("/"))
}

/// Removes what the list of a data directory names and is still empty, below `root`, where the writable root is mounted;
/// then empties the list, which a start may have open already. Nobody else uses the root.
///
/// # Errors
/// When the list cannot be read or written.
pub fn sweep(data: &Path, root: &Path) -> io::Result<()> {
    let list = data.join(FILE);
    let mut file = match File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(());
    }
    let root = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(root)?;
    let entries: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == 0).collect();
    for entry in entries.iter().rev() {
        // A name without its end was cut while it was written, and not made.
        if let Some(path) = entry.strip_suffix(b"\0") {
            // What the guest has put there, or made a link of, is the guest's.
            let _ = remove(&root, Path::new(std::ffi::OsStr::from_bytes(path)));
        }
    }
    file.set_len(0)
}

/// What the list of a data directory names, relative to the root, in the order in which it was made.
///
/// # Errors
/// When the list cannot be read.
pub fn recorded(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    match File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(data.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?.read_to_end(&mut bytes)?,
    };
    let whole = bytes.split_inclusive(|&byte| byte == 0).filter_map(|entry| entry.strip_suffix(b"\0"));
    Ok(whole.map(|path| inside(Path::new(std::ffi::OsStr::from_bytes(path)))).collect())
}

/// The path without anything that could lead out of the root.
fn inside(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn remove(root: &File, path: &Path) -> nix::Result<()> {
    let inside = inside(path);
    let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    let parent = openat2(root.as_fd(), parent, how)?;
    let stat = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFDIR {
        // Refused for one that is not empty.
        unlinkat(&parent, name, UnlinkatFlags::RemoveDir)
    } else if kind == SFlag::S_IFREG && stat.st_size == 0 {
        unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(data: &Path, entries: &[u8]) {
        fs::write(data.join(FILE), entries).unwrap();
    }

    #[test]
    fn only_what_is_empty_and_below_the_root_goes() {
        let base = tempfile::tempdir().unwrap();
        let (data, root) = (base.path(), base.path().join("root"));
        for directory in ["a/b", "used/x", "other"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for (file, content) in [("a/empty", ""), ("a/full", "x"), ("other/empty", ""), ("kept", "")] {
            fs::write(root.join(file), content).unwrap();
        }
        fs::write(data.join("outside"), "").unwrap();
        std::os::unix::fs::symlink(base.path(), root.join("link")).unwrap();
        std::os::unix::fs::symlink("other", root.join("inner")).unwrap();
        list(data, b"/a\0/a/b\0/a/empty\0/used\0/link/outside\0/../outside\0/inner/empty\0/link\0/gone/x\0/\0/kept");
        sweep(data, &root).unwrap();
        assert!(root.join("a").is_dir() == root.join("a/full").is_file());
        assert!(!root.join("a/b").exists() && !root.join("a/empty").exists());
        for kept in ["a/full", "used/x", "other/empty", "link", "kept"] {
            assert!(root.join(kept).exists(), "{kept}");
        }
        assert!(data.join("outside").exists());
        assert_eq!(fs::metadata(data.join(FILE)).unwrap().len(), 0);
        sweep(data, &root).unwrap();
    }

    #[test]
    fn mount_points_are_laid_out_and_stay_within() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        fs::create_dir(&root).unwrap();
        let point = |path: &str, is_directory| Point { path: path.into(), is_directory };
        let points = [
            point("/a/b", true),
            point("/a/b/c", false),
            point("/a/b/c/d", true),
            point("/../e", true),
            point("/a/b", true),
        ];
        lay_out(&root, &points);
        assert!(root.join("a/b").is_dir() && root.join("e").is_dir() && !base.path().join("e").exists());
        let file = fs::metadata(root.join("a/b/c")).unwrap();
        assert!(file.is_file() && file.len() == 0 && file.mode() & 0o7777 == MODE);
    }

    #[test]
    fn what_is_missing_is_made_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("one/two/three");
        make(&path, true, None).unwrap();
        make(&path.join("file"), false, None).unwrap();
        assert!(path.join("file").is_file());
        make(&path.join("file"), false, None).unwrap();
        assert!(make(&path.join("file/x"), true, None).is_err());
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, base.path().join(name)).unwrap();
        link("../one/far/away", "one/link");
        make(&base.path().join("one/link"), false, None).unwrap();
        assert!(base.path().join("one/far/away").is_file());
        link("gone", "chain");
        make(&base.path().join("chain/x"), true, None).unwrap();
        assert!(base.path().join("gone/x").is_dir());
        link("loop", "loop");
        assert!(make(&base.path().join("loop"), true, None).is_err());
    }
}
