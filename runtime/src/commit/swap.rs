//! An empty writable layer takes the place of the one that was committed, which is then removed.

use std::fs::{self, DirBuilder, FileTimes};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::intent::Intent;
use super::{Error, remove_file, sync_directory};
use crate::base;
use crate::emulation::ledger;
use crate::extract::attributes::is_overlays_own;
use crate::sandbox::points;

/// The writable layer.
const ROOT: &str = "root";
/// The one that is to be.
const FRESH: &str = "fresh";
/// The one that was.
const COMMITTED: &str = "committed";

/// Makes the empty writable layer that is to be: like `/` of the one that is. The process has the IDs of the session.
///
/// # Errors
/// I/O errors.
pub fn make_fresh(data: &Path) -> Result<(), Error> {
    let (root, fresh) = (data.join(ROOT), data.join(FRESH));
    remove_empty(&fresh)?;
    let failed = || Error::io("make", &fresh);
    DirBuilder::new().mode(0o700).create(&fresh).map_err(failed())?;
    let (theirs, ours) = (fs::metadata(&root).map_err(failed())?, fs::metadata(&fresh).map_err(failed())?);
    if (theirs.uid(), theirs.gid()) != (ours.uid(), ours.gid()) {
        std::os::unix::fs::chown(&fresh, Some(theirs.uid()), Some(theirs.gid())).map_err(failed())?;
    }
    for name in xattr::list(&root).into_iter().flatten() {
        if !is_overlays_own(name.as_encoded_bytes())
            && let Some(value) = xattr::get(&root, &name).map_err(failed())?
        {
            match xattr::set(&fresh, &name, &value) {
                // Labels of the host are the host's to give.
                Err(_) if name.as_encoded_bytes().starts_with(b"security.") => {}
                other => other.map_err(failed())?,
            }
        }
    }
    fs::set_permissions(&fresh, fs::Permissions::from_mode(theirs.mode() & 0o7777)).map_err(failed())?;
    let times = || Ok(FileTimes::new().set_accessed(theirs.accessed()?).set_modified(theirs.modified()?));
    times().and_then(|times| set_times(&fresh, times)).map_err(failed())?;
    sync_directory(data)
}

fn set_times(directory: &Path, times: FileTimes) -> io::Result<()> {
    fs::File::open(directory)?.set_times(times)
}

fn remove_empty(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Gives up the empty writable layer that was to be.
///
/// # Errors
/// I/O errors.
pub fn forget(data: &Path) -> Result<(), Error> {
    remove_empty(&data.join(FRESH))
}

/// Puts the empty writable layer into its place, as far as it is not there, and forgets what was known of the former one.
/// [`make_fresh`] has returned before, and [`Intent::Publish`] or [`Intent::Reset`] is written down.
///
/// # Errors
/// I/O errors; what is left to do can be done later.
pub fn swap(data: &Path) -> Result<(), Error> {
    let (root, fresh, committed) = (data.join(ROOT), data.join(FRESH), data.join(COMMITTED));
    let exists = |path: &Path| fs::symlink_metadata(path).is_ok();
    if exists(&fresh) {
        if !exists(&committed) {
            fs::rename(&root, &committed).map_err(Error::io("put aside", &root))?;
        }
        // A start that came in between may have made an empty directory, which is replaced.
        fs::rename(&fresh, &root).map_err(Error::io("make", &root))?;
    }
    sync_directory(data)?;
    // Owners of files that are gone, mount points that were left out, and what the former layer was made on.
    for name in [ledger::NAME, points::FILE, base::NAME] {
        remove_file(&data.join(name))?;
    }
    match Intent::Clean.write(data) {
        // What is written down leads to the same end, and removing the former layer makes room.
        Err(Error::Io { source, .. })
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            Ok(())
        }
        written => written,
    }
}

/// Whether a former writable layer is still there.
fn is_left(data: &Path) -> bool {
    fs::symlink_metadata(data.join(COMMITTED)).is_ok()
}

/// Removes the former writable layer. The process has the IDs of the session.
///
/// # Errors
/// I/O errors; what is left can be removed later.
pub fn remove_committed(data: &Path) -> Result<(), Error> {
    let committed = data.join(COMMITTED);
    match fs::remove_dir_all(&committed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", committed)(error)),
        _ => Ok(()),
    }
}

/// Ends what [`swap`] has begun, once the former writable layer is removed.
///
/// # Errors
/// I/O errors.
pub fn clean(data: &Path) -> Result<(), Error> {
    if is_left(data) { Ok(()) } else { Intent::remove(data) }
}
