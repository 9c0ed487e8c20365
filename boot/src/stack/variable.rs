//! `FIM_LAYERS`: paths separated by colons. `$NAME`, `${NAME}` and a leading `~` are replaced; blanks mean nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::launch::expansion::expand;
use crate::launch::facts::{Caller, command_outputs};

/// The variable's name.
pub(super) const NAME: &str = "FIM_LAYERS";

/// The paths that the caller names, in order, as they are written.
pub(super) fn paths(caller: &Caller) -> Vec<PathBuf> {
    let Some(value) = caller.variable(NAME).filter(|value| !value.is_empty()) else { return Vec::new() };
    let stored = [(NAME.as_bytes().to_vec(), value.as_bytes().to_vec())];
    let outputs = command_outputs(caller, &stored);
    let variable = |name: &[u8]| std::str::from_utf8(name).ok().and_then(|name| caller.variable(name));
    // A variable may hold a whole list.
    let expanded = expand(value.as_bytes(), &variable, &outputs);
    split(&expanded, caller.variable("HOME"))
}

fn split(list: &[u8], home: Option<&OsStr>) -> Vec<PathBuf> {
    let words = list.split(|&byte| byte == b':').filter(|word| !word.is_empty());
    let path = |word: &[u8]| match (word.strip_prefix(b"~"), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with(b"/") => [home.as_bytes(), rest].concat(),
        _ => word.to_vec(),
    };
    words.map(|word| PathBuf::from(OsString::from_vec(path(word)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::facts::tests::facts;

    fn found(env: &[(&str, &str)]) -> Vec<String> {
        paths(&facts(env).caller).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn words_stand_between_colons() {
        assert_eq!(found(&[]), [""; 0]);
        assert_eq!(found(&[("FIM_LAYERS", "")]), [""; 0]);
        assert_eq!(found(&[("FIM_LAYERS", ":/a b::c :")]), ["/a b", "c "]);
    }

    #[test]
    fn variables_are_replaced() {
        let env = [("HOME", "/h o"), ("LIST", "/x:/y"), ("FIM_LAYERS", "~/a:~b:$LIST:${HOME}/c:$NONE:$(id)/d")];
        assert_eq!(found(&env), ["/h o/a", "~b", "/x", "/y", "/h o/c", "$(id)/d"]);
    }
}
