//! `fim-perms` and `fim-unshare`: sets of names, changed by one grammar.

use std::ffi::OsString;

use runtime::image::{Config, NamedBit, NamedSet, Permission, PermissionSet, Unshare};
use runtime::installation::Setting;

use super::{change, invalid_operation, json_flag, no_more, operation};
use crate::{Failure, Invocation, Message, cli};

/// What the two commands do not share.
struct Wording<T: 'static> {
    command: &'static str,
    setting: Setting,
    missing: &'static str,
    /// The texts of a wrong name and of `all` among others begin so.
    invalid: &'static str,
    all: &'static str,
    set: fn(&mut Config) -> &mut NamedSet<T>,
}

const PERMISSIONS: Wording<Permission> = Wording {
    command: "perms",
    setting: Setting::Perms,
    missing: "Missing op for fim-perms (add,del,list,set,clear)",
    invalid: "Invalid permission",
    all: "Permission 'all' should not be used with others",
    set: |config| &mut config.permissions,
};

const UNSHARE: Wording<Unshare> = Wording {
    command: "unshare",
    setting: Setting::Unshare,
    missing: "Missing op for fim-unshare (add,clear,del,list,set)",
    invalid: "Invalid unshare option",
    all: "Unshare option 'all' should not be used with others",
    set: |config| &mut config.unshare,
};

/// Runs `fim-perms` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn perms(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    if let Some((operation, rest)) = words.split_first()
        && operation.eq_ignore_ascii_case("explain")
    {
        return super::explain::run(invocation, json_flag(PERMISSIONS.command, rest)?);
    }
    run(&PERMISSIONS, invocation, words)
}

/// Runs `fim-unshare` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn unshare(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    run(&UNSHARE, invocation, words)
}

fn run<T: NamedBit>(wording: &Wording<T>, invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation(wording.command, words, wording.missing)?;
    match operation.as_str() {
        "list" => {
            let as_json = json_flag(wording.command, rest)?;
            let names = names(*(wording.set)(&mut invocation.image.config.clone()));
            if as_json {
                return super::print_json(&names.into());
            }
            let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
            cli::print(&lines).map(|()| 0)
        }
        "clear" => {
            no_more(wording.command, rest)?;
            edit(wording, invocation, |_| NamedSet::default())
        }
        "add" | "del" | "set" => {
            let (list, rest) = rest.split_first().ok_or_else(|| {
                Message::boxed(format!(
                    "No arguments for '{}' command; name some of {}",
                    operation.to_uppercase(),
                    every_name::<T>()
                ))
            })?;
            no_more(wording.command, rest)?;
            let list = list.to_string_lossy();
            let named =
                if operation == "set" && list.is_empty() { NamedSet::default() } else { parse(wording, &list)? };
            edit(wording, invocation, |before| match operation.as_str() {
                "add" => before.iter().chain(named.iter()).collect(),
                "del" => before.iter().filter(|value| !named.contains(*value)).collect(),
                _ => named,
            })
        }
        other => Err(invalid_operation(wording.command, other)),
    }
}

fn edit<T: NamedBit>(
    wording: &Wording<T>,
    invocation: &Invocation,
    edit: impl FnOnce(NamedSet<T>) -> NamedSet<T>,
) -> Result<i32, Failure> {
    change(invocation, wording.setting, |config| {
        let set = (wording.set)(config);
        *set = edit(*set);
        Ok(0)
    })
}

/// Permissions by their names, as `fim-perms` takes them.
///
/// # Errors
/// A name that is none.
pub fn permissions(list: &str) -> Result<PermissionSet, String> {
    parse(&PERMISSIONS, list).map_err(|error| error.to_string())
}

/// Names of a set, in bytewise order.
fn names<T: NamedBit>(set: NamedSet<T>) -> Vec<&'static str> {
    let mut names: Vec<_> = set.iter().map(NamedBit::name).collect();
    names.sort_unstable();
    names
}

fn every_name<T: NamedBit>() -> String {
    format!("all,{}", names(NamedSet::<T>::all()).join(","))
}

/// Names between commas, of which the last may be followed by another comma.
fn parse<T: NamedBit>(wording: &Wording<T>, list: &str) -> Result<NamedSet<T>, Failure> {
    let items: Vec<&str> = list.strip_suffix(',').unwrap_or(list).split(',').collect();
    if items.iter().any(|item| item.eq_ignore_ascii_case("all")) {
        return if items.len() == 1 {
            Ok(NamedSet::all())
        } else {
            Err(Message::boxed(format!("{}; give it alone", wording.all)))
        };
    }
    let value = |item: &&str| {
        T::from_name(item).ok_or_else(|| {
            // The name that FlatImage gives to nothing is told apart by scripts.
            let shown =
                if item.eq_ignore_ascii_case("none") { "NONE".to_owned() } else { item.escape_debug().to_string() };
            Message::boxed(format!("{} '{shown}'; known: {}", wording.invalid, every_name::<T>()))
        })
    };
    items.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_a_grammar() {
        let read = |list: &str| parse(&UNSHARE, list).map(names).map_err(|error| error.to_string());
        assert_eq!(read("net,PID"), Ok(vec!["net", "pid"]));
        assert_eq!(read("net,"), Ok(vec!["net"]));
        assert_eq!(read("ALL").unwrap().len(), Unshare::ALL.len());
        for (list, text) in [
            ("", "Invalid unshare option ''"),
            (",", "Invalid unshare option ''"),
            ("net,,pid", "Invalid unshare option ''"),
            ("none", "Invalid unshare option 'NONE'"),
            ("net pid", "Invalid unshare option 'net pid'"),
            ("all,net", "Unshare option 'all' should not be used with others"),
        ] {
            assert!(read(list).unwrap_err().starts_with(text), "{list}");
        }
    }
}
