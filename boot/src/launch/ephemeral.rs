//! Throw-away starts: a session of its own, whose writes lie in memory and end with it.
//!
//! It shows what a start of its own right would show: the layers of the image, those outside of it, and on them the
//! writable layer, which is only read. While instances write to that one, it is left out: a lower directory of an overlay
//! must not change.

use std::fs;
use std::path::Path;

use runtime::mount_server::ThrowAway;
use runtime::session::record::Record;
use runtime::session::registry::Registry;
use runtime::session::{directory, ephemeral, lock};

use super::data::{self, Data};
use super::facts::Caller;
use super::rung;
use crate::{Failure, Invocation, Message, report};

/// Set to `1`, makes every start one of these.
const VARIABLE: &str = "FIM_EPHEMERAL";

/// Whether the caller wants each start to be thrown away.
#[must_use]
pub(super) fn is_wanted(caller: &Caller) -> bool {
    caller.variable(VARIABLE).is_some_and(|value| value == "1")
}

/// Makes the directory of the session, which knows what the data directory has recorded about owners.
pub(super) fn prepare(invocation: &Invocation, caller: &Caller) -> Result<Data, Failure> {
    let base = directory::runtime(caller.uid, caller.variable("XDG_RUNTIME_DIR"))?;
    let fresh = ephemeral::make(&base)?;
    let home = data::existing(invocation, caller);
    let mut top = None;
    if let Some(home) = &home {
        data::refuse_strangers(home, caller)?;
        // Nobody begins a session meanwhile, or commits its layer.
        let _starting = lock::wait(home, lock::START)?;
        top = is_idle(home)?.then(|| home.join("root"));
        for name in [rung::NAME, runtime::emulation::ledger::NAME] {
            copy(&home.join(name), &fresh.path().join(name))?;
        }
    }
    log::debug!("Throw-away session in {}", fresh.path().display());
    let session = ThrowAway { top };
    Ok(Data { directory: fresh.path().to_owned(), home, throw_away: Some((session, fresh)) })
}

/// Whether no instance runs on this data; the user hears of those that do.
fn is_idle(home: &Path) -> Result<bool, Failure> {
    let Err(theirs) = lock::attempt(home, lock::SESSION)? else { return Ok(true) };
    let live = Record::read(&theirs, &home.join(lock::SESSION))
        .and_then(|record| Registry::new(&record.directory).live())
        .unwrap_or_default();
    let ids: Vec<String> = live.iter().map(|instance| instance.id.to_string()).collect();
    report(&format!(
        "note: instances ({}) are writing to {}; this throw-away start sees the layers without what they have written",
        ids.join(" "),
        home.display()
    ));
    Ok(false)
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::copy(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Message::boxed(format!("cannot copy {} to {}: {error}", from.display(), to.display())))
        }
        _ => Ok(()),
    }
}
