//! Throw-away sessions. The session directory of one serves as its data directory, too, for the locks and the little that
//! it remembers; what its instances write lies in memory. Both end with the session.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::{Error, lock};
use crate::sys::process;

/// Begins the name of the directory; the starter's process ID and start time follow.
const PREFIX: &str = "ephemeral-";
/// Where the memory is mounted, in the session's own mount namespace.
pub const MEMORY: &str = "memory";

/// A directory that is removed again unless it is handed over.
#[derive(Debug)]
pub struct Fresh(PathBuf);

impl Fresh {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it to the session, which removes it.
    pub fn hand_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Makes the directory of a session that this process begins, among the sessions in `base`. What sessions that were
/// killed have left there is removed.
///
/// # Errors
/// When it cannot be made.
pub fn make(base: &Path) -> Result<Fresh, Error> {
    sweep(base);
    let pid = nix::unistd::getpid();
    let started = process::start_time(pid).unwrap_or_default();
    let path = base.join(format!("{PREFIX}{pid}-{started}"));
    let directory = |path: &Path| {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(Error::io("make the directory", path))
    };
    directory(&path)?;
    let fresh = Fresh(path);
    directory(&fresh.path().join(MEMORY))?;
    Ok(fresh)
}

/// Whether `data` is the directory of a throw-away session, and the session directory as well.
#[must_use]
pub fn is_of(data: &Path, session: &Path) -> bool {
    data == session && name_of(data).is_some()
}

/// Process ID and start time of the starter.
fn name_of(data: &Path) -> Option<(Pid, u64)> {
    let (pid, started) = data.file_name()?.to_str()?.strip_prefix(PREFIX)?.split_once('-')?;
    Some((Pid::from_raw(pid.parse().ok()?), started.parse().ok()?))
}

/// Removes the directory of a throw-away session. What is left is removed by the next one.
pub fn remove(data: &Path) {
    if let Err(error) = fs::remove_dir_all(data) {
        log::debug!("cannot remove {}: {error}", data.display());
    }
}

/// Removes what nobody uses any more: the starter is dead, and no server holds the lock.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let Some((starter, started)) = name_of(&path) else { continue };
        if process::start_time(starter) != Some(started) && matches!(lock::attempt(&path, lock::SESSION), Ok(Ok(_))) {
            remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_uses_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let directory = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let dead = directory("ephemeral-999999999-1");
        let served = directory("ephemeral-999999999-2");
        let others = [directory("ephemeral-x"), directory("0123456789abcdef")];
        let lock = lock::attempt(&served, lock::SESSION).unwrap().unwrap();
        let fresh = make(base.path()).unwrap();
        assert!(!dead.exists() && served.exists() && others.iter().all(|path| path.exists()));
        sweep(base.path());
        assert!(fresh.path().join(MEMORY).is_dir(), "the starter lives");
        drop(lock);
        let path = fresh.path().to_owned();
        drop(fresh);
        assert!(!path.exists());
    }

    #[test]
    fn a_data_directory_is_none() {
        let session = Path::new("/run/fim/ephemeral-1-2");
        assert!(is_of(session, session));
        for data in ["/home/ephemeral-1-2", "/run/fim/ephemeral-1", "/"] {
            assert!(!is_of(Path::new(data), session), "{data}");
        }
        let session = Path::new("/run/fim/0123456789abcdef");
        assert!(!is_of(session, session));
    }
}
