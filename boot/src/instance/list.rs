//! `fim-instance list`.

use runtime::session::registry::Instance;
use serde_json::json;

use super::{session, usage, words};
use crate::launch::facts;
use crate::{Failure, Invocation};

/// Prints `ID:PID` lines in ID order, or a JSON array.
pub(super) fn run(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let registry = session::find(invocation).map(|session| session.registry);
    let text = if as_json {
        let live = registry.map_or_else(|| Ok(Vec::new()), |registry| registry.live())?;
        let now = facts::now();
        let entries: Vec<_> = live.iter().map(|instance| describe(instance, now)).collect();
        format!("{:#}\n", serde_json::Value::from(entries))
    } else {
        let live = registry.map_or_else(|| Ok(Vec::new()), |registry| registry.pids())?;
        live.iter().map(|(id, pid)| format!("{id}:{pid}\n")).collect()
    };
    crate::cli::print(&text)?;
    Ok(0)
}

fn describe(instance: &Instance, now: u64) -> serde_json::Value {
    json!({
        "command": words(instance),
        "id": instance.id,
        "memory_bytes": usage::of(instance).memory,
        "pid": instance.pid.as_raw(),
        "service": instance.service,
        "uptime_seconds": now.saturating_sub(instance.since),
        "user": instance.kind.word(),
    })
}
