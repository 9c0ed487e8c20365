//! Locks: files that are held with flock(2). A data directory has two.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Error;

/// Name of the lock that serialises starts, joins and the end of a session.
pub const START: &str = "start.lock";
/// Name of the lock that the mount server holds while the session lives.
pub const SESSION: &str = "session.lock";

/// A held lock; dropping it releases it. A process that dies releases it too.
#[derive(Debug)]
pub struct Held {
    lock: Flock<File>,
    path: PathBuf,
}

impl Held {
    /// The locked file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.lock
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file still has its name: who removes a lock does so while holding it.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let (Ok(held), Ok(named)) = (self.lock.metadata(), std::fs::symlink_metadata(&self.path)) else { return false };
        (held.dev(), held.ino()) == (named.dev(), named.ino())
    }

    /// Shares the lock from now on.
    ///
    /// # Errors
    /// What flock(2) answers.
    pub fn downgrade(&mut self) -> Result<(), Error> {
        let shared = self.lock.relock(FlockArg::LockShared);
        shared.map_err(|errno| Error::io("share the lock", &self.path)(errno.into()))
    }

    /// Leaves the lock to a process that was forked while it was held: closes this copy without releasing it.
    pub fn hand_over(self) {
        use std::os::fd::AsRawFd;
        let fd = self.lock.as_raw_fd();
        // Dropping would unlock the open file that both processes share.
        std::mem::forget(self);
        let _ = nix::unistd::close(fd);
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(Error::io("open the lock", path))?;
    let metadata = file.metadata().map_err(Error::io("examine", path))?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(Error::Untrusted {
            path: path.to_owned(),
            problem: "is not a plain file of its own".to_owned(),
            variable: "FIM_DIR_DATA",
        });
    }
    Ok(file)
}

/// Waits until the lock is ours. Whoever holds it does so for the few milliseconds of a start.
///
/// # Errors
/// When the file cannot be opened or the file system has no locks.
pub fn wait(data: &Path, name: &str) -> Result<Held, Error> {
    locked(data, name, FlockArg::LockExclusive)
}

fn locked(directory: &Path, name: &str, how: FlockArg) -> Result<Held, Error> {
    let path = directory.join(name);
    let mut file = open(&path)?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(Held { lock, path }),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(Error::io("lock", path)(io::Error::from(errno))),
        }
    }
}

/// Takes the lock when nobody holds it. `Err(file)` in the inner result is the opened file of somebody else's lock.
///
/// # Errors
/// As [`wait`].
pub fn attempt(data: &Path, name: &str) -> Result<Result<Held, File>, Error> {
    let path = data.join(name);
    match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(Held { lock, path })),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(Error::io("lock", path)(io::Error::from(errno))),
    }
}

/// Shares the lock with others who share it. Waits for whoever holds it alone.
///
/// # Errors
/// As [`wait`].
pub fn share(directory: &Path, name: &str) -> Result<Held, Error> {
    locked(directory, name, FlockArg::LockShared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let data = tempfile::tempdir().unwrap();
        let held = wait(data.path(), SESSION).unwrap();
        assert!(attempt(data.path(), SESSION).unwrap().is_err());
        drop(held);
        assert!(attempt(data.path(), SESSION).unwrap().is_ok());
    }

    #[test]
    fn several_share_and_one_holds_alone() {
        let data = tempfile::tempdir().unwrap();
        let mut held = wait(data.path(), "x.lock").unwrap();
        assert!(attempt(data.path(), "x.lock").unwrap().is_err());
        held.downgrade().unwrap();
        let other = share(data.path(), "x.lock").unwrap();
        drop(held);
        assert!(attempt(data.path(), "x.lock").unwrap().is_err());
        assert!(other.is_current());
        std::fs::remove_file(data.path().join("x.lock")).unwrap();
        assert!(!other.is_current());
        let new = wait(data.path(), "x.lock").unwrap();
        assert!(new.is_current() && !other.is_current());
    }

    #[test]
    fn a_planted_link_is_refused() {
        let data = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", data.path().join(START)).unwrap();
        assert!(wait(data.path(), START).is_err());
        let other = data.path().join("other");
        std::fs::write(&other, "").unwrap();
        std::fs::hard_link(&other, data.path().join(SESSION)).unwrap();
        assert!(wait(data.path(), SESSION).unwrap_err().to_string().contains("not a plain file"));
    }
}
