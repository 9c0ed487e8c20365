//! `fim-port`: ports of the guest that the host's loopback reaches.

mod words;

use std::ffi::OsString;

use runtime::image::declared::Port;
use runtime::image::{Config, Permission};
use runtime::installation::Setting;
use serde_json::json;

use crate::settings::{change, invalid_operation, json_flag, no_more, operation, print_json};
use crate::{Failure, Invocation, Message, cli, report};

pub(crate) use words::{shown, single as number};

/// Names the service that a port is for.
const SERVICE: &str = "--service";

/// Runs `fim-port` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, ports that cannot be published, and an image that cannot be changed; nothing is changed then.
pub(crate) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (operation, rest) = operation("port", words, "Missing op for 'fim-port' (<publish|unpublish|list|clear>)")?;
    match operation.as_str() {
        "publish" => {
            let port = published(rest)?;
            let host = port.host;
            change(invocation, Setting::Port, |config| publish(config, port))?;
            note_of_privilege(host);
            Ok(0)
        }
        "unpublish" => {
            let (word, rest) = first(rest, &operation, "HOST[:GUEST][/udp]")?;
            no_more("port", rest)?;
            let named = words::Named::parse(word)?;
            change(invocation, Setting::Port, |config| unpublish(config, &named)).map(|()| 0)
        }
        "list" => {
            let ports = &invocation.image.config.declared.ports;
            if json_flag("port", rest)? {
                return print_json(&ports.iter().map(describe).collect());
            }
            cli::print(&ports.iter().map(line).collect::<String>()).map(|()| 0)
        }
        "clear" => {
            no_more("port", rest)?;
            change(invocation, Setting::Port, |config| {
                config.declared.ports.clear();
                Ok(0)
            })
        }
        other => Err(invalid_operation("port", other)),
    }
}

fn first<'a>(words: &'a [OsString], operation: &str, shape: &str) -> Result<(&'a OsString, &'a [OsString]), Failure> {
    words.split_first().ok_or_else(|| {
        Message::boxed(format!("Missing port for '{operation}': fim-port {operation} {shape}; see fim-help port"))
    })
}

/// The port that the words behind `publish` ask for.
fn published(words: &[OsString]) -> Result<Port, Failure> {
    let (word, rest) = first(words, "publish", "HOST:GUEST[/udp]")?;
    let port = words::parse(word)?;
    let Some((flag, rest)) = rest.split_first() else { return Ok(port) };
    if flag != SERVICE {
        no_more("port", std::slice::from_ref(flag))?;
    }
    let (name, rest) = rest.split_first().ok_or_else(|| {
        Message::boxed(format!("Missing name for '{SERVICE}': fim-port publish HOST:GUEST {SERVICE} NAME"))
    })?;
    no_more("port", rest)?;
    Ok(Port { service: Some(name.to_string_lossy().into_owned()), ..port })
}

fn publish(config: &mut Config, port: Port) -> Result<(), Failure> {
    if config.permissions.contains(Permission::Network) {
        return Err(Message::boxed(format!(
            "port {} cannot be published: with the permission network, the guest has the host's network, and its port \
             {} is the host's own already; take the permission away first (fim-perms del network)",
            words::shown(&port),
            port.guest
        )));
    }
    let declared = &mut config.declared;
    let is_declared = |name: &String| declared.services.iter().any(|service| service.name == *name);
    if let Some(name) = port.service.as_ref().filter(|name| !is_declared(name)) {
        return Err(Message::boxed(format!(
            "there is no service '{}' that port {} could be for; fim-service list shows them",
            name.escape_debug(),
            words::shown(&port)
        )));
    }
    if let Some(other) = declared.ports.iter().find(|other| (other.host, other.udp) == (port.host, port.udp)) {
        return Err(Message::boxed(format!(
            "port {} of the host is published already, as {}; fim-port unpublish {0} first, or publish another",
            port.host,
            words::shown(other)
        )));
    }
    declared.ports.push(port);
    Ok(())
}

fn unpublish(config: &mut Config, named: &words::Named) -> Result<(), Failure> {
    let ports = &mut config.declared.ports;
    let before = ports.len();
    let all: Vec<String> = ports.iter().map(words::shown).collect();
    ports.retain(|port| !named.is(port));
    if ports.len() < before {
        return Ok(());
    }
    let all = if all.is_empty() { "none".to_owned() } else { all.join(" ") };
    Err(Message::boxed(format!("port {named} is not published; these are: {all}")))
}

fn line(port: &Port) -> String {
    let service = port.service.iter().map(|name| format!(" {name}")).collect::<String>();
    format!("{}{service}\n", words::shown(port))
}

fn describe(port: &Port) -> serde_json::Value {
    json!({
        "guest": port.guest,
        "host": port.host,
        "protocol": if port.udp { "udp" } else { "tcp" },
        "service": port.service,
    })
}

/// Says it when the caller could not start what it publishes: somebody else may.
fn note_of_privilege(port: u16) {
    let first = runtime::ports::first_free();
    if port < first && !nix::unistd::geteuid().is_root() {
        report(&format!(
            "note: port {port} of the host is root's: on this host, others can publish ports from {first} on"
        ));
    }
}
