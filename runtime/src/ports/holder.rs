//! Which program of the host has a port: /proc tells, of the caller's own processes at least.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::Pid;

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: Pid,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// State of a socket that accepts connections (`TCP_LISTEN` of the kernel's tcp_states.h).
const LISTENS: &str = "0A";

/// Whether anybody has this port of the caller's network namespace.
#[must_use]
pub fn is_taken(port: u16, udp: bool) -> bool {
    !sockets(port, udp).is_empty()
}

/// Who has this port; `None` when nobody has, or /proc does not show the caller who.
#[must_use]
pub fn find(port: u16, udp: bool) -> Option<Holder> {
    let sockets: Vec<String> = sockets(port, udp).iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok().filter(|_| !sockets.is_empty())?.flatten();
    let has_one = |directory: &Path| {
        let open = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
        let mut open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        open.any(|target| sockets.iter().any(|socket| socket.as_bytes() == target.as_os_str().as_bytes()))
    };
    let numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let (number, directory) = numbered.into_iter().find(|(_, directory)| has_one(directory))?;
    let name = fs::read(directory.join("comm")).unwrap_or_default();
    let name = String::from_utf8_lossy(&name).trim_end().escape_debug().to_string();
    Some(Holder { pid: Pid::from_raw(number), name })
}

/// Inodes of the sockets that have a port.
fn sockets(port: u16, udp: bool) -> Vec<u64> {
    let tables = if udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
    let read = |name| fs::read_to_string(Path::new("/proc/self/net").join(name)).unwrap_or_default();
    tables.iter().flat_map(|name| inodes(&read(name), port, udp)).collect()
}

/// Those in a table (proc_pid_net(5)): behind a line of titles, one socket a line; the second field is its address and
/// port, the fourth its state, the tenth its inode.
fn inodes(table: &str, port: u16, udp: bool) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&suffix) && (udp || *fields.get(3)? == LISTENS);
        fields.get(9)?.parse().ok().filter(|_| is_it)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0\n   \
            1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0\n   \
            2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0\nx\n";
        assert_eq!(inodes(table, 8080, false), [4711]);
        assert_eq!(inodes(table, 8080, true), [4711, 4712]);
        assert_eq!(inodes(table, 80, false), [0_u64; 0]);
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_taken(port, false));
        assert_eq!(find(port, false).unwrap().pid, nix::unistd::getpid());
        drop(listener);
        assert_eq!(find(port, false), None);
    }
}
