//! User and group ID maps of a user namespace (user_namespaces(7)).

use std::fs;
use std::io;

use nix::unistd::Pid;

/// Consecutive IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first, inside the namespace.
    pub inside: u32,
    /// What that one is in the parent namespace.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// Which IDs a user namespace knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMap {
    /// One user and one group.
    Single {
        /// User ID inside.
        uid: u32,
        /// Group ID inside.
        gid: u32,
        /// User ID it stands for in the parent namespace.
        parent_uid: u32,
        /// Group ID it stands for in the parent namespace.
        parent_gid: u32,
    },
    /// Several users and groups.
    Ranges {
        /// Users.
        uids: Vec<Range>,
        /// Groups.
        gids: Vec<Range>,
    },
    /// Every ID of the parent namespace, unchanged.
    Full,
}

impl IdMap {
    /// Writes the maps of process `pid`, which has just made its user namespace. The writer is in the parent
    /// namespace, and for all but [`IdMap::Single`] has CAP_SETUID, CAP_SETGID and CAP_SETFCAP there.
    ///
    /// # Errors
    /// `PermissionDenied` when the kernel refuses the map.
    pub fn write(&self, pid: Pid) -> io::Result<()> {
        let path = |name: &str| format!("/proc/{pid}/{name}");
        match self {
            Self::Ranges { uids, gids } => {
                fs::write(path("uid_map"), lines(uids))?;
                fs::write(path("gid_map"), lines(gids))
            }
            Self::Single { uid, gid, parent_uid, parent_gid } => {
                // Without a privilege in the parent, a group map needs setgroups(2) given up first.
                fs::write(path("setgroups"), "deny")?;
                fs::write(path("uid_map"), format!("{uid} {parent_uid} 1\n"))?;
                fs::write(path("gid_map"), format!("{gid} {parent_gid} 1\n"))
            }
            Self::Full => {
                fs::write(path("uid_map"), identity(&fs::read_to_string("/proc/self/uid_map")?)?)?;
                fs::write(path("gid_map"), identity(&fs::read_to_string("/proc/self/gid_map")?)?)
            }
        }
    }
}

/// The number behind the last ID of a namespace, whose IDs begin with 0 and have no gap.
#[must_use]
pub fn end(ranges: &[Range]) -> u32 {
    ranges.iter().map(|range| range.inside.saturating_add(range.count)).max().unwrap_or_default()
}

fn lines(ranges: &[Range]) -> String {
    ranges.iter().map(|Range { inside, outside, count }| format!("{inside} {outside} {count}\n")).collect()
}

/// The map that shows every ID of a namespace with `map` unchanged to a child namespace.
fn identity(map: &str) -> io::Result<String> {
    let mut lines = String::new();
    for line in map.lines() {
        let mut fields = line.split_whitespace();
        let (Some(inside), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        lines.push_str(&format!("{inside} {inside} {count}\n"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_the_kernel_reads_them() {
        let range = |inside, outside, count| Range { inside, outside, count };
        assert_eq!(lines(&[range(0, 1000, 1), range(1, 100_000, 65_536)]), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn identity_of_a_partial_map() {
        let map = "         0     100000      65536\n     65536       1000          1\n";
        assert_eq!(identity(map).unwrap(), "0 0 65536\n65536 65536 1\n");
        assert!(identity("1 2\n").is_err());
    }
}
