//! The private pipes of one request: a 0700 directory below the instance's, made by the client, with one named pipe
//! for each stream, `control` (client to command) and `result` (back).

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, OFlag, fcntl, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::session::{Error, pipe};
use crate::wire::RequestId;

/// Directory below an instance's that holds its requests.
pub const REQUESTS: &str = "requests";
/// Marks a request that nobody serves yet; whoever removes it does.
const PENDING: &str = "pending";
const STDIN: &str = "stdin";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";
const CONTROL: &str = "control";
const RESULT: &str = "result";
const ALL: [&str; 5] = [STDIN, STDOUT, STDERR, CONTROL, RESULT];

/// The client's ends.
#[derive(Debug)]
pub struct Client {
    /// Which request.
    pub id: RequestId,
    /// To the command's standard input, from its standard output and error, until they are handed out.
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    /// Request and events; not blocking.
    pub control: File,
    /// Replies; not blocking.
    pub result: File,
    /// Read ends that keep `stdin` and `control` usable until the other side has opened its own.
    placeholders: Vec<File>,
    /// Held until the request is served.
    claim: Option<Flock<File>>,
    directory: PathBuf,
}

fn make_pipes(directory: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(directory).map_err(Error::io("make the directory", directory))?;
    ALL.into_iter().try_for_each(|name| pipe::create(&directory.join(name)))
}

fn mark(directory: &Path) -> Result<(), Error> {
    let pending = pending(directory);
    fs::write(&pending, "").map_err(Error::io("write", &pending))
}

/// Path of the file that marks a request that nobody serves yet.
#[must_use]
pub fn pending(request: &Path) -> PathBuf {
    request.join(PENDING)
}

/// The requests below an instance's directory or a portal that nobody serves yet.
///
/// # Errors
/// When there is no place for requests.
pub fn unserved(above: &Path) -> Result<impl Iterator<Item = RequestId> + use<>, Error> {
    let requests = above.join(REQUESTS);
    let entries = fs::read_dir(&requests).map_err(Error::io("list", &requests))?;
    Ok(entries.filter_map(move |entry| {
        let name = entry.ok()?.file_name();
        let id = RequestId::parse(name.to_str()?)?;
        pending(&requests.join(name)).exists().then_some(id)
    }))
}

/// Makes the pipes of a request that some client will make.
///
/// # Errors
/// As [`Client::create`].
pub fn make_place(above: &Path) -> Result<RequestId, Error> {
    let requests = above.join(REQUESTS);
    let id = RequestId::random().map_err(Error::io("get random numbers for", &requests))?;
    let directory = requests.join(id.name());
    make_pipes(&directory).and_then(|()| mark(&directory)).inspect_err(|_| remove(above, id))?;
    Ok(id)
}

/// Removes the pipes of a request, whoever made them. Being gone already is fine.
pub fn remove(above: &Path, id: RequestId) {
    let _ = fs::remove_dir_all(above.join(REQUESTS).join(id.name()));
}

impl Client {
    /// Makes the pipes of a new request below an instance's directory.
    ///
    /// # Errors
    /// I/O errors, a full file system among them; nothing is left then.
    pub fn create(instance: &Path) -> Result<Self, Error> {
        let requests = instance.join(REQUESTS);
        let id = RequestId::random().map_err(Error::io("get random numbers for", &requests))?;
        let directory = requests.join(id.name());
        // Most instances never see a request, so the first one makes the place of all.
        match DirBuilder::new().mode(0o700).create(&requests) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("make the directory", &requests)(error));
            }
            _ => {}
        }
        let fill = || {
            make_pipes(&directory)?;
            let client = Self::open(id, &directory, None)?;
            mark(&directory)?;
            Ok(client)
        };
        fill().inspect_err(|_| {
            // What is incomplete is of no use to anybody.
            let _ = fs::remove_dir_all(&directory);
        })
    }

    /// Opens the client's ends of pipes that are there already; `claim` keeps others from them.
    ///
    /// # Errors
    /// When a pipe is missing or is something else.
    pub fn open(id: RequestId, directory: &Path, claim: Option<Flock<File>>) -> Result<Self, Error> {
        let reader = |name: &str| pipe::reader(&directory.join(name));
        let placeholders = vec![reader(STDIN)?, reader(CONTROL)?];
        let writer = |name: &str| {
            let path = directory.join(name);
            let missing = || Error::io("open the named pipe", &path)(io::ErrorKind::BrokenPipe.into());
            pipe::writer(&path)?.ok_or_else(missing)
        };
        Ok(Self {
            id,
            stdin: Some(writer(STDIN)?),
            stdout: Some(reader(STDOUT)?),
            stderr: Some(reader(STDERR)?),
            control: writer(CONTROL)?,
            result: reader(RESULT)?,
            placeholders,
            claim,
            directory: directory.to_owned(),
        })
    }

    /// Called when the other side has opened its ends: from now on its death shows as a broken pipe.
    ///
    /// Hands out `stdin`, `stdout` and `stderr`, which wait from now on; each may be moved by another thread.
    ///
    /// # Errors
    /// When a descriptor cannot be copied.
    pub fn accepted(&mut self) -> io::Result<(File, File, File)> {
        self.placeholders.clear();
        self.claim = None;
        let take = |stream: &mut Option<File>| {
            let file = stream.take().ok_or(io::ErrorKind::InvalidInput)?;
            block(&file)?;
            io::Result::Ok(file)
        };
        Ok((take(&mut self.stdin)?, take(&mut self.stdout)?, take(&mut self.stderr)?))
    }

    /// Removes the pipes. The other side does so too when it has served.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The serving side's ends.
#[derive(Debug)]
pub struct Server {
    /// Standard input of the command.
    pub stdin: File,
    /// Its standard output.
    pub stdout: File,
    /// Its standard error.
    pub stderr: File,
    /// Request and events.
    pub control: File,
    /// Replies.
    pub result: File,
    requests: OwnedFd,
    id: RequestId,
}

fn open_directory(at: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    openat(at, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a pipe of a request without waiting and without following a symlink, then makes it block as usual.
fn open_pipe(directory: &OwnedFd, name: &str, access: OFlag) -> io::Result<File> {
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.file_type().is_fifo() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a named pipe of this user")));
    }
    block(&file)?;
    Ok(file)
}

/// Makes reads and writes of a descriptor wait.
///
/// # Errors
/// None in practice; fcntl(2).
pub fn block(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Server {
    /// Opens the pipes of a request below an instance's directory; `None` when somebody serves it already, or it was
    /// withdrawn.
    ///
    /// # Errors
    /// When a pipe is missing, is something else, or its client has gone.
    pub fn open(instance: impl AsFd, id: RequestId) -> io::Result<Option<Self>> {
        let requests = open_directory(instance, REQUESTS)?;
        let directory = match open_directory(&requests, &id.name()) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        };
        match unlinkat(&directory, PENDING, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        }
        let pipe = |name: &str, access: OFlag| open_pipe(&directory, name, access);
        Ok(Some(Self {
            stdin: pipe(STDIN, OFlag::O_RDONLY)?,
            stdout: pipe(STDOUT, OFlag::O_WRONLY)?,
            stderr: pipe(STDERR, OFlag::O_WRONLY)?,
            control: pipe(CONTROL, OFlag::O_RDONLY)?,
            result: pipe(RESULT, OFlag::O_WRONLY)?,
            requests,
            id,
        }))
    }

    /// Removes the pipes of a request that has been served, should its client not be able to.
    pub fn remove(&self) {
        let name = self.id.name();
        if let Ok(directory) = open_directory(&self.requests, &name) {
            for pipe in ALL {
                let _ = unlinkat(&directory, pipe, UnlinkatFlags::NoRemoveDir);
            }
        }
        let _ = unlinkat(&self.requests, name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

/// Answers a request that cannot be served at all.
///
/// # Errors
/// As [`Server::open`].
pub fn refuse(instance: &Path, id: RequestId, reason: &str) -> io::Result<()> {
    let directory = File::open(instance)?;
    if let Some(mut server) = Server::open(&directory, id)? {
        let reply = crate::wire::body::Reply::failed(reason.to_owned());
        crate::wire::frame::write(&mut server.result, &crate::wire::body::encode(&reply))?;
    }
    Ok(())
}

/// Whether two streams are one file, as after `2>&1`.
#[must_use]
pub fn same_file(one: impl AsFd, other: impl AsFd) -> bool {
    let facts = |fd: std::os::fd::BorrowedFd<'_>| {
        let metadata = File::from(fd.try_clone_to_owned().ok()?).metadata().ok()?;
        Some((metadata.dev(), metadata.ino(), metadata.rdev()))
    };
    let one = facts(one.as_fd());
    one.is_some() && one == facts(other.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{body, frame};
    use std::io::{Read, Write};

    fn instance() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join(REQUESTS)).unwrap();
        base
    }

    #[test]
    fn a_request_is_served_once_and_its_streams_connect() {
        let base = instance();
        let mut client = Client::create(base.path()).unwrap();
        let directory = File::open(base.path()).unwrap();
        let mut server = Server::open(&directory, client.id).unwrap().unwrap();
        assert!(Server::open(&directory, client.id).unwrap().is_none());
        let (mut stdin, mut stdout, _stderr) = client.accepted().unwrap();
        stdin.write_all(b"in").unwrap();
        drop(stdin);
        let mut text = String::new();
        server.stdin.read_to_string(&mut text).unwrap();
        assert_eq!(text, "in");
        server.stdout.write_all(b"out").unwrap();
        server.remove();
        drop(server);
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out");
        assert_eq!(fs::read_dir(base.path().join(REQUESTS)).unwrap().count(), 0);
    }

    #[test]
    fn a_client_that_has_gone_is_noticed() {
        let base = instance();
        let client = Client::create(base.path()).unwrap();
        let id = client.id;
        drop(client);
        assert!(Server::open(File::open(base.path()).unwrap(), id).is_err());
        assert!(Server::open(File::open(base.path()).unwrap(), RequestId([0; 16])).unwrap().is_none());
    }

    #[test]
    fn planted_files_are_refused() {
        let base = instance();
        let client = Client::create(base.path()).unwrap();
        let stdin = base.path().join(REQUESTS).join(client.id.name()).join(STDIN);
        fs::remove_file(&stdin).unwrap();
        std::os::unix::fs::symlink("/dev/null", &stdin).unwrap();
        assert!(Server::open(File::open(base.path()).unwrap(), client.id).is_err());
    }

    #[test]
    fn a_refusal_reaches_the_client() {
        let base = instance();
        let mut client = Client::create(base.path()).unwrap();
        refuse(base.path(), client.id, "no").unwrap();
        let bytes = frame::read(&mut client.result).unwrap().unwrap();
        assert_eq!(body::decode(&bytes), Ok(body::Reply::Failed("no".to_owned())));
    }

    #[test]
    fn one_file_behind_two_descriptors_is_recognised() {
        let (one, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        assert!(same_file(&one, one.try_clone().unwrap()));
        assert!(!same_file(&one, &other));
    }
}
