//! The writable data of an image: beside the file, or in the user's data directory where that cannot be.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtime::installation::Key;
use runtime::mount_server::{Stack, ThrowAway};
use runtime::session::ephemeral::Fresh;

use super::exclusive::is_used;
use super::facts::Caller;
use super::former;
use super::places::{self, DATA, Places, home};
use super::stacking::Stacking;
use crate::stack::External;
use crate::{Failure, Invocation, Message, report};

/// File systems that cannot hold a root, by `statfs.f_type` (linux/magic.h): names differ in more than case, modes stay,
/// and links are links.
const UNFIT: [(i64, &str); 3] =
    [(0x4d44, "a FAT file system"), (0x2011_bab0, "an exFAT file system"), (0x5346_544e, "an NTFS file system")];

/// File systems that the kernel's overlay refuses or does not get on with; our own does.
const UNFIT_FOR_KERNEL: [(i64, &str); 2] =
    [(0x6969, "a network file system (NFS)"), (0x794c_7630, "an overlay itself")];

/// Where the session of a start keeps its files.
#[derive(Debug)]
pub struct Data {
    /// The data directory; of a throw-away session, a private one in its place.
    pub directory: PathBuf,
    /// The data directory that managed layers are taken from, when there is one.
    pub home: Option<PathBuf>,
    /// Set for a throw-away session, which owns its directory.
    pub(super) throw_away: Option<(ThrowAway, Fresh)>,
    /// The writable layer that a throw-away session is stacked on, where that cannot be the directory itself.
    pub(super) packed: Option<External>,
}

/// Where the installation's data may lie, in the order they are tried.
pub fn candidates<'a>(invocation: &'a Invocation, caller: &'a Caller) -> impl Iterator<Item = PathBuf> + 'a {
    Places::of(invocation, caller, invocation.installation.key.as_ref()).search()
}

/// The directories that may hold the data of keys, in the order they are tried. What was left under a former name of the
/// image gets its name first.
///
/// # Errors
/// When it cannot be told which that is.
pub fn claim_keys(invocation: &Invocation, caller: &Caller) -> Result<Vec<PathBuf>, Failure> {
    Places::of_keys(invocation, caller).claim()?;
    Ok(keys(invocation, caller))
}

/// As [`claim_keys`]; touches nothing.
#[must_use]
pub fn keys(invocation: &Invocation, caller: &Caller) -> Vec<PathBuf> {
    Places::of_keys(invocation, caller).all()
}

/// Whether the image lies on a medium of its own, which may be taken away: on a block device (major numbers from 1 on)
/// that has neither the system nor the caller's home.
#[must_use]
pub fn on_a_medium(invocation: &Invocation, caller: &Caller) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let Ok(own) = invocation.image.file.metadata().map(|metadata| metadata.dev()) else { return true };
    nix::sys::stat::major(own) != 0
        && device(Path::new("/")) != Some(own)
        && home(caller).is_none_or(|home| device(&home) != Some(own))
}

/// The data directory in use, when one exists already. Touches nothing.
#[must_use]
pub fn existing(invocation: &Invocation, caller: &Caller) -> Option<PathBuf> {
    existing_of(invocation, caller, invocation.installation.key.as_ref())
}

/// As [`existing`], of the installation with this key.
#[must_use]
pub fn existing_of(invocation: &Invocation, caller: &Caller, key: Option<&Key>) -> Option<PathBuf> {
    Places::of(invocation, caller, key).search().find(|place| is_used(place))
}

/// The data directory in use, when one exists already, for a command that changes it. Touches nothing.
///
/// # Errors
/// When it belongs to somebody else.
pub(crate) fn owned_by(invocation: &Invocation, caller: &Caller) -> Result<Option<PathBuf>, Failure> {
    let Some(place) = existing(invocation, caller) else { return Ok(None) };
    Ok(owned(&place, caller)?.then_some(place))
}

/// The data directory in use, or the one that a start would try first. Touches nothing.
///
/// # Errors
/// When more than one directory may be it.
pub fn place(invocation: &Invocation, caller: &Caller) -> Result<Option<PathBuf>, Failure> {
    let places = Places::of(invocation, caller, invocation.installation.key.as_ref());
    match places.search().find(|place| is_used(place)) {
        Some(used) => Ok(Some(used)),
        None => places.must_be_clear().map(|()| places.search().next()),
    }
}

/// Finds or makes the data directory with `root` and `work` in it. A place that suits the kernel's overlay goes before
/// one that only our own gets on with, unless that is asked for.
///
/// # Errors
/// When no place will do; the message names each and why.
pub fn prepare(invocation: &Invocation, caller: &Caller, stack: Stack) -> Result<Data, Failure> {
    let directory = find(invocation, caller, invocation.installation.key.as_ref(), stack)?;
    Ok(Data { home: Some(directory.clone()), directory, throw_away: None, packed: None })
}

/// As [`prepare`], of the installation with this key, with the overlay that is set.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_of(invocation: &Invocation, caller: &Caller, key: Option<&Key>) -> Result<PathBuf, Failure> {
    let stacking = Stacking::of(&invocation.image.config, |name| caller.variable(name));
    find(invocation, caller, key, stacking.stack())
}

fn find(invocation: &Invocation, caller: &Caller, key: Option<&Key>, stack: Stack) -> Result<PathBuf, Failure> {
    let possible = Places::of(invocation, caller, key);
    if !possible.search().next().is_some_and(|first| is_used(&first)) {
        Places::of(invocation, caller, None).claim()?;
        Places::of_keys(invocation, caller).claim()?;
    }
    let places = possible.all();
    // Data that exists is used wherever it is, so that nothing seems lost when a place becomes writable later.
    for place in &places {
        if is_used(place) && owned(place, caller)? && fs::create_dir_all(place.join("work")).is_ok() {
            return Ok(place.clone());
        }
    }
    let mut reasons = Vec::new();
    for place in &places {
        if fs::symlink_metadata(place).is_ok() && !owned(place, caller)? {
            reasons.push(format!("{}: it is not a directory", place.display()));
            continue;
        }
        match make(place, stack) {
            Ok(()) => {
                former::remember(invocation, caller, key, place);
                if let Some(reason) = reasons.first() {
                    report(&format!("note: data of this image is kept in {} ({reason})", place.display()));
                }
                return Ok(place.clone());
            }
            Err(why) => reasons.push(format!("{}: {why}", place.display())),
        }
    }
    for place in places.iter().filter(|_| stack == Stack::Kernel) {
        let is_free = fs::symlink_metadata(place).is_err() || owned(place, caller)?;
        if is_free && make(place, Stack::Userspace { casefold: false }).is_ok() {
            former::remember(invocation, caller, key, place);
            if *place != places[0] {
                report(&format!("note: data of this image is kept in {} ({})", place.display(), reasons.join("; ")));
            }
            log::debug!("Data is kept where the kernel's overlay cannot be used ({})", reasons.join("; "));
            return Ok(place.clone());
        }
    }
    Err(Message::boxed(format!(
        "no place for writable data: {}; set FIM_DIR_DATA to a directory on ext4, xfs, btrfs or tmpfs",
        reasons.join("; ")
    )))
}

/// Where a start would keep its data.
#[derive(Debug)]
pub struct Survey {
    /// The data directory.
    pub place: PathBuf,
    /// Whether it lies beside the image.
    pub beside: bool,
    /// Whose overlay suits it.
    pub stack: Stack,
    /// What is wrong with each place that comes before it.
    pub refused: Vec<String>,
}

/// Finds out where [`prepare`] would put the data, and leaves nothing there: each place is tried in a directory of its
/// own, in which `root` and `work` exist while `look` looks at the one that will do.
///
/// # Errors
/// When no place will do: each, and why.
pub fn survey(
    invocation: &Invocation,
    caller: &Caller,
    stack: Stack,
    mut look: impl FnMut(&Path, Stack),
) -> Result<Survey, Failure> {
    let possible = Places::of(invocation, caller, invocation.installation.key.as_ref());
    let places = existing(invocation, caller).map_or_else(|| possible.all(), |place| vec![place]);
    let mut refused = Vec::new();
    let own = Stack::Userspace { casefold: false };
    for stack in [Some(stack), (stack == Stack::Kernel).then_some(own)].into_iter().flatten() {
        for place in &places {
            if fs::symlink_metadata(place).is_ok() && !owned(place, caller)? {
                refused.push(format!("{}: it is not a directory", place.display()));
                continue;
            }
            // As deep as directories exist: what is missing below would be made there.
            let Some(parent) = place.ancestors().find(|path| path.is_dir()) else { continue };
            let trial = parent.join(format!(".fim-doctor-{}", std::process::id()));
            let tried = make(&trial, stack).map(|()| look(&trial, stack));
            // Its own files only; what cannot be removed would have been reported by `make`.
            let _ = fs::remove_dir_all(&trial);
            match tried {
                Ok(()) => {
                    let beside = *place == places::beside(&invocation.path, DATA.beside);
                    return Ok(Survey { beside, place: place.clone(), stack, refused });
                }
                Err(why) => refused.push(format!("{}: {why}", place.display())),
            }
        }
    }
    refused.dedup();
    Err(Message::boxed(refused.join("; ")))
}

/// Whether `place` is a directory of the caller's.
///
/// # Errors
/// When it belongs to somebody else: nothing of theirs is used, and nothing of ours is put there.
fn owned(place: &Path, caller: &Caller) -> Result<bool, Failure> {
    let metadata = fs::metadata(place).map_err(|error| {
        Message::boxed(format!("cannot examine the data directory {}: {error}; set FIM_DIR_DATA", place.display()))
    })?;
    if metadata.uid() != caller.uid {
        return Err(Message::boxed(format!(
            "the data directory {} belongs to user {}, not to user {}; set FIM_DIR_DATA to a directory of your own",
            place.display(),
            metadata.uid(),
            caller.uid
        )));
    }
    Ok(metadata.is_dir())
}

/// Makes a data directory; on failure nothing new is left.
fn make(place: &Path, stack: Stack) -> Result<(), String> {
    let created = first_missing(place);
    let made = try_make(place, stack);
    if made.is_err()
        && let Some(created) = created
    {
        // What could not be completed must not look like data.
        let _ = fs::remove_dir_all(created);
    }
    made
}

/// The topmost directory that making `place` will create.
fn first_missing(place: &Path) -> Option<PathBuf> {
    place.ancestors().take_while(|path| !path.exists()).last().map(Path::to_owned)
}

fn try_make(place: &Path, stack: Stack) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    DirBuilder::new().mode(0o700).recursive(true).create(place).map_err(text)?;
    let kind = nix::sys::statfs::statfs(place).map_err(|errno| errno.desc().to_owned())?.filesystem_type().0;
    let kernel = stack == Stack::Kernel;
    let unfit = UNFIT.iter().chain(UNFIT_FOR_KERNEL.iter().filter(|_| kernel)).find(|(unfit, _)| *unfit == kind as i64);
    if let Some((_, name)) = unfit {
        return Err(format!("it is on {name}, which cannot hold the writable layer"));
    }
    for name in ["work", "root"] {
        let directory = place.join(name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(text(error)),
            _ => {}
        }
        // The mode of `root` is the mode of the guest's /; the caller's creation mask must not reach it.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).map_err(text)?;
        if kernel {
            // The overlay keeps whiteouts and opaque marks in attributes of this namespace.
            runtime::session::directory::probe_user_xattr(&directory)
                .map_err(|error| format!("its file system has no user extended attributes ({error})"))?;
        } else {
            runtime::session::directory::probe_root(&directory)
                .map_err(|error| format!("its file system cannot hold a root ({error})"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_make_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "").unwrap();
        assert!(make(&base.path().join("file/x/y"), Stack::Kernel).is_err());
        make(&base.path().join("new/data"), Stack::Kernel).unwrap();
        assert_eq!(fs::metadata(base.path().join("new/data/root")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
    }
}
