//! Data that an image has left under a name that the file had before: it is named after the file, and found again by what
//! it records of its image.
//!
//! Two ways lead to it: the image file itself tells where it was ([`belongs_to::place`]), and what lies beside it is
//! looked through. Data whose image is still there is never taken: a copy of an image has the same UUID.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtime::installation::belongs_to::{self, BelongsTo};
use runtime::installation::{IMAGE, Key};
use runtime::session::lock::{self, Held};

use super::exclusive::is_used;
use super::facts::{Caller, directory};
use super::places::{DATA, KEYS, beside, chosen};
use crate::key::LOCK;
use crate::{Failure, Invocation, Message, report};

/// What is left under former names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    One(PathBuf),
    /// More than one, and nothing tells which of them it is.
    Several(Vec<PathBuf>),
}

/// What is looked for: a directory that is called `.NAME.ENDING` after the image, which is not there.
pub(super) struct Former<'a> {
    invocation: &'a Invocation,
    caller: &'a Caller,
    /// `.data` or `.keys`.
    ending: &'static str,
    /// What it should be called.
    proper: PathBuf,
}

impl<'a> Former<'a> {
    /// `None` when there is no need to look: the directory is there.
    pub(super) fn of(invocation: &'a Invocation, caller: &'a Caller, ending: &'static str) -> Option<Self> {
        let proper = beside(&invocation.path, ending);
        is_gone(&proper).then_some(Self { invocation, caller, ending, proper })
    }

    /// Looks for it. With `elsewhere`, other data is there to be used, and only what the image file itself tells goes
    /// before that.
    pub(super) fn find(&self, elsewhere: bool) -> Found {
        let told = belongs_to::place(&self.invocation.image.file).map(|image| beside(&image, self.ending));
        if let Some(told) = told.filter(|told| self.is_ours(told)) {
            return Found::One(told);
        }
        if elsewhere {
            return Found::Nothing;
        }
        let entries = fs::read_dir(directory(&self.invocation.path)).into_iter().flatten().flatten();
        let named = entries.map(|entry| entry.path()).filter(|path| named_after(path, self.ending).is_some());
        let mut ours: Vec<PathBuf> = named.filter(|path| self.is_ours(path)).collect();
        ours.sort();
        match ours.len() {
            0 | 1 => ours.pop().map_or(Found::Nothing, Found::One),
            _ => Found::Several(ours),
        }
    }

    /// Whether a directory is this image's, the caller's, and no other image uses it.
    fn is_ours(&self, holder: &Path) -> bool {
        let Some(image) = named_after(holder, self.ending) else { return false };
        let Some(record) = BelongsTo::read(holder) else { return false };
        let is_free = || {
            let user = &record.image;
            // One that exists and has other data by now was copied together with this.
            *user == self.invocation.path || is_gone(user) || !is_gone(&beside(user, self.ending))
        };
        record.uuid == self.invocation.image.superblock.uuid.to_string()
            && fs::metadata(holder).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == self.caller.uid)
            && is_gone(&image)
            && is_free()
    }

    /// Gives what was found the name that it should have, or has it used where it is when that cannot be. The user is told
    /// once.
    ///
    /// # Errors
    /// When more than one was found, naming them.
    pub(super) fn claim(&self, elsewhere: bool) -> Result<(), Failure> {
        let holder = match self.find(elsewhere) {
            Found::Nothing => return Ok(()),
            Found::One(holder) => holder,
            Found::Several(found) => return Err(self.unclear(&found)),
        };
        let shown = holder.display();
        let ours = BelongsTo::image(&self.invocation.image.superblock.uuid, &self.invocation.path);
        let Some(held) = hold(&holder, self.ending)? else {
            // Where this image uses it already, that was said.
            if BelongsTo::read(&holder).as_ref() != Some(&ours) {
                report(&format!(
                    "note: data of this image stays in {shown}, named after a former name, while it is in use"
                ));
            }
            return Ok(());
        };
        if !held.iter().all(Held::is_current) {
            // Another start was quicker.
            return Ok(());
        }
        match self.follow_links(&holder).and_then(|()| fs::rename(&holder, &self.proper)) {
            Ok(()) => {
                let now = self.proper.display();
                report(&format!("note: data of this image, found under a former name in {shown}, is now in {now}"));
                Ok(())
            }
            Err(_) if is_gone(&holder) => Ok(()),
            Err(_) if BelongsTo::read(&holder).as_ref() == Some(&ours) => Ok(()),
            Err(error) => {
                report(&format!(
                    "note: data of this image is used in {shown}, where it is under a former name ({error} when moving \
                     it beside the image)"
                ));
                record(&ours, &holder);
                Ok(())
            }
        }
    }

    /// Which directories there are, and what the user can do.
    pub(super) fn unclear(&self, found: &[PathBuf]) -> Failure {
        let shown: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
        Message::boxed(format!(
            "cannot tell which data is that of {}: {} are data of this image under names that it does not have any more; \
             rename one of them (mv {} {}), and move the others away, or set FIM_DIR_DATA",
            self.invocation.path.display(),
            shown.join(" and "),
            shown.first().map(String::as_str).unwrap_or_default(),
            self.proper.display()
        ))
    }

    /// The links through which keys start images of their own have the name of this image. Doing it twice does no harm.
    fn follow_links(&self, holder: &Path) -> io::Result<()> {
        let (Some(former), Some(name)) = (named_after(holder, self.ending), self.invocation.path.file_name()) else {
            return Ok(());
        };
        for data in installations(holder, self.ending) {
            let links = data.join(IMAGE);
            match fs::rename(links.join(former.file_name().unwrap_or_default()), links.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The image that `.NAME.ENDING` is named after.
fn named_after(holder: &Path, ending: &str) -> Option<PathBuf> {
    let name = holder.file_name()?.as_bytes().strip_prefix(b".")?.strip_suffix(ending.as_bytes())?;
    (!name.is_empty()).then(|| holder.with_file_name(std::ffi::OsStr::from_bytes(name)))
}

/// Whether nothing has this name. What cannot be looked at may be there.
fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The data directories that a directory holds.
fn installations(holder: &Path, ending: &str) -> Vec<PathBuf> {
    if ending == DATA.beside {
        return vec![holder.to_owned()];
    }
    let entries = fs::read_dir(holder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_used(path)).collect()
}

/// Holds every lock in it, so that nothing runs on it and nothing starts; `None` when something does.
fn hold(holder: &Path, ending: &str) -> Result<Option<Vec<Held>>, Failure> {
    let mut held = Vec::new();
    if ending == KEYS.beside {
        // Whoever adds or removes one may be this process.
        match lock::attempt(holder, LOCK)? {
            Ok(keys) => held.push(keys),
            Err(_) => return Ok(None),
        }
    }
    for data in installations(holder, ending) {
        let starting = match lock::wait(&data, lock::START) {
            // Another start has just moved it.
            Err(_) if is_gone(&data) => return Ok(Some(held)),
            starting => starting?,
        };
        // Where another start has moved it, this would be the lock of nobody.
        if starting.is_current() {
            match lock::attempt(&data, lock::SESSION)? {
                Ok(session) => held.push(session),
                Err(_) => return Ok(None),
            }
        }
        held.push(starting);
    }
    Ok(Some(held))
}

/// Has a data directory tell whose it is, and the image file where it is, so that one is found when the other is moved.
/// Where data has a place that does not depend on the name of the image, nothing is done.
pub(super) fn remember(invocation: &Invocation, caller: &Caller, key: Option<&Key>, data: &Path) {
    let (holder, ending) = match key {
        None => (data, DATA.beside),
        Some(_) => (data.parent().unwrap_or(data), KEYS.beside),
    };
    // A key's own image has not made the keys.
    if chosen(caller).is_some() || invocation.installation.keys().is_some() || named_after(holder, ending).is_none() {
        return;
    }
    let ours = BelongsTo::image(&invocation.image.superblock.uuid, &invocation.path);
    if BelongsTo::read(holder).as_ref() == Some(&ours) {
        return;
    }
    record(&ours, holder);
    // Not while the file is what leads to the other of the two.
    let is_needed = [DATA.beside, KEYS.beside].iter().filter_map(|ending| Former::of(invocation, caller, ending));
    if holder == beside(&invocation.path, ending)
        && is_needed.map(|former| former.find(true)).all(|found| found == Found::Nothing)
        && let Err(error) = belongs_to::remember_place(&invocation.image.file, &invocation.path)
    {
        log::debug!("the image cannot record where its data is: {error}");
    }
}

fn record(ours: &BelongsTo, holder: &Path) {
    if let Err(error) = ours.write(holder) {
        log::debug!("{} cannot record its image: {error}", holder.display());
    }
}
