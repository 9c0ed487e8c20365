//! `fim-layout check`: every problem that a start would have, found without one.

use runtime::sandbox::layout::Layouts;

use super::plan::{self, Problems};
use super::surroundings;
use super::word::Places;
use crate::launch::{facts, identity, plan as launch, revision};
use crate::{Failure, Invocation, cli, report};

/// Prints what is wrong, one line each.
///
/// # Errors
/// When the image or the data cannot be read.
pub(super) fn run(invocation: &Invocation) -> Result<i32, Failure> {
    let (planned, _) = planned(invocation)?;
    let problems: Vec<String> = match &planned {
        Err(Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
        Ok(layouts) => surroundings::problems(invocation, layouts)?,
    };
    if problems.is_empty() {
        let count = invocation.image.config.declared.layouts.len();
        return cli::print(&format!("{count} layouts can be made\n")).map(|()| 0);
    }
    problems.iter().for_each(|problem| report(problem));
    Ok(runtime::error::FAILURE)
}

/// The plan of a start by this caller.
pub(super) fn planned(invocation: &Invocation) -> Result<(Result<Layouts, Problems>, Places), Failure> {
    let facts = facts::gather(invocation)?;
    let config = &invocation.image.config;
    let root = identity::is_root(config, false, &facts);
    let grants = launch::grants(config, &facts, &identity::account(config, root, &facts), root);
    let places = revision::places(&facts.revision.now);
    let shared = launch::shared(config, &facts, &grants, &places);
    Ok((plan::plan(&config.declared.layouts, &places, &shared), places))
}
