//! What cannot be packed faithfully is an error that names it.

use crate::{chain, layer, options};
use runtime::pack::{Error, Progress};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Does something to the source between the scan and the reading, or in the middle of the reading.
struct Meddler<F: FnMut(&Path)> {
    path: PathBuf,
    early: bool,
    meddle: Option<F>,
}

impl<F: FnMut(&Path)> Progress for Meddler<F> {
    fn total(&mut self, _: Option<u64>, _: Option<u64>) {
        if self.early {
            self.meddle.take().unwrap()(&self.path);
        }
    }
    fn advance(&mut self, _: u64, _: u64) {
        if let Some(mut meddle) = self.meddle.take() {
            meddle(&self.path);
        }
    }
}

fn packed_while(early: bool, meddle: impl FnMut(&Path)) -> Error {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    let path = source.join("victim");
    fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
    let out = File::options().read(true).write(true).create_new(true).open(work.path().join("image")).unwrap();
    let mut meddler = Meddler { path, early, meddle: Some(meddle) };
    layer(&source).unwrap().pack(&out, 0, &options(2), &mut meddler).unwrap_err()
}

fn grow(path: &Path) {
    File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

fn shrink(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
}

#[test]
fn pack_fails_when_a_file_disappears() {
    let error = packed_while(true, |path| fs::remove_file(path).unwrap());
    assert!(matches!(&error, Error::Read { action: "open", .. }), "{error:?}");
    let text = chain(&error);
    assert!(text.contains("source/victim: No such file"), "{text}");
}

#[test]
fn pack_fails_when_a_file_grows_or_shrinks() {
    for (early, meddle) in [(true, grow as fn(&Path)), (true, shrink), (false, grow), (false, shrink)] {
        let error = packed_while(early, meddle);
        assert!(matches!(&error, Error::Changed { path } if path.ends_with("victim")), "early {early}: {error:?}");
    }
}

#[test]
fn pack_fails_and_does_not_wait_when_a_file_becomes_a_pipe_or_a_link() {
    let error = packed_while(true, |path| {
        fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    });
    assert!(matches!(error, Error::Changed { .. }), "{error:?}");
    let error = packed_while(true, |path| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
    });
    assert!(chain(&error).contains("victim"), "{error:?}");
}

/// The output's own reason arrives, not libsquashfs's "I/O failure".
#[test]
fn pack_says_why_the_output_cannot_be_written() {
    let work = tempfile::tempdir().unwrap();
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let error = layer(work.path()).unwrap().pack(&full, 0, &options(1), &mut ()).unwrap_err();
    let text = chain(&error);
    assert!(text.contains("No space left on device"), "{text}");

    // A later block, from inside libsquashfs.
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("noise"), crate::tree::noise(1, 1 << 20)).unwrap();
    let image = work.path().join("image");
    File::create(&image).unwrap();
    let read_only = File::open(&image).unwrap();
    let error = layer(&source).unwrap().pack(&read_only, 0, &options(1), &mut ()).unwrap_err();
    assert!(chain(&error).contains("Bad file descriptor"), "{}", chain(&error));
}

#[test]
fn pack_fails_when_a_directory_cannot_be_listed() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("missing");
    fs::create_dir(&source).unwrap();
    let layer = layer(&source).unwrap();
    fs::remove_dir(&source).unwrap();
    let out = tempfile::tempfile().unwrap();
    let error = layer.pack(&out, 0, &options(1), &mut ()).unwrap_err();
    assert!(chain(&error).contains("missing: No such file"), "{}", chain(&error));
}
