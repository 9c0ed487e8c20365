//! Exit codes of our own, and errors as text.

use std::error::Error;

/// Any failure of ours: wrong arguments, a broken image, a host that says no.
pub const FAILURE: i32 = 125;
/// A command that exists but cannot be executed, as shells answer.
pub const NOT_EXECUTABLE: i32 = 126;
/// A command that does not exist, as shells answer.
pub const NOT_FOUND: i32 = 127;

/// Exit code of a command that signal `number` ended, as shells answer.
#[must_use]
pub const fn killed_by(number: i32) -> i32 {
    128 + number
}

/// An error and its sources as one line, outermost first. A source whose text the line already holds is not repeated.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = error.source();
    }
    line.replace('\n', " ")
}
