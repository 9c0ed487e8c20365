//! A source that has been looked into: its layers, ready to be packed one after the other, and what it says about
//! how it is run.

use super::container::{Choice, Container, Unkept};
use super::contents::Planned;
use super::tar::{Archived, Builder, Bytes, Scratch, Stacking, unpack};
use super::{Error, Options, Progress, Source, Summary, appimage, directory, existing, squash, stored};
use crate::image::{Boot, Config, Icon, Image, LayerKind};
use crate::source::{ByteSource, FileRange};
use crate::squashfs::Archive;
use crate::squashfs::write::Writer;
use std::fs::File;
use std::path::{Path, PathBuf};
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
#[derive(Clone)]
pub struct Input {
    /// What becomes a layer each, bottom first.
    pub layers: Vec<Layer>,
    /// What the source says about itself: without a name when it has none, and without a layer index.
    pub config: Config,
    /// What it says and an image has no place for.
    pub unkept: Vec<Unkept>,
}

/// What becomes one layer.
#[derive(Clone)]
pub struct Layer(Kind);

#[derive(Clone)]
enum Kind {
    Directory(PathBuf),
    Archived { path: PathBuf, planned: Planned<Bytes> },
    Squashfs { path: PathBuf, start: u64 },
    Stored { image: Arc<Image>, index: usize },
    Merged { path: PathBuf, layers: Arc<[Archive]> },
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
            Self::AppImage(path) => {
                let (start, payload) = appimage::payload(&path)?;
                let mut config = Config { env: vec![(b"APPDIR".into(), b"/".into())], ..Config::default() };
                let program = b"AppRun";
                if appimage::has(&payload, program) {
                    config.boot = Some(Boot { program: [b"/", &program[..]].concat(), args: Vec::new() });
                }
                Ok(Input { config, ..plain(Kind::Squashfs { path, start }) })
            }
            Self::Image(path) => {
                let file = File::open(&path).map_err(Error::read("open", &path))?;
                let found = "a program of fim's without a payload".to_owned();
                let image = Image::open(file, &path)?.ok_or(Error::NotASource { path, found })?;
                let image = Arc::new(image);
                let entries = 0..image.config.layers.len();
                let stored = |index| Layer(Kind::Stored { image: Arc::clone(&image), index });
                let config = Config { layers: Vec::new(), ..image.config.clone() };
                Ok(Input { layers: entries.map(stored).collect(), config, unkept: Vec::new() })
            }
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

impl Input {
    /// Puts `upper` on top: its layers cover those here, and what it says about itself wins where both say something.
    pub fn stack(&mut self, upper: Self) {
        let below = self.layers.len() as u32;
        self.layers.extend(upper.layers);
        self.unkept.extend(upper.unkept);
        let (config, upper) = (&mut self.config, upper.config);
        if !upper.name.is_empty() {
            config.name = upper.name;
        }
        config.env.retain(|(name, _)| !upper.env.iter().any(|(newer, _)| newer == name));
        config.env.extend(upper.env);
        upper.permissions.iter().for_each(|permission| config.permissions.insert(permission));
        config.binds.extend(upper.binds);
        config.portal.extend(upper.portal.into_iter().filter(|name| !config.portal.contains(name)).collect::<Vec<_>>());
        config.begin_with(upper.startup);
        config.boot = upper.boot.or(config.boot.take());
        config.remote = upper.remote.or(config.remote.take());
        config.desktop = upper.desktop.or(config.desktop.take());
        let icon = upper.icon.map(|icon| Icon { layer: icon.layer + below, ..icon });
        config.icon = icon.or(config.icon.take());
        config.casefold |= upper.casefold;
        config.notify |= upper.notify;
    }

    /// Replaces the layers of the root by one of what they show together.
    ///
    /// # Errors
    /// When one of several is no squashfs yet, or cannot be opened.
    pub fn squash(&mut self) -> Result<(), Error> {
        let kinds: Vec<LayerKind> = self.layers.iter().map(Layer::kind).collect();
        let is_root = |kind: &&LayerKind| **kind == LayerKind::Squashfs;
        let roots = kinds.iter().filter(is_root).count();
        if roots < 2 {
            return Ok(());
        }
        let (root, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.layers).into_iter().partition(|layer| layer.kind() == LayerKind::Squashfs);
        self.layers = std::iter::once(Layer::merged(root)?).chain(others).collect();
        // The merged one is first, the others follow in their order.
        if let Some(icon) = &mut self.config.icon {
            let before = kinds.iter().take(icon.layer as usize).filter(is_root).count() as u32;
            icon.layer = icon.layer - before + 1;
        }
        Ok(())
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
    /// What the layer is for.
    #[must_use]
    pub fn kind(&self) -> LayerKind {
        match &self.0 {
            Kind::Stored { image, index } => image.config.layers[*index].kind,
            _ => LayerKind::Squashfs,
        }
    }

    /// One layer of what several, bottom first, show together.
    fn merged(layers: Vec<Self>) -> Result<Self, Error> {
        let path = layers.first().map(|layer| layer.path().to_owned()).unwrap_or_default();
        let layers = layers.into_iter().map(Self::archive).collect::<Result<_, _>>()?;
        Ok(Self(Kind::Merged { path, layers }))
    }

    fn path(&self) -> &Path {
        match &self.0 {
            Kind::Directory(path)
            | Kind::Archived { path, .. }
            | Kind::Squashfs { path, .. }
            | Kind::Merged { path, .. } => path,
            Kind::Stored { image, .. } => &image.path,
        }
    }

    /// The layer as an archive that can be merged.
    fn archive(self) -> Result<Archive, Error> {
        let path = self.path().to_owned();
        let source: Arc<dyn ByteSource> = match self.0 {
            Kind::Stored { image, index } => Arc::new(image.layer_source(index).map_err(Error::read("read", &path))?),
            Kind::Squashfs { start, .. } => {
                let file = File::open(&path).map_err(Error::read("open", &path))?;
                let range = FileRange::whole(Arc::new(file)).map_err(Error::read("read", &path))?;
                Arc::new(range.part(start, u64::MAX))
            }
            _ => return Err(Error::Unsquashable { path }),
        };
        Archive::open(source).map_err(|error| Error::Squashfs { path, reason: crate::error::chain(&error) })
    }

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
            Kind::Stored { image, index } => stored::copy(&image, index, out, offset, progress),
            Kind::Merged { path, layers } => {
                let writer = Writer::new(out, offset, &options.squashfs)?;
                squash::pack(&path, &layers, false, writer, options, progress)
            }
            Kind::Squashfs { path, start } => existing::copy(&path, start, out, offset, progress),
        }
    }
}
