//! Replacing `$NAME`, `${NAME}` and `$(command)` in stored values: a pure function.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What commands of stored values printed, by their text. Empty unless the caller lets them run.
pub type Outputs = BTreeMap<Vec<u8>, Vec<u8>>;

/// One part of a value.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Literal(&'a [u8]),
    Variable(&'a [u8]),
    /// The text between `$(` and `)`, and all of it.
    Command(&'a [u8], &'a [u8]),
}

/// Replaces variables, missing ones by nothing, and commands whose output is known. Everything else stays as it is:
/// blanks are kept and nothing is executed.
#[must_use]
pub fn expand<'a>(value: &[u8], variable: &dyn Fn(&[u8]) -> Option<&'a OsStr>, outputs: &Outputs) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for part in parts(value) {
        out.extend_from_slice(match part {
            Part::Literal(bytes) => bytes,
            Part::Variable(name) => variable(name).map(OsStr::as_bytes).unwrap_or_default(),
            Part::Command(text, whole) => outputs.get(text).map_or(whole, Vec::as_slice),
        });
    }
    out
}

/// Texts of the commands in a value.
pub fn commands(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    parts(value).into_iter().filter_map(|part| if let Part::Command(text, _) = part { Some(text) } else { None })
}

fn parts(value: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let at = rest.iter().position(|&byte| byte == b'$').unwrap_or(rest.len());
        parts.push(Part::Literal(&rest[..at]));
        rest = &rest[at..];
        if !rest.is_empty() {
            let (part, used) = dollar(rest);
            parts.push(part);
            rest = &rest[used..];
        }
    }
    parts
}

/// What begins with the `$` that `text` begins with, and how long it is.
fn dollar(text: &[u8]) -> (Part<'_>, usize) {
    match text.get(1) {
        Some(b'(') => {
            if let Some(end) = closing(text) {
                return (Part::Command(&text[2..end], &text[..=end]), end + 1);
            }
        }
        Some(b'{') => {
            if let Some(end) = text.iter().position(|&byte| byte == b'}').filter(|end| is_name(&text[2..*end])) {
                return (Part::Variable(&text[2..end]), end + 1);
            }
        }
        _ => {
            let len = text[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            if is_name(&text[1..=len]) {
                return (Part::Variable(&text[1..=len]), len + 1);
            }
        }
    }
    (Part::Literal(&text[..1]), 1)
}

/// Where the parenthesis that opens at 1 closes.
fn closing(text: &[u8]) -> Option<usize> {
    let mut open = 0_usize;
    text.iter().position(|byte| {
        match byte {
            b'(' => open += 1,
            b')' => open -= 1,
            _ => return false,
        }
        open == 0
    })
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(value: &str, outputs: &Outputs) -> String {
        let variable = |name: &[u8]| (name == b"HOME").then(|| OsStr::new("/h o"));
        String::from_utf8(expand(value.as_bytes(), &variable, outputs)).unwrap()
    }

    #[test]
    fn variables_are_replaced_and_the_rest_stays() {
        for (value, result) in [
            ("$HOME/x", "/h o/x"),
            ("${HOME}x$HOME", "/h ox/h o"),
            ("$HOMEx|$NOTHING|", "||"),
            ("$ $$ ${} ${A $1 ~ * `id`", "$ $$ ${} ${A $1 ~ * `id`"),
            ("$(echo $HOME)", "$(echo $HOME)"),
            ("$(a (b) c", "$(a (b) c"),
            ("", ""),
        ] {
            assert_eq!(expanded(value, &Outputs::new()), result, "{value}");
        }
    }

    #[test]
    fn commands_are_found_whole() {
        let found = |value: &str| commands(value.as_bytes()).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(found("a $(x (y)) $(z)$(open"), [&b"x (y)"[..], b"z"]);
        let outputs = Outputs::from([(b"x".to_vec(), b"out $HOME".to_vec())]);
        // What a command prints is not looked at again.
        assert_eq!(expanded("<$(x)> $(y)", &outputs), "<out $HOME> $(y)");
    }
}
