//! Content of other images in a session: each producer is mounted read-only beside the session's own layers, and what its
//! slots share is put together for each plug, from where instances take it.
//!
//! ```text
//! SESSION/content/     a tmpfs of the session's mount namespace
//!     images/          one FUSE mount: the producers as 0/, 1/, …
//!     parts/PLUG/N     directories that are merged, and in names/ mount points for what appears by a name of its own
//!     plugs/PLUG       what the plug gets
//! ```

use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::MsFlags;

use super::{Error, Layer, Request, diagnose, io_error, overlay, serving};
use crate::cache::Extracted;
use crate::content::{Kind, beneath};
use crate::fuse;
use crate::squashfs::Archive;
use crate::sys::mount::{self, Detached, attr};

/// Directory of the session.
pub const DIRECTORY: &str = "content";

/// What the plugs of a session get.
#[derive(Default)]
pub struct Content {
    /// The images that share something.
    pub producers: Producers,
    /// The plugs, by their position.
    pub plugs: Vec<Plug>,
}

/// The layers of producers, bottom first.
pub enum Producers {
    /// Served through FUSE.
    Images(Vec<Vec<Layer>>),
    /// Extracted, for a host without FUSE.
    Extracted(Vec<Vec<Extracted>>),
}

impl Default for Producers {
    fn default() -> Self {
        Self::Images(Vec::new())
    }
}

/// What one plug gets.
#[derive(Debug, Clone)]
pub struct Plug {
    /// Its name, for messages.
    pub name: String,
    /// What it gets, in the order in which it was connected.
    pub parts: Vec<Part>,
}

/// One path of a slot.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it begins.
    pub source: Source,
    /// The rest.
    pub path: PathBuf,
    /// Whether it can be written.
    pub writable: bool,
    /// How it appears.
    pub appears: Appears,
    /// What messages call it.
    pub shown: String,
}

/// Where a path of a slot begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// At the root of the producer with this position. The path has no links.
    Image(usize),
    /// In a directory of the producer's data.
    Directory(PathBuf),
}

/// How a part appears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appears {
    /// It is the target; the plug gets nothing else.
    Alone,
    /// A directory whose names are at the target, together with others.
    Merged,
    /// By this name in the target.
    Named(std::ffi::OsString),
}

impl Content {
    /// Whether no plug gets anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plugs.is_empty()
    }

    /// Descriptors that the server needs.
    pub(super) fn descriptors(&self) -> Vec<i32> {
        match &self.producers {
            Producers::Images(images) => images.iter().flatten().map(|layer| layer.medium.descriptor()).collect(),
            Producers::Extracted(images) => {
                images.iter().flatten().map(|layer| layer.lock.file().as_raw_fd()).collect()
            }
        }
    }

    /// Leaves the locks of extracted layers to the server.
    pub(super) fn hand_over(self) {
        if let Producers::Extracted(images) = self.producers {
            images.into_iter().flatten().for_each(|layer| layer.lock.hand_over());
        }
    }
}

/// Where instances of a session find what the plug with this position gets.
#[must_use]
pub fn place(session: &Path, plug: usize) -> PathBuf {
    session.join(DIRECTORY).join("plugs").join(plug.to_string())
}

/// Mounts everything; the server of the producers, when there is one.
pub(super) fn serve(request: &Request) -> Result<Option<fuse::Server>, Error> {
    let content = &request.content;
    if content.is_empty() {
        return Ok(None);
    }
    let base = request.directory.join(DIRECTORY);
    make(&base)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("fim"), &base, Some("tmpfs"), flags, Some("mode=755"))
        .map_err(diagnose::mount("mount", "a place for shared content (tmpfs)"))?;
    for name in ["images", "parts", "plugs"] {
        make(&base.join(name))?;
    }
    let images = base.join("images");
    let server = match &content.producers {
        Producers::Images(producers) if producers.is_empty() => None,
        Producers::Images(producers) => Some(serve_images(producers, &images, request)?),
        Producers::Extracted(producers) => {
            producers
                .iter()
                .enumerate()
                .try_for_each(|(number, layers)| name_extracted(layers, &images.join(number.to_string())))?;
            None
        }
    };
    // What waits for our own server must not hold its device.
    let put = || content.plugs.iter().enumerate().try_for_each(|(number, plug)| put_plug(&base, number, plug));
    super::apart::run(put).map_err(io_error("start", "a thread"))??;
    Ok(server)
}

fn serve_images(producers: &[Vec<Layer>], directory: &Path, request: &Request) -> Result<fuse::Server, Error> {
    let open = |layer: &Layer| {
        // Without the alarm of the session's own layers: a producer that is gone is an error for who reads it.
        let opened = Archive::open(Arc::clone(&layer.source)).map(Arc::new);
        opened.map_err(|source| Error::Layer { layer: layer.name.clone(), source })
    };
    let archives = producers.iter().flatten().map(open).collect::<Result<Vec<_>, _>>()?;
    let device = diagnose::open_fuse()?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = fuse::mount_data(device.as_raw_fd(), 0, 0);
    nix::mount::mount(Some("fim"), directory, Some("fuse.fim"), flags, Some(options.as_str()))
        .map_err(diagnose::mount("mount", "shared content (FUSE)"))?;
    let merged = producers.iter().map(Vec::len).collect();
    let options = fuse::Options { merged, record: false, ..serving(request) };
    fuse::serve(device, archives, &options).map_err(io_error("serve", "shared content"))
}

/// Shows extracted layers as one directory.
fn name_extracted(layers: &[Extracted], directory: &Path) -> Result<(), Error> {
    make(directory)?;
    if let [layer] = layers {
        let tree = mount::clone_tree(&layer.tree, false).map_err(refused("bind", &layer.tree))?;
        return attach(restricted(tree, false, directory)?, directory);
    }
    let links = directory.with_extension("layers");
    make(&links)?;
    overlay::name_directories(layers, &links)?;
    let names: Vec<String> = (0..layers.len()).rev().map(|number| number.to_string()).collect();
    // Marks of ordinary users' overlays are what the extraction has made.
    merge(&links, &names, directory, "userxattr,")
}

/// Puts together what one plug gets.
fn put_plug(base: &Path, number: usize, plug: &Plug) -> Result<(), Error> {
    let (images, place) = (base.join("images"), base.join("plugs").join(number.to_string()));
    if let [part @ Part { appears: Appears::Alone, .. }] = &plug.parts[..] {
        let (tree, kind) = open_part(&images, part)?;
        make_point(&place, kind)?;
        return attach(tree, &place);
    }
    let parts = base.join("parts").join(number.to_string());
    let names = parts.join("names");
    make(&place)?;
    make(&parts)?;
    make(&names)?;
    let (mut merged, mut named) = (vec!["names".to_owned()], Vec::new());
    for part in &plug.parts {
        let (tree, kind) = open_part(&images, part)?;
        match (&part.appears, kind) {
            (Appears::Named(name), _) => {
                make_point(&names.join(name), kind)?;
                named.push((tree, name));
            }
            _ => {
                let name = (merged.len() - 1).to_string();
                make(&parts.join(&name))?;
                attach(tree, &parts.join(&name))?;
                merged.push(name);
            }
        }
    }
    if merged.len() > 1 {
        // What has a name of its own covers what is merged. Marks in the layers of a producer mean nothing for others, so
        // those of ordinary users' overlays are not looked for.
        merge(&parts, &merged, &place, "")?;
    } else {
        let tree = mount::clone_tree(&names, false).map_err(refused("bind", &names))?;
        attach(restricted(tree, false, &names)?, &place)?;
    }
    named.into_iter().try_for_each(|(tree, name)| attach(tree, &place.join(name)))
}

/// An overlay of these names in `directory`, top first, that nobody can write to.
fn merge(directory: &Path, names: &[String], target: &Path, options: &str) -> Result<(), Error> {
    // Names relative to the working directory keep many within the one page that mount(2) takes.
    std::env::set_current_dir(directory).map_err(io_error("enter", directory.display().to_string()))?;
    let options = format!("{options}lowerdir={}", names.join(":"));
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mounted = nix::mount::mount(Some("fim"), target, Some("overlay"), flags, Some(options.as_str()));
    let _ = std::env::set_current_dir("/");
    mounted.map_err(diagnose::mount("merge", "shared content (overlayfs)"))
}

/// What a part is, as a mount that is attached nowhere yet.
fn open_part(images: &Path, part: &Part) -> Result<(Detached, Kind), Error> {
    let failed = |why: String| Error::Content { part: part.shown.clone(), why };
    let (object, kind) = match &part.source {
        Source::Image(number) => {
            let object = open_in_image(&images.join(number.to_string()), &part.path)
                .map_err(|error| failed(error.to_string()))?;
            let stat = nix::sys::stat::fstat(&object).map_err(|errno| failed(errno.desc().to_owned()))?;
            let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
            (object, if is_directory { Kind::Directory } else { Kind::File })
        }
        // It was made when the plan was.
        Source::Directory(directory) => {
            beneath(directory, &part.path, false).map_err(|error| failed(error.to_string()))?
        }
    };
    let tree = mount::clone_descriptor(&object, false).map_err(|errno| failed(errno.desc().to_owned()))?;
    Ok((restricted(tree, part.writable, Path::new(&part.shown))?, kind))
}

/// Opens a path without links.
fn open_in_image(image: &Path, path: &Path) -> std::io::Result<OwnedFd> {
    let root = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(image)?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(&root, path, how)?)
}

/// A tree without privileged programs and devices, and read-only unless it is to be written.
fn restricted(tree: Detached, writable: bool, shown: &Path) -> Result<Detached, Error> {
    let attributes = attr::NOSUID | attr::NODEV | if writable { 0 } else { attr::RDONLY };
    mount::set_attributes(&tree, attributes, false).map_err(refused("restrict", shown))?;
    Ok(tree)
}

fn attach(tree: Detached, target: &Path) -> Result<(), Error> {
    let point = File::options().read(true).custom_flags(libc::O_PATH).open(target);
    let point = point.map_err(io_error("open the mount point", target.display().to_string()))?;
    mount::attach(tree, point).map_err(refused("mount at", target))
}

fn refused(action: &'static str, object: &Path) -> impl FnOnce(nix::errno::Errno) -> Error {
    let object = object.display().to_string();
    move |errno| io_error(action, object)(errno.into())
}

fn make(directory: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(io_error("make the directory", directory.display().to_string())(error))
        }
        _ => Ok(()),
    }
}

fn make_point(place: &Path, kind: Kind) -> Result<(), Error> {
    match kind {
        Kind::Directory => make(place),
        Kind::File => fs::write(place, "").map_err(io_error("make", place.display().to_string())),
    }
}
