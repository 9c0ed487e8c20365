//! Named pipes: made private, opened without waiting, never followed through symlinks (fifo(7)).

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::Error;

/// Name of the pipe on which an instance's guest daemon hears of requests, below the instance's directory.
pub const GUEST: &str = "guest.fifo";

/// Makes a named pipe that only its owner may open.
///
/// # Errors
/// `EEXIST` and other I/O errors.
pub fn create(path: &Path) -> Result<(), Error> {
    interprocess::os::unix::fifo_file::create_fifo(path, 0o600).map_err(Error::io("make the named pipe", path))
}

fn open(path: &Path, options: &mut std::fs::OpenOptions) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_fifo() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a named pipe of this user"));
    }
    Ok(file)
}

/// A write end; `None` when nobody reads, or the pipe is gone.
///
/// # Errors
/// When the path is something else than a named pipe of the caller's, and other I/O errors.
pub fn writer(path: &Path) -> Result<Option<File>, Error> {
    match open(path, File::options().write(true)) {
        Ok(pipe) => Ok(Some(pipe)),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) || error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open the named pipe", path)(error)),
    }
}

/// A read end; it sees the end of file when the last write end is closed.
///
/// # Errors
/// As [`writer`].
pub fn reader(path: &Path) -> Result<File, Error> {
    open(path, File::options().read(true)).map_err(Error::io("open the named pipe", path))
}

/// A read end that never sees the end of file, for it counts as a writer too.
///
/// # Errors
/// As [`writer`].
pub fn listener(path: &Path) -> Result<File, Error> {
    open(path, File::options().read(true).write(true)).map_err(Error::io("open the named pipe", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_needs_a_reader() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("pipe");
        assert!(writer(&path).unwrap().is_none());
        create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(writer(&path).unwrap().is_none());
        let _reader = reader(&path).unwrap();
        assert!(writer(&path).unwrap().is_some());
        assert!(create(&path).is_err());
    }

    #[test]
    fn files_and_links_in_its_place_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (base.path().join("file"), base.path().join("link"), base.path().join("pipe"));
        std::fs::write(&file, "").unwrap();
        create(&pipe).unwrap();
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [&file, &link] {
            assert!(writer(path).is_err() && reader(path).is_err() && listener(path).is_err(), "{}", path.display());
        }
    }
}
