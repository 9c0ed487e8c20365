//! `fim-env`: variables of the guest.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use runtime::image::Config;
use runtime::installation::Setting;

use super::{bytes, change, invalid_operation, json_flag, no_more, operation, print_json, text};
use crate::launch::{environment, facts};
use crate::{Failure, Invocation, Message, cli};

type Variable = (Vec<u8>, Vec<u8>);

/// Runs `fim-env` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("env", words, "Missing op for 'fim-env' (add,del,list,set,clear)")?;
    match operation.as_str() {
        "add" | "set" => {
            some(rest, &operation, "NAME=VALUE")?;
            // Everything is looked at before anything is stored: a wrong word loses nothing.
            let given = rest.iter().map(|word| assignment(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
            change(invocation, Setting::Env, |config| {
                if operation == "set" {
                    config.env.clear();
                }
                given.iter().for_each(|variable| put(&mut config.env, variable));
                Ok(())
            })?;
            cli::print_bytes(&given.iter().flat_map(included).collect::<Vec<u8>>()).map(|()| 0)
        }
        "del" => {
            some(rest, &operation, "the variables")?;
            let names: Vec<Vec<u8>> = rest.iter().map(|word| bytes(word)).collect();
            let lines = change(invocation, Setting::Env, |config| Ok(erase(&mut config.env, &names)))?;
            cli::print_bytes(&lines).map(|()| 0)
        }
        "list" => list(&invocation.image.config, json_flag("env", rest)?),
        "clear" => {
            no_more("env", rest)?;
            change(invocation, Setting::Env, |config| {
                config.env.clear();
                Ok(0)
            })
        }
        other => Err(invalid_operation("env", other)),
    }
}

fn some(rest: &[OsString], operation: &str, what: &str) -> Result<(), Failure> {
    if rest.is_empty() {
        return Err(Message::boxed(format!("Missing arguments for '{}'; name {what}", operation.to_uppercase())));
    }
    Ok(())
}

/// Splits at the first `=`.
fn assignment(word: &[u8]) -> Result<Variable, Failure> {
    match word.iter().position(|&byte| byte == b'=') {
        Some(at) if at > 0 => Ok((word[..at].to_vec(), word[at + 1..].to_vec())),
        _ => Err(Message::boxed(format!(
            "Variable assignment '{}' is invalid; NAME=VALUE is needed",
            text(word).escape_debug()
        ))),
    }
}

/// A variable that exists keeps its place, for later ones may refer to it.
fn put(env: &mut Vec<Variable>, variable: &Variable) {
    match env.iter_mut().find(|(name, _)| *name == variable.0) {
        Some(existing) => existing.1.clone_from(&variable.1),
        None => env.push(variable.clone()),
    }
}

fn included((name, value): &Variable) -> Vec<u8> {
    [b"Included variable '", &name[..], b"' with value '", value, b"'\n"].concat()
}

fn erase(env: &mut Vec<Variable>, names: &[Vec<u8>]) -> Vec<u8> {
    let mut lines = Vec::new();
    for name in names {
        let before = env.len();
        env.retain(|(key, _)| key != name);
        let line = if env.len() < before {
            [b"Erase key '", &name[..], b"'\n"].concat()
        } else {
            [b"Key '", &name[..], b"' not found for deletion\n"].concat()
        };
        lines.extend(line);
    }
    lines
}

/// Lines are expanded as at a start, with the caller's environment; JSON has what is stored.
fn list(config: &Config, as_json: bool) -> Result<i32, Failure> {
    if as_json {
        let map: serde_json::Map<_, _> =
            config.env.iter().map(|(name, value)| (text(name), text(value).into())).collect();
        return print_json(&map.into());
    }
    let caller = facts::caller();
    let outputs = facts::command_outputs(&caller, &config.env);
    let mut env = caller.env.into_iter().collect();
    environment::add_stored(&mut env, &config.env, &outputs);
    let mut names: Vec<&[u8]> = config.env.iter().map(|(name, _)| &name[..]).collect();
    names.sort_unstable();
    let value =
        |name: &[u8]| env.get(std::ffi::OsStr::from_bytes(name)).map(|value| value.as_bytes()).unwrap_or_default();
    let lines: Vec<u8> = names.iter().flat_map(|name| [*name, b"=", value(name), b"\n"].concat()).collect();
    cli::print_bytes(&lines).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> Variable {
        (name.into(), value.into())
    }

    #[test]
    fn assignments_split_at_the_first_sign() {
        assert_eq!(assignment(b"A=b=c\n").unwrap(), variable("A", "b=c\n"));
        assert_eq!(assignment(b"A=").unwrap(), variable("A", ""));
        for wrong in ["A", "", "=x"] {
            assert!(assignment(wrong.as_bytes()).unwrap_err().to_string().contains(&format!("'{wrong}' is invalid")));
        }
    }

    #[test]
    fn a_variable_is_there_once_and_keeps_its_place() {
        let mut env = vec![variable("A", "1"), variable("B", "2")];
        put(&mut env, &variable("A", "3"));
        put(&mut env, &variable("C", ""));
        assert_eq!(env, [variable("A", "3"), variable("B", "2"), variable("C", "")]);
        let lines = erase(&mut env, &[b"B".to_vec(), b"X".to_vec()]);
        assert_eq!(text(&lines), "Erase key 'B'\nKey 'X' not found for deletion\n");
        assert_eq!(env, [variable("A", "3"), variable("C", "")]);
    }
}
