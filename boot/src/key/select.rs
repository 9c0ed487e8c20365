//! Which installation a command line is about, and what it has of its own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::image::declared::Declared;
use runtime::installation::{Asked, IMAGE, Installation, Own};
use runtime::sys::inherited;

use crate::launch::facts::Caller;
use crate::launch::{data, facts};
use crate::{Failure, Invocation, Message, alias, inspect};

/// The installation, and the command line without what named it.
///
/// # Errors
/// Keys that cannot be keys, or contradict each other.
pub(crate) fn choose(image: &Path, args: Vec<OsString>) -> Result<(Installation, Vec<OsString>), Failure> {
    // Anything else behind `run` is wrong, and `fim-key` says so.
    let runs = args.first().is_some_and(|word| word == "fim-key")
        && args.get(1).is_some_and(|word| word.eq_ignore_ascii_case("run"))
        && args.get(2).is_some_and(|word| !word.as_bytes().starts_with(b"-"));
    let executed = inherited::executed_path().map(links).unwrap_or_default();
    let variable = std::env::var_os("FIM_INSTANCE_KEY");
    let asked = Asked {
        executed: &executed,
        variable: variable.as_deref(),
        word: args.get(2).filter(|_| runs).map(OsString::as_os_str),
    };
    let installation = Installation::choose(image, asked)?;
    let rest = if runs { args.into_iter().skip(3).collect() } else { args };
    Ok((installation, rest))
}

/// Most links that are followed, as many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A path, made absolute, and those that the links on the way name.
pub(crate) fn links(path: PathBuf) -> Vec<PathBuf> {
    let next = |path: &PathBuf| Some(path.parent()?.join(std::fs::read_link(path).ok()?));
    let path = std::path::absolute(&path).unwrap_or(path);
    std::iter::successors(Some(path), next).take(MAX_LINKS).collect()
}

/// Becomes the image of the key, when it has another one than this. Returns when it has not.
///
/// # Errors
/// When there is one and it cannot be executed.
pub(crate) fn redirect(invocation: &Invocation) -> Result<(), Failure> {
    let installation = &invocation.installation;
    // Keys and their aliases are managed by the image that they were added to.
    let manages = invocation.args.first().is_some_and(|word| word == "fim-key") || alias::manages(&invocation.args);
    if installation.key.is_none() || installation.keys().is_some() || manages {
        return Ok(());
    }
    let Some((link, target)) = own_image(invocation, &facts::caller()) else { return Ok(()) };
    // The link tells the other image which key it is started for.
    let error = Command::new(&link).arg0(&invocation.name).args(&invocation.args).env_remove("FIM_INSTANCE_KEY").exec();
    Err(Message::boxed(format!(
        "cannot start the image of this instance key, {}: {error}; put it there again, or name another with fim-key add --image",
        target.display()
    )))
}

/// The link to the image that the key has instead of this one, and what it names.
pub(crate) fn own_image(invocation: &Invocation, caller: &Caller) -> Option<(PathBuf, PathBuf)> {
    image_in(&data::existing(invocation, caller)?, invocation)
}

/// As [`own_image`], of the key with this data directory.
pub(super) fn image_in(data: &Path, invocation: &Invocation) -> Option<(PathBuf, PathBuf)> {
    let link = data.join(IMAGE).join(invocation.path.file_name().unwrap_or_default());
    std::fs::read_link(&link).ok().map(|target| (link, target))
}

/// What the image of the installation with this data directory declares, which may be another one than this.
///
/// # Errors
/// When there is another one that cannot be read.
pub(crate) fn declared(invocation: &Invocation, data: Option<PathBuf>) -> Result<Declared, Failure> {
    let link = data.map(|data| data.join(IMAGE).join(invocation.path.file_name().unwrap_or_default()));
    match link.filter(|link| link.is_symlink()) {
        Some(link) => Ok(inspect::open(&link)?.config.declared),
        None => Ok(invocation.image.config.declared.clone()),
    }
}

/// Puts the settings of the installation in place of the image's.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn settle(invocation: &mut Invocation) -> Result<(), Failure> {
    // The default installation has one setting of its own, its connections; every other is the image's.
    if invocation.installation.key.is_none() && invocation.image.config.declared.plugs.is_empty() {
        return Ok(());
    }
    let Some(data) = data::existing(invocation, &facts::caller()) else { return Ok(()) };
    let own = Own::read(&data)?;
    let config = own.over(&invocation.image.config);
    invocation.inherited = Some(std::mem::replace(&mut invocation.image.config, config));
    Ok(())
}
