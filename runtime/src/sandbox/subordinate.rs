//! Subordinate IDs: ranges that the administrator has granted to a user (subuid(5)), which the setuid programs
//! `newuidmap` and `newgidmap` map for that user.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use super::id_map::Range;
use crate::sys::process::{self, Side};

/// What one user has been granted of one kind of ID: first ID and count, in the order of the file.
#[must_use]
pub fn grants(file: &[u8], name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let grant = |line: &str| {
        let mut fields = line.split(':');
        let user = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.trim_end().parse().ok()?);
        (user == number || Some(user) == name).then_some(range)
    };
    String::from_utf8_lossy(file).lines().filter_map(grant).collect()
}

/// The caller as 0 and granted IDs as 1 to `count`; `None` when fewer are granted.
#[must_use]
pub fn map(caller: u32, grants: &[(u32, u32)], count: u32) -> Option<Vec<Range>> {
    let mut ranges = vec![Range { inside: 0, outside: caller, count: 1 }];
    let mut next = 1;
    for &(first, size) in grants {
        let size = size.min(count + 1 - next);
        if size > 0 && first.checked_add(size).is_some() {
            ranges.push(Range { inside: next, outside: first, count: size });
            next += size;
        }
    }
    (next == count + 1).then_some(ranges)
}

/// The two programs.
#[derive(Debug, Clone)]
pub struct Helpers {
    uids: PathBuf,
    gids: PathBuf,
}

impl Helpers {
    /// Looks along a PATH and where systems usually have them.
    #[must_use]
    pub fn find(path: Option<&OsStr>) -> Option<Self> {
        let mut directories: Vec<PathBuf> = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        directories.extend(["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"].map(PathBuf::from));
        let find = |name: &str| {
            directories
                .iter()
                .filter(|directory| directory.is_absolute())
                .map(|directory| directory.join(name))
                .find(|file| file.is_file())
        };
        Some(Self { uids: find("newuidmap")?, gids: find("newgidmap")? })
    }

    /// Writes both maps of a process that has just made its user namespace.
    ///
    /// # Errors
    /// What the programs say.
    pub fn write(&self, pid: Pid, uids: &[Range], gids: &[Range]) -> io::Result<()> {
        // Both at once: each has a process to start and files to read.
        let running = [(&self.uids, uids), (&self.gids, gids)].map(|(program, ranges)| {
            let words = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
            let words = words.map(|word| OsString::from(word.to_string()));
            let child = Command::new(program)
                .arg(pid.to_string())
                .args(words)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn();
            (program, child)
        });
        let mut outcome = Ok(());
        for (program, child) in running {
            let ended = child.and_then(std::process::Child::wait_with_output);
            let failed = match ended {
                Ok(output) if output.status.success() => continue,
                Ok(output) => io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(error) => error,
            };
            outcome = outcome.and(Err(io::Error::new(failed.kind(), format!("{}: {failed}", program.display()))));
        }
        outcome
    }

    /// Whether the maps can be written, found out by writing them for a process that does nothing else. The caller has
    /// one thread.
    ///
    /// # Errors
    /// Why not.
    pub fn probe(&self, uids: &[Range], gids: &[Range]) -> io::Result<()> {
        let (mut ready, theirs) = io::pipe()?;
        let (held, release) = io::pipe()?;
        match process::fork()? {
            Side::Child => {
                drop((ready, release));
                let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
                let told = made.map_err(io::Error::from).and_then(|()| io::Write::write_all(&mut &theirs, &[0]));
                // Until the other side is done, or has died.
                let _ = (&held).read(&mut [0]);
                std::process::exit(i32::from(told.is_err()))
            }
            Side::Parent(pid) => {
                drop((theirs, held));
                let written = ready.read_exact(&mut [0]).and_then(|()| self.write(pid, uids, gids));
                drop(release);
                // It ends by itself now.
                let _ = nix::sys::wait::waitpid(pid, None);
                written
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_of_one_user() {
        let file = b"root:1:2\nann:100000:65536\n1000:300000:10\nbob:200000:65536\nann:bad\nann:1\n\n";
        assert_eq!(grants(file, Some("ann"), 1000), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(grants(file, None, 1000), [(300_000, 10)]);
        assert_eq!(grants(file, Some("an"), 100), []);
        assert_eq!(grants(b"\xff:1:2\n", Some("ann"), 5), []);
    }

    #[test]
    fn a_map_takes_as_many_as_it_needs() {
        let range = |inside, outside, count| Range { inside, outside, count };
        assert_eq!(map(1000, &[(100_000, 65_536)], 65_536), Some(vec![range(0, 1000, 1), range(1, 100_000, 65_536)]));
        assert_eq!(map(7, &[(100, 3), (200, 9)], 5), Some(vec![range(0, 7, 1), range(1, 100, 3), range(4, 200, 2)]));
        assert_eq!(map(7, &[(100, 3)], 5), None);
        assert_eq!(map(7, &[], 5), None);
        assert_eq!(map(7, &[(u32::MAX, 9)], 5), None);
    }
}
