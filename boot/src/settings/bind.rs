//! `fim-bind`: paths of the host that the guest sees.

use std::ffi::OsString;

use runtime::image::{Bind, BindKind, Config};
use runtime::installation::Setting;
use serde_json::json;

use super::{bytes, change, invalid_operation, json_flag, operation, print_json, text};
use crate::{Failure, Invocation, Message, cli};

/// Makes a missing source an error of the start.
const REQUIRED: &str = "--required";

/// Runs `fim-bind` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("bind", words, "Missing op for 'fim-bind' command (add,del,list)")?;
    match operation.as_str() {
        "add" => {
            let bind = parse(rest)?;
            let index = change(invocation, Setting::Bind, |config| {
                config.binds.push(bind);
                Ok(config.binds.len() - 1)
            })?;
            cli::print(&format!("Binding index is '{index}'\n")).map(|()| 0)
        }
        "del" => {
            let index = index(rest)?;
            let line = change(invocation, Setting::Bind, |config| Ok(delete(config, index)))?;
            cli::print(&line).map(|()| 0)
        }
        "list" => {
            let as_json = json_flag("bind", rest)
                .map_err(|_| Message::boxed("'list' command takes no arguments but --json; see fim-help bind"))?;
            let binds = &invocation.image.config.binds;
            if binds.is_empty() && !as_json { Ok(0) } else { print_json(&listing(binds)) }
        }
        other => Err(invalid_operation("bind", other)),
    }
}

fn parse(rest: &[OsString]) -> Result<Bind, Failure> {
    let required = rest.first().is_some_and(|word| word == REQUIRED);
    let [kind, src, dst] = &rest[usize::from(required)..] else {
        return Err(Message::boxed(
            "Incorrect number of arguments for 'add' (<ro,rw,dev> <src> <dst>); see fim-help bind",
        ));
    };
    let kinds = [BindKind::Ro, BindKind::Rw, BindKind::Dev];
    let name = kind.to_string_lossy();
    let kind = kinds.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(&name));
    let kind =
        kind.ok_or_else(|| Message::boxed(format!("Invalid bind type '{}'; use ro, rw or dev", name.escape_debug())))?;
    Ok(Bind { kind, src: bytes(src), dst: bytes(dst), required })
}

fn index(rest: &[OsString]) -> Result<u64, Failure> {
    let [word] = rest else {
        return Err(Message::boxed("Incorrect number of arguments for 'del' (<index>); fim-bind list shows them"));
    };
    word.to_str().and_then(|word| word.parse().ok()).ok_or_else(|| {
        Message::boxed(format!("Index argument for 'del' is not a number: '{}'", word.to_string_lossy().escape_debug()))
    })
}

/// Those behind move up, so that indices count from 0 without a gap.
fn delete(config: &mut Config, index: u64) -> String {
    match usize::try_from(index).ok().filter(|index| *index < config.binds.len()) {
        Some(at) => {
            config.binds.remove(at);
            format!("Erase element with index '{index}'\n")
        }
        None => format!("No element with index '{index}' found\n"),
    }
}

fn listing(binds: &[Bind]) -> serde_json::Value {
    let entry = |(index, bind): (usize, &Bind)| {
        let mut value = json!({"dst": text(&bind.dst), "src": text(&bind.src), "type": bind.kind.name()});
        if bind.required {
            value["required"] = true.into();
        }
        (index.to_string(), value)
    };
    serde_json::Value::Object(binds.iter().enumerate().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_at_any_count() {
        let bind = |name: usize| Bind {
            kind: BindKind::Rw,
            src: name.to_string().into_bytes(),
            dst: b"/x".to_vec(),
            required: false,
        };
        let mut config = Config { binds: (0..15).map(bind).collect(), ..Config::default() };
        assert_eq!(delete(&mut config, 15), "No element with index '15' found\n");
        assert_eq!(delete(&mut config, 3), "Erase element with index '3'\n");
        let rest: Vec<_> = (0..15).filter(|name| *name != 3).map(bind).collect();
        assert_eq!(config.binds, rest);
        assert_eq!(listing(&rest)["10"], json!({"dst": "/x", "src": "11", "type": "rw"}));
    }
}
