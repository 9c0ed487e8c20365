//! What is kept of a service beside the data, so that it outlives every session: its log, and how it ended last.
//!
//! ```text
//! DATA/services/NAME/
//!     log  log.old     lines of all its runs, see docs/DETACHED.md
//!     outcome          exit code of the last run; missing while it runs
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::log::Log;

/// Directory of all services in a data directory.
pub const SERVICES: &str = "services";
/// File that holds the exit code of the last run.
const OUTCOME: &str = "outcome";
/// Longest name in characters.
pub const LONGEST_NAME: usize = 40;

/// Whether a word can be the name of a service: letters and digits, with single hyphens between them.
#[must_use]
pub fn is_name(word: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    word.len() <= LONGEST_NAME && word.split('-').all(part)
}

/// The directory of one service.
#[must_use]
pub fn directory(data: &Path, name: &str) -> PathBuf {
    data.join(SERVICES).join(name)
}

/// Begins a run: makes the directory, forgets the outcome of the last run, and returns the log, which goes on.
///
/// # Errors
/// I/O errors.
pub fn begin(data: &Path, name: &str) -> Result<Log, Error> {
    let directory = directory(data, name);
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&directory)
        .map_err(Error::io("make the directory", &directory))?;
    let outcome = directory.join(OUTCOME);
    match fs::remove_file(&outcome) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", outcome)(error)),
        _ => Log::resume(&directory),
    }
}

/// Writes down how a run ended.
///
/// # Errors
/// I/O errors.
pub fn conclude(data: &Path, name: &str, code: i32) -> Result<(), Error> {
    let path = directory(data, name).join(OUTCOME);
    fs::write(&path, format!("{code}\n")).map_err(Error::io("write", path))
}

/// The exit code of the last run; `None` while it runs, when it never ran, and when its supervisor was killed.
#[must_use]
pub fn outcome(data: &Path, name: &str) -> Option<i32> {
    fs::read_to_string(directory(data, name).join(OUTCOME)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web", "xkcd-webserver", "a-1-b", "Web2", &"x".repeat(40)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-", "a-", "-a", "a--b", "a b", "a.b", "a/b", "..", "ä", "a\n", &"x".repeat(41)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn runs_follow_each_other_in_one_log() {
        let data = tempfile::tempdir().unwrap();
        begin(data.path(), "web").unwrap().append(b"one\npart");
        conclude(data.path(), "web", 3).unwrap();
        assert_eq!(outcome(data.path(), "web"), Some(3));
        begin(data.path(), "web").unwrap().append(b"two\n");
        assert_eq!(outcome(data.path(), "web"), None);
        let log = fs::read(directory(data.path(), "web").join(super::super::log::FILE)).unwrap();
        assert_eq!(log, b"one\npart\ntwo\n");
        assert_eq!(outcome(data.path(), "other"), None);
    }
}
