//! What was fetched: files in the data directory, complete ones by their name, others with `.part` behind it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::statvfs::fstatvfs;
use runtime::commit;
use runtime::image::{Digest, Image};
use runtime::progress::Progress;
use runtime::publisher::Standing;
use runtime::session::lock::{self, Held};

use super::Wanted;
use super::address::Address;
use super::stream::{Error, Stream};
use crate::draft::is_disk_full;
use crate::interrupt::Interrupt;
use crate::progress::Listener;
use crate::{Failure, Message};

/// Directory of a data directory.
pub(crate) const NAME: &str = "fetched";
/// Lock in it, held by whoever fetches.
const LOCK: &str = "lock";
/// Longest part of a file's own name in that of what was fetched, in bytes.
const NAME_PART: usize = 100;
/// Most bytes that are fetched (64 GiB): a server must not fill the disk for ever.
const MAX: u64 = 64 << 30;
/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// One thing that is wanted, and where it goes.
pub(super) struct Store<'a> {
    wanted: &'a Wanted<'a>,
    address: &'a Address,
    directory: PathBuf,
    pub(super) file: PathBuf,
    part: PathBuf,
}

/// Why a try did not bring what is wanted.
#[derive(Debug, thiserror::Error)]
enum Problem {
    /// It did not come to its end.
    #[error(transparent)]
    Transfer(#[from] Error),
    /// It did, and is something else.
    #[error("{0}")]
    Content(String),
    /// What was there from a try before is of another file.
    #[error("{0}")]
    Mixed(String),
}

impl<'a> Store<'a> {
    pub(super) fn new(wanted: &'a Wanted<'a>, address: &'a Address) -> Self {
        let directory = wanted.data.join(NAME);
        // Another digest or publisher means another file, though it has the same address.
        let key = format!("{address}\n{:?}\n{:?}", wanted.digest, wanted.publisher);
        let name: String = String::from_utf8_lossy(wanted.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
            .chars()
            .map(|char| if char.is_ascii_alphanumeric() || "-._".contains(char) { char } else { '_' })
            .take(NAME_PART)
            .collect();
        let name = format!("{}-{name}", &Digest::of(key.as_bytes()).to_string()[..16]);
        Self { wanted, address, file: directory.join(&name), part: directory.join(name + ".part"), directory }
    }

    /// Fetches. Nobody else does so meanwhile; what another has fetched while we waited is taken.
    pub(super) fn fill(&self) -> Result<(), Failure> {
        let interrupt = Interrupt::hold()?;
        let _held = self.lock()?;
        if self.file.is_file() {
            return Ok(());
        }
        let mut open = File::options();
        open.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let part = open.open(&self.part).map_err(|error| self.unwritten(&error))?;
        let done = match self.attempt(&part, &interrupt) {
            Err(Problem::Mixed(why)) => {
                log::debug!("{} is fetched from its beginning: {why}", self.address);
                part.set_len(0).map_err(|error| self.unwritten(&error))?;
                self.attempt(&part, &interrupt)
            }
            done => done,
        };
        done.map_err(|problem| self.explain(&part, &problem))?;
        part.sync_all().and_then(|()| fs::rename(&self.part, &self.file)).map_err(|error| self.unwritten(&error))?;
        drop(interrupt);
        Ok(())
    }

    fn lock(&self) -> Result<Held, Failure> {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&self.directory);
        made.map_err(|error| self.unwritten(&error))?;
        Ok(lock::wait(&self.directory, LOCK)?)
    }

    /// Fetches what is missing of `part`, and checks it.
    fn attempt(&self, part: &File, interrupt: &Interrupt) -> Result<(), Problem> {
        let have = part.metadata().map_err(Error::from)?.len();
        let start = self.transfer(part, have, interrupt).map_err(|error| match error {
            // A server says so, too, when the file has become shorter.
            Error::Refused(why) if have > 0 => Problem::Mixed(why),
            error => error.into(),
        })?;
        self.check(part).map_err(|why| if start > 0 { Problem::Mixed(why) } else { Problem::Content(why) })
    }

    /// Writes the bytes behind the first `have`; returns how many of these were kept.
    fn transfer(&self, part: &File, have: u64, interrupt: &Interrupt) -> Result<u64, Error> {
        let mut stream = Stream::open(self.address, have, interrupt)?;
        let start = stream.start;
        if start > have {
            return Err(Error::Odd("the server sends another part than it was asked for"));
        }
        part.set_len(start)?;
        if let Some(total) = stream.total {
            room(part, start, total)?;
        }
        let mut listener = Listener::new(false, interrupt);
        listener.total(stream.total, None);
        listener.advance(start, 0);
        let (mut piece, mut at) = (vec![0; PIECE], start);
        loop {
            let count = stream.read(&mut piece)?;
            if count == 0 {
                break;
            }
            if at + count as u64 > stream.total.unwrap_or(MAX) {
                return Err(Error::Odd("the server sends more than it has said, or than 64 GiB"));
            }
            part.write_all_at(&piece[..count], at)?;
            at += count as u64;
            listener.advance(count as u64, 0);
        }
        drop(listener);
        let total = stream.total;
        stream.finish()?;
        if total.is_some_and(|total| at < total) {
            return Err(Error::Odd("the server has closed the connection"));
        }
        Ok(start)
    }

    /// What is wrong with a file that is complete.
    fn check(&self, part: &File) -> Result<(), String> {
        let chain = |error: &dyn std::error::Error| runtime::error::chain(error);
        if let Some(wanted) = self.wanted.digest {
            let mut file = part;
            let digest =
                io::Seek::rewind(&mut file).and_then(|()| commit::digest(file)).map_err(|error| chain(&error))?;
            if digest != wanted {
                return Err(format!("its digest is {digest}, and {wanted} is wanted"));
            }
        }
        let file = part.try_clone().map_err(|error| chain(&error))?;
        let image = Image::open(file, &self.part).map_err(|error| {
            // The name of the draft tells nobody anything.
            std::error::Error::source(&error).map_or_else(|| chain(&error), &chain)
        })?;
        let image = image.ok_or("it is a program without an image")?;
        if self.wanted.digest.is_none() {
            let standing = Standing::whole(&image).map_err(|error| chain(&error))?;
            match (standing.publisher(), self.wanted.publisher) {
                (Some(found), Some(wanted)) if found == wanted => {}
                (_, Some(wanted)) => {
                    let found = crate::publisher::describe(standing);
                    return Err(format!("its publisher is {found}, and {wanted} is wanted"));
                }
                (_, None) => return Err("neither digest nor publisher can be checked".to_owned()),
            }
        }
        Ok(())
    }

    /// The error for the user. What there is of a transfer that broke off is kept for the next, unless the disk is full.
    fn explain(&self, part: &File, problem: &Problem) -> Failure {
        let why = runtime::error::chain(problem);
        let have = part.metadata().map_or(0, |metadata| metadata.len());
        let broke_off = matches!(problem, Problem::Transfer(_));
        let full = matches!(problem, Problem::Transfer(Error::Io(error)) if is_disk_full(error));
        if broke_off && !full && have > 0 {
            return Message::boxed(format!(
                "cannot fetch {}: {why}; {have} bytes are kept, and the next try goes on behind them",
                self.address
            ));
        }
        // What cannot be removed is written over by the next try.
        let _ = fs::remove_file(&self.part);
        let directory = self.directory.display();
        Message::boxed(match (broke_off, full) {
            (_, true) => format!(
                "cannot fetch {}: {why}; free some space in {directory}, or have FIM_DIR_DATA name another place; nothing was kept",
                self.address
            ),
            (true, false) => format!("cannot fetch {}: {why}", self.address),
            (false, false) => format!("cannot use what was fetched from {}: {why}; nothing was kept", self.address),
        })
    }

    fn unwritten(&self, error: &io::Error) -> Failure {
        Message::boxed(format!("cannot keep what is fetched in {}: {error}", self.directory.display()))
    }
}

/// Refuses what would not fit.
fn room(part: &File, start: u64, total: u64) -> Result<(), Error> {
    if total > MAX {
        return Err(Error::Failed(format!("it has {total} bytes, and {MAX} are fetched at most")));
    }
    let stat = fstatvfs(part).map_err(io::Error::from)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let needed = total.saturating_sub(start);
    if needed > free {
        let why = format!("{needed} bytes are needed, and {free} are free");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why).into());
    }
    Ok(())
}

/// Whether `path` is a file that was fetched.
pub(super) fn has(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}
