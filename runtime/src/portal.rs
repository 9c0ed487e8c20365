//! The portal's files: how a guest asks for a host command.
//!
//! ```text
//! RUNTIME/fim/SESSION/instances/ID/
//!     allow                  names the guest may run, one a line; never shown to the guest
//!     adopted                named pipe: the host daemon tells the starter here that it listens
//!     portal/                shown to the guest as /run/fim/portal, read-only
//!         portal.fifo        named pipe: doorbells to the host daemon
//!         requests/REQUEST/  free places for requests, made by the host, used once
//! ```
//!
//! The guest sees the directory through a read-only mount: it can open the pipes there for writing, and can neither
//! make, remove, rename nor change anything. So what comes from a guest is nothing but bytes in pipes whose names,
//! types and owners the host chose. A client takes a free place by a lock (flock(2)), which the kernel releases when
//! the client dies.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::image::{self, elf};
use crate::request::{self, Client, REQUESTS};
use crate::session::{Error, pipe};
use crate::source::FileRange;
use crate::wire::{Doorbell, RequestId, Ring};

/// Where a guest that has a grant finds the portal.
pub const IN_GUEST: &str = "/run/fim/portal";
/// Directory of the guest's client, the last of the guest's PATH.
pub const PROGRAMS: &str = "/run/fim/bin";
/// Name of the guest's client.
pub const PROGRAM: &str = "fim_portal";
/// The one host command that a granted guest also finds by its own name.
pub const XDG_OPEN: &str = "xdg-open";
/// Name on the allow-list that allows every name.
pub const ANY: &str = "*";
/// Longest request in bytes: a command line at the kernel's own limit fits.
pub const REQUEST_LIMIT: usize = 8 << 20;
/// Most commands of one guest at a time.
pub const COMMANDS: usize = 32;
/// Places kept free while fewer than [`COMMANDS`] commands run.
const FREE: usize = 4;

const DIRECTORY: &str = "portal";
const BELL: &str = "portal.fifo";
const ALLOW: &str = "allow";
const ADOPTED: &str = "adopted";

/// Whether a name can stand on an allow-list: the bare name of a program, or [`ANY`].
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("it is empty"),
        "." | ".." => Err("it is a directory"),
        _ if name.len() > 255 => Err("it is longer than 255 bytes"),
        _ if name.contains('/') => Err("it has a slash; name the program without its directory"),
        _ if name.starts_with('-') => Err("it begins with a dash"),
        _ if name.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') => {
            Err("it holds a blank, a comma or a control character")
        }
        _ => Ok(()),
    }
}

/// Whether a list allows a name. [`ANY`] allows every bare name, never a path.
#[must_use]
pub fn allows(list: &[String], name: &[u8]) -> bool {
    let bare = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/');
    bare && list.iter().any(|entry| entry == ANY || entry.as_bytes() == name)
}

/// The portal's directory below an instance's.
#[must_use]
pub fn directory(instance: &Path) -> PathBuf {
    instance.join(DIRECTORY)
}

/// Makes the portal of an instance; without a name on the list, nothing.
///
/// # Errors
/// I/O errors, a full file system among them.
pub fn create(instance: &Path, allowed: &[String]) -> Result<(), Error> {
    if allowed.is_empty() {
        return Ok(());
    }
    let portal = directory(instance);
    for path in [&portal, &portal.join(REQUESTS)] {
        DirBuilder::new().mode(0o700).create(path).map_err(Error::io("make the directory", path))?;
    }
    pipe::create(&portal.join(BELL))?;
    pipe::create(&instance.join(ADOPTED))?;
    for _ in 0..FREE {
        request::make_place(&portal)?;
    }
    let list = instance.join(ALLOW);
    fs::write(&list, allowed.join("\n")).map_err(Error::io("write", &list))
}

/// The starter's wait for the host daemon to listen: a guest that runs must find the portal open.
#[derive(Debug)]
pub struct Adoption(File);

impl Adoption {
    /// To be called before the host daemon hears of the instance.
    ///
    /// # Errors
    /// When the pipe cannot be opened.
    pub fn expect(instance: &Path) -> Result<Self, Error> {
        pipe::reader(&instance.join(ADOPTED)).map(Self)
    }

    /// Waits; false when `daemon`, a write end of its doorbell, shows that it has ended first.
    ///
    /// # Errors
    /// poll(2).
    pub fn wait(&self, daemon: &File) -> io::Result<bool> {
        loop {
            let mut fds =
                [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(daemon.as_fd(), PollFlags::empty())];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) if fds[0].any().unwrap_or(false) => return Ok(true),
                Ok(_) if fds[1].any().unwrap_or(false) => return Ok(false),
                Ok(_) => {}
            }
        }
    }
}

/// Tells the starter of an instance that the host daemon knows it. An instance without a portal waits for no word.
///
/// # Errors
/// When something else stands in the pipe's place.
pub fn answer(instance: &Path) -> Result<(), Error> {
    if let Some(mut starter) = pipe::writer(&instance.join(ADOPTED))? {
        // A starter that has gone needs no word.
        let _ = starter.write(b"\n");
    }
    Ok(())
}

/// The host daemon's side of one instance's portal.
#[derive(Debug)]
pub struct Portal {
    /// Names the guest may run.
    pub allowed: Vec<String>,
    /// Doorbells arrive here.
    pub bell: File,
    path: PathBuf,
    free: Vec<RequestId>,
}

impl Portal {
    /// Listens to the portal of an instance; `None` when the instance has none.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(instance: &Path) -> Result<Option<Self>, Error> {
        let list = instance.join(ALLOW);
        let text = match fs::read_to_string(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", list)(error)),
        };
        let path = directory(instance);
        let portal = Self {
            allowed: text.lines().map(str::to_owned).collect(),
            bell: pipe::listener(&path.join(BELL))?,
            free: request::unserved(&path)?.collect(),
            path,
        };
        Ok(Some(portal))
    }

    /// The portal's directory.
    ///
    /// # Errors
    /// I/O errors.
    pub fn directory(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Takes the place that a doorbell names; false when there is none of that name, or its doorbell was heard before.
    pub fn take(&mut self, id: RequestId) -> bool {
        let at = self.free.iter().position(|free| *free == id);
        at.map(|at| self.free.swap_remove(at)).is_some()
    }

    /// Makes free places, `running` commands being served.
    ///
    /// # Errors
    /// I/O errors, a full file system among them; there are fewer places then.
    pub fn top_up(&mut self, running: usize) -> Result<(), Error> {
        while self.free.len() < FREE && self.free.len() + running < COMMANDS {
            self.free.push(request::make_place(&self.path)?);
        }
        Ok(())
    }

    /// Removes a place whose request has been served.
    pub fn remove(&self, id: RequestId) {
        request::remove(&self.path, id);
    }
}

/// Copies the running program to `target` as a portal client: a mark in its ELF header says so. Neither a name nor a word
/// on a command line can make an image a portal client, or the client anything else.
///
/// The copy costs its size in memory of the instance. A bind of the image file would cost nothing, but then whoever
/// executes it inside keeps the image from being changed (ETXTBSY); what the roles run from has no mount to bind.
///
/// # Errors
/// I/O errors, a full file system among them.
pub fn copy_client(target: &Path) -> io::Result<()> {
    let program = Arc::new(File::open("/proc/self/exe")?);
    let source = FileRange::whole(Arc::clone(&program))?;
    let len = image::program_len(&source).map_err(io::Error::other)?;
    let client = File::options().write(true).create_new(true).mode(0o755).open(target)?;
    let mut offset: libc::off_t = 0;
    while (offset as u64) < len {
        let left = usize::try_from(len - offset as u64).unwrap_or(usize::MAX);
        if nix::sys::sendfile::sendfile(&client, &*program, Some(&mut offset), left)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    client.write_all_at(&elf::PORTAL_MARK, elf::MARK_OFFSET as u64)?;
    client.set_permissions(fs::Permissions::from_mode(0o755))
}

/// Whether a program is a portal client.
#[must_use]
pub fn is_client(program: &File) -> bool {
    let mut mark = [0; elf::PORTAL_MARK.len()];
    program.read_exact_at(&mut mark, elf::MARK_OFFSET as u64).is_ok() && mark == elf::PORTAL_MARK
}

/// How often a client looks for a free place before it believes that there is none.
const LOOKS: u32 = 32;

/// Takes a free place for a request of the guest; `None` when as many commands as may run do.
///
/// # Errors
/// When there is no portal, or its pipes cannot be opened.
pub fn claim(portal: &Path) -> Result<Option<Client>, Error> {
    let mut looks = 0;
    loop {
        let mut busy = None;
        for id in request::unserved(portal)? {
            let directory = portal.join(REQUESTS).join(id.name());
            // Gone: somebody else's request is being served there.
            let Ok(marker) = File::open(request::pending(&directory)) else { continue };
            match Flock::lock(marker, FlockArg::LockExclusiveNonblock) {
                Ok(claim) if is_linked(&claim) => return Client::open(id, &directory, Some(claim)).map(Some),
                Ok(_) => {}
                Err((marker, _)) => busy = Some(marker),
            }
        }
        let Some(marker) = busy else {
            // The directory changes while it is read: every place that it named may be taken by now, and others made.
            looks += 1;
            if looks == LOOKS {
                return Ok(None);
            }
            std::thread::yield_now();
            continue;
        };
        // Its owner lets go as soon as it is served, when another place has been made, or when it dies.
        let _ = Flock::lock(marker, FlockArg::LockExclusive);
    }
}

fn is_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

/// Rings the host daemon from inside; returns a descriptor that shows an error when it ends, or `None` when none
/// listens.
///
/// # Errors
/// When something else stands in the pipe's place.
pub fn ring(portal: &Path, request: RequestId) -> Result<Option<File>, Error> {
    let path = portal.join(BELL);
    let Some(mut bell) = pipe::writer(&path)? else { return Ok(None) };
    request::block(&bell).map_err(Error::io("ring", &path))?;
    // The instance's number is the host daemon's business: it knows whose pipe it reads.
    match bell.write(&Doorbell::encode(Ring::Portal { instance: 0, request })) {
        Ok(_) => Ok(Some(bell)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(Error::io("ring", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["xdg-open", "a", "*", "[", "g++", "ümläut", &"x".repeat(255)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/bin/sh", "-x", "a b", "a,b", "a\nb", "a\0b", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn only_bare_names_on_the_list_are_allowed() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let some = list(&["ls", "cat"]);
        assert!(allows(&some, b"ls") && allows(&some, b"cat"));
        for name in [&b"l"[..], b"lsx", b"", b"/bin/ls", b"./ls", b"*", b"ls\0"] {
            assert!(!allows(&some, name), "{name:?}");
        }
        let any = list(&["*"]);
        assert!(allows(&any, b"anything") && allows(&any, b"\xff"));
        for name in [&b""[..], b"/bin/ls", b"a/b", b".", b".."] {
            assert!(!allows(&any, name), "{name:?}");
        }
        assert!(!allows(&[], b"ls"));
    }

    #[test]
    fn every_place_is_taken_once_and_replaced() {
        let base = tempfile::tempdir().unwrap();
        create(base.path(), &["ls".to_owned(), "cat".to_owned()]).unwrap();
        let starter = Adoption::expect(base.path()).unwrap();
        let mut portal = Portal::open(base.path()).unwrap().unwrap();
        answer(base.path()).unwrap();
        assert!(starter.wait(&portal.bell).unwrap());
        assert_eq!(portal.allowed, ["ls", "cat"]);
        let path = directory(base.path());
        let clients: Vec<Client> = (0..FREE).map(|_| claim(&path).unwrap().unwrap()).collect();
        for client in &clients {
            assert!(portal.take(client.id));
            assert!(!portal.take(client.id));
        }
        assert!(!portal.take(RequestId([7; 16])));
        portal.top_up(FREE).unwrap();
        assert!(claim(&path).unwrap().is_some());
        portal.top_up(COMMANDS).unwrap();
        assert_eq!(portal.free.len(), FREE);
    }

    #[test]
    fn a_place_whose_client_died_is_free_again() {
        let base = tempfile::tempdir().unwrap();
        create(base.path(), &["ls".to_owned()]).unwrap();
        let path = directory(base.path());
        for _ in 0..3 * FREE {
            drop(claim(&path).unwrap().unwrap());
        }
    }

    #[test]
    fn without_names_there_is_no_portal() {
        let base = tempfile::tempdir().unwrap();
        create(base.path(), &[]).unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
        assert!(Portal::open(base.path()).unwrap().is_none());
    }
}
