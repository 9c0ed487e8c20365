//! The layers of a start that lie outside of the image: what `FIM_LAYERS` names, then the managed layers in the data
//! directory. They are stacked in this order on those of the image.
//!
//! A layer file is opened here, and read by the mount server, which refuses what is no squashfs before anything runs.

mod order;
mod variable;

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::image::Image;
use runtime::mount_server::MAX_LAYERS;
use runtime::source::{ByteSource, FileRange};
use runtime::squashfs::{Archive, MAGIC};

use crate::launch::facts::Caller;
use crate::{Failure, Message, report};

/// Directory of the managed layers in the data directory.
pub(crate) const MANAGED: &str = "layers";
/// How the name of a managed layer ends. What is called otherwise is no business of ours.
pub(crate) const ENDING: &str = ".layer";

/// A layer in a file of its own.
#[derive(Debug, Clone)]
pub(crate) struct External {
    /// Absolute path.
    pub path: PathBuf,
    /// The open file.
    pub file: Arc<File>,
    /// Its length in bytes.
    pub len: u64,
    /// What tells it from another file, and from what it was before a change: inode number and times of change.
    pub version: String,
    /// Whether it lies in the data directory.
    pub managed: bool,
}

/// All layers of a start below the writable one, bottom first, to be read by this process.
///
/// # Errors
/// A layer that cannot be opened.
pub(crate) fn archives(image: &Image, caller: &Caller, data: Option<&Path>) -> Result<Vec<Archive>, Failure> {
    let open = |source: Arc<dyn ByteSource>, name: &dyn std::fmt::Display| {
        Archive::open(source)
            .map_err(|error| Message::boxed(format!("cannot read {name}: {}", runtime::error::chain(&error))))
    };
    let mut layers = Vec::new();
    for index in image.root_layers() {
        let name = format!("layer {index} of {}", image.path.display());
        layers.push(open(Arc::new(image.layer_source(index)?), &name)?);
    }
    for layer in external(image, caller, data)? {
        let source = Arc::new(FileRange::new(Arc::clone(&layer.file), 0, layer.len));
        layers.push(open(source, &layer.path.display())?);
    }
    Ok(layers)
}

/// Finds and opens the layer files of a start, bottom first. `data` is the data directory, when there is one.
///
/// # Errors
/// A layer file that cannot be opened, and more layers than can be stacked.
pub(crate) fn external(image: &Image, caller: &Caller, data: Option<&Path>) -> Result<Vec<External>, Failure> {
    let mut layers = Vec::new();
    for path in variable::paths(caller) {
        // Of a relative path, the working directory is part of what names the layer.
        let path = std::path::absolute(&path).unwrap_or(path);
        named(&path, &mut layers)?;
    }
    if let Some(data) = data {
        managed(&data.join(MANAGED), &mut layers)?;
    }
    let embedded = image.root_layers().count();
    let all = embedded + layers.len();
    if all > MAX_LAYERS {
        return Err(Message::boxed(format!(
            "{all} layers ({embedded} in the image, {} outside of it) are to be stacked, and at most {MAX_LAYERS} can \
             be; merge some with fim-layer squash",
            layers.len()
        )));
    }
    Ok(layers)
}

/// A path of the variable: a layer file, or a directory with layer files among others.
fn named(path: &Path, layers: &mut Vec<External>) -> Result<(), Failure> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            for path in files(path)? {
                if is_squashfs(&path).map_err(|error| unusable(&path, &error))? {
                    layers.push(open(path, false)?);
                }
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let shown = path.display();
            report(&format!("warning: {} names {shown}, which does not exist; it is passed over", variable::NAME));
            Ok(())
        }
        // What else is wrong shows when it is opened.
        _ => {
            layers.push(open(path.to_owned(), false)?);
            Ok(())
        }
    }
}

/// The managed layers in this directory, bottom first.
///
/// # Errors
/// When one cannot be opened.
pub(crate) fn managed_layers(directory: &Path) -> Result<Vec<External>, Failure> {
    let mut layers = Vec::new();
    managed(directory, &mut layers).map(|()| layers)
}

/// The layers that fim keeps in the data directory.
fn managed(directory: &Path, layers: &mut Vec<External>) -> Result<(), Failure> {
    // Most data directories have none.
    if !directory.is_dir() {
        return Ok(());
    }
    for path in files(directory)? {
        if path.as_os_str().as_bytes().ends_with(ENDING.as_bytes()) {
            layers.push(open(path, true)?);
        }
    }
    Ok(())
}

/// Regular files of a directory, links followed, in the order of layers.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unlisted = |error| Message::boxed(format!("cannot list the layers in {}: {error}", directory.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(unlisted)? {
        names.push(entry.map_err(unlisted)?.file_name());
    }
    names.sort_by(|one, other| order::compare(one.as_bytes(), other.as_bytes()));
    let paths = names.into_iter().map(|name| directory.join(name));
    Ok(paths.filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.is_file())).collect())
}

fn is_squashfs(path: &Path) -> io::Result<bool> {
    let mut magic = [0; 4];
    match open_quietly(path)?.read_exact_at(&mut magic, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| u32::from_le_bytes(magic) == MAGIC),
    }
}

/// Opens without waiting, should it be a named pipe.
fn open_quietly(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Message::boxed(format!("cannot use the layer {}: {error}; name another, or remove it", path.display()))
}

/// Opens a layer file.
///
/// # Errors
/// When it cannot be read or is no regular file.
pub(crate) fn open(path: PathBuf, managed: bool) -> Result<External, Failure> {
    let opened = open_quietly(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.map_err(|error| unusable(&path, &error))?;
    if !metadata.is_file() {
        return Err(unusable(&path, &"it is no regular file"));
    }
    let version = format!(
        "{}:{}.{:09}:{}.{:09}",
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    );
    Ok(External { path, file: Arc::new(file), len: metadata.len(), version, managed })
}

/// Lines of the session record that tell these layers from others; the first has this position in the stack.
pub(crate) fn shape(layers: &[External], first: usize) -> impl Iterator<Item = String> + '_ {
    layers.iter().enumerate().map(move |(at, layer)| {
        let path = String::from_utf8_lossy(layer.path.as_os_str().as_bytes());
        format!("layer {} {} ({} bytes, {})", first + at, path.escape_debug(), layer.len, layer.version)
    })
}
