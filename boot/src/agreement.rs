//! Asking before something is dropped that cannot be had again.

use std::io::{self, IsTerminal, Write};

use crate::{Failure, Message};

/// Asks `question` on the terminal.
///
/// # Errors
/// Without a terminal: what `loss` says cannot be undone, and only `--yes` agrees to it.
pub(crate) fn agreed(question: &str, loss: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Message::boxed(format!("{loss} cannot be undone; say --yes")));
    }
    ask(question)
}

/// Asks `question` on the terminal, which there is.
///
/// # Errors
/// When the terminal cannot be written or read.
pub(crate) fn ask(question: &str) -> Result<bool, Failure> {
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
