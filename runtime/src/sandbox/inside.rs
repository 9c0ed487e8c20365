//! Work on files of a session's IDs from outside of a session: in a child with the session's ID map, where every owner
//! has its number, and where root's rights reach the files of all of them.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::id_map::IdMap;
use super::subordinate::Helpers;
use crate::sys::process::{self, Side};

/// What the child says when it is ready for its IDs.
const READY: u8 = b'R';
/// First byte of what it says in the end.
const DONE: u8 = b'D';
const FAILED: u8 = b'E';

/// A child at work. Dropping it ends the child.
#[derive(Debug)]
pub struct Inside {
    pid: Pid,
    said: io::PipeReader,
}

/// Begins `work` in a child that has these IDs; what it returns is text for [`Inside::end`]. The caller has one thread.
/// The child dies with the caller.
///
/// # Errors
/// When no process can be made, or the IDs cannot be mapped.
pub fn start(
    ids: &IdMap,
    helpers: Option<&Helpers>,
    work: impl FnOnce() -> Result<String, String>,
) -> io::Result<Inside> {
    let ((said, mut saying), (held, release)) = (io::pipe()?, io::pipe()?);
    match process::fork()? {
        Side::Child => {
            drop((said, release));
            let entered =
                enter(ids, &mut saying, held).map_err(|error| format!("cannot use the session's IDs: {error}"));
            let (word, text) = match entered.and_then(|()| work()) {
                Ok(text) => (DONE, text),
                Err(text) => (FAILED, text),
            };
            let told = saying.write_all(&[word]).and_then(|()| saying.write_all(text.as_bytes()));
            std::process::exit(i32::from(told.is_err()))
        }
        Side::Parent(pid) => {
            drop((saying, held));
            let mut child = Inside { pid, said };
            let mut word = [0];
            child.said.read_exact(&mut word)?;
            if word != [READY] {
                return Err(io::Error::other(io::read_to_string(&child.said)?));
            }
            match (ids, helpers) {
                // The child does what needs no privilege.
                (IdMap::Full | IdMap::Single { .. }, _) => {}
                (IdMap::Ranges { uids, gids }, Some(helpers)) => helpers.write(pid, uids, gids)?,
                (IdMap::Ranges { .. }, None) => ids.write(pid)?,
            }
            drop(release);
            Ok(child)
        }
    }
}

/// The child's half: namespace and map, and an end with its parent.
fn enter(ids: &IdMap, saying: &mut io::PipeWriter, mut held: io::PipeReader) -> io::Result<()> {
    // The caller's IDs are what they are to real root, whose sessions map all of them.
    if *ids != IdMap::Full {
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
        if matches!(ids, IdMap::Single { .. }) {
            ids.write(nix::unistd::getpid())?;
        }
    }
    // A change of credentials would take it back.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    saying.write_all(&[READY])?;
    // The parent closes its end when it is done, or dead; then this process ends, too.
    held.read(&mut [0]).map(drop)
}

impl AsFd for Inside {
    /// Readable when the child has come to an end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.said.as_fd()
    }
}

impl Inside {
    /// Waits for the end of the work.
    ///
    /// # Errors
    /// What the work returned; that the child was killed.
    pub fn end(mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        let read = self.said.read_to_end(&mut bytes);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match (read, bytes.split_first()) {
            (Ok(_), Some((&DONE, rest))) => Ok(text(rest)),
            (Ok(_), Some((&FAILED, rest))) => Err(text(rest)),
            (Err(error), _) => Err(format!("the process that does the work cannot be heard: {error}")),
            _ => Err("the process that does the work was killed".to_owned()),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // It has ended, or is to.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_as_root_of_the_ids() {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let one = IdMap::Single { uid: 0, gid: 0, parent_uid: uid, parent_gid: gid };
        let who = || Ok(format!("{}:{}", nix::unistd::geteuid(), nix::unistd::getegid()));
        assert_eq!(start(&one, None, who).unwrap().end(), Ok("0:0".to_owned()));
        assert_eq!(start(&IdMap::Full, None, who).unwrap().end(), Ok(format!("{uid}:{gid}")));
        assert_eq!(start(&one, None, || Err("no".to_owned())).unwrap().end(), Err("no".to_owned()));
    }

    #[test]
    fn a_killed_child_is_an_error() {
        let end_itself = || {
            let _ = kill(nix::unistd::getpid(), Signal::SIGKILL);
            Ok(String::new())
        };
        let ended = start(&IdMap::Full, None, end_itself).unwrap().end();
        assert!(ended.unwrap_err().contains("was killed"));
    }
}
