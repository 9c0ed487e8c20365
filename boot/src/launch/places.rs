//! Where the writable data of an installation may lie.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use runtime::installation::Key;

use super::facts::Caller;
use super::former::{Former, Found};
use crate::{Failure, Invocation};

/// What a directory is called in each of the places where it may lie.
pub(super) struct Names {
    /// Below the directory that `FIM_DIR_DATA` names.
    chosen: &'static str,
    /// Behind the point and the name of the image, beside it.
    pub(super) beside: &'static str,
    /// Behind the image's UUID, in the user's data directory.
    user: &'static str,
}

pub(super) const DATA: Names = Names { chosen: "", beside: ".data", user: "" };
/// Beside the data of the default installation, so that removing that leaves the keys alone.
pub(super) const KEYS: Names = Names { chosen: "keys", beside: ".keys", user: ".keys" };

/// The places of the data of one installation, or of the directory that holds those of keys.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    invocation: &'a Invocation,
    caller: &'a Caller,
    names: &'static Names,
    key: Option<&'a Key>,
}

impl<'a> Places<'a> {
    /// Those of the installation with this key, or without.
    pub(super) fn of(invocation: &'a Invocation, caller: &'a Caller, key: Option<&'a Key>) -> Self {
        Self { invocation, caller, names: if key.is_some() { &KEYS } else { &DATA }, key }
    }

    /// Those of the directory that holds the data of all keys.
    pub(super) fn of_keys(invocation: &'a Invocation, caller: &'a Caller) -> Self {
        Self { invocation, caller, names: &KEYS, key: None }
    }

    /// In the order they are tried. What the image has left under a former name takes the place of what would lie beside it
    /// now, if it has the one and not the other. That is looked for only when more than the first place is asked for.
    pub(super) fn search(self) -> impl Iterator<Item = PathBuf> + 'a {
        let first = self.holders().into_iter().next().map(|holder| self.below(holder));
        first.into_iter().chain(std::iter::once_with(move || self.all()).flatten())
    }

    /// All of them, in the order they are tried.
    pub(super) fn all(self) -> Vec<PathBuf> {
        let mut holders = self.holders();
        if let Some(former) = self.former()
            && let Found::One(found) = former.find(has_others(&holders))
        {
            holders[0] = found;
        }
        holders.into_iter().map(|holder| self.below(holder)).collect()
    }

    /// Gives what the image has left under a former name the name that it should have; see [`Former::claim`].
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn claim(self) -> Result<(), Failure> {
        self.former().map_or(Ok(()), |former| former.claim(has_others(&self.holders())))
    }

    /// Refuses to guess where the data is.
    ///
    /// # Errors
    /// When more than one directory may be it.
    pub(super) fn must_be_clear(self) -> Result<(), Failure> {
        let Some(former) = self.former() else { return Ok(()) };
        match former.find(has_others(&self.holders())) {
            Found::Several(found) => Err(former.unclear(&found)),
            _ => Ok(()),
        }
    }

    fn below(self, holder: PathBuf) -> PathBuf {
        self.key.map_or_else(|| holder.clone(), |key| holder.join(key.as_str()))
    }

    /// The directories that hold the data, by the names that they should have; at least one.
    fn holders(self) -> Vec<PathBuf> {
        let Self { invocation, caller, names, .. } = self;
        if let Some(keys) = invocation.installation.keys().filter(|_| self.is_of_keys()) {
            return vec![keys.to_owned()];
        }
        if let Some(chosen) = chosen(caller) {
            return vec![if names.chosen.is_empty() { chosen } else { chosen.join(names.chosen) }];
        }
        let mut places = vec![beside(&invocation.path, names.beside)];
        let base = absolute(caller, "XDG_DATA_HOME").or_else(|| home(caller).map(|home| home.join(".local/share")));
        if let Some(base) = base {
            places.push(base.join("fim").join(format!("{}{}", invocation.image.superblock.uuid, names.user)));
        }
        places
    }

    fn is_of_keys(self) -> bool {
        self.names.beside == KEYS.beside
    }

    /// `None` where the names have nothing to do with that of the image, and where nothing is missing.
    fn former(self) -> Option<Former<'a>> {
        let depends =
            chosen(self.caller).is_none() && !(self.is_of_keys() && self.invocation.installation.keys().is_some());
        depends.then(|| Former::of(self.invocation, self.caller, self.names.beside)).flatten()
    }
}

/// Whether there is data in a place that does not depend on the name of the image.
fn has_others(holders: &[PathBuf]) -> bool {
    holders[1..].iter().any(|holder| holder.is_dir())
}

/// Where the user says that data is.
pub(super) fn chosen(caller: &Caller) -> Option<PathBuf> {
    let chosen = caller.variable("FIM_DIR_DATA").filter(|value| !value.is_empty()).map(PathBuf::from)?;
    Some(std::path::absolute(&chosen).unwrap_or(chosen))
}

/// `.NAME.data` beside the image file, or another ending.
pub(super) fn beside(image: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(image.file_name().unwrap_or_default());
    name.push(ending);
    image.with_file_name(name)
}

fn absolute(caller: &Caller, name: &str) -> Option<PathBuf> {
    caller.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

pub(super) fn home(caller: &Caller) -> Option<PathBuf> {
    absolute(caller, "HOME").or_else(|| caller.account.as_ref().map(|(_, home, _)| PathBuf::from(home)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lies_beside_the_image() {
        assert_eq!(beside(Path::new("/a b/app.flatimage"), DATA.beside), Path::new("/a b/.app.flatimage.data"));
    }
}
