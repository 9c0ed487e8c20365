//! What long work shows and how it is interrupted: a bar with bytes, files, rate and time left on a terminal, and
//! an early end after Ctrl-C.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use runtime::progress::Progress;

use crate::interrupt::Interrupt;

/// The listener of one piece of work.
pub(crate) struct Listener<'a> {
    /// None when stderr is no terminal.
    bar: Option<ProgressBar>,
    files: u64,
    all_files: Option<u64>,
    interrupt: &'a Interrupt,
}

impl<'a> Listener<'a> {
    /// A listener that shows a bar unless `quiet` or stderr is no terminal.
    pub(crate) fn new(quiet: bool, interrupt: &'a Interrupt) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(ProgressBar::no_length);
        Self { bar, files: 0, all_files: None, interrupt }
    }
}

impl Progress for Listener<'_> {
    fn total(&mut self, bytes: Option<u64>, files: Option<u64>) {
        self.all_files = files;
        let Some(bar) = &self.bar else { return };
        let template = match bytes {
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {msg} {binary_bytes_per_sec} {eta}",
            None => "{spinner} {bytes} {msg} {binary_bytes_per_sec}",
        };
        if let Some(bytes) = bytes {
            bar.set_length(bytes);
        }
        // A template that does not parse leaves the default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
    }

    fn advance(&mut self, bytes: u64, files: u64) {
        self.files += files;
        let Some(bar) = &self.bar else { return };
        bar.inc(bytes);
        if files > 0 {
            bar.set_message(match self.all_files {
                Some(all) => format!("{}/{all} files", self.files),
                None => format!("{} files", self.files),
            });
        }
    }

    fn stopped(&self) -> bool {
        self.interrupt.is_pending()
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
