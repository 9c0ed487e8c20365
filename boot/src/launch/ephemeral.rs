//! Throw-away starts: a session of its own, whose writes lie in memory and end with it.
//!
//! It shows what a start of its own right would show: the layers of the image, those outside of it, and on them the
//! writable layer, which is only read. While instances write to that one, it is left out: a lower directory of an overlay
//! must not change. The kernel's overlay stacks the directory itself; for our own, which reads layers, and for marks that the
//! kernel does not understand, it is packed into a layer without a name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::commit::{self, Scan};
use runtime::emulation::ledger;
use runtime::fuse::overlay::Marks;
use runtime::mount_server::{Stack, ThrowAway};
use runtime::session::{directory, ephemeral, marks};
use runtime::squashfs::write;

use super::data::{self, Data};
use super::facts::{self, Caller};
use super::rung::Rung;
use super::{exclusive, rung};
use crate::draft::Draft;
use crate::stack::External;
use crate::{Failure, Invocation, Message, report};

/// Set to `1`, makes every start one of these.
const VARIABLE: &str = "FIM_EPHEMERAL";

/// The zstd level of a layer that is read once.
const FASTEST: i32 = 1;

/// Whether the caller wants each start to be thrown away.
#[must_use]
pub(super) fn is_wanted(caller: &Caller) -> bool {
    caller.variable(VARIABLE).is_some_and(|value| value == "1")
}

/// Makes the directory of the session, which knows what the data directory has recorded about owners.
///
/// # Errors
/// When it cannot be made, and when the data directory is somebody else's or cannot be used.
pub(super) fn prepare(invocation: &Invocation, caller: &Caller, stack: Stack) -> Result<Data, Failure> {
    let base = directory::runtime(caller.uid, caller.variable("XDG_RUNTIME_DIR"))?;
    let fresh = ephemeral::make(&base)?;
    let home = data::owned_by(invocation, caller)?;
    let mut below = None;
    if let Some(home) = &home {
        below = written(home, invocation, caller, stack)?;
        copy(&home.join(rung::NAME), &fresh.path().join(rung::NAME))?;
        // A layer has its owners in it.
        if !matches!(below, Some(Written::Packed(_))) {
            copy(&home.join(ledger::NAME), &fresh.path().join(ledger::NAME))?;
        }
    }
    log::debug!("Throw-away session in {}", fresh.path().display());
    let (top, packed) = match below {
        None => (None, None),
        Some(Written::Directory(directory)) => (Some(directory), None),
        Some(Written::Packed(layer)) => (None, Some(layer)),
    };
    Ok(Data { directory: fresh.path().to_owned(), home, throw_away: Some((ThrowAway { top }, fresh)), packed })
}

/// The writable layer as what throw-away starts are stacked on.
enum Written {
    Directory(PathBuf),
    Packed(External),
}

/// The writable layer, unless instances run on it; the user hears of those. What a command left undone is done first.
fn written(home: &Path, invocation: &Invocation, caller: &Caller, stack: Stack) -> Result<Option<Written>, Failure> {
    let held = match exclusive::hold(home)? {
        Ok(held) => held,
        Err(ids) => {
            report(&format!(
                "note: instances ({ids}) are writing to {}; this throw-away start sees the layers without what they \
                 have written",
                home.display()
            ));
            return Ok(None);
        }
    };
    let rung = rung::recorded(home, caller, facts::is_privileged(caller))?;
    let found = exclusive::recover(home, &rung, caller, &invocation.path).and_then(|()| {
        if stack == Stack::Kernel && marks::recorded(home)? == Marks::Kernel {
            return Ok(Some(Written::Directory(home.join("root"))));
        }
        Ok(pack(home, rung, caller)?.map(Written::Packed))
    });
    // The mark of a command.
    let _ = held.file().set_len(0);
    found
}

/// Packs the writable layer as fast as possible; `None` when there is nothing in it.
fn pack(home: &Path, rung: Rung, caller: &Caller) -> Result<Option<External>, Failure> {
    let file = Draft::scratch(&home.join("ephemeral.layer"))?;
    let data = exclusive::Data { path: home.to_owned(), rung, caller: caller.clone() };
    let work = || {
        let packed = || -> Result<(), commit::Error> {
            let scan = Scan::run(home, data.rung.owners())?;
            if !scan.is_empty() {
                let options = write::Options { level: FASTEST, ..write::Options::default() };
                scan.pack(&file, options, &mut ())?;
            }
            Ok(())
        };
        packed().map(|()| String::new()).map_err(|error| runtime::error::chain(&error))
    };
    data.inside(work)?.end().map_err(|why| {
        Message::boxed(format!("cannot read the writable layer in {} for a throw-away start: {why}", home.display()))
    })?;
    let len = file.metadata()?.len();
    let (path, version) = (home.join("root"), String::new());
    Ok((len > 0).then(|| External { path, file: Arc::new(file), len, version, managed: false }))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::copy(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Message::boxed(format!("cannot copy {} to {}: {error}", from.display(), to.display())))
        }
        _ => Ok(()),
    }
}
