//! `fim-complete`: completions for shells, from the same definition as help.
//!
//! Each shell gets a table of lines, `WORDS BEFORE:WORDS POSSIBLE`, and a few lines that look into it, so that they all
//! know the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use runtime::image::{NamedBit, Permission, Unshare};

use super::print;
use super::spec::{COMMANDS, Spec};
use crate::settings::{no_more, operation};
use crate::{Failure, Invocation, Message};

/// Runs `fim-complete` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image whose name no shell could complete.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (shell, rest) = operation("complete", words, "Missing shell for 'fim-complete' (<bash|zsh|fish>)")?;
    no_more("complete", rest)?;
    let template = match shell.as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        other => {
            let other = other.escape_debug();
            return Err(Message::boxed(format!("no completions for the shell '{other}'; use bash, zsh or fish")));
        }
    };
    let name = invocation.path.file_name().unwrap_or_default();
    let quoted = name.to_str().and_then(quote).ok_or_else(|| {
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        Message::boxed(format!("cannot make completions for the name {name:?}: it is not plain text; rename the image"))
    })?;
    print(&template.replace("@NAME@", &quoted).replace("@TABLE@", &table())).map(|()| 0)
}

/// In single quotes, which mean the same to the three shells for a name without quotes and backslashes.
fn quote(name: &str) -> Option<String> {
    let plain = !name.chars().any(|char| char.is_control() || matches!(char, '\'' | '\\'));
    plain.then(|| format!("'{name}'"))
}

const BASH: &str = r#"# Completions of an image for bash.
_fim_table='@TABLE@'
_fim() {
    local word=${COMP_WORDS[COMP_CWORD]} before prefix='' line
    before=${COMP_WORDS[*]:1:COMP_CWORD-1}
    while IFS= read -r line; do
        [[ ${line%%:*} == "${before,,}" ]] || continue
        line=${line#*:}
        if [[ ${line::1} == , ]]; then
            line=${line:1}
            [[ $word != *,* ]] || { prefix=${word%,*},; word=${word##*,}; }
        fi
        mapfile -t COMPREPLY < <(compgen -P "$prefix" -W "$line" -- "$word")
    done <<<"$_fim_table"
}
complete -o bashdefault -o default -F _fim @NAME@
"#;

const ZSH: &str = r#"#compdef @NAME@
# Completions of an image for zsh.
_fim_table='@TABLE@'
_fim() {
    local before="${(L)${(j: :)words[2,CURRENT-1]}}" line
    for line in "${(@f)_fim_table}"; do
        [[ "${line%%:*}" == "$before" ]] || continue
        line="${line#*:}"
        if [[ "$line" == ,* ]]; then
            line="${line#,}"
            compset -P '*,'
        fi
        compadd -- ${=line}
        return
    done
    _default
}
compdef _fim @NAME@
"#;

const FISH: &str = r#"# Completions of an image for fish.
set -g _fim_table '@TABLE@'
function _fim
    set -l tokens (commandline -opc)
    set -l before (string lower -- (string join ' ' -- $tokens[2..-1]))
    set -l word (commandline -ct)
    for line in (string split \n -- $_fim_table)
        set -l parts (string split -m 1 : -- $line)
        test "$parts[1]" = "$before"; or continue
        if string match -q ',*' -- $parts[2]
            set -l prefix (string match -r '.*,' -- $word)
            printf '%s\n' $prefix(string split ' ' -- (string sub -s 2 -- $parts[2]))
        else
            string split ' ' -- $parts[2]
        end
    end
end
complete -c @NAME@ -a '(_fim)'
"#;

/// What may stand in a place of a usage line.
enum Place {
    /// One of these words.
    Words(Vec<String>),
    /// Several of these between commas.
    List(Vec<String>),
    /// Whatever the shell completes otherwise.
    Free,
}

fn place(token: &str) -> Place {
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let with_all = |mut names: Vec<&'static str>| {
        names.push("all");
        names.sort_unstable();
        names.into_iter().map(str::to_owned).collect()
    };
    match token.trim_matches(['<', '>', '[', ']']) {
        "perms..." => Place::List(with_all(Permission::ALL.iter().map(|value| value.name()).collect())),
        "options..." => Place::List(with_all(Unshare::ALL.iter().map(|value| value.name()).collect())),
        "type" => Place::Words(names(vec!["ro", "rw", "dev"])),
        "topic" => Place::Words(COMMANDS.iter().map(|spec| spec.name.to_owned()).collect()),
        flag if flag.starts_with("--") => Place::Words(names(vec![flag])),
        "program" | "command" | "id" | "args..." | "names..." | "keys..." | "'key=value'..." | "src" | "dst"
        | "index" | "url" | "seconds" | "signal" | "key" => Place::Free,
        alternatives => Place::Words(names(alternatives.split('|').collect())),
    }
}

/// `WORDS BEFORE:WORDS POSSIBLE`, sorted. A comma in front of the second part says that they are a list.
fn table() -> String {
    let mut table: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
    let commands = COMMANDS.iter().map(|spec| format!("fim-{}", spec.name)).collect();
    table.insert(String::new(), (false, commands));
    for spec in COMMANDS {
        add_usages(&mut table, spec);
    }
    let line = |(before, (list, words)): (&String, &(bool, Vec<String>))| {
        format!("{before}:{}{}", if *list { "," } else { "" }, words.join(" "))
    };
    table.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn add_usages(table: &mut BTreeMap<String, (bool, Vec<String>)>, spec: &Spec) {
    for usage in spec.usages {
        // Every way to stand before the next place; a flag in brackets may be left out.
        let mut before = vec![format!("fim-{}", spec.name)];
        for token in usage.line.split(' ') {
            let (list, words) = match place(token) {
                Place::Free => break,
                Place::Words(words) => (false, words),
                Place::List(words) => (true, words),
            };
            for prefix in &before {
                let entry = table.entry(prefix.clone()).or_insert((list, Vec::new()));
                entry.1.extend(words.iter().filter(|word| !entry.1.contains(word)).cloned().collect::<Vec<_>>());
            }
            let mut after: Vec<String> =
                before.iter().flat_map(|prefix| words.iter().map(move |word| format!("{prefix} {word}"))).collect();
            if token.starts_with('[') {
                after.extend(before);
            }
            before = after;
            if list {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_knows_every_command_and_its_words() {
        let table = table();
        let words = |before: &str| {
            table.lines().find_map(|line| line.strip_prefix(before)?.strip_prefix(':')).map(str::to_owned)
        };
        assert!(COMMANDS.iter().all(|spec| words("").unwrap().contains(&format!("fim-{}", spec.name))));
        assert_eq!(words("fim-perms").unwrap(), "add del set list clear explain inherit");
        assert!(words("fim-perms add").unwrap().starts_with(",all audio"));
        assert_eq!(words("fim-overlay set").unwrap(), "overlayfs unionfs bwrap");
        assert_eq!(words("fim-bind add").unwrap(), "--required ro rw dev");
        assert_eq!(words("fim-bind add --required").unwrap(), "ro rw dev");
        assert_eq!(words("fim-env list").unwrap(), "--json");
        assert_eq!(words("fim-instance stop"), None);
        assert!(words("fim-help").unwrap().contains("perms"));
        assert!(!table.contains(['\'', '\\', '<', '>']), "{table}");
    }

    #[test]
    fn names_that_a_shell_would_read_are_refused() {
        assert_eq!(quote("my app").as_deref(), Some("'my app'"));
        assert_eq!(quote("it's"), None);
        assert_eq!(quote("a\nb"), None);
    }
}
