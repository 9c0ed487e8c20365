//! `fim-boot`: what a start without a command runs.

use std::ffi::OsString;

use runtime::image::{Boot, Config};
use runtime::installation::Setting;
use serde_json::json;

use super::{bytes, change, invalid_operation, json_flag, no_more, operation, print_json, text};
use crate::{Failure, Invocation, Message};

/// Runs `fim-boot` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("boot", words, "Missing op for 'fim-boot' (<set|show|clear>)")?;
    let boot = match operation.as_str() {
        "set" => {
            let (program, args) = rest.split_first().ok_or_else(|| {
                Message::boxed("Missing program for 'set' operation: fim-boot set PROGRAM [ARGUMENT...]")
            })?;
            Some(Boot { program: bytes(program), args: args.iter().map(|word| bytes(word)).collect() })
        }
        "clear" => no_more("boot", rest).map(|()| None)?,
        "show" => {
            // Always JSON, as scripts know it.
            json_flag("boot", rest)?;
            return print_json(&shown(&invocation.image.config));
        }
        other => return Err(invalid_operation("boot", other)),
    };
    // An empty program is none: the shell.
    let boot = boot.filter(|boot| !boot.program.is_empty());
    change(invocation, Setting::Boot, |config| {
        config.boot = boot;
        Ok(0)
    })
}

fn shown(config: &Config) -> serde_json::Value {
    match &config.boot {
        Some(boot) => {
            let args: Vec<String> = boot.args.iter().map(|word| text(word)).collect();
            json!({"args": args, "program": text(&boot.program)})
        }
        None => json!({"args": [], "program": "bash"}),
    }
}
