//! Where log lines go: debug lines to stdout when asked for, errors to stderr, or to a bounded file for a daemon.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Longest journal file in bytes; when it is reached, the file begins anew.
const LIMIT: u64 = 256 * 1024;

struct Journal {
    file: Mutex<Option<PathBuf>>,
}

static JOURNAL: Journal = Journal { file: Mutex::new(None) };

/// Begins logging; `debug` prints every line of the launch to stdout, where scripts read it, each behind `D::`.
pub fn install(debug: bool) {
    // A second call changes nothing but the level.
    let _ = log::set_logger(&JOURNAL);
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Error });
}

/// Sends the lines of this process to a file from now on; for a daemon, whose stderr is nobody's.
pub fn direct_to(path: &Path) {
    if let Ok(mut file) = JOURNAL.file.lock() {
        *file = Some(path.to_owned());
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Libraries may be talkative; only our own crates speak to the user.
        let ours = ["runtime", "boot", "guest_daemon", "host_daemon"];
        let target = record.target().split("::").next().unwrap_or_default();
        if !self.enabled(record.metadata()) || !ours.contains(&target) {
            return;
        }
        let line = record.args().to_string().replace('\n', " ");
        let file = self.file.lock().ok().and_then(|file| file.clone());
        // A log line that cannot be written has nowhere to be reported.
        let _ = match file {
            Some(path) => append(&path, &line),
            None if record.level() == Level::Error => io::stderr().write_all(format!("fim: {line}\n").as_bytes()),
            None => writeln!(io::stdout(), "D::{line}"),
        };
    }

    fn flush(&self) {}
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if file.metadata()?.len() >= LIMIT {
        file.set_len(0)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    file.write_all(format!("{now} {line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_file_stays_bounded() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("journal");
        for _ in 0..300 {
            append(&path, &"x".repeat(1000)).unwrap();
        }
        let len = std::fs::metadata(&path).unwrap().len();
        assert!((1000..LIMIT + 1100).contains(&len), "{len}");
    }
}
