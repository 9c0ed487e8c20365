//! Private directories: made 0700, and checked for owner and type before anything in them is trusted.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Error;

/// Opens `path` as a directory that belongs to `uid` and that nobody else may enter, making it when it is missing. A
/// symlink, another owner, or a mode with group or other bits is refused: the name may have been planted.
///
/// # Errors
/// [`Error::Untrusted`] naming what is wrong, [`Error::Io`].
pub fn open_private(path: &Path, uid: u32, variable: &'static str) -> Result<File, Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            // The creation mask may have taken bits away.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("make the directory", path)(error)),
    }
    let untrusted = |problem: String| Error::Untrusted { path: path.to_owned(), problem, variable };
    let directory =
        File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENOTDIR) => untrusted("is not a directory but a link or a file".to_owned()),
                _ => Error::io("open the directory", path)(error),
            }
        })?;
    let metadata = directory.metadata().map_err(Error::io("examine", path))?;
    if metadata.uid() != uid {
        return Err(untrusted(format!("belongs to user {}, not to user {uid}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(untrusted(format!("is open to others (mode {:04o}, must be 0700)", metadata.mode() & 0o7777)));
    }
    Ok(directory)
}

/// The directory that holds all sessions of a user: `$XDG_RUNTIME_DIR/fim`, or `/tmp/fim-UID` where that is unset,
/// not absolute, or not usable.
///
/// # Errors
/// When neither can be made, or the one in /tmp is not the caller's.
pub fn runtime(uid: u32, xdg_runtime_dir: Option<&OsStr>) -> Result<PathBuf, Error> {
    if let Some(path) = below_xdg(uid, xdg_runtime_dir) {
        match open_private(&path, uid, "XDG_RUNTIME_DIR") {
            Ok(_) => return Ok(path),
            Err(error @ Error::Untrusted { .. }) => return Err(error),
            // Read-only or full: the other place may do.
            Err(_) => {}
        }
    }
    let path = below_tmp(uid);
    open_private(&path, uid, "XDG_RUNTIME_DIR")?;
    Ok(path)
}

fn below_xdg(uid: u32, xdg_runtime_dir: Option<&OsStr>) -> Option<PathBuf> {
    let base = xdg_runtime_dir.map(Path::new).filter(|base| base.is_absolute())?;
    let usable = fs::metadata(base).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid);
    usable.then(|| base.join("fim"))
}

fn below_tmp(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/fim-{uid}"))
}

/// Where [`runtime`] looks first.
#[must_use]
pub fn runtime_place(uid: u32, xdg_runtime_dir: Option<&OsStr>) -> PathBuf {
    below_xdg(uid, xdg_runtime_dir).unwrap_or_else(|| below_tmp(uid))
}

/// Sets and removes a user extended attribute (xattr(7)), which an overlay's upper directory must be able to hold.
///
/// # Errors
/// What the file system answers: `EOPNOTSUPP`, `EPERM`, `EROFS`.
pub fn probe_user_xattr(directory: &Path) -> io::Result<()> {
    xattr::set(directory, "user.fim.probe", b"1")?;
    xattr::remove(directory, "user.fim.probe")
}

/// Probes whether the file system of a directory can hold a root: links, and modes that stay. The directory's mode is the
/// same afterwards.
///
/// # Errors
/// What the file system answers; `Unsupported` when it only seems to do it.
pub fn probe_root(directory: &Path) -> io::Result<()> {
    let before = fs::metadata(directory)?.permissions();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o751))?;
    let kept = fs::metadata(directory)?.mode() & 0o7777 == 0o751;
    fs::set_permissions(directory, before)?;
    let link = directory.join(".fim-probe");
    std::os::unix::fs::symlink("to", &link)?;
    let reads = fs::read_link(&link);
    fs::remove_file(&link)?;
    if kept && reads? == Path::new("to") { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

/// Name of a session: a digest of all that tells sessions apart, each part length-prefixed.
#[must_use]
pub fn session_name(uid: u32, image: &Path, uuid: &[u8; 16], key: &OsStr, data: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&uid.to_le_bytes());
    for part in [image.as_os_str().as_bytes(), uuid, key.as_bytes(), data.as_os_str().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    #[test]
    fn makes_and_reopens_a_private_directory() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        open_private(&path, uid(), "V").unwrap();
        open_private(&path, uid(), "V").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn refuses_a_planted_symlink() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        std::os::unix::fs::symlink(base.path(), &path).unwrap();
        let message = open_private(&path, uid(), "V").unwrap_err().to_string();
        assert!(message.contains("not a directory but a link"), "{message}");
    }

    #[test]
    fn refuses_another_owner_and_open_modes() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open_private(&path, uid(), "V").unwrap_err().to_string().contains("open to others"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let message = open_private(&path, uid() + 1, "V").unwrap_err().to_string();
        assert!(message.contains("belongs to user") && message.contains('V'), "{message}");
    }

    #[test]
    fn session_names_keep_their_parts_apart() {
        let name =
            |image: &str, key: &str| session_name(1, Path::new(image), &[7; 16], OsStr::new(key), Path::new("/d"));
        assert_eq!(name("/a", "b").len(), 16);
        assert_ne!(name("/a", "b"), name("/ab", ""));
        assert_ne!(name("/a", ""), name("/a", "b"));
    }
}
