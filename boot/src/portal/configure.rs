//! `fim-portal`: the allow-list of an image.

use std::ffi::OsString;

use runtime::image::Config;
use runtime::installation::Setting;
use runtime::portal::{ANY, check_name};

use crate::settings::{self, invalid_operation, json_flag, no_more, operation, print_json};
use crate::{Failure, Invocation, Message, cli};

const WARNING: &str = "warning: '*' lets programs of the image run every command of the host as you; \
                       allow single names where they are enough";

/// What happens to the list.
enum Change {
    Allow(Vec<String>),
    Del(Vec<String>),
    Clear,
}

/// Runs `fim-portal` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("portal", words, "Missing op for fim-portal (allow,clear,del,list)")?;
    let change = match operation.as_str() {
        "allow" => Change::Allow(names(rest, "ALLOW")?),
        "del" => Change::Del(names(rest, "DEL")?),
        "clear" => no_more("portal", rest).map(|()| Change::Clear)?,
        "list" => return list(&invocation.image.config, rest),
        other => return Err(invalid_operation("portal", other)),
    };
    if matches!(&change, Change::Allow(names) if names.iter().any(|name| name == ANY)) {
        crate::report(&WARNING);
    }
    settings::change(invocation, Setting::Portal, |config| {
        config.portal = changed(&config.portal, &change)?;
        Ok(())
    })?;
    Ok(0)
}

fn list(config: &Config, rest: &[OsString]) -> Result<i32, Failure> {
    if json_flag("portal", rest)? {
        return print_json(&config.portal.clone().into());
    }
    let text: String = config.portal.iter().map(|name| format!("{name}\n")).collect();
    cli::print(&text)?;
    Ok(0)
}

/// The names in the words, each of which may hold several between commas.
fn names(words: &[OsString], operation: &str) -> Result<Vec<String>, Failure> {
    if words.is_empty() {
        return Err(Message::boxed(format!("No arguments for '{operation}' command; name host commands")));
    }
    let mut names = Vec::new();
    for word in words {
        let text = word.to_str().ok_or_else(|| invalid(&word.to_string_lossy(), "it is not UTF-8"))?;
        for name in text.strip_suffix(',').unwrap_or(text).split(',') {
            check_name(name).map_err(|reason| invalid(name, reason))?;
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn invalid(name: &str, reason: &str) -> Failure {
    Message::boxed(format!("Invalid portal name '{}': {reason}", name.escape_debug()))
}

/// The list after a change, in bytewise order, each name once.
fn changed(list: &[String], change: &Change) -> Result<Vec<String>, Failure> {
    let mut list = list.to_vec();
    match change {
        Change::Allow(names) => list.extend(names.iter().cloned()),
        Change::Clear => list.clear(),
        Change::Del(names) => {
            for name in names {
                if !list.contains(name) {
                    let shown = if list.is_empty() { "no name".to_owned() } else { list.join(" ") };
                    return Err(Message::boxed(format!(
                        "'{name}' is not on the portal's list, so there is nothing to take off; on it: {shown}"
                    )));
                }
            }
            list.retain(|entry| !names.contains(entry));
        }
    }
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_stand_between_commas_and_in_several_words() {
        let read = |words: &[&str]| names(&words.iter().map(OsString::from).collect::<Vec<_>>(), "ALLOW").ok();
        assert_eq!(read(&["a,b", "c,"]), Some(strings(&["a", "b", "c"])));
        for bad in [&[""][..], &["a,,b"], &[","], &["a b"], &["/bin/ls"], &["--json"], &[]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_list_is_a_sorted_set() {
        let list = strings(&["cat", "ls"]);
        let after = |change: Change| changed(&list, &change).ok();
        assert_eq!(after(Change::Allow(strings(&["ls", "awk"]))), Some(strings(&["awk", "cat", "ls"])));
        assert_eq!(after(Change::Del(strings(&["ls"]))), Some(strings(&["cat"])));
        assert_eq!(after(Change::Del(strings(&["ls", "typo"]))), None);
        assert_eq!(after(Change::Clear), Some(Vec::new()));
    }
}
