//! `fim-layer create`: a directory becomes a layer file.

use std::fs;
use std::path::Path;

use runtime::pack::{self, Epoch};
use runtime::squashfs::write;

use super::level::Level;
use crate::draft::{Draft, Use, is_disk_full};
use crate::interrupt::Interrupt;
use crate::progress::Listener;
use crate::{Failure, Message, cli};

/// A layer file.
pub(super) const LAYER: Use = Use { mode: 0o666, fix: "name another file, or remove that one first" };

/// Makes the layer file `file` of everything in `directory`.
///
/// # Errors
/// Whatever keeps the layer from being complete; nothing has the file's name then.
pub(super) fn run(directory: &Path, file: &Path, level: Level) -> Result<i32, Failure> {
    check(directory, file)?;
    cli::print("Gathering files to compress...\n")?;
    // Dropped last, so that a signal finds the draft gone.
    let interrupt = Interrupt::hold()?;
    let draft = Draft::create(file, LAYER)?;
    let mut listener = Listener::new(false, &interrupt);
    let options = options(level)?;
    let packed = pack::Layer::directory(directory.to_owned()).pack(&draft.file, 0, &options, &mut listener);
    drop(listener);
    packed.map_err(|error| unwritten(error.into(), file))?;
    draft.complete(false)?;
    drop(interrupt);
    cli::print("Filesystem created without errors\n")?;
    Ok(0)
}

/// How any new layer is packed.
///
/// # Errors
/// A SOURCE_DATE_EPOCH that is no time.
pub(super) fn options(level: Level) -> Result<pack::Options, Failure> {
    let squashfs = write::Options { level: level.zstd(), ..write::Options::default() };
    Ok(pack::Options { squashfs, epoch: Epoch::from_environment()?, ..pack::Options::default() })
}

/// Why a layer file could not be written, and what helps.
pub(super) fn unwritten(error: Failure, file: &Path) -> Failure {
    if !is_disk_full(error.as_ref()) {
        return error;
    }
    Message::boxed(format!(
        "cannot write {}: the file system is full or over quota; free some space or choose another place; nothing was \
         left",
        file.display()
    ))
}

fn check(directory: &Path, file: &Path) -> Result<(), Failure> {
    let (shown, made) = (directory.display(), file.display());
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(Message::boxed(format!("Source '{shown}' is not a directory; name one"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Message::boxed(format!("Source directory '{shown}' does not exist; name one that does")));
        }
        Err(error) => return Err(Message::boxed(format!("cannot read the source directory {shown}: {error}"))),
    }
    if fs::symlink_metadata(file).is_ok() {
        return Err(Message::boxed(format!("Destination file already exists: {made}; {}", LAYER.fix)));
    }
    let unfound = |error| Message::boxed(format!("cannot make {made}: {error}; its directory must exist"));
    if pack::contains(directory, file).map_err(unfound)? {
        return Err(Message::boxed(format!(
            "{made} lies inside {shown} and would pack itself; choose a place outside"
        )));
    }
    Ok(())
}
