//! A source that has been looked into: its layers, ready to be packed one after the other, and what it says about
//! how it is run.

use super::container::{Choice, Container, Unkept};
use super::contents::Planned;
use super::tar::{Archived, Builder, Bytes, Scratch, Stacking, unpack};
use super::{Error, Options, Progress, Source, Summary, directory, existing};
use crate::image::Config;
use crate::source::{ByteSource, FileRange};
use crate::squashfs::write::Writer;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that any source may unpack to.
const UNPACKED_MIN: u64 = 1 << 30;
/// How many times its own size a source may unpack to. Programs and documents get ten times smaller at most.
const UNPACKED_RATIO: u64 = 200;

/// What is needed to look into a source.
#[derive(Debug)]
pub struct Intake {
    /// An empty file, open for reading and writing, that takes what a compressed source unpacks to. It must not be
    /// truncated before the layers are packed.
    pub scratch: File,
    /// Bytes that the source may unpack to; without, 200 times its size, and at least 1 GiB.
    pub limit: Option<u64>,
    /// Which image of several.
    pub choice: Choice,
}

/// A source that has been looked into.
pub struct Input {
    /// What becomes a layer each, bottom first.
    pub layers: Vec<Layer>,
    /// What the source says about itself: without a name when it has none, and without a layer index.
    pub config: Config,
    /// What it says and an image has no place for.
    pub unkept: Vec<Unkept>,
}

/// What becomes one layer.
pub struct Layer(Kind);

enum Kind {
    Directory(PathBuf),
    Archived { path: PathBuf, planned: Planned<Bytes> },
    Squashfs { path: PathBuf, start: u64 },
}

impl Source {
    /// Looks into the source: unpacks what is compressed, reads all names, and checks digests.
    ///
    /// # Errors
    /// When it is damaged or hostile, or unpacks to more than it may.
    pub fn open(self, intake: Intake, progress: &mut dyn Progress) -> Result<Input, Error> {
        let plain = |kind| Input { layers: vec![Layer(kind)], config: Config::default(), unkept: Vec::new() };
        match self {
            Self::Directory(path) => Ok(plain(Layer::directory(path).0)),
            Self::Squashfs(path) => Ok(plain(Kind::Squashfs { path, start: 0 })),
            Self::Layout(path) => {
                let container = Container::directory(&path, &intake.choice, &|| progress.stopped())?;
                let mut scratch = intake.scratch(container.size());
                merged(path, container, &mut scratch, progress)
            }
            Self::Tar(path) => {
                let file = File::open(&path).map_err(Error::read("open", &path))?;
                let range = FileRange::whole(Arc::new(file)).map_err(Error::read("read", &path))?;
                let choice = intake.choice.clone();
                let mut scratch = intake.scratch(range.len());
                let range = unpack(range, &path, &mut scratch, progress)?;
                if let Some(container) = Container::archive(&path, &range, &choice, &|| progress.stopped())? {
                    return merged(path, container, &mut scratch, progress);
                }
                let mut builder = Builder::new(Stacking::Alone);
                builder.archive(&range, &path, &mut scratch, progress)?;
                Ok(plain(Kind::Archived { path, planned: builder.finish() }))
            }
        }
    }
}

impl Intake {
    fn scratch(self, size: u64) -> Scratch {
        let limit = self.limit.unwrap_or_else(|| size.saturating_mul(UNPACKED_RATIO).max(UNPACKED_MIN));
        Scratch::new(self.scratch, limit)
    }
}

fn merged(
    path: PathBuf,
    container: Container,
    scratch: &mut Scratch,
    progress: &mut dyn Progress,
) -> Result<Input, Error> {
    let merged = container.merge(scratch, progress)?;
    let layers = vec![Layer(Kind::Archived { path, planned: merged.planned })];
    Ok(Input { layers, config: merged.config, unkept: merged.unkept })
}

impl Layer {
    /// The tree under `root`, whatever is mounted in it included.
    #[must_use]
    pub fn directory(root: PathBuf) -> Self {
        Self(Kind::Directory(root))
    }

    /// Packs the layer into a squashfs in `out` at byte `offset`. Everything in `out` from there on is given up; `out`
    /// must be open for reading and writing, and must not lie inside the source (see [`super::contains`]).
    ///
    /// # Errors
    /// Anything that keeps the squashfs from being a faithful copy; `out` then holds garbage from `offset` on.
    pub fn pack(
        self,
        out: &File,
        offset: u64,
        options: &Options,
        progress: &mut dyn Progress,
    ) -> Result<Summary, Error> {
        match self.0 {
            Kind::Directory(path) => {
                let writer = Writer::new(out, offset, &options.squashfs)?;
                directory::pack(&path, writer, options, progress)
            }
            Kind::Archived { path, planned } => {
                let writer = Writer::new(out, offset, &options.squashfs)?;
                planned.pack(&Archived(&path), writer, options, progress)
            }
            Kind::Squashfs { path, start } => existing::copy(&path, start, out, offset, progress),
        }
    }
}
