//! `fim-layer rebase`: what becomes of a writable layer that was made on other layers than the image has now.

use runtime::base::Base;
use runtime::session::lock;

use super::level::Level;
use super::operation::Target;
use super::{commit, reset};
use crate::launch::{data, facts};
use crate::{Failure, Invocation, Message, report};

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It stays as it is, on the new layers.
    Keep,
    /// It becomes a managed layer.
    Commit,
    /// It is emptied.
    Reset,
}

impl Choice {
    /// The choice with this name, in lower case.
    pub(crate) fn of(word: &str) -> Option<Self> {
        let choices = [("keep", Self::Keep), ("commit", Self::Commit), ("reset", Self::Reset)];
        choices.into_iter().find(|(name, _)| *name == word).map(|(_, choice)| choice)
    }
}

/// Does what was chosen; returns the exit code. Whoever names a choice has agreed to it.
///
/// # Errors
/// When there is no writable layer, and what [`commit::run`] and [`reset::run`] fail with.
pub(crate) fn apply(invocation: &Invocation, choice: Choice) -> Result<i32, Failure> {
    match choice {
        Choice::Commit => commit::run(invocation, &Target::Layer, Level::from_environment()),
        Choice::Reset => reset::run(invocation, true),
        Choice::Keep => {
            let caller = facts::caller();
            let data = data::owned_by(invocation, &caller)?.ok_or_else(|| {
                Message::boxed("there is no writable layer to decide about; FIM_DIR_DATA says where it is")
            })?;
            let _starting = lock::wait(&data, lock::START)?;
            Base::of(&invocation.read_again()?.image.config).record(&data)?;
            Ok(0)
        }
    }
}

/// After a command of the user's has changed the layers of the image that `invocation` began with: the user's own writable layer goes along. Those of
/// other users, and other data directories, ask at their next start.
pub(super) fn follow(invocation: &Invocation) {
    let followed = || -> Result<(), Failure> {
        let Some(data) = data::owned_by(invocation, &facts::caller())? else { return Ok(()) };
        let _starting = lock::wait(&data, lock::START)?;
        let (before, base) = (Base::of(&invocation.image.config), Base::of(&invocation.read_again()?.image.config));
        // Others may have added layers at the same time.
        if Base::read(&data)?.is_some_and(|recorded| recorded == before || recorded.extends_or_shortens(&base)) {
            base.record(&data)?;
        }
        Ok(())
    };
    if let Err(error) = followed() {
        let why = runtime::error::chain(error.as_ref());
        report(&format!("warning: the next start will ask about the writable layer: {why}"));
    }
}
