//! Logs of bounded size: two files, of which the older is dropped when the newer is full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Error;

/// Name of the newer file.
pub const FILE: &str = "log";
/// Name of the older one, if there is one.
pub const OLD: &str = "log.old";
/// Longest either of them gets, in bytes.
pub const HALF: u64 = 512 * 1024;

/// A log that is being written by this process only.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    /// `None` while no new one could be made.
    file: Option<File>,
    len: u64,
}

impl Log {
    /// An empty one in this directory.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let file = File::create(&path).map_err(Error::io("make the log", &path))?;
        Ok(Self { directory: directory.to_owned(), file: Some(file), len: 0 })
    }

    /// The one that is there, to go on with on a line of its own; or an empty one.
    ///
    /// # Errors
    /// I/O errors.
    pub fn resume(directory: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::FileExt;
        let path = directory.join(FILE);
        let open = || -> std::io::Result<Self> {
            let mut file = File::options().read(true).append(true).create(true).open(&path)?;
            let len = file.metadata()?.len();
            let mut last = [b'\n'];
            if len > 0 {
                file.read_exact_at(&mut last, len - 1)?;
            }
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
            let len = file.metadata()?.len();
            Ok(Self { directory: directory.to_owned(), file: Some(file), len })
        };
        open().map_err(Error::io("open the log", &path))
    }

    /// Adds bytes. What cannot be written is lost: a full file system must not stop the command whose output it is.
    pub fn append(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(HALF as usize) {
            if self.len + piece.len() as u64 > HALF || self.file.is_none() {
                self.turn_over();
            }
            if let Some(file) = &mut self.file {
                // Counted by what arrived, be it only a part.
                let _ = file.write_all(piece);
                self.len = file.metadata().map_or(HALF, |metadata| metadata.len());
            }
        }
    }

    fn turn_over(&mut self) {
        let path = self.directory.join(FILE);
        // Dropped first: it makes room on a full file system, and nothing may grow past its bound.
        self.file = None;
        let _ = fs::rename(&path, self.directory.join(OLD));
        self.file = File::create(&path).ok();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept_and_no_more() {
        let base = tempfile::tempdir().unwrap();
        let mut log = Log::create(base.path()).unwrap();
        let line = [b'x'; 1000];
        for _ in 0..3 * HALF / 1000 {
            log.append(&line);
        }
        log.append(b"last");
        let len = |name: &str| fs::metadata(base.path().join(name)).unwrap().len();
        assert!(len(FILE) <= HALF && len(OLD) <= HALF && len(FILE) + len(OLD) > HALF);
        assert!(fs::read(base.path().join(FILE)).unwrap().ends_with(b"last"));
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_piece_longer_than_the_log_is_bounded_too() {
        let base = tempfile::tempdir().unwrap();
        let mut log = Log::create(base.path()).unwrap();
        log.append(&vec![b'y'; 5 * HALF as usize + 7]);
        assert_eq!(fs::metadata(base.path().join(FILE)).unwrap().len(), 7);
        assert_eq!(fs::metadata(base.path().join(OLD)).unwrap().len(), HALF);
    }
}
