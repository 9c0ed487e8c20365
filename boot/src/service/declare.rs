//! Which services an installation has.

use std::ffi::OsString;

use runtime::image::Config;
use runtime::image::declared::Service;
use runtime::installation::Setting;
use runtime::session::service;

use super::{find, run};
use crate::settings::{bytes, change};
use crate::{Failure, Invocation, Message, port};

/// Makes a service that starts by its name only.
const DISABLED: &str = "--disabled";
/// Names a port that the service is known to listen on.
const LISTENS: &str = "--listens";

/// Adds a service.
pub(super) fn add(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let service = parse(words)?;
    change(invocation, Setting::Service, |config| {
        let services = &mut config.declared.services;
        if services.iter().any(|other| other.name == service.name) {
            return Err(Message::boxed(format!(
                "there is a service '{0}' already; remove it first (fim-service del {0}), or choose another name",
                service.name
            )));
        }
        services.push(service);
        Ok(0)
    })
}

fn parse(words: &[OsString]) -> Result<Service, Failure> {
    let usage = "fim-service add [--disabled] [--listens PORT] NAME PROGRAM [ARGUMENT...]";
    let mut service = Service { name: String::new(), words: Vec::new(), enabled: true, listens: Vec::new() };
    let mut words = words;
    loop {
        match words {
            [flag, rest @ ..] if flag == DISABLED => {
                service.enabled = false;
                words = rest;
            }
            [flag, value, rest @ ..] if flag == LISTENS => {
                service.listens.push(port::number(value)?);
                words = rest;
            }
            _ => break,
        }
    }
    let [name, command @ ..] = words else {
        return Err(Message::boxed(format!("Missing name for 'add': {usage}")));
    };
    service.name = name.to_string_lossy().into_owned();
    if !service::is_name(&service.name) {
        return Err(Message::boxed(format!(
            "Invalid service name '{}': it must be 1 to {} letters and digits, with single hyphens between them",
            service.name.escape_debug(),
            service::LONGEST_NAME
        )));
    }
    if command.is_empty() {
        return Err(Message::boxed(format!("Missing program for the service '{}': {usage}", service.name)));
    }
    service.words = command.iter().map(|word| bytes(word)).collect();
    Ok(service)
}

/// Removes a service that does not run.
pub(super) fn del(invocation: &Invocation, name: &str) -> Result<i32, Failure> {
    must_be_idle(invocation, name)?;
    change(invocation, Setting::Service, |config| {
        find(config, name)?;
        must_have_no_port(config, name)?;
        config.declared.services.retain(|service| service.name != name);
        Ok(0)
    })
}

/// Removes all services.
pub(super) fn clear(invocation: &Invocation) -> Result<i32, Failure> {
    let names: Vec<&String> = invocation.image.config.declared.services.iter().map(|service| &service.name).collect();
    names.iter().try_for_each(|name| must_be_idle(invocation, name))?;
    change(invocation, Setting::Service, |config| {
        config.declared.services.iter().try_for_each(|service| must_have_no_port(config, &service.name))?;
        config.declared.services.clear();
        Ok(0)
    })
}

fn must_be_idle(invocation: &Invocation, name: &str) -> Result<(), Failure> {
    match run::running(invocation, name)? {
        Some(instance) => Err(Message::boxed(format!(
            "the service '{name}' is running (instance {}); stop it first: fim-service stop {name}",
            instance.id
        ))),
        None => Ok(()),
    }
}

fn must_have_no_port(config: &Config, name: &str) -> Result<(), Failure> {
    let mut ports = config.declared.ports.iter();
    match ports.find(|port| port.service.as_deref() == Some(name)) {
        Some(port) => Err(Message::boxed(format!(
            "port {} is published for the service '{name}'; fim-port unpublish it first",
            port::shown(port)
        ))),
        None => Ok(()),
    }
}

/// Says whether a service is among those that start without being named.
pub(super) fn enable(invocation: &Invocation, name: &str, enabled: bool) -> Result<i32, Failure> {
    change(invocation, Setting::Service, |config| {
        find(config, name)?;
        let services = config.declared.services.iter_mut();
        services.filter(|service| service.name == name).for_each(|service| service.enabled = enabled);
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_add() {
        let read = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            parse(&words).map_err(|error| error.to_string())
        };
        let service = read("--disabled --listens 80 --listens 443 web httpd --listens 9").unwrap();
        assert_eq!((service.name.as_str(), service.enabled, &service.listens[..]), ("web", false, &[80, 443][..]));
        assert_eq!(service.words, [&b"httpd"[..], b"--listens", b"9"]);
        for (line, text) in [
            ("", "Missing name"),
            ("--disabled", "Missing name"),
            ("web", "Missing program for the service 'web'"),
            ("we_b x", "Invalid service name 'we_b'"),
            ("--frob web x", "Invalid service name '--frob'"),
            ("--listens x web y", "Invalid port 'x'"),
            ("--listens 80", "Missing name"),
            ("--listens", "Invalid service name '--listens'"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(text), "{line}: {error}");
        }
    }
}
