//! Line ends on the way from a command's terminal to the user's.
//!
//! A terminal that processes output puts a carriage return before each line feed (termios(3), OPOST and ONLCR). Where both
//! do, one of them has to be undone.

use std::os::fd::AsFd;

use nix::sys::termios::{OutputFlags, Termios, tcgetattr};

/// Whether a terminal with these settings puts a carriage return before each line feed.
#[must_use]
pub fn are_made_by(settings: &Termios) -> bool {
    settings.output_flags.contains(OutputFlags::OPOST | OutputFlags::ONLCR)
}

/// The same of a terminal as it is set just now. The controlling side of a pseudo-terminal answers for the other.
#[must_use]
pub fn are_made_at(terminal: impl AsFd) -> bool {
    tcgetattr(terminal).is_ok_and(|settings| are_made_by(&settings))
}

/// Undoes what a terminal did to line ends, in pieces as they come.
#[derive(Debug, Default)]
pub struct LineEnds {
    /// Whether the last byte was a carriage return that may belong to a line feed.
    waiting: bool,
}

impl LineEnds {
    /// Passes a piece on: without the carriage return before each line feed when `made` says that the terminal put it
    /// there. A carriage return at the very end waits for what follows it.
    #[must_use]
    pub fn pass(&mut self, bytes: &[u8], made: bool) -> Vec<u8> {
        let mut passed = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if self.waiting && !(made && byte == b'\n') {
                passed.push(b'\r');
            }
            self.waiting = byte == b'\r';
            if !self.waiting {
                passed.push(byte);
            }
        }
        if !made {
            passed.extend_from_slice(self.rest());
        }
        passed
    }

    /// What waits and is not going to be followed by anything.
    #[must_use]
    pub fn rest(&mut self) -> &'static [u8] {
        if std::mem::take(&mut self.waiting) { b"\r" } else { b"" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_terminal_made_is_undone() {
        let pass = |pieces: &[&str], made: bool| {
            let mut ends = LineEnds::default();
            let mut all: Vec<u8> = pieces.iter().flat_map(|piece| ends.pass(piece.as_bytes(), made)).collect();
            all.extend_from_slice(ends.rest());
            String::from_utf8(all).unwrap()
        };
        assert_eq!(pass(&["one\r\ntwo\r\n"], true), "one\ntwo\n");
        // A program's own carriage returns stay.
        assert_eq!(pass(&["50%\r60%\r\r\n\r"], true), "50%\r60%\r\n\r");
        for pieces in [&["a\r", "\nb"][..], &["a", "\r", "", "\n", "b"], &["a\r\nb"]] {
            assert_eq!(pass(pieces, true), "a\nb");
            assert_eq!(pass(pieces, false), "a\r\nb");
        }
    }

    #[test]
    fn nothing_waits_where_nothing_is_undone() {
        let mut ends = LineEnds::default();
        assert_eq!(ends.pass(b"x\r", true), b"x");
        assert_eq!(ends.pass(b"y\r", false), b"\ry\r");
        assert_eq!(ends.rest(), b"");
    }
}
