//! The index of a session: which process each ID was given to, one line of a fixed length for each ID. How many lines
//! there are is the next ID. It is written under the start lock and read without, so that a list needs one small
//! read for an instance.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::unistd::Pid;

use crate::sys::process;

/// Name of the file in the session directory.
pub(super) const FILE: &str = "index";
/// Bytes of one line: process ID in 10 columns, a blank, what names the process in 20, a newline.
const LINE: usize = 32;

/// A process for good: `unique` is 0 where the kernel has no number that is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub pid: Pid,
    /// Inode of its pidfd (Linux 6.9).
    unique: u64,
}

impl Entry {
    /// This process.
    pub fn own() -> io::Result<Self> {
        let pid = nix::unistd::getpid();
        let pidfd = process::pidfd_open(pid)?;
        Ok(Self { pid, unique: process::pidfd_unique(&pidfd).unwrap_or_default() })
    }

    /// Whether the process has not ended; `None` when that cannot be told from this entry.
    pub fn is_alive(&self) -> Option<bool> {
        if self.unique == 0 {
            return None;
        }
        let Ok(pidfd) = process::pidfd_open(self.pid) else { return Some(false) };
        let is_same = nix::sys::stat::fstat(&pidfd).is_ok_and(|stat| stat.st_ino == self.unique);
        Some(is_same && !process::pidfd_has_ended(&pidfd))
    }

    fn encode(self) -> String {
        format!("{:10} {:20}\n", self.pid.as_raw(), self.unique)
    }

    fn decode(line: &[u8; LINE]) -> Option<Self> {
        let mut words = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.split_ascii_whitespace();
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let entry = Self { pid: Pid::from_raw(pid), unique: words.next()?.parse().ok()? };
        words.next().is_none().then_some(entry)
    }
}

/// Makes an empty index: the next ID is 0.
pub(super) fn create(session: &Path) -> io::Result<()> {
    File::options().write(true).create_new(true).open(session.join(FILE)).map(drop)
}

/// Gives the next ID. Should the writer die or the file system be full, a line that was begun is a gap.
pub(super) fn append(session: &Path, entry: Entry) -> io::Result<u64> {
    let file = File::options().write(true).open(session.join(FILE))?;
    let id = file.metadata()?.len().div_ceil(LINE as u64);
    file.write_all_at(entry.encode().as_bytes(), id * LINE as u64)?;
    Ok(id)
}

/// An index that is open.
pub(super) struct Index(File);

impl Index {
    /// `None` when there is none.
    pub fn open(session: &Path) -> Option<Self> {
        File::open(session.join(FILE)).ok().map(Self)
    }

    /// Whom an ID was given to; `None` for what is no line.
    pub fn entry(&self, id: u64) -> Option<Entry> {
        let mut line = [0; LINE];
        self.0.read_exact_at(&mut line, id.checked_mul(LINE as u64)?).ok()?;
        Entry::decode(&line)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout};

    use super::*;

    #[test]
    fn lines_are_found_by_their_id() {
        let base = tempfile::tempdir().unwrap();
        create(base.path()).unwrap();
        let entry = |pid| Entry { pid: Pid::from_raw(pid), unique: u64::MAX };
        assert_eq!(append(base.path(), entry(1)).unwrap(), 0);
        assert_eq!(append(base.path(), entry(i32::MAX)).unwrap(), 1);
        let index = Index::open(base.path()).unwrap();
        assert_eq!(index.entry(1), Some(entry(i32::MAX)));
        assert_eq!((index.entry(2), index.entry(u64::MAX)), (None, None));
    }

    #[test]
    fn a_line_that_was_cut_is_a_gap() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join(FILE), "junk").unwrap();
        let entry = Entry::own().unwrap();
        assert_eq!(append(base.path(), entry).unwrap(), 1);
        let index = Index::open(base.path()).unwrap();
        assert_eq!((index.entry(0), index.entry(1)), (None, Some(entry)));
    }

    #[test]
    fn a_process_is_known_by_its_number() {
        let own = Entry::own().unwrap();
        // Kernels before 6.9 have no number.
        assert_eq!(own.is_alive(), (own.unique > 0).then_some(true));
        let other = Entry { unique: u64::MAX, ..own };
        assert_eq!(other.is_alive(), Some(false));
        assert_eq!(Entry { unique: 0, ..own }.is_alive(), None);
    }

    #[test]
    fn a_process_that_nobody_has_collected_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let pidfd = process::pidfd_open(pid).unwrap();
        let unique = process::pidfd_unique(&pidfd).unwrap_or_default();
        nix::poll::poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        assert!(process::pidfd_has_ended(&pidfd));
        assert_eq!(Entry { pid, unique }.is_alive(), (unique > 0).then_some(false));
        assert_eq!(process::start_time(pid), None);
        child.wait().unwrap();
    }
}
