//! Producers in the directory of the image.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use runtime::image::declared::{Plug, Slot};
use runtime::image::elf::is_marked;

use super::producer::Producer;
use crate::launch::facts::{self, Caller};

/// Most files that are looked at: a directory of downloads must not make a start slow.
const MOST: usize = 1000;

/// The images beside the image at `image` that have a slot for `plug`, by name. Files that are no images, or cannot be
/// read, are passed over, as are links: what they name is a file of its own, or of another directory.
pub(super) fn fitting(image: &Path, plug: &Plug, caller: &Caller) -> Vec<(Producer, Slot)> {
    let entries = fs::read_dir(facts::directory(image)).into_iter().flatten().flatten().take(MOST);
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .filter(|path| path != image && begins_as_image(path))
        .collect();
    files.sort();
    let fits = |path: &PathBuf| {
        let producer = Producer::open(path, caller).ok()?;
        let slot = producer.slot(plug, None).ok()?;
        Some((producer, slot))
    };
    files.iter().filter_map(fits).collect()
}

fn begins_as_image(path: &Path) -> bool {
    let mut start = [0; 16];
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    opened.is_ok_and(|file| file.read_exact_at(&mut start, 0).is_ok() && is_marked(&start))
}
