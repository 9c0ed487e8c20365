//! `fim-perms explain`: what a start would share with the guest now, and why.

use std::fmt::Write;
use std::path::Path;

use runtime::image::Permission;
use runtime::sandbox::plan::Access;
use serde_json::{Value, json};

use super::print_json;
use crate::launch::grants::{Gift, Grant};
use crate::launch::{binds, facts, identity, plan};
use crate::{Failure, Invocation, cli};

/// Namespaces that every instance has for itself; the network's goes with the permission.
const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mount", "pid", "user", "uts"];

/// Prints the effective grants, binds, namespaces and host commands.
pub(super) fn run(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let config = &invocation.image.config;
    let facts = facts::gather(invocation)?;
    let root = identity::is_root(config, false, &facts);
    let account = identity::account(config, root, &facts);
    let grants = plan::grants(config, &facts, &account, root);
    // What a start would refuse is refused here in the same words.
    binds::steps(&facts.binds)?;
    let mut namespaces = NAMESPACES.to_vec();
    if !config.permissions.contains(Permission::Network) {
        namespaces.push("net");
    }
    namespaces.sort_unstable();
    if as_json {
        let of = |permission: Permission| {
            grants.iter().filter(|grant| grant.permission == permission).map(gift_json).collect::<Vec<_>>()
        };
        let permissions: serde_json::Map<_, _> =
            config.permissions.iter().map(|permission| (permission_name(permission), of(permission).into())).collect();
        let binds: Vec<Value> = facts.binds.iter().map(bind_json).collect();
        return print_json(&json!({
            "permissions": permissions, "binds": binds, "namespaces": namespaces, "portal": config.portal,
        }));
    }
    let mut text = String::new();
    if config.permissions.is_empty() {
        text.push_str("no permission is granted\n");
    }
    for permission in config.permissions.iter() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", permission_name(permission));
        for grant in grants.iter().filter(|grant| grant.permission == permission) {
            let _ = writeln!(text, "  {}", gift_line(grant));
        }
    }
    for bind in &facts.binds {
        let _ = writeln!(text, "bind {}\n  {}", bind.index, mount_line(bind.access, &bind.source, &bind.target));
    }
    let _ = writeln!(text, "namespaces of its own: {}", namespaces.join(" "));
    let commands = if config.portal.is_empty() { "none".to_owned() } else { config.portal.join(" ") };
    let _ = writeln!(text, "host commands: {commands}");
    cli::print(&text).map(|()| 0)
}

fn permission_name(permission: Permission) -> String {
    use runtime::image::NamedBit;
    permission.name().to_owned()
}

fn access_name(access: Access) -> &'static str {
    match access {
        Access::ReadOnly => "ro",
        Access::ReadWrite => "rw",
        Access::Device => "dev",
    }
}

fn gift_line(grant: &Grant) -> String {
    match &grant.gift {
        Gift::Mount { source, target, access } => mount_line(*access, source, target),
        Gift::Variable { name, value } => format!("set   {name}={}", value.to_string_lossy()),
        Gift::File { target, .. } => format!("file  {}", target.display()),
        Gift::Bus { address, target, rules } => {
            format!("bus   {address} -> {} filtered by xdg-dbus-proxy {}", target.display(), rules.join(" "))
        }
        Gift::Note(text) => format!("note  {text}"),
    }
}

fn mount_line(access: Access, source: &Path, target: &Path) -> String {
    let mut line = format!("{:5} {}", access_name(access), source.display());
    if source != target {
        let _ = write!(line, " -> {}", target.display());
    }
    if !source.exists() {
        line.push_str(" (not on this host: passed over)");
    }
    line
}

fn gift_json(grant: &Grant) -> Value {
    match &grant.gift {
        Gift::Mount { source, target, access } => mount_json(*access, source, target),
        Gift::Variable { name, value } => json!({"variable": name, "value": value.to_string_lossy()}),
        Gift::File { target, .. } => json!({"file": target.to_string_lossy()}),
        Gift::Bus { address, target, rules } => {
            json!({"bus": address, "target": target.to_string_lossy(), "filter": rules})
        }
        Gift::Note(text) => json!({"note": text}),
    }
}

fn bind_json(bind: &binds::Expanded) -> Value {
    let mut value = mount_json(bind.access, &bind.source, &bind.target);
    value["required"] = bind.required.into();
    value
}

fn mount_json(access: Access, source: &Path, target: &Path) -> Value {
    json!({
        "access": access_name(access),
        "source": source.to_string_lossy(),
        "target": target.to_string_lossy(),
        "present": source.exists(),
    })
}
