//! Help texts, in the shape scripts know from FlatImage.

use std::fmt::Write;

use super::spec::{COMMANDS, Spec};

const TITLE: &str = "Flatimage - Portable Linux Applications";

/// Help of one command.
#[must_use]
pub fn topic(spec: &Spec) -> String {
    let mut text = format!("{TITLE}\nfim-{} : {}\n", spec.name, spec.summary);
    // Writing to a String cannot fail.
    for usage in spec.usages {
        let _ = writeln!(text, "Usage: {}", format!("fim-{} {}", spec.name, usage.line).trim_end());
        for (word, meaning) in usage.words {
            let _ = writeln!(text, "  <{word}> : {meaning}");
        }
    }
    for note in spec.notes {
        let _ = writeln!(text, "Note: {note}");
    }
    for example in spec.examples {
        let _ = writeln!(text, "Example: {example}");
    }
    text
}

/// The list of commands.
#[must_use]
pub fn overview() -> String {
    let mut text = format!("{TITLE}\nUsage: fim-help <topic>\nCommands:\n");
    for spec in COMMANDS {
        let _ = writeln!(text, "  fim-{:<9} : {}", spec.name, spec.summary);
    }
    text.push_str("Without a command, or with words that do not begin with fim-, the boot command runs with them.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_the_known_shape() {
        let text = topic(&COMMANDS[0]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], TITLE);
        assert_eq!(lines[1], "fim-exec : Execute a command as a regular user");
        assert_eq!(lines[2], "Usage: fim-exec <program> [args...]");
        assert!(lines[3].starts_with("  <program> : "));
        assert!(text.contains("\nExample: fim-exec"));
    }

    #[test]
    fn the_overview_names_every_command() {
        let text = overview();
        let names: std::collections::BTreeSet<_> = COMMANDS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), COMMANDS.len(), "each once");
        for spec in COMMANDS {
            assert!(text.contains(&format!("fim-{} ", spec.name)), "{}", spec.name);
        }
    }
}
