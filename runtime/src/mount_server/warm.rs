//! Reading ahead what a start is known to read, while the instance is still being built.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, openat2, posix_fadvise};

use crate::sandbox::points::Point;
use crate::sys::{descriptor, process};

/// Bytes of one request to read ahead: more, and the kernel leaves out the rest (`VM_READAHEAD_PAGES`).
const STEP: usize = 128 << 10;
/// Most bytes that are read ahead. A start-up set is rarely larger than the 3 MiB that any image may have.
const BYTES_MAX: u64 = 8 << 20;

/// Opens `files` in the layers mounted as `directory`/0 to `directory`/`count` - 1, upper ones first, on a thread of
/// its own. Names, links, attributes and contents are in the kernel's caches then, so that the overlay need not ask for
/// them one by one while the user waits. Nothing depends on it, and nothing is told if it fails.
///
/// `points`, of which most do not exist, are looked up before, so that the kernel knows.
///
/// On a single processor there is nobody to do it meanwhile.
pub(super) fn begin(directory: &Path, count: usize, points: &[Point], files: &[Vec<u8>]) {
    if points.is_empty() && files.is_empty() || process::processors() < 2 {
        return;
    }
    let layers: Vec<PathBuf> = (0..count).rev().map(|layer| directory.join(layer.to_string())).collect();
    let (points, files) = (points.to_vec(), files.to_vec());
    let read = move || {
        // A thread that waits for the server it is part of must not be what keeps the server's device open: should the
        // process be killed, nobody would ever answer, nor be told that nobody will.
        if descriptor::own_empty_table().is_ok() {
            let bytes = read(&layers, &points, files);
            log::debug!("Read {bytes} bytes ahead");
        }
    };
    // Without another thread the start is slower, and nothing else.
    let _ = std::thread::Builder::new().name("warm".to_owned()).stack_size(64 << 10).spawn(read);
}

/// Returns how many bytes it has asked for.
fn read(layers: &[PathBuf], points: &[Point], files: Vec<Vec<u8>>) -> u64 {
    let roots: Vec<OwnedFd> = layers.iter().filter_map(|path| names(path)).collect();
    for point in points {
        let path = point.path.strip_prefix("/").unwrap_or(&point.path);
        roots.iter().for_each(|root| drop(open(root, path)));
    }
    let mut left = BYTES_MAX;
    for path in files {
        let path = PathBuf::from(OsString::from_vec(path));
        let Some(file) = roots.iter().find_map(|root| open(root, &path)) else { continue };
        let Some(len) = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len()) else {
            continue;
        };
        for offset in (0..len.min(left)).step_by(STEP) {
            let _ = posix_fadvise(&file, offset as i64, STEP as i64, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
        left = left.saturating_sub(len);
        if left == 0 {
            break;
        }
    }
    BYTES_MAX - left
}

/// Opens the root of a layer and looks at all of its names, which takes one request instead of one for each name that
/// the overlay will ask for.
fn names(path: &Path) -> Option<OwnedFd> {
    std::fs::read_dir(path).ok()?.for_each(drop);
    File::open(path).ok().map(OwnedFd::from)
}

/// Opens as a process in the layer would. Waits for nobody, whatever kind of file it is.
fn open(root: &OwnedFd, path: &Path) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(root.as_fd(), path, OpenHow::new().flags(flags).resolve(resolve)).ok().map(File::from)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn files_are_found_as_a_process_in_the_layers_finds_them() {
        let base = tempfile::tempdir().unwrap();
        let layers = ["1", "0"].map(|name| base.path().join(name));
        for layer in &layers {
            fs::create_dir_all(layer.join("usr/lib")).unwrap();
        }
        let file = |path: PathBuf, bytes: usize| fs::write(path, vec![1; bytes]).unwrap();
        file(layers[0].join("usr/lib/both"), 10);
        file(layers[1].join("usr/lib/both"), 200);
        file(layers[1].join("usr/lib/lower"), 3000);
        file(base.path().join("outside"), 40_000);
        // Links are those of a root: neither an absolute one nor `..` leaves it.
        symlink("/usr/lib", layers[1].join("lib")).unwrap();
        symlink("../../outside", layers[1].join("escape")).unwrap();
        nix::unistd::mkfifo(&layers[1].join("fifo"), Mode::S_IRWXU).unwrap();
        let bytes = |names: &[&str]| read(&layers, &[], names.iter().map(|name| name.as_bytes().to_vec()).collect());
        assert_eq!(bytes(&["lib/both"]), 200, "a link of a layer stays in the layer");
        assert_eq!(bytes(&["usr/lib/both", "usr/lib/lower"]), 3010);
        assert_eq!(bytes(&["fifo", "escape", "usr", "missing", "usr/lib/lower"]), 3000);
        file(layers[1].join("large"), BYTES_MAX as usize + 5);
        assert_eq!(bytes(&["large", "usr/lib/both"]), BYTES_MAX);
    }
}
