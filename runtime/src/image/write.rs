//! Writing into an image that may be executed at the same moment.
//!
//! The kernel refuses to open an executing file for writing, and to execute one that is open for writing
//! (`ETXTBSY` both ways). Our processes run from a memfd, so the file itself is executing only for the moment
//! of a start: a writer waits for that moment to end, and keeps its own descriptor only around `pwrite`.
//! A file that stays busy is replaced by a changed copy.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use xattr::FileExt as _;

use super::error::Error;
use super::open::{Contents, read};
use crate::source::FileRange;
use crate::sys::clone_file::clone_file;

/// How long a writer waits for an executing file before it writes a copy. A start takes a few milliseconds;
/// a program that runs from the file itself (where executing a memfd is forbidden) stays busy until it ends.
const BUSY_WAIT: Duration = Duration::from_millis(500);

/// An image file that no other writer can change: the lock is on the file that `path` names.
pub(super) struct Locked {
    pub path: PathBuf,
    pub file: Arc<File>,
    _lock: Flock<File>,
}

impl Locked {
    /// Waits for the lock of the image at `path`. A writer may replace the file, so the file that was locked
    /// is compared with the one that the path names afterwards.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        let open_failed = |source| Error::Open { path: path.to_owned(), source };
        loop {
            let real = fs::canonicalize(path).map_err(open_failed)?;
            let file = File::open(&real).map_err(open_failed)?;
            let handle = file.try_clone().map_err(open_failed)?;
            let lock_failed = |errno: Errno| Error::Lock { path: path.to_owned(), source: errno.into() };
            let lock = lock_exclusive(handle).map_err(lock_failed)?;
            if is_same(&file, &real).map_err(open_failed)? {
                return Ok(Self { path: real, file: Arc::new(file), _lock: lock });
            }
        }
    }

    /// What the image says about itself now.
    pub fn contents(&self) -> Result<Contents, Error> {
        let failed = |source| Error::Read { path: self.path.clone(), source };
        let source = FileRange::whole(Arc::clone(&self.file)).map_err(|error| failed(error.into()))?;
        read(&source).map_err(failed)?.ok_or_else(|| Error::NoPayload { path: self.path.clone() })
    }
}

fn lock_exclusive(mut file: File) -> Result<Flock<File>, Errno> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno),
        }
    }
}

/// Whether `path` still names `file`.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, named) = (file.metadata()?, fs::symlink_metadata(path));
    match named {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes into a locked image: in place, or into a copy once the file turns out to be executing.
pub(super) struct Writer<'a> {
    locked: &'a Locked,
    replacement: Option<Replacement>,
}

impl<'a> Writer<'a> {
    /// Writes in place where possible: for a few bytes.
    pub fn in_place(locked: &'a Locked) -> Self {
        Self { locked, replacement: None }
    }

    /// Writes into a copy where it costs nothing (FICLONE), else in place: for many bytes.
    pub fn into_clone(locked: &'a Locked) -> Self {
        // Whatever forbids the clone (file system, directory) leaves the other way.
        Self { locked, replacement: Replacement::create(locked, true).ok() }
    }

    /// Writes into a copy that has a hole in place of these bytes, and ends at `end`.
    pub fn into_copy(locked: &'a Locked, hole: Range<u64>, end: u64) -> Result<Self, Error> {
        let failed = |source: io::Error| {
            let path = locked.path.clone();
            if is_read_only(&source) { Error::NoRoom { path, source } } else { Error::Write { path, source } }
        };
        let replacement = Replacement::with_hole(locked, hole, end).map_err(failed)?;
        Ok(Self { locked, replacement: Some(replacement) })
    }

    /// Takes back what was written behind `len`, after a failure.
    pub fn shrink(&mut self, len: u64) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.locked.path.clone(), source };
        // A copy is given up as a whole.
        if self.replacement.is_none()
            && let Some(idle) = open_idle(&self.locked.path).map_err(failed)?
            && is_same(&self.locked.file, &self.locked.path).map_err(failed)?
        {
            idle.file.set_len(len).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`. In place, the file is open for writing only inside this function.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let failed = |source: io::Error| {
            let path = self.locked.path.clone();
            if is_read_only(&source) { Error::ReadOnly { path, source } } else { Error::Write { path, source } }
        };
        if self.replacement.is_none() {
            if let Some(idle) = open_idle(&self.locked.path).map_err(failed)? {
                if !is_same(&idle.file, &self.locked.path).map_err(failed)?
                    || !is_same(&self.locked.file, &self.locked.path).map_err(failed)?
                {
                    return Err(Error::Replaced { path: self.locked.path.clone() });
                }
                return idle.file.write_all_at(bytes, offset).map_err(failed);
            }
            let made = Replacement::create(self.locked, false);
            let path = self.locked.path.clone();
            self.replacement = Some(made.map_err(|source| Error::Replace { path, source })?);
        }
        match &self.replacement {
            Some(replacement) => replacement.file.write_all_at(bytes, offset).map_err(failed),
            None => Ok(()),
        }
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> Result<(), Error> {
        let file = self.replacement.as_ref().map_or(&*self.locked.file, |replacement| &replacement.file);
        file.sync_all().map_err(|source| Error::Write { path: self.locked.path.clone(), source })
    }

    /// Puts a copy, if there is one, in the place of the image.
    pub fn commit(self) -> Result<(), Error> {
        let Some(mut replacement) = self.replacement else { return Ok(()) };
        let path = &self.locked.path;
        let failed = |source| Error::Write { path: path.clone(), source };
        if !is_same(&self.locked.file, path).map_err(failed)? {
            return Err(Error::Replaced { path: path.clone() });
        }
        // `sync` was the last write; a descriptor that stayed open would make the next start fail.
        replacement.file = File::open(&replacement.path).map_err(failed)?;
        fs::rename(&replacement.path, path).map_err(failed)?;
        replacement.renamed = true;
        File::open(directory(path)).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The image, open for writing. Fields drop in this order: closing an inotify descriptor takes the kernel
/// 10 to 20 milliseconds, in which the image must not be open for writing any more.
struct Idle {
    file: File,
    _watch: Option<Inotify>,
}

/// Opens the file for writing as soon as it is not executing; `None` when it stays busy.
///
/// The end of an execution is a close without writing, which inotify(7) reports.
fn open_idle(path: &Path) -> io::Result<Option<Idle>> {
    let deadline = Instant::now() + BUSY_WAIT;
    let mut watch: Option<Inotify> = None;
    loop {
        match OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {}
            opened => return opened.map(|file| Some(Idle { file, _watch: watch })),
        }
        // The watch is in place before the next attempt, so an end in between is not missed.
        let Some(inotify) = &watch else {
            match watch_closes(path) {
                Ok(inotify) => watch = Some(inotify),
                // Out of watches: a copy needs none.
                Err(_) => return Ok(None),
            }
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // At most BUSY_WAIT, rounded up so that the last wait is not a spin.
        let timeout = PollTimeout::from(left.as_millis() as u16 + 1);
        match poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        match inotify.read_events() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn watch_closes(path: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(path, AddWatchFlags::IN_CLOSE_NOWRITE)?;
    Ok(inotify)
}

/// A copy of the image beside it. Its name is fixed, so what an interrupted writer left is overwritten by the
/// next; the lock makes sure that there is one.
struct Replacement {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Replacement {
    fn create(locked: &Locked, clone_only: bool) -> io::Result<Self> {
        let copy = Self::empty(locked)?;
        match clone_file(&copy.file, &locked.file) {
            Err(error) if clone_only => return Err(error),
            Err(_) => copy.take(locked, 0..u64::MAX)?,
            Ok(()) => {}
        }
        copy.take_attributes(&locked.file)?;
        Ok(copy)
    }

    /// A copy that has a hole in place of these bytes, and ends at `end`.
    fn with_hole(locked: &Locked, hole: Range<u64>, end: u64) -> io::Result<Self> {
        let copy = Self::empty(locked)?;
        if clone_file(&copy.file, &locked.file).is_err() {
            copy.take(locked, 0..hole.start)?;
            copy.take(locked, hole.end..end)?;
        }
        copy.file.set_len(end)?;
        if !hole.is_empty() {
            let (mode, length) = (FallocateFlags::FALLOC_FL_PUNCH_HOLE, (hole.end - hole.start) as i64);
            // Where that is not known, the space stays taken and means nothing.
            let _ = fallocate(&copy.file, mode | FallocateFlags::FALLOC_FL_KEEP_SIZE, hole.start as i64, length);
        }
        copy.take_attributes(&locked.file)?;
        Ok(copy)
    }

    /// An empty file beside the image.
    fn empty(locked: &Locked) -> io::Result<Self> {
        let path = directory(&locked.path).join(name_of_copy(&locked.path));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, renamed: false })
    }

    /// Copies a range of the image, as far as the image reaches, to the same place.
    fn take(&self, locked: &Locked, range: Range<u64>) -> io::Result<()> {
        let mut image = File::open(&locked.path)?;
        image.seek(SeekFrom::Start(range.start))?;
        (&self.file).seek(SeekFrom::Start(range.start))?;
        io::copy(&mut image.take(range.end - range.start), &mut &self.file)?;
        Ok(())
    }

    /// Owner, extended attributes and mode of the original, in the order in which none resets another.
    fn take_attributes(&self, original: &File) -> io::Result<()> {
        let (theirs, ours) = (original.metadata()?, self.file.metadata()?);
        if (theirs.uid(), theirs.gid()) != (ours.uid(), ours.gid()) {
            std::os::unix::fs::fchown(&self.file, Some(theirs.uid()), Some(theirs.gid()))?;
        }
        for name in original.list_xattr().into_iter().flatten() {
            // Names of the user are copied; those of the system (labels, ACLs) come from the directory.
            if name.as_encoded_bytes().starts_with(b"user.")
                && let Some(value) = original.get_xattr(&name)?
            {
                self.file.set_xattr(&name, &value)?;
            }
        }
        self.file.set_permissions(Permissions::from_mode(theirs.mode() & 0o7777))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.renamed {
            // An error leaves a file that the next writer removes.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The name is derived from the image's, and short enough for any of them.
fn name_of_copy(path: &Path) -> OsString {
    let name = path.file_name().unwrap_or_default();
    let digest = blake3::hash(name.as_encoded_bytes()).to_hex();
    format!(".fim-change-{}", &digest.as_str()[..16]).into()
}
