//! The file that a command makes, while it is not complete.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat2};
use nix::unistd::linkat;
use runtime::cache;

use crate::{Failure, Message};

/// Longest part of the output's name that the draft's has too, in bytes; the whole must stay below 255.
const NAME_PART: usize = 200;
/// Ending of a draft's own name.
const PART: &str = "part";

/// What the file is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Its mode, before the caller's mask (umask(2)).
    pub mode: u32,
    /// What to do about another file that has its name.
    pub fix: &'static str,
}

/// A file in the output's directory. It has no name, so that nothing is left of it however the program ends; on file
/// systems without that (FAT, NFS) it has one of its own, which goes when the draft does.
pub(crate) struct Draft {
    pub file: File,
    output: PathBuf,
    use_of: Use,
    /// Its name; the file has it from the beginning or on its way to replace another.
    path: PathBuf,
    named: bool,
}

impl Draft {
    /// Begins the draft of `output`.
    pub(crate) fn create(output: &Path, use_of: Use) -> Result<Self, Failure> {
        let parent = parent(output);
        let nameless =
            File::options().read(true).write(true).custom_flags(nix::libc::O_TMPFILE).mode(0o600).open(parent);
        match nameless {
            Ok(file) => {
                Ok(Self { file, output: output.to_owned(), use_of, path: name(parent, output, PART), named: false })
            }
            // EISDIR and ENOENT are answers of kernels and file systems that do not know O_TMPFILE.
            Err(error)
                if matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT | Errno::ENOSYS)
                ) =>
            {
                Self::create_named(parent, output, use_of)
            }
            Err(error) => Err(refused("file", parent, &error)),
        }
    }

    fn create_named(parent: &Path, output: &Path, use_of: Use) -> Result<Self, Failure> {
        let path = name(parent, output, PART);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| refused("file", parent, &error))?;
        Ok(Self { file, output: output.to_owned(), use_of, path, named: true })
    }

    /// A file beside `output` that never gets a name: room for what is needed in between.
    pub(crate) fn scratch(output: &Path) -> Result<File, Failure> {
        let draft = Self::create(output, Use { mode: 0o600, fix: "" })?;
        draft.file.try_clone().map_err(|error| refused("file", parent(output), &error))
    }

    /// Gives the complete file its name. With `replace`, what has the name gives way in one step.
    pub(crate) fn complete(mut self, replace: bool) -> Result<(), Failure> {
        self.file.set_permissions(Permissions::from_mode(self.use_of.mode & !umask()?))?;
        self.file.sync_all().map_err(|error| self.incomplete(&error))?;
        if !self.named {
            if !replace {
                return self.link(&self.output).map_err(|error| self.incomplete(&error));
            }
            self.link(&self.path).map_err(|error| self.incomplete(&error))?;
            self.named = true;
        }
        let renamed = if replace { fs::rename(&self.path, &self.output) } else { rename_new(&self.path, &self.output) };
        renamed.map_err(|error| self.incomplete(&error))?;
        self.named = false;
        Ok(())
    }

    fn link(&self, path: &Path) -> io::Result<()> {
        // The way of open(2) that needs no privilege.
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(linkat(AT_FDCWD, file.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
    }

    fn incomplete(&self, error: &io::Error) -> Failure {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        let hint = if exists { format!("; it was made meanwhile: {}", self.use_of.fix) } else { String::new() };
        Message::boxed(format!("cannot complete {}: {error}{hint}", self.output.display()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.named {
            // Nothing more can be done about it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A directory beside the output for what is needed in between. It goes with its owner.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes `.NAME.PID.ENDING` beside `output`, for the caller only.
    pub(crate) fn create(output: &Path, ending: &str) -> Result<Self, Failure> {
        let parent = parent(output);
        let path = name(parent, output, ending);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| refused("directory", parent, &error))?;
        // From here on it is removed, whatever comes.
        let mut scratch = Self(path);
        scratch.0 =
            scratch.0.canonicalize().map_err(|error| Message::boxed(format!("{}: {error}", scratch.0.display())))?;
        Ok(scratch)
    }

    /// Its absolute path, without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = cache::remove_tree(&self.0) {
            let error = runtime::error::chain(&error);
            crate::report(&format!("warning: {error}; remove {} by hand", self.0.display()));
        }
    }
}

/// Whether the file system is full, or the caller has used up what it may use of it.
pub(crate) fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The directory of `output`.
fn parent(output: &Path) -> &Path {
    output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `.NAME.PID.ENDING` beside the output.
fn name(parent: &Path, output: &Path, ending: &str) -> PathBuf {
    let output = output.file_name().unwrap_or_default().as_bytes();
    let mut name = b".".to_vec();
    name.extend_from_slice(&output[..output.len().min(NAME_PART)]);
    name.extend_from_slice(format!(".{}.{ending}", std::process::id()).as_bytes());
    parent.join(OsString::from_vec(name))
}

fn refused(what: &str, parent: &Path, error: &io::Error) -> Failure {
    Message::boxed(format!(
        "cannot create a {what} in {}: {error}; the output's directory must exist and be writable",
        parent.display()
    ))
}

/// Renames unless `to` exists.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system without the flag: what was refused at the beginning is asked again.
        Err(Errno::EINVAL | Errno::ENOSYS) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(Errno::EINVAL | Errno::ENOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

/// The mask of new files (umask(2)), which can be asked for by setting it only.
fn umask() -> io::Result<u32> {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    Ok(mask.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const USE: Use = Use { mode: 0o777, fix: "give --force" };

    fn both(check: impl Fn(&dyn Fn(&Path) -> Draft)) {
        check(&|output| Draft::create(output, USE).unwrap());
        check(&|output| Draft::create_named(output.parent().unwrap(), output, USE).unwrap());
    }

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_dropped_draft_leaves_nothing() {
        both(|create| {
            let work = tempfile::tempdir().unwrap();
            drop(create(&work.path().join("app")));
            assert!(names(work.path()).is_empty());
        });
    }

    #[test]
    fn a_complete_draft_has_its_name_only() {
        both(|create| {
            let work = tempfile::tempdir().unwrap();
            let output = work.path().join("app");
            for (text, replace) in [("one", false), ("two", true)] {
                let mut draft = create(&output);
                draft.file.write_all(text.as_bytes()).unwrap();
                draft.complete(replace).unwrap();
                assert_eq!(names(work.path()), ["app"]);
                assert_eq!(fs::read_to_string(&output).unwrap(), text);
                assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o700, 0o700);
            }
        });
    }

    #[test]
    fn what_was_made_meanwhile_is_kept() {
        both(|create| {
            let work = tempfile::tempdir().unwrap();
            let output = work.path().join("app");
            let draft = create(&output);
            fs::write(&output, "mine").unwrap();
            let error = draft.complete(false).unwrap_err().to_string();
            assert!(error.contains("--force"), "{error}");
            assert_eq!((fs::read_to_string(&output).unwrap(), names(work.path()).len()), ("mine".to_owned(), 1));
        });
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let error = Draft::create(Path::new("/nonexistent/app"), USE).err().unwrap().to_string();
        assert!(error.contains("in /nonexistent: No such file"), "{error}");
    }
}
