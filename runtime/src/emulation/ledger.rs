//! Owners of what cannot carry an attribute: symlinks, pipes and sockets (xattr(7)), and whatever lies on a tmpfs of a
//! kernel without attributes there.
//!
//! An object is known by its inode number and its time of birth, so that a later object with the same number is not
//! taken for it. What lies on the writable root is kept in a file of the data directory, one line an object, the last
//! line counts; each instance appends to it and reads what others have appended. The rest ends with the instance.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::owner::Owner;
use crate::sys::status::Status;

/// The file in the data directory.
pub const NAME: &str = "owners";

/// Most bytes of it that are read: as many lines as any tree has symlinks.
const LIMIT: u64 = 64 << 20;
/// Most objects that are remembered for the life of the instance.
const MOST: usize = 1 << 18;

/// What names an object: inode number, seconds and nanoseconds of its birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Object {
    ino: u64,
    born: (i64, u32),
}

impl Object {
    fn of(status: &Status) -> Self {
        Self { ino: status.stx_ino, born: (status.stx_btime.tv_sec, status.stx_btime.tv_nsec) }
    }

    fn line(&self, owner: &Owner) -> String {
        format!("{} {}.{:09} {}\n", self.ino, self.born.0, self.born.1, owner.encode())
    }

    fn parse(line: &str) -> Option<(Self, Owner)> {
        let (ino, rest) = line.split_once(' ')?;
        let (born, owner) = rest.split_once(' ')?;
        let (seconds, nanoseconds) = born.split_once('.')?;
        let born = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
        Some((Self { ino: ino.parse().ok()?, born }, Owner::decode(owner.as_bytes())?))
    }
}

/// Remembered owners.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    /// How far the file was read; it ends with a whole line.
    read: u64,
    kept: HashMap<Object, Owner>,
    /// By device, as inode numbers are.
    passing: HashMap<(u32, u32, Object), Owner>,
}

impl Ledger {
    /// Opens the ledger of a data directory, empty at first.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(data: &Path) -> io::Result<Self> {
        let path = data.join(NAME);
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
        Ok(Self { file, read: 0, kept: HashMap::new(), passing: HashMap::new() })
    }

    /// Whether it knows no object at all, after a look at what others have written.
    pub fn is_empty(&mut self) -> bool {
        self.catch_up();
        self.kept.is_empty() && self.passing.is_empty()
    }

    /// The owner of an object; `kept` is whether it lies on the writable root.
    #[must_use]
    pub fn get(&self, status: &Status, kept: bool) -> Option<Owner> {
        let object = Object::of(status);
        if kept {
            self.kept.get(&object).copied()
        } else {
            self.passing.get(&(status.stx_dev_major, status.stx_dev_minor, object)).copied()
        }
    }

    /// Remembers the owner of an object.
    ///
    /// # Errors
    /// I/O errors of the file; `StorageFull` when no more fits.
    pub fn set(&mut self, status: &Status, kept: bool, owner: Owner) -> io::Result<()> {
        let object = Object::of(status);
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        if !kept {
            let key = (status.stx_dev_major, status.stx_dev_minor, object);
            if self.passing.len() >= MOST && !self.passing.contains_key(&key) {
                return Err(full());
            }
            self.passing.insert(key, owner);
            return Ok(());
        }
        let line = object.line(&owner);
        if self.file.metadata()?.len() + line.len() as u64 > LIMIT {
            return Err(full());
        }
        // One write to a file that is open for appending: lines of several instances do not mix.
        io::Write::write_all(&mut &self.file, line.as_bytes())?;
        self.kept.insert(object, owner);
        Ok(())
    }

    /// Reads what has been appended since the last look. What cannot be read is not known.
    fn catch_up(&mut self) {
        let Ok(len) = self.file.metadata().map(|metadata| metadata.len().min(LIMIT)) else { return };
        if len <= self.read {
            return;
        }
        let mut bytes = vec![0; (len - self.read) as usize];
        if self.file.read_exact_at(&mut bytes, self.read).is_err() {
            return;
        }
        // A line that is just being written is read the next time.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        let text = String::from_utf8_lossy(&bytes[..whole]);
        self.kept.extend(text.lines().filter_map(Object::parse));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ino: u64) -> Status {
        let mut status = Status::of(File::open("/").unwrap(), 0, 0).unwrap();
        status.stx_ino = ino;
        status
    }

    #[test]
    fn what_one_writes_the_other_reads() {
        let data = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (Ledger::open(data.path()).unwrap(), Ledger::open(data.path()).unwrap());
        assert!(one.is_empty() && other.is_empty());
        let ann = Owner { uid: 1000, gid: 100, device: None };
        one.set(&status(7), true, ann).unwrap();
        assert!(!other.is_empty());
        assert_eq!(other.get(&status(7), true), Some(ann));
        assert_eq!(other.get(&status(8), true), None);
        other.set(&status(7), true, Owner::default()).unwrap();
        assert!(!one.is_empty());
        assert_eq!(one.get(&status(7), true), Some(Owner::default()));
        // What passes is nobody else's.
        one.set(&status(9), false, ann).unwrap();
        assert_eq!(one.get(&status(9), false), Some(ann));
        assert_eq!(other.get(&status(9), false), None);
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let data = tempfile::tempdir().unwrap();
        let text = "nonsense\n7 1.5\n7 x 1:2\n\u{0}\n5 10.000000003 1:2\n6 1.0 3:4 half a line";
        std::fs::write(data.path().join(NAME), text).unwrap();
        let mut ledger = Ledger::open(data.path()).unwrap();
        assert!(!ledger.is_empty());
        assert_eq!(ledger.kept.len(), 1);
        assert_eq!(ledger.kept.values().next(), Some(&Owner { uid: 1, gid: 2, device: None }));
    }

    #[test]
    fn a_line_is_golden() {
        let object = Object { ino: 12, born: (1_700_000_000, 5) };
        let line = object.line(&Owner { uid: 33, gid: 33, device: None });
        assert_eq!(line, "12 1700000000.000000005 33:33\n");
        assert_eq!(Object::parse(line.trim_end()), Some((object, Owner { uid: 33, gid: 33, device: None })));
    }
}
