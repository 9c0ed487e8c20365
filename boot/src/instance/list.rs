//! `fim-instance list`.

use std::ffi::OsString;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use runtime::session::registry::Instance;
use serde_json::json;

use super::session;
use crate::{Failure, Invocation, Message};

/// Prints `ID:PID` lines in ID order, or a JSON array.
pub(super) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let as_json = words.first().is_some_and(|word| word == "--json");
    let trailing: Vec<String> =
        words.iter().skip(usize::from(as_json)).map(|word| format!("'{}',", word.to_string_lossy())).collect();
    if !trailing.is_empty() {
        let list = trailing.concat();
        return Err(Message::boxed(format!("Trailing arguments for fim-instance: [{list}]; remove them")));
    }
    let live = match session::find(invocation) {
        Some(session) => session.registry.live()?,
        None => Vec::new(),
    };
    let text = if as_json {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let entries: Vec<_> = live.iter().map(|instance| describe(instance, now)).collect();
        format!("{:#}\n", serde_json::Value::from(entries))
    } else {
        live.iter().map(|instance| format!("{}:{}\n", instance.id, instance.pid)).collect()
    };
    crate::cli::print(&text)?;
    Ok(0)
}

fn describe(instance: &Instance, now: u64) -> serde_json::Value {
    let command: Vec<String> =
        instance.command.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    json!({
        "command": command,
        "id": instance.id,
        "memory_bytes": memory(instance),
        "pid": instance.pid.as_raw(),
        "uptime_seconds": now.saturating_sub(instance.since),
        "user": instance.kind.word(),
    })
}

/// Proportional set size of the starter and all it has started, in bytes (proc_pid_smaps_rollup(5)); what cannot be
/// read counts as nothing.
fn memory(instance: &Instance) -> u64 {
    let mut pending = vec![instance.pid.as_raw()];
    let mut total = 0;
    while let Some(pid) = pending.pop() {
        total += proportional_set(pid);
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pending.extend(children.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    total
}

fn proportional_set(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
