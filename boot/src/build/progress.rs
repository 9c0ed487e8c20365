//! The progress bar of a build: bytes, files, rate and time left; nothing when stderr is no terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use runtime::pack::Progress;

struct Bar {
    bar: ProgressBar,
    files: u64,
    all_files: Option<u64>,
}

/// The listener for a build.
pub(super) fn bar(quiet: bool) -> Box<dyn Progress> {
    if quiet || !std::io::stderr().is_terminal() {
        return Box::new(());
    }
    Box::new(Bar { bar: ProgressBar::no_length(), files: 0, all_files: None })
}

impl Progress for Bar {
    fn total(&mut self, bytes: Option<u64>, files: Option<u64>) {
        self.all_files = files;
        let template = match bytes {
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {msg} {binary_bytes_per_sec} {eta}",
            None => "{spinner} {bytes} {msg} {binary_bytes_per_sec}",
        };
        if let Some(bytes) = bytes {
            self.bar.set_length(bytes);
        }
        // A template that does not parse leaves the default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    fn advance(&mut self, bytes: u64, files: u64) {
        self.files += files;
        self.bar.inc(bytes);
        self.bar.set_message(match self.all_files {
            Some(all) => format!("{}/{all} files", self.files),
            None => format!("{} files", self.files),
        });
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
