//! Starting and stopping services.

use std::ffi::OsString;

use runtime::error::chain;
use runtime::session::registry::Instance;

use super::{chosen, full_name};
use crate::instance::{session, stop};
use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles, cli, launch};

/// The live instance that is this service.
pub(super) fn running(invocation: &Invocation, name: &str) -> Result<Option<Instance>, Failure> {
    let Some(session) = session::find(invocation) else { return Ok(None) };
    let live = session.registry.live()?;
    Ok(live.into_iter().find(|instance| instance.service.as_deref() == Some(name)))
}

/// Starts services, those that are enabled when none is named. One that runs is left alone.
pub(super) fn start(invocation: &Invocation, words: &[OsString], roles: Roles, build: Build) -> Result<i32, Failure> {
    let services = chosen(invocation, words, |service| service.enabled)?;
    if services.is_empty() {
        return Err(Message::boxed("no service is enabled; name one, or see fim-service list"));
    }
    for service in services {
        launch::run_service(invocation, service, roles, build)
            .map_err(|error| failed(invocation, "start", &service.name, &error))?;
    }
    cli::print("Started.\n").map(|()| 0)
}

/// Stops services, all when none is named.
pub(super) fn stop(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    for service in chosen(invocation, words, |_| true)? {
        end(invocation, &service.name)?;
    }
    cli::print("Stopped.\n").map(|()| 0)
}

/// Stops and starts services, those that run when none is named.
pub(super) fn restart(invocation: &Invocation, words: &[OsString], roles: Roles, build: Build) -> Result<i32, Failure> {
    let mut services = chosen(invocation, words, |_| true)?;
    if words.is_empty() {
        let runs = |name: &str| running(invocation, name).map(|instance| instance.is_some());
        let states = services.iter().map(|service| runs(&service.name)).collect::<Result<Vec<_>, _>>()?;
        services = services.into_iter().zip(states).filter(|(_, runs)| *runs).map(|(service, _)| service).collect();
    }
    for service in services {
        end(invocation, &service.name)?;
        launch::run_service(invocation, service, roles, build)
            .map_err(|error| failed(invocation, "start", &service.name, &error))?;
    }
    cli::print("Restarted.\n").map(|()| 0)
}

/// Ends a service as `fim-instance stop` does; one that does not run has ended.
fn end(invocation: &Invocation, name: &str) -> Result<(), Failure> {
    let Some(instance) = running(invocation, name)? else { return Ok(()) };
    match stop::stop(invocation, instance.id, &[]) {
        // It may have ended by itself in between.
        Err(error) if running(invocation, name)?.is_some() => Err(failed(invocation, "stop", name, &error)),
        _ => Ok(()),
    }
}

fn failed(invocation: &Invocation, action: &str, name: &str, error: &Failure) -> Failure {
    Message::boxed(format!(
        "cannot {action} the service {}: {}",
        full_name(&invocation.installation, name),
        chain(error.as_ref())
    ))
}
