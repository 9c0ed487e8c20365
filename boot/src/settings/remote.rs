//! `fim-remote`: where recipes and images come from that this one needs.

use std::ffi::OsString;

use runtime::installation::Setting;
use serde_json::json;

use super::{change, invalid_operation, json_flag, no_more, operation, print_json};
use crate::{Failure, Invocation, Message, cli};

/// Runs `fim-remote` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, an image that cannot be changed (nothing is changed then), and nothing to show.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("remote", words, "Missing op for 'fim-remote' (<set|show|clear>)")?;
    match operation.as_str() {
        "set" => {
            let (url, rest) = rest
                .split_first()
                .ok_or_else(|| Message::boxed("Missing URL for 'set' operation: fim-remote set URL"))?;
            no_more("remote", rest)?;
            let url = url.to_str().filter(|url| !url.is_empty() && !url.chars().any(char::is_control));
            let url = url.ok_or_else(|| {
                Message::boxed("the URL is not valid: it is empty, not UTF-8, or holds a control character")
            })?;
            change(invocation, Setting::Remote, |config| {
                config.remote = Some(url.to_owned());
                Ok(())
            })?;
            cli::print(&format!("Set remote URL to '{url}'\n"))?;
        }
        "clear" => {
            no_more("remote", rest)?;
            change(invocation, Setting::Remote, |config| {
                config.remote = None;
                Ok(())
            })?;
            cli::print("Cleared remote URL\n")?;
        }
        "show" => {
            let as_json = json_flag("remote", rest)?;
            let url = invocation.image.config.remote.as_ref();
            if as_json {
                return print_json(&json!({"url": url}));
            }
            let url =
                url.ok_or_else(|| Message::boxed("No remote URL configured; fim-remote set URL configures one"))?;
            cli::print(&format!("{url}\n"))?;
        }
        "fetch" => return crate::fetch::command(invocation, rest),
        other => return Err(invalid_operation("remote", other)),
    }
    Ok(0)
}
