//! `fim-service list`.

use std::path::Path;

use runtime::image::Config;
use runtime::image::declared::Service;
use runtime::installation::Installation;
use runtime::session::registry::Instance;
use runtime::session::service;
use serde_json::{Value, json};

use super::full_name;
use crate::instance::session::Session;
use crate::launch::{data, facts};
use crate::settings::{print_json, text};
use crate::{Failure, Invocation, cli, key};

/// Titles of the columns.
const TITLES: [&str; 3] = ["Service", "Startup", "Current"];

/// One service as it is shown.
struct Row<'a> {
    installation: &'a Installation,
    service: &'a Service,
    instance: Option<Instance>,
    exit: Option<i32>,
}

/// Prints the services of the installation; of all installations, when this is the default one.
pub(super) fn run(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let caller = facts::caller();
    let this = (invocation.installation.clone(), invocation.image.config.clone(), data::existing(invocation, &caller));
    let others = match invocation.installation.key {
        None => key::configurations(invocation, &caller)?,
        Some(_) => Vec::new(),
    };
    let installations: Vec<_> = std::iter::once(this).chain(others).collect();
    let mut rows = Vec::new();
    for (installation, config, data) in &installations {
        rows.extend(rows_of(installation, config, data.as_deref())?);
    }
    if as_json {
        return print_json(&rows.iter().map(describe).collect());
    }
    if rows.is_empty() {
        return Ok(0);
    }
    let lines = rows.iter().map(|row| {
        let startup = if row.service.enabled { "enabled" } else { "disabled" };
        [full_name(row.installation, &row.service.name), startup.to_owned(), current(row).to_owned()]
    });
    let lines = std::iter::once(TITLES.map(str::to_owned)).chain(lines).collect::<Vec<_>>();
    cli::print(&aligned(&lines)).map(|()| 0)
}

fn rows_of<'a>(
    installation: &'a Installation,
    config: &'a Config,
    data: Option<&Path>,
) -> Result<Vec<Row<'a>>, Failure> {
    let services = &config.declared.services;
    let session = data.filter(|_| !services.is_empty()).and_then(|data| Session::of(data.to_owned()));
    let live = session.map(|session| session.registry.live()).transpose()?.unwrap_or_default();
    let row = |service: &'a Service| {
        let instance = live.iter().find(|instance| instance.service.as_ref() == Some(&service.name)).cloned();
        let exit = data.and_then(|data| service::outcome(data, &service.name)).filter(|_| instance.is_none());
        Row { installation, service, instance, exit }
    };
    Ok(services.iter().map(row).collect())
}

fn current(row: &Row<'_>) -> &'static str {
    if row.instance.is_some() { "active" } else { "inactive" }
}

fn describe(row: &Row<'_>) -> Value {
    let Row { installation, service, instance, exit } = row;
    json!({
        "command": service.words.iter().map(|word| text(word)).collect::<Vec<_>>(),
        "current": current(row),
        "exit_code": exit,
        "instance": instance.as_ref().map(|instance| instance.id),
        "key": installation.key.as_ref().map(ToString::to_string),
        "listens": service.listens,
        "name": service.name,
        "pid": instance.as_ref().map(|instance| instance.pid.as_raw()),
        "service": full_name(installation, &service.name),
        "startup": if service.enabled { "enabled" } else { "disabled" },
    })
}

/// Columns, each as wide as its longest entry and two blanks more; the last one as it is.
fn aligned(lines: &[[String; 3]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0) + 2;
    let (first, second) = (width(0), width(1));
    lines.iter().map(|[one, two, three]| format!("{one:first$}{two:second$}{three}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_entries() {
        let lines =
            [["Service", "Startup", "Current"], ["app.web", "disabled", "active"], ["a_b.c", "enabled", "inactive"]];
        let text = aligned(&lines.map(|line| line.map(str::to_owned)));
        assert_eq!(text, "Service  Startup   Current\napp.web  disabled  active\na_b.c    enabled   inactive\n");
    }
}
