//! Files of an installation that are no part of its root: which revision a start belongs to, and what it sees of them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use runtime::copy::Copier;
use runtime::image::Config;
use runtime::installation::Installation;
use runtime::installation::places::Place;
use runtime::installation::revision::{COMMON, FILES, RECORD, Revision, Step, content, directory};
use runtime::sandbox::inside;
use runtime::sandbox::plan::{self, Access};

use super::facts::Caller;
use super::grants::OWN;
use super::rung::Rung;
use crate::layout::word::Places;
use crate::{Failure, Message};

/// Where the guest has them: on the instance's own tmpfs, at the same place for every key.
const DATA: &str = "/run/fim/data";
/// Where the guest has the files of the application, read-only.
const ROOT: &str = "/run/fim/root";
/// What is in the directory of a revision, and in the common one, with permission bits.
const KINDS: [(&str, u32); 2] = [("system", 0o755), ("user", 0o700)];

/// What a start has to do about the revision, from the first of `places` that has a record.
///
/// # Errors
/// A record that cannot be understood.
pub(crate) fn decide(places: impl Iterator<Item = PathBuf>, config: &Config) -> Result<Step, Failure> {
    for data in places {
        let found = Revision::read(&data).map_err(|error| {
            let path = data.join(RECORD);
            Message::boxed(format!(
                "cannot read the revision of the data, {}: {error}; remove it, and counting begins anew",
                path.display()
            ))
        })?;
        if found.is_some() {
            return Ok(Step::decide(found, content(config)));
        }
    }
    Ok(Step::decide(None, content(config)))
}

/// Where the guest has them.
pub(crate) fn places(revision: &Revision) -> Places {
    let data = |directory: &str| Path::new(DATA).join(directory).join(KINDS[0].0);
    Places { root: ROOT.into(), data: data(&revision.current.to_string()), common: data(COMMON) }
}

/// Where on the host a path below one of [`places`] lies, for an installation with this data directory.
pub(crate) fn on_host(data: &Path, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(DATA).ok().map(|rest| data.join(FILES).join(rest))
}

/// Variables that tell a program what it is part of, and where its files are.
pub(super) fn variables(installation: &Installation, revision: &Revision) -> Vec<(&'static str, OsString)> {
    let number = revision.current.to_string();
    let below = |directory: &str, kind: usize| OsString::from(format!("{DATA}/{directory}/{}", KINDS[kind].0));
    vec![
        ("FIM_NAME", installation.name.clone()),
        ("FIM_INSTANCE_NAME", installation.instance_name()),
        ("FIM_INSTANCE_KEY", installation.key.as_ref().map(|key| key.as_str().into()).unwrap_or_default()),
        ("FIM_ROOT_DIR", ROOT.into()),
        ("FIM_DATA", below(&number, 0)),
        ("FIM_COMMON", below(COMMON, 0)),
        ("FIM_USER_DATA", below(&number, 1)),
        ("FIM_USER_COMMON", below(COMMON, 1)),
        ("FIM_REVISION", number.into()),
    ]
}

/// Where the guest has a place of its installation. Files of the application are at the root.
pub(crate) fn place(place: Place, revision: &Revision) -> PathBuf {
    match place {
        Place::Root => PathBuf::from("/"),
        Place::Data => Path::new(DATA).join(revision.current.to_string()).join(KINDS[0].0),
        Place::Common => Path::new(DATA).join(COMMON).join(KINDS[0].0),
    }
}

/// The same in the data directory, for what is there.
pub(crate) fn place_in_data(place: Place, data: &Path, revision: &Revision) -> Option<PathBuf> {
    let files = match place {
        Place::Root => return None,
        Place::Data => directory(data, revision.current),
        Place::Common => data.join(FILES).join(COMMON),
    };
    Some(files.join(KINDS[0].0))
}

/// What puts them in place.
pub(super) fn steps(data: &Path, revision: &Revision) -> Vec<plan::Step> {
    let bind = |name: &str| plan::Step::Bind {
        source: data.join(FILES).join(name),
        target: Path::new(DATA).join(name),
        access: Access::ReadWrite,
        optional: false,
    };
    all_steps(revision, |name| vec![bind(name)])
}

/// As [`steps`], of a throw-away start: empty ones that end with the instance.
pub(super) fn passing_steps(revision: &Revision) -> Vec<plan::Step> {
    let kind = |name: &str, kind: &str, mode: u32| plan::Step::Directory {
        target: Path::new(DATA).join(name).join(kind),
        mode,
    };
    all_steps(revision, |name| KINDS.iter().map(|(word, mode)| kind(name, word, *mode)).collect())
}

fn all_steps(revision: &Revision, content: impl Fn(&str) -> Vec<plan::Step>) -> Vec<plan::Step> {
    let directory = |target: PathBuf| plan::Step::Directory { target, mode: 0o755 };
    let mut steps = vec![directory(OWN.into()), directory(DATA.into())];
    for name in [&*revision.current.to_string(), COMMON] {
        steps.push(directory(Path::new(DATA).join(name)));
        steps.extend(content(name));
    }
    steps.extend([directory(ROOT.into()), plan::Step::View { target: ROOT.into() }]);
    steps
}

/// Brings the files of a data directory to the revision of this start: new ones are empty, later ones begin as a copy. The
/// caller holds the start lock, and nothing runs if the revision is another one than before.
///
/// # Errors
/// When they cannot be made; the old revision stays as it was.
pub(crate) fn settle(data: &Path, step: &Step, rung: &Rung, caller: &Caller) -> Result<(), Failure> {
    if step.is_done() {
        return Ok(());
    }
    let text = |error: io::Error| {
        Message::boxed(format!("cannot make the files of revision {} in {}: {error}", step.now.current, data.display()))
    };
    // Another start may have been faster.
    if Revision::read(data).map_err(text)?.as_ref() == Some(&step.now) {
        return Ok(());
    }
    let new = directory(data, step.now.current);
    let old = step.before.as_ref().map(|before| directory(data, before.current)).filter(|old| old.is_dir());
    make_directory(&data.join(FILES), 0o700).and_then(|()| make_all(&data.join(FILES).join(COMMON))).map_err(text)?;
    match old {
        None => make_all(&new).map_err(text)?,
        Some(old) => copy(data, &old, &new, rung, caller)?,
    }
    step.now.write(data).map_err(text)
}

/// Makes a directory that is bound, with what is in it. One that exists is a guest's already, and left as it is.
fn make_all(place: &Path) -> io::Result<()> {
    if place.is_dir() {
        return Ok(());
    }
    let draft = place.with_extension("new");
    make_directory(&draft, 0o755)?;
    KINDS.iter().try_for_each(|(kind, mode)| make_directory(&draft.join(kind), *mode))?;
    fs::rename(draft, place)
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The creation mask may have taken bits away.
        made => made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode))),
    }
}

/// Copies the files of a revision. What a copy that was cut has left is removed before.
fn copy(data: &Path, old: &Path, new: &Path, rung: &Rung, caller: &Caller) -> Result<(), Failure> {
    let draft = new.with_extension("new");
    let work = || {
        let remove = || [new, &draft].into_iter().filter(|path| path.exists()).try_for_each(fs::remove_dir_all);
        let failed = |error: io::Error| format!("cannot copy {} to {}: {error}", old.display(), new.display());
        remove().map_err(failed)?;
        let copied = Copier::between(data, data).map_err(failed)?.copy(old, &draft);
        if let Err(error) = copied {
            remove().map_err(failed)?;
            return Err(runtime::error::chain(&error));
        }
        fs::rename(&draft, new).map_err(failed).map(|()| String::new())
    };
    let help = "; the files of the revision before are unchanged, and the image cannot start until they can be copied";
    let failed = |text: String| Message::boxed(text + help);
    let child = inside::start(&rung.session(caller), rung.helpers(caller).as_ref(), work)
        .map_err(|error| failed(format!("cannot use the IDs of the data directory: {error}")))?;
    child.end().map(drop).map_err(failed)
}
