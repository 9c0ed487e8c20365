//! Asking before something is done that the user may not want, such as dropping what cannot be had again.

use std::io::{self, IsTerminal, Write};

use crate::{Failure, Message};

/// Asks `question` on the terminal.
///
/// # Errors
/// Without a terminal: what `loss` says cannot be undone, and only `--yes` agrees to it.
pub(crate) fn agreed(question: &str, loss: &str) -> Result<bool, Failure> {
    ask(question)?.ok_or_else(|| Message::boxed(format!("{loss} cannot be undone; say --yes")))
}

/// Asks `question` on the terminal; `None` without one.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn ask(question: &str) -> Result<Option<bool>, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim(), "y" | "Y" | "yes")))
}
