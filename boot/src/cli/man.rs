//! Pages for man(1), in the macros of man(7), from the same definition as help.

use std::fmt::Write;

use super::spec::{COMMANDS, Spec};

/// Page of one command.
pub(super) fn page(spec: &Spec) -> String {
    let mut text = head(&format!("fim-{}", spec.name), spec.summary);
    text.push_str(".SH SYNOPSIS\n");
    // Writing to a String cannot fail.
    for usage in spec.usages {
        let _ = writeln!(text, ".B ./app.flatimage fim-{}\n{}\n.br", spec.name, escape(usage.line));
    }
    text.push_str(".SH OPTIONS\n");
    for (word, meaning) in spec.usages.iter().flat_map(|usage| usage.words) {
        let _ = writeln!(text, ".TP\n.B {}\n{}", escape(word), escape(meaning));
    }
    section(&mut text, "NOTES", spec.notes);
    section(&mut text, "EXAMPLES", spec.examples);
    text
}

/// Page of all commands.
pub(super) fn overview() -> String {
    let mut text = head("fim", "single-file application runtime");
    text.push_str(".SH SYNOPSIS\n.B ./app.flatimage\n[words...]\n.br\n.B ./app.flatimage fim-COMMAND\n[words...]\n");
    text.push_str(".SH COMMANDS\n");
    for spec in COMMANDS {
        let _ = writeln!(text, ".TP\n.B fim-{}\n{}", spec.name, escape(spec.summary));
    }
    text
}

fn head(name: &str, summary: &str) -> String {
    format!(".TH {} 1\n.SH NAME\n{} \\- {}\n", name.to_uppercase(), escape(name), escape(summary))
}

fn section(text: &mut String, title: &str, lines: &[&str]) {
    if !lines.is_empty() {
        let _ = writeln!(text, ".SH {title}");
        for line in lines {
            let _ = writeln!(text, ".PP\n{}", escape(line));
        }
    }
}

/// A line that begins with no macro and whose dashes and backslashes are themselves.
fn escape(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_a_macro() {
        assert_eq!(escape("'key=value'..."), "\\&'key=value'...");
        assert_eq!(escape("a\\nb --json"), "a\\enb \\-\\-json");
        for spec in COMMANDS {
            for line in page(spec).lines().filter(|line| line.starts_with(['.', '\''])) {
                let word = line.split(' ').next().unwrap_or_default();
                assert!([".TH", ".SH", ".TP", ".B", ".br", ".PP"].contains(&word), "{line}");
            }
        }
    }
}
