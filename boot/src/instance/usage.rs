//! What an instance uses: memory and processor time of its starter and all that it has started.

use std::fs;

use nix::unistd::Pid;
use runtime::session::registry::Instance;
use runtime::sys::process;

/// Use of an instance so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Proportional set size in bytes (proc_pid_smaps_rollup(5)); what cannot be read counts as nothing.
    pub(super) memory: u64,
    /// Processor time in clock ticks, that of processes that have ended and were waited for included.
    pub(super) ticks: u64,
}

/// Looks at every process of an instance.
pub(super) fn of(instance: &Instance) -> Usage {
    let mut pending = vec![instance.pid];
    let mut usage = Usage::default();
    while let Some(pid) = pending.pop() {
        // Daemons of the session may be children of the starter that began it; they are no part of its instance.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if DAEMONS.contains(&name.trim_end()) {
            continue;
        }
        usage.memory += proportional_set(pid);
        usage.ticks += fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| ticks(&stat)).unwrap_or(0);
        pending.extend(process::children(pid));
    }
    usage
}

/// Names of the processes that belong to the session as a whole.
const DAEMONS: [&str; 2] = ["fim-host", "fim-mount"];

fn proportional_set(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Fields 14 to 17 of proc_pid_stat(5).
fn ticks(stat: &str) -> Option<u64> {
    // The command name stands in parentheses and may hold anything; fields are counted from the last ')'.
    let rest = &stat[stat.rfind(')')? + 1..];
    let fields: Vec<u64> = rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    (fields.len() == 4).then(|| fields.iter().sum())
}

/// Seconds since boot and clock ticks a second, for comparing with start times.
pub(super) fn clock() -> (f64, f64) {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    (seconds, ticks as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a ) 9 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        assert_eq!(ticks(stat), Some(11 + 12 + 13 + 14));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(ticks(""), None);
    }
}
