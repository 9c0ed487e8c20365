//! `fim-overlay`: the stored choice of what stacks the layers.

use std::ffi::OsString;

use runtime::installation::Setting;
use serde_json::json;

use super::{change, invalid_operation, json_flag, no_more, operation, print_json};
use crate::launch::stacking::KINDS;
use crate::{Failure, Invocation, Message, cli};

/// Runs `fim-overlay` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, and an image that cannot be changed; nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("overlay", words, "Missing op for 'fim-overlay' (<set|show>)")?;
    match operation.as_str() {
        "set" => {
            let (name, rest) = rest
                .split_first()
                .ok_or_else(|| Message::boxed("Missing argument for 'set'; use overlayfs, unionfs or bwrap"))?;
            no_more("overlay", rest)?;
            let name = name.to_string_lossy();
            let kind = KINDS.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(&name));
            let kind = kind.ok_or_else(|| {
                Message::boxed(format!(
                    "Invalid overlay type '{}'; use overlayfs, unionfs or bwrap",
                    name.escape_debug()
                ))
            })?;
            change(invocation, Setting::Overlay, |config| {
                config.overlay = kind;
                super::stacking(config);
                Ok(0)
            })
        }
        "show" => {
            let as_json = json_flag("overlay", rest)?;
            let kind = super::stacking(&invocation.image.config).kind;
            if as_json {
                return print_json(&json!({"overlay": kind.name()}));
            }
            cli::print(&format!("{}\n", kind.name())).map(|()| 0)
        }
        other => Err(invalid_operation("overlay", other)),
    }
}
