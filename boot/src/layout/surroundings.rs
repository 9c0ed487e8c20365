//! What layouts meet in the image and in the data, found without a start.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use runtime::root::{Found, Root};
use runtime::sandbox::layout::{Entry, Error, Kept, Kind, Layouts, Source, What};

use crate::launch::{data, facts, revision};
use crate::{Failure, Invocation, Message, stack};

/// What a start would refuse of a plan.
///
/// # Errors
/// When the image or the data cannot be read.
pub(super) fn problems(invocation: &Invocation, layouts: &Layouts) -> Result<Vec<String>, Failure> {
    let caller = facts::caller();
    let data = data::existing(invocation, &caller);
    let layers = stack::archives(&invocation.image, &caller, data.as_deref())?;
    let root = Root::new(&layers, data.as_deref())
        .map_err(|error| Message::boxed(format!("cannot read the list of mount points: {error}")))?;
    let mut surroundings = Surroundings { layouts, root, data, taken: HashMap::new() };
    let told = |error: Error| runtime::error::chain(&error);
    Ok(layouts.entries.iter().flat_map(|entry| surroundings.problems(entry)).map(told).collect())
}

struct Surroundings<'a> {
    layouts: &'a Layouts,
    root: Root<'a>,
    data: Option<PathBuf>,
    /// Real targets so far, and whose they are.
    taken: HashMap<PathBuf, &'a str>,
}

impl<'a> Surroundings<'a> {
    fn problems(&mut self, entry: &'a Entry) -> Vec<Error> {
        let source = match &entry.what {
            What::Directory(source) => self.source(entry, source, Kind::Directory),
            What::File(source) => self.source(entry, source, Kind::File),
            What::Symlink(_) | What::Tmpfs => None,
        };
        source.into_iter().chain(self.target(entry)).collect()
    }

    /// Whether a path lies in what another layout shows, which is not looked into.
    fn is_shown(&self, path: &Path) -> bool {
        self.layouts.entries.iter().any(|other| other.target != path && path.starts_with(&other.target))
    }

    fn target(&mut self, entry: &'a Entry) -> Option<Error> {
        if self.is_shown(&entry.target) || self.on_host(&entry.target).is_some() {
            return None;
        }
        let in_view = entry.target.strip_prefix(&self.layouts.view).ok();
        let place = in_view.map_or_else(|| entry.target.clone(), |rest| Path::new("/").join(rest));
        let name = entry.name.clone();
        let (path, existing, link) = match self.root.look(&place) {
            Found::Object { path, kind, link } => (path, Some(kind), link),
            Found::Nothing { path } => (path, None, None),
            Found::Dangling(path) => return Some(Error::Dangling { name, path }),
            Found::NoDirectory(path) => {
                return Some(Error::Step { name, action: "open the directory", path, source: Errno::ENOTDIR });
            }
        };
        if in_view.is_none() {
            if let Some(kept) = Kept::find(self.layouts.kept, &path) {
                return Some(Error::Kept { name, path, reason: kept.reason });
            }
            if let Some(other) = self.taken.insert(path.clone(), &entry.name) {
                return Some(Error::Twice { name, other: other.to_owned(), path });
            }
        }
        let is_there = matches!(&entry.what, What::Symlink(to)
            if link.as_ref() == Some(to) || to.strip_prefix(&self.layouts.view).is_ok_and(|rest| Path::new("/").join(rest) == path));
        let existing = existing.filter(|kind| !is_there && !entry.replace && !entry.what.fits(*kind))?;
        Some(Error::Type { name, existing, wanted: entry.what.kind() })
    }

    fn source(&self, entry: &Entry, source: &Source, wanted: Kind) -> Option<Error> {
        let path = source.path();
        if self.is_shown(&path) || self.layouts.entries.iter().any(|other| other.target == path) {
            return None;
        }
        let existing = match self.on_host(&path) {
            Some(path) => fs::metadata(path).ok().map(|metadata| {
                use std::os::unix::fs::MetadataExt;
                Kind::of_mode(metadata.mode())
            }),
            None if source.base == self.layouts.view => self.root.follow(&Path::new("/").join(&source.rest)),
            None => None,
        };
        let existing = existing.filter(|kind| (*kind == Kind::Directory) != (wanted == Kind::Directory))?;
        Some(Error::Source { name: entry.name.clone(), source_name: source.name.clone(), existing, wanted })
    }

    /// Where a file of the data lies.
    fn on_host(&self, path: &Path) -> Option<PathBuf> {
        revision::on_host(self.data.as_deref()?, path)
    }
}
