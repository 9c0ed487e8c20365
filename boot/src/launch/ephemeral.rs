//! Throw-away starts: a session of its own, whose writes lie in memory and end with it.
//!
//! It shows what a start of its own right would show: the layers of the image, those outside of it, and on them the
//! writable layer, which is only read. While instances write to that one, it is left out: a lower directory of an overlay
//! must not change.

use std::fs;
use std::path::Path;

use runtime::emulation::ledger;
use runtime::mount_server::ThrowAway;
use runtime::session::{directory, ephemeral};

use super::data::{self, Data};
use super::facts::{self, Caller};
use super::{exclusive, rung};
use crate::{Failure, Invocation, Message, report};

/// Set to `1`, makes every start one of these.
const VARIABLE: &str = "FIM_EPHEMERAL";

/// Whether the caller wants each start to be thrown away.
#[must_use]
pub(super) fn is_wanted(caller: &Caller) -> bool {
    caller.variable(VARIABLE).is_some_and(|value| value == "1")
}

/// Makes the directory of the session, which knows what the data directory has recorded about owners.
///
/// # Errors
/// When it cannot be made, and when the data directory is somebody else's or cannot be used.
pub(super) fn prepare(invocation: &Invocation, caller: &Caller) -> Result<Data, Failure> {
    let base = directory::runtime(caller.uid, caller.variable("XDG_RUNTIME_DIR"))?;
    let fresh = ephemeral::make(&base)?;
    let home = data::owned_by(invocation, caller)?;
    let mut top = None;
    if let Some(home) = &home {
        top = is_idle(home, invocation, caller)?.then(|| home.join("root"));
        for name in [rung::NAME, ledger::NAME] {
            copy(&home.join(name), &fresh.path().join(name))?;
        }
    }
    log::debug!("Throw-away session in {}", fresh.path().display());
    let session = ThrowAway { top };
    Ok(Data { directory: fresh.path().to_owned(), home, throw_away: Some((session, fresh)) })
}

/// Whether no instance runs on this data; the user hears of those that do. What a command left undone is done first.
fn is_idle(home: &Path, invocation: &Invocation, caller: &Caller) -> Result<bool, Failure> {
    match exclusive::hold(home)? {
        Ok(held) => {
            let rung = rung::recorded(home, caller, facts::is_privileged(caller))?;
            let recovered = exclusive::recover(home, &rung, caller, &invocation.path);
            // The mark of a command.
            let _ = held.file().set_len(0);
            recovered.map(|()| true)
        }
        Err(ids) => {
            report(&format!(
                "note: instances ({ids}) are writing to {}; this throw-away start sees the layers without what they \
                 have written",
                home.display()
            ));
            Ok(false)
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::copy(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Message::boxed(format!("cannot copy {} to {}: {error}", from.display(), to.display())))
        }
        _ => Ok(()),
    }
}
