//! `fim-layer commit`: the writable layer becomes a read-only one.

use std::fs::{self, DirBuilder, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use runtime::commit::{self, Intent, Omitted, Place, Publication, Scan};
use runtime::error::chain;
use runtime::image::{self, Digest, LayerFacts, LayerKind};
use runtime::mount_server::MAX_LAYERS;
use runtime::pack;
use runtime::squashfs::write;

use super::create::{LAYER, unwritten};
use super::level::Level;
use super::operation::Target;
use crate::draft::{Draft, Use};
use crate::interrupt::Interrupt;
use crate::launch::exclusive::{self, Data, Exclusive};
use crate::progress::Listener;
use crate::stack::{self, MANAGED};
use crate::{Failure, Invocation, Message, cli, publisher, report};

/// The last number of one.
const LAST: u32 = 999;
/// Most sockets that are named one by one.
const NAMED: usize = 10;

/// Commits. The image and the data directory are changed in one step each, which a later start or commit goes on from, should
/// this process be killed.
///
/// # Errors
/// When instances run, when there is nothing to commit, and whatever keeps the layer from being complete; nothing is
/// changed then.
pub(super) fn run(invocation: &Invocation, target: &Target, level: Level) -> Result<i32, Failure> {
    // 1. Have the data directory alone, and know where the layer goes.
    let alone = exclusive::take(invocation, "commit")?.ok_or_else(|| nothing("there is no data directory"))?;
    let destination = Destination::find(invocation, target, &alone.data)?;
    cli::print("Gathering files to compress...\n")?;
    // Dropped last, so that a signal finds everything cleaned up.
    let interrupt = Interrupt::hold()?;
    let draft = destination.draft(&alone.data.path)?;
    // 2. Write the layer, and make the writable layer that is to be.
    let layer = write(&alone, &draft, level, &interrupt, &destination)?;
    cli::print("Filesystem created without errors\n")?;
    // 3. Write down what is about to happen. From here on, whoever comes next goes on.
    let publication = destination.publication(&layer);
    Intent::Publish(publication).begin(&alone.data.path)?;
    // 4. The layer appears in its place, whole.
    if let Err(error) = destination.publish(draft, layer.facts) {
        // What is not there is given up.
        let undone = commit::recover(&alone.data.path, &invocation.path).map(drop);
        undone.unwrap_or_else(|error| report(&format!("warning: {}", chain(&error))));
        return Err(unwritten(error, destination.path()));
    }
    destination.announce()?;
    // 5. The writable layer is replaced by the empty one, and removed.
    commit::swap(&alone.data.path).map_err(|error| {
        let why = chain(&error);
        Message::boxed(format!(
            "the layer is saved, but the writable layer cannot be emptied: {why}; the next start does it"
        ))
    })?;
    alone.clean();
    if matches!(destination, Destination::Image(_)) {
        publisher::tell_of_change(invocation);
    }
    cli::print("Finished erasing files\n")?;
    drop(interrupt);
    Ok(0)
}

/// Not an end that a script may take for success: it would ship an image without what it has just installed.
fn nothing(why: &str) -> Failure {
    Message::boxed(format!("nothing to commit: {why}; FIM_DIR_DATA says which data directory is used"))
}

/// Where the layer goes.
enum Destination {
    Image(PathBuf),
    File(PathBuf),
}

/// A layer that is complete.
struct Layer {
    size: u64,
    digest: Digest,
    facts: LayerFacts,
}

impl Destination {
    fn find(invocation: &Invocation, target: &Target, alone: &Data) -> Result<Self, Failure> {
        let outside = stack::external(&invocation.image, &alone.caller, Some(&alone.path))?;
        let layers = invocation.image.root_layers().count() + outside.len();
        if layers >= MAX_LAYERS && !matches!(target, Target::File(_)) {
            return Err(Message::boxed(format!(
                "there are {layers} layers, and more than {MAX_LAYERS} cannot be stacked; merge some with fim-layer squash"
            )));
        }
        let data = &alone.path;
        match target {
            Target::Binary => {
                if let Some(above) = outside.first() {
                    return Err(Message::boxed(format!(
                        "cannot commit to the image: {} layers outside of it, {} first, lie above its own and would hide \
                         what is committed; commit to a layer, or add those to the image first (fim-layer add) and \
                         remove them",
                        outside.len(),
                        above.path.display()
                    )));
                }
                // Found out before anything is compressed.
                nix::unistd::access(&invocation.path, nix::unistd::AccessFlags::W_OK).map_err(|errno| {
                    Message::boxed(format!(
                        "cannot write {}: {}; commit to a layer or a file instead",
                        invocation.path.display(),
                        errno.desc()
                    ))
                })?;
                Ok(Self::Image(invocation.path.clone()))
            }
            Target::Layer => Ok(Self::File(next_managed(&data.join(MANAGED))?)),
            Target::File(path) => {
                if fs::symlink_metadata(path).is_ok() {
                    return Err(Message::boxed(format!(
                        "Destination file already exists: {}; {}",
                        path.display(),
                        LAYER.fix
                    )));
                }
                let path = std::path::absolute(path)?;
                if pack::contains(&data.join("root"), &path).unwrap_or(false) {
                    return Err(Message::boxed(format!(
                        "{} lies in the writable layer and would be emptied with it; choose a place outside",
                        path.display()
                    )));
                }
                Ok(Self::File(path))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Image(path) | Self::File(path) => path,
        }
    }

    /// Where the layer is written: what is copied into an image has no name.
    fn draft(&self, data: &Path) -> Result<Draft, Failure> {
        match self {
            Self::Image(_) => Draft::create(&data.join("commit.layer"), Use { mode: 0o600, fix: "" }),
            Self::File(path) => {
                if path.parent().is_some_and(|parent| parent == data.join(MANAGED)) {
                    make_managed(&data.join(MANAGED))?;
                }
                Draft::create(path, LAYER)
            }
        }
    }

    fn publication(&self, layer: &Layer) -> Publication {
        let &Layer { size, digest, .. } = layer;
        let place = if matches!(self, Self::Image(_)) { Place::Image } else { Place::File };
        Publication { place, path: self.path().to_owned(), size, digest }
    }

    fn publish(&self, draft: Draft, facts: LayerFacts) -> Result<(), Failure> {
        match self {
            Self::Image(path) => {
                let mut file = &draft.file;
                file.seek(SeekFrom::Start(0))?;
                image::append_layer(path, &mut file, facts)?;
            }
            Self::File(path) => {
                draft.complete(false)?;
                // Its name must be on the medium before the writable layer is given up.
                commit::sync_directory(path.parent().unwrap_or(Path::new("/")))?;
            }
        }
        Ok(())
    }

    fn announce(&self) -> Result<(), Failure> {
        match self {
            Self::Image(_) => cli::print("Filesystem appended to binary without errors\n"),
            Self::File(path) => {
                use std::os::unix::ffi::OsStrExt;
                cli::print_bytes(&[b"Layer saved to '", path.as_os_str().as_bytes(), b"'\n"].concat())
            }
        }
    }
}

fn make_managed(directory: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Message::boxed(format!("cannot make the directory {}: {error}", directory.display())))
        }
        _ => Ok(()),
    }
}

/// The place behind the last managed layer.
fn next_managed(directory: &Path) -> Result<PathBuf, Failure> {
    let number = |name: &str| name.strip_prefix("layer-")?.strip_suffix(".layer")?.parse::<u32>().ok();
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let last = names.filter_map(|name| number(name.to_str()?)).max();
    match last.map_or(0, |last| last.saturating_add(1)) {
        next @ 0..=LAST => Ok(directory.join(format!("layer-{next:03}.layer"))),
        _ => Err(Message::boxed(format!(
            "Maximum number of layers exceeded: the last in {} is number {LAST}; merge them with fim-layer squash layer",
            directory.display()
        ))),
    }
}

/// Packs the writable layer into the draft, in a child that has the IDs of the files.
fn write(
    alone: &Exclusive,
    draft: &Draft,
    level: Level,
    interrupt: &Interrupt,
    destination: &Destination,
) -> Result<Layer, Failure> {
    let explain = |error: commit::Error| chain(unwritten(error.into(), destination.path()).as_ref());
    let work = || pack_layer(alone, &draft.file, level, interrupt).map_err(explain);
    let child = alone.data.inside(work)?;
    if interrupt.comes_before(&child) {
        drop(child);
        return Err(Message::boxed("interrupted; nothing was changed"));
    }
    let said = child.end().map_err(|why| Message::boxed(format!("{why}; nothing was changed")))?;
    let numbers: Vec<u64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [inodes, unpacked] = numbers[..] else {
        return Err(nothing(&format!("the writable layer in {} is empty", alone.data.path.display())));
    };
    let mut file = &draft.file;
    file.seek(SeekFrom::Start(0))?;
    let digest = commit::digest(file)?;
    let facts = LayerFacts { kind: LayerKind::Squashfs, inodes, unpacked };
    Ok(Layer { size: draft.file.metadata()?.len(), digest, facts })
}

/// The child's work; returns the numbers of inodes and of unpacked bytes, or nothing when there is nothing to commit.
fn pack_layer(alone: &Exclusive, out: &File, level: Level, interrupt: &Interrupt) -> Result<String, commit::Error> {
    let scan = Scan::run(&alone.data.path, alone.data.rung.owners())?;
    if scan.is_empty() {
        return Ok(String::new());
    }
    tell(&scan.omitted);
    let options = write::Options { level: level.zstd(), ..write::Options::default() };
    let mut listener = Listener::new(false, interrupt);
    let summary = scan.pack(out, options, &mut listener)?;
    drop(listener);
    commit::make_fresh(&alone.data.path)?;
    Ok(format!("{} {}", summary.inodes, summary.unpacked_bytes.unwrap_or_default()))
}

/// Says what the layer cannot hold.
fn tell(omitted: &Omitted) {
    let Omitted { sockets, restricted } = omitted;
    for socket in sockets.iter().take(NAMED) {
        report(&format!(
            "note: the socket {} is not committed; the program that made it makes it anew",
            socket.display()
        ));
    }
    if let Some(more) = sockets.len().checked_sub(NAMED).filter(|more| *more > 0) {
        report(&format!("note: {more} more sockets are not committed"));
    }
    if *restricted > 0 {
        report(&format!(
            "note: the access control lists of {restricted} files are not committed: a layer cannot hold them"
        ));
    }
}
