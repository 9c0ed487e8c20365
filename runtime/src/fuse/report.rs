//! Log lines about damaged layers, few enough that a damaged image cannot flood the log.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::squashfs::Error;

/// At most this many lines ...
const LINES: u32 = 10;
/// ... within this time.
const PERIOD: Duration = Duration::from_secs(10);

/// The rate limit of the lines.
#[derive(Default)]
pub(super) struct Report {
    window: Mutex<Option<(Instant, u32)>>,
}

impl Report {
    /// What the reader of the archive says; its text names the place.
    pub(super) fn error(&self, layer: usize, error: &Error) {
        let mut chain = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            source = error.source();
        }
        self.line(format_args!("layer {layer}: {chain}"));
    }

    /// A contradiction met at byte `offset` of the layer.
    pub(super) fn damage(&self, layer: usize, offset: u64, what: &str) {
        self.line(format_args!("layer {layer}: damaged: {offset} {what}"));
    }

    /// What layers say that cannot be.
    pub(super) fn contradiction(&self, error: &crate::extract::Error) {
        self.line(format_args!("{}", crate::error::chain(error)));
    }

    fn line(&self, line: fmt::Arguments<'_>) {
        if self.admit(Instant::now()) {
            log::error!("{line}");
        }
    }

    fn admit(&self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, lines) = match *window {
            Some((start, lines)) if now.saturating_duration_since(start) < PERIOD => (start, lines + 1),
            _ => (now, 1),
        };
        *window = Some((start, lines));
        lines <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_few_lines_in_every_period() {
        let report = Report::default();
        let start = Instant::now();
        let admitted = |at| (0..1000).filter(|_| report.admit(at)).count();
        assert_eq!(admitted(start), LINES as usize);
        assert_eq!(admitted(start + PERIOD / 2), 0);
        assert_eq!(admitted(start + PERIOD), LINES as usize);
    }
}
