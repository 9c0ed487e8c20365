//! Container images: an OCI image layout (a directory or a tar of one) and what `docker save` writes.
//!
//! Every blob is checked against its digest before anything in it is used. The layers are merged into one tree.

mod digest;
mod execution;
mod manifest;
mod select;
mod store;

pub use execution::Unkept;
pub use manifest::Platform;

use super::contents::{Planned, PlannedView};
use super::startup;
use super::tar::{Archived, Builder, Bytes, Scratch, Stacking, unpack};
use super::{Error, Progress};
use crate::image::Config;
use crate::source::{ByteSource, FileRange};
use manifest::Saved;
use select::{Reader, Selected};
use std::path::{Path, PathBuf};
use store::Store;

/// Which image of several is meant.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Its name, or the end of it behind a `/`; the tag `latest` need not be given.
    pub name: Option<String>,
    /// What it must run on.
    pub platform: Platform,
}

impl Default for Choice {
    /// The only one for the platform of this program.
    fn default() -> Self {
        Self { name: None, platform: Platform::own() }
    }
}

impl Choice {
    /// Whether an image with these names is meant.
    fn names(&self, names: &[String]) -> bool {
        let Some(wanted) = &self.name else { return true };
        names.iter().any(|name| {
            let latest = format!("{wanted}:latest");
            [wanted, &latest].iter().any(|wanted| {
                name.strip_suffix(wanted.as_str())
                    .is_some_and(|before| before.is_empty() || before.ends_with(['/', ':']))
            })
        })
    }

    fn ambiguous(&self, shown: &[String]) -> Problem {
        Problem::of("", format!("it holds several images: {}; choose one with --tag", shown.join(", ")))
    }

    fn nothing(&self, others: &[String]) -> Problem {
        let name = self.name.as_ref().map_or(String::new(), |name| format!(" called {name:?}"));
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        let reason = format!("it holds no image{name} for {}; there is {others}", self.platform);
        Problem::of("", format!("{reason}; choose with --tag and --platform"))
    }
}

/// What is wrong with an image.
#[derive(Debug)]
pub enum Problem {
    /// With a file of it, or with itself where the name is empty.
    File(String, String),
    /// The listener wanted no more.
    Interrupted,
}

impl Problem {
    fn of(name: &str, reason: impl Into<String>) -> Self {
        Self::File(name.to_owned(), reason.into())
    }

    fn at(self, path: &Path) -> Error {
        match self {
            Self::File(name, reason) => Error::Container { path: within(path, &name), reason },
            Self::Interrupted => Error::Interrupted,
        }
    }
}

/// `name` in the image at `path`, for messages.
fn within(path: &Path, name: &str) -> PathBuf {
    if name.is_empty() { path.to_owned() } else { path.join(name.trim_start_matches('/')) }
}

/// A container image whose documents were read.
pub struct Container {
    store: Store,
    selected: Selected,
}

/// A container image whose layers are merged.
pub struct Merged {
    pub planned: Planned<Bytes>,
    /// Boot command and environment.
    pub config: Config,
    pub unkept: Vec<Unkept>,
}

impl Container {
    /// Whether a directory is an image layout.
    pub fn is_layout(path: &Path) -> bool {
        path.join("oci-layout").is_file() && path.join("index.json").is_file()
    }

    /// The image layout in the directory `path`.
    pub fn directory(path: &Path, choice: &Choice, stopped: &dyn Fn() -> bool) -> Result<Self, Error> {
        let store = Store::directory(path).map_err(Error::read("open", path))?;
        let found = Self::select(&store, choice, stopped)
            .and_then(|found| found.ok_or_else(|| Problem::of("index.json", "it is missing")));
        let selected = found.map_err(|problem| problem.at(path))?;
        Ok(Self { store, selected })
    }

    /// The container image in the tar `range` of the file `path`; `None` when it is a tar of something else.
    pub fn archive(
        path: &Path,
        range: &FileRange,
        choice: &Choice,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, Error> {
        // A damaged tar is not judged here.
        let Ok(store) = Store::archive(path, range) else { return Ok(None) };
        let selected = Self::select(&store, choice, stopped).map_err(|problem| problem.at(path))?;
        Ok(selected.map(|selected| Self { store, selected }))
    }

    fn select(store: &Store, choice: &Choice, stopped: &dyn Fn() -> bool) -> Result<Option<Selected>, Problem> {
        let reader = Reader { store, stopped };
        // Docker writes both; the layout has more digests.
        if store.find("oci-layout")?.is_some()
            && let Some(index) = store.find("index.json")?
        {
            return reader.layout(&index, choice).map(Some);
        }
        let Some(saved) = store.find("manifest.json")? else { return Ok(None) };
        // A root file system may have a file of that name.
        match Store::json::<Vec<Saved>>("manifest.json", &saved) {
            Ok(images) => reader.saved(images, choice).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Bytes of the layers as they are in the image.
    pub fn size(&self) -> u64 {
        self.selected.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.range.len()))
    }

    /// Merges the layers, bottom first.
    pub fn merge(self, scratch: &mut Scratch, progress: &mut dyn Progress) -> Result<Merged, Error> {
        let mut builder = Builder::new(Stacking::Layer);
        let path = self.store.path();
        for layer in &self.selected.layers {
            let shown = within(path, &layer.name);
            let check = |range: &FileRange, digest, progress: &dyn Progress| {
                let reader = Reader { store: &self.store, stopped: &|| progress.stopped() };
                reader.check(&layer.name, range, digest).map_err(|problem| problem.at(path))
            };
            if let Some(digest) = &layer.digest {
                check(&layer.range, digest, progress)?;
            }
            let range = unpack(layer.range.clone(), &shown, scratch, progress)?;
            if layer.digest.as_ref() != Some(&layer.diff_id) {
                check(&range, &layer.diff_id, progress)?;
            }
            builder.archive(&range, &shown, scratch, progress)?;
        }
        let planned = builder.finish();
        let shell = startup::shell(&PlannedView { planned: &planned, contents: &Archived(path) }).is_some();
        let run = self.selected.config.config.unwrap_or_default();
        let (config, unkept) = execution::config(&run, shell);
        Ok(Merged { planned, config, unkept })
    }
}
