//! Objects that are known to have no mark. Asking a file of a layer for an attribute takes a round to the mount server
//! each time, which the kernel does not remember; nearly all files have none.
//!
//! Setting an attribute sets the time of the last change (`ctime`), which no program can set otherwise. So an object
//! whose time is the same as before has still no mark, provided that the time was not the present when it was looked at:
//! a second change within the clock's tick shows no other time.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::status::Status;

/// Most objects that are known; beyond, all are forgotten.
const MOST: usize = 1 << 18;
/// How far back a time must lie: much more than the tick of any clock that a file system takes its times from.
const PAST: Duration = Duration::from_secs(2);

/// Device, inode number, seconds and nanoseconds of the last change.
type Object = (u32, u32, u64, i64, u32);

/// The objects.
#[derive(Debug, Default)]
pub(super) struct Unmarked(HashSet<Object>);

fn object(status: &Status) -> Object {
    let changed = status.stx_ctime;
    (status.stx_dev_major, status.stx_dev_minor, status.stx_ino, changed.tv_sec, changed.tv_nsec)
}

impl Unmarked {
    /// Whether an object has no mark for certain.
    pub(super) fn holds(&self, status: &Status) -> bool {
        self.0.contains(&object(status))
    }

    /// Learns that an object that looked like this had no mark afterwards, `now`.
    pub(super) fn learn(&mut self, status: &Status, now: SystemTime) {
        // A time before 1970, which a layer may have, is in the past.
        let changed = u64::try_from(status.stx_ctime.tv_sec).unwrap_or_default();
        let past = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(PAST);
        if Duration::new(changed, status.stx_ctime.tv_nsec) < past {
            if self.0.len() >= MOST {
                self.0.clear();
            }
            self.0.insert(object(status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_long_ago_is_learnt() {
        let mut status = Status::of(std::fs::File::open("/").unwrap(), 0, 0).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let mut unmarked = Unmarked::default();
        for (seconds, known) in [(-5, true), (0, true), (997, true), (998, false), (1000, false), (2000, false)] {
            status.stx_ctime.tv_sec = seconds;
            status.stx_ctime.tv_nsec = 0;
            unmarked.learn(&status, now);
            assert_eq!(unmarked.holds(&status), known, "{seconds}");
        }
        status.stx_ctime.tv_sec = 997;
        status.stx_ctime.tv_nsec = 1;
        assert!(!unmarked.holds(&status));
    }
}
