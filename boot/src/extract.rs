//! `fim extract`: the merged layers of an image as a directory.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::extract::{self, Omitted};
use runtime::image::Image;
use runtime::progress::Progress;
use runtime::squashfs::Archive;

use crate::interrupt::Interrupt;
use crate::progress::Listener;
use crate::{Failure, Message};

/// Longest part of the directory's name that the partial one has too, in bytes; the whole must stay below 255.
const NAME_PART: usize = 200;

/// What to extract.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The image
    pub image: PathBuf,
    /// The directory to make; it must not exist, or be empty
    pub directory: PathBuf,
    /// No progress bar
    #[arg(short, long)]
    pub quiet: bool,
}

/// Extracts. The directory has its name only when it is complete; until then it is called `NAME.PID.part`.
///
/// # Errors
/// Whatever keeps the tree from being complete; what was written is removed then.
pub fn run(arguments: &Arguments) -> Result<i32, Failure> {
    let image = crate::inspect::open(&arguments.image)?;
    let layers = layers(&image)?;
    let fill = |part: &Path, listener: &mut Listener<'_>| {
        listener.total(unpacked(&image), None);
        extract::extract(&layers, part, listener).map_err(|error| {
            let damaged = matches!(error, extract::Error::Layer { .. } | extract::Error::Contradiction { .. });
            let hint = if damaged { format!("; {}", verify_hint(&image.path)) } else { String::new() };
            explain(&error, &image.path, part, &hint)
        })
    };
    into(&arguments.directory, arguments.quiet, fill)
}

/// Has `directory` filled by `fill` under the name of a part, and renamed when that is done.
///
/// # Errors
/// When the directory is in use, and what `fill` fails with.
pub(crate) fn into(
    directory: &Path,
    quiet: bool,
    fill: impl FnOnce(&Path, &mut Listener<'_>) -> Result<Omitted, Failure>,
) -> Result<i32, Failure> {
    let target = target(directory)?;
    let interrupt = Interrupt::hold()?;
    let part = part(&target)?;
    let mut listener = Listener::new(quiet, &interrupt);
    let extracted = fill(&part, &mut listener);
    drop(listener);
    let omitted = extracted?;
    if let Err(error) = fs::rename(&part, &target) {
        // The tree is complete, so it is the user's to keep.
        return Err(Message::boxed(format!(
            "cannot rename {} to {}: {error}; everything is extracted: move it by hand",
            part.display(),
            target.display()
        )));
    }
    if !omitted.is_nothing() {
        crate::report(&format!("note: not restored: {omitted}; extract as root to a Linux file system to keep them"));
    }
    Ok(0)
}

/// The layers of the root file system, every byte of which is verified when it is read.
pub(crate) fn layers(image: &Image) -> Result<Vec<Archive>, Failure> {
    let failed = |index: usize, error: &dyn std::error::Error| {
        let (cause, path) = (runtime::error::chain(error), image.path.display());
        Message::boxed(format!("cannot read layer {index} of {path}: {cause}; {}", verify_hint(&image.path)))
    };
    let mut layers = Vec::new();
    for index in image.root_layers() {
        let source = image.layer_source(index).map_err(|error| failed(index, &error))?;
        layers.push(Archive::open(Arc::new(source)).map_err(|error| failed(index, &error))?);
    }
    if layers.is_empty() {
        return Err(Message::boxed(format!("{} has no layer with files", image.path.display())));
    }
    Ok(layers)
}

/// Bytes of file contents to come; known for one layer that tells them.
pub(crate) fn unpacked(image: &Image) -> Option<u64> {
    let mut layers = image.root_layers();
    let only = layers.next().filter(|_| layers.next().is_none())?;
    image.config.layers.get(only).map(|layer| layer.unpacked).filter(|bytes| *bytes > 0)
}

/// The absolute path to extract to: something that does not exist, or an empty directory.
fn target(directory: &Path) -> Result<PathBuf, Failure> {
    let shown = directory.display();
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Message::boxed(format!("{shown} is not empty; name a directory that does not exist")));
            }
            let target = directory.canonicalize()?;
            // It is replaced, and whoever works in it would be left in one that is gone.
            if std::env::current_dir().is_ok_and(|current| current.starts_with(&target)) {
                return Err(Message::boxed(format!(
                    "{shown} is the current directory; name another, or call from outside"
                )));
            }
            Ok(target)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(directory).is_err() => {
            let Some(name) = directory.file_name() else {
                return Err(Message::boxed(format!("{shown} has no name; name a directory that does not exist")));
            };
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let parent = parent.canonicalize().map_err(|error| {
                Message::boxed(format!("cannot make {shown}: {}: {error}; make that directory first", parent.display()))
            })?;
            Ok(parent.join(name))
        }
        Err(error) => Err(Message::boxed(format!(
            "cannot extract to {shown}: {error}; name a directory that does not exist or is empty"
        ))),
    }
}

/// The name of the target while it is not complete, beside it.
fn part(target: &Path) -> Result<PathBuf, Failure> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let Some(name) = target.file_name() else {
        return Err(Message::boxed("cannot replace the root directory; name a directory that does not exist"));
    };
    let name = name.as_bytes();
    let mut part = name[..name.len().min(NAME_PART)].to_vec();
    part.extend_from_slice(format!(".{}.part", std::process::id()).as_bytes());
    Ok(target.with_file_name(OsString::from_vec(part)))
}

fn verify_hint(image: &Path) -> String {
    format!("`fim verify {}` tells whether the file was damaged", image.display())
}

/// Why `part` is not complete, what is left of it, and what helps.
pub(crate) fn explain(error: &extract::Error, source: &Path, part: &Path, hint: &str) -> Failure {
    let full = matches!(&error, extract::Error::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull);
    let hint = if full { "; free some space or extract elsewhere" } else { hint };
    let cause = runtime::error::chain(error);
    let rest = match fs::symlink_metadata(part) {
        Ok(_) => format!("remove {}, which is not complete", part.display()),
        Err(_) => "nothing of it was left".to_owned(),
    };
    Message::boxed(format!("{}: {cause}; {rest}{hint}", source.display()))
}
