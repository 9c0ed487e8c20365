//! `fim-service`: commands of the image that run in detached instances of their own, by name.

mod declare;
mod list;
mod logs;
mod run;

use std::ffi::OsString;

use runtime::image::Config;
use runtime::image::declared::Service;
use runtime::installation::Installation;

use crate::settings::{invalid_operation, json_flag, no_more, operation};
use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles};

const MISSING: &str = "Missing op for 'fim-service' (<add|del|clear|enable|disable|list|start|stop|restart|logs>)";

/// Runs `fim-service` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words; services that are unknown, exist already, are running or cannot be started.
pub(crate) fn run(invocation: &Invocation, words: &[OsString], roles: Roles, build: Build) -> Result<i32, Failure> {
    let (operation, rest) = operation("service", words, MISSING)?;
    match operation.as_str() {
        "add" => declare::add(invocation, rest),
        "del" => declare::del(invocation, &one(invocation, rest, &operation)?),
        "clear" => no_more("service", rest).and_then(|()| declare::clear(invocation)),
        "enable" | "disable" => declare::enable(invocation, &one(invocation, rest, &operation)?, operation == "enable"),
        "list" => list::run(invocation, json_flag("service", rest)?),
        "start" => run::start(invocation, rest, roles, build),
        "stop" => run::stop(invocation, rest),
        "restart" => run::restart(invocation, rest, roles, build),
        "logs" => logs::run(invocation, rest),
        other => Err(invalid_operation("service", other)),
    }
}

/// The one service that an operation is about.
fn one(invocation: &Invocation, words: &[OsString], operation: &str) -> Result<String, Failure> {
    let (word, rest) = words.split_first().ok_or_else(|| {
        Message::boxed(format!("Missing name for '{operation}': fim-service {operation} NAME; see fim-help service"))
    })?;
    no_more("service", rest)?;
    Ok(named(invocation, word)?.name.clone())
}

/// The services that these words name, each once and in this order; with no word, those that `otherwise` accepts.
fn chosen<'a>(
    invocation: &'a Invocation,
    words: &[OsString],
    otherwise: impl Fn(&Service) -> bool,
) -> Result<Vec<&'a Service>, Failure> {
    if words.is_empty() {
        let services = &invocation.image.config.declared.services;
        return Ok(services.iter().filter(|service| otherwise(service)).collect());
    }
    let mut chosen: Vec<&Service> = Vec::new();
    for word in words {
        let service = named(invocation, word)?;
        if !chosen.iter().any(|other| other.name == service.name) {
            chosen.push(service);
        }
    }
    Ok(chosen)
}

/// The service with this name, or with the name that the listing shows: `INSTALLATION.NAME`.
fn named<'a>(invocation: &'a Invocation, word: &OsString) -> Result<&'a Service, Failure> {
    let text = word.to_string_lossy();
    let name = match text.rsplit_once('.') {
        Some((installation, name)) => {
            must_be(&invocation.installation, installation, name)?;
            name
        }
        None => &text,
    };
    find(&invocation.image.config, name)
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a Service, Failure> {
    let services = &config.declared.services;
    services.iter().find(|service| service.name == name).ok_or_else(|| {
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        let names = if names.is_empty() { "none; fim-service add makes one".to_owned() } else { names.join(" ") };
        Message::boxed(format!("there is no service '{}'; these are: {names}", name.escape_debug()))
    })
}

/// Refuses the service of another installation: it has data and settings that are not looked at here.
fn must_be(this: &Installation, installation: &str, name: &str) -> Result<(), Failure> {
    let own = this.instance_name();
    if own.to_string_lossy() == installation {
        return Ok(());
    }
    let (installation, name) = (installation.escape_debug(), name.escape_debug());
    Err(Message::boxed(format!(
        "'{installation}.{name}' is no service of this installation, {}; start fim-service through that one: its link, or \
         fim-key run KEY fim-service",
        own.display()
    )))
}

/// The name of a service as listings show it.
fn full_name(installation: &Installation, name: &str) -> String {
    format!("{}.{name}", installation.instance_name().to_string_lossy())
}
