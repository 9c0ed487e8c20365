//! The writable data of an image: beside the file, or in the user's data directory where that cannot be.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtime::installation::Key;
use runtime::mount_server::{Stack, ThrowAway};
use runtime::session::ephemeral::Fresh;

use super::exclusive::is_used;
use super::facts::Caller;
use super::stacking::Stacking;
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
}

/// Where the installation's data may lie, in the order they are tried.
#[must_use]
pub fn candidates(invocation: &Invocation, caller: &Caller) -> Vec<PathBuf> {
    candidates_of(invocation, caller, invocation.installation.key.as_ref())
}

fn candidates_of(invocation: &Invocation, caller: &Caller, key: Option<&Key>) -> Vec<PathBuf> {
    match key {
        None => places(invocation, caller, DATA),
        Some(key) => keys(invocation, caller).iter().map(|keys| keys.join(key.as_str())).collect(),
    }
}

/// The directories that may hold the data of keys, in the order they are tried.
#[must_use]
pub fn keys(invocation: &Invocation, caller: &Caller) -> Vec<PathBuf> {
    match invocation.installation.keys() {
        Some(keys) => vec![keys.to_owned()],
        None => places(invocation, caller, KEYS),
    }
}

/// What a directory is called in each of the places where it may lie.
struct Names {
    /// Below the directory that `FIM_DIR_DATA` names.
    chosen: &'static str,
    /// Behind the point and the name of the image, beside it.
    beside: &'static str,
    /// Behind the image's UUID, in the user's data directory.
    user: &'static str,
}

const DATA: Names = Names { chosen: "", beside: ".data", user: "" };
/// Beside the data of the default installation, so that removing that leaves the keys alone.
const KEYS: Names = Names { chosen: "keys", beside: ".keys", user: ".keys" };

fn places(invocation: &Invocation, caller: &Caller, names: Names) -> Vec<PathBuf> {
    if let Some(chosen) = caller.variable("FIM_DIR_DATA").filter(|value| !value.is_empty()) {
        let chosen = PathBuf::from(chosen);
        let chosen = std::path::absolute(&chosen).unwrap_or(chosen);
        return vec![if names.chosen.is_empty() { chosen } else { chosen.join(names.chosen) }];
    }
    let mut places = vec![beside(&invocation.path, names.beside)];
    let base = absolute(caller, "XDG_DATA_HOME").or_else(|| home(caller).map(|home| home.join(".local/share")));
    if let Some(base) = base {
        places.push(base.join("fim").join(format!("{}{}", invocation.image.superblock.uuid, names.user)));
    }
    places
}

fn absolute(caller: &Caller, name: &str) -> Option<PathBuf> {
    caller.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn home(caller: &Caller) -> Option<PathBuf> {
    absolute(caller, "HOME").or_else(|| caller.account.as_ref().map(|(_, home, _)| PathBuf::from(home)))
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

/// `.NAME.data` beside the image file, or another ending.
fn beside(image: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(image.file_name().unwrap_or_default());
    name.push(ending);
    image.with_file_name(name)
}

/// The data directory in use, when one exists already. Touches nothing.
#[must_use]
pub fn existing(invocation: &Invocation, caller: &Caller) -> Option<PathBuf> {
    existing_of(invocation, caller, invocation.installation.key.as_ref())
}

/// As [`existing`], of the installation with this key.
#[must_use]
pub fn existing_of(invocation: &Invocation, caller: &Caller, key: Option<&Key>) -> Option<PathBuf> {
    candidates_of(invocation, caller, key).into_iter().find(|place| is_used(place))
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
#[must_use]
pub fn place(invocation: &Invocation, caller: &Caller) -> Option<PathBuf> {
    let key = invocation.installation.key.as_ref();
    existing(invocation, caller).or_else(|| candidates_of(invocation, caller, key).into_iter().next())
}

/// Finds or makes the data directory with `root` and `work` in it. A place that suits the kernel's overlay goes before
/// one that only our own gets on with, unless that is asked for.
///
/// # Errors
/// When no place will do; the message names each and why.
pub fn prepare(invocation: &Invocation, caller: &Caller, stack: Stack) -> Result<Data, Failure> {
    let directory = find(invocation, caller, invocation.installation.key.as_ref(), stack)?;
    Ok(Data { home: Some(directory.clone()), directory, throw_away: None })
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
    let places = candidates_of(invocation, caller, key);
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
    /// What is wrong with each place that comes before it.
    pub refused: Vec<String>,
}

/// Finds out where [`prepare`] would put the data, and leaves nothing there: each place is rehearsed in a directory of
/// its own, in which `root` and `work` exist while `rehearse` runs.
///
/// # Errors
/// When no place will do: each, and why.
pub fn survey(
    invocation: &Invocation,
    caller: &Caller,
    mut rehearse: impl FnMut(&Path) -> Result<(), String>,
) -> Result<Survey, Failure> {
    let places = existing(invocation, caller).map_or_else(|| candidates(invocation, caller), |place| vec![place]);
    let stack = Stacking::of(&invocation.image.config, |name| caller.variable(name)).stack();
    let mut refused = Vec::new();
    let mut rehearse_in = |place: &Path, stack: Stack| {
        // As deep as directories exist: what is missing below would be made there.
        let parent = place.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let trial = parent.join(format!(".fim-doctor-{}", std::process::id()));
        let kernel = stack == Stack::Kernel;
        let tried = make(&trial, stack).and_then(|()| if kernel { rehearse(&trial) } else { Ok(()) });
        // Its own files only; what cannot be removed would have been reported by `make`.
        let _ = fs::remove_dir_all(&trial);
        tried
    };
    let survey = |place: PathBuf, refused: Vec<String>| {
        let beside = place == beside(&invocation.path, DATA.beside);
        Survey { place, beside, refused }
    };
    for place in &places {
        if fs::symlink_metadata(place).is_ok() && !owned(place, caller)? {
            refused.push(format!("{}: it is not a directory", place.display()));
            continue;
        }
        match rehearse_in(place, stack) {
            Ok(()) => return Ok(survey(place.clone(), refused)),
            Err(why) => refused.push(format!("{}: {why}", place.display())),
        }
    }
    for place in places.iter().filter(|_| stack == Stack::Kernel) {
        let is_free = fs::symlink_metadata(place).is_err() || owned(place, caller)?;
        if is_free && rehearse_in(place, Stack::Userspace { casefold: false }).is_ok() {
            return Ok(survey(place.clone(), refused));
        }
    }
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
    fn data_lies_beside_the_image() {
        assert_eq!(beside(Path::new("/a b/app.flatimage"), DATA.beside), Path::new("/a b/.app.flatimage.data"));
    }

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
