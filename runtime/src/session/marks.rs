//! In which form the upper directory of a data directory says that names are gone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Error;
use crate::fuse::overlay::{Marks, takes_kernel_marks};

/// File in the data directory that says that its marks are plain; without it they are the kernel's.
const RECORD: &str = "marks";
/// What it holds. Changing what the marks are needs another number.
const PLAIN: &str = "fim-marks 1 plain\n";

/// Whether a data directory has marks that the kernel's overlay does not understand.
#[must_use]
pub fn is_recorded(data: &Path) -> bool {
    fs::symlink_metadata(data.join(RECORD)).is_ok()
}

/// The marks of a data directory in which there is something; touches nothing.
///
/// # Errors
/// I/O errors, and a record of another version.
pub fn recorded(data: &Path) -> Result<Marks, Error> {
    read(data).map(|recorded| recorded.unwrap_or(Marks::Kernel))
}

/// The marks of a data directory: the kernel's where its file system can hold them, so that either overlay can go on with
/// it. A choice for the others is recorded, and kept when the directory comes to another file system.
///
/// # Errors
/// I/O errors, and a record of another version.
pub fn settle(data: &Path) -> Result<Marks, Error> {
    if let Some(marks) = read(data)? {
        return Ok(marks);
    }
    let path = data.join(RECORD);
    let error = |action| Error::io(action, &path);
    if takes_kernel_marks(&data.join("work")).map_err(error("choose"))? {
        return Ok(Marks::Kernel);
    }
    // Whole or not at all.
    let draft = data.join("marks.new");
    fs::write(&draft, PLAIN).and_then(|()| fs::rename(&draft, &path)).map_err(error("write"))?;
    Ok(Marks::Plain)
}

/// What is recorded, if anything is.
fn read(data: &Path) -> Result<Option<Marks>, Error> {
    let path = data.join(RECORD);
    let error = |action| Error::io(action, &path);
    match File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(PLAIN.len() as u64 + 1).read_to_string(&mut text).map_err(error("read"))?;
            if text == PLAIN {
                return Ok(Some(Marks::Plain));
            }
            Err(error("understand")(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged, or of a newer version; set FIM_DIR_DATA to another directory",
            )))
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(error("read")(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_settled_once() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("work")).unwrap();
        assert_eq!(settle(data.path()).unwrap(), Marks::Kernel);
        assert_eq!(recorded(data.path()).unwrap(), Marks::Kernel);
        assert!(!is_recorded(data.path()));
        fs::write(data.path().join(RECORD), PLAIN).unwrap();
        assert_eq!(settle(data.path()).unwrap(), Marks::Plain);
        assert!(is_recorded(data.path()));
        for text in ["", "fim-marks 2 plain\n", "fim-marks 1 plain\nx"] {
            fs::write(data.path().join(RECORD), text).unwrap();
            assert!(settle(data.path()).is_err() && recorded(data.path()).is_err(), "{text:?}");
        }
    }
}
