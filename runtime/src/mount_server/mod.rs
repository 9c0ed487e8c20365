//! The mount server: one process a session. It makes the session's user and mount namespace, serves every layer
//! through one FUSE mount, stacks one overlay on them, and ends when the last instance has gone.

mod apart;
pub mod content;
pub mod diagnose;
mod ending;
pub(crate) mod overlay;
pub mod reads;
mod userspace;
mod warm;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::cache::Extracted;
use crate::fuse;
use crate::journal;
use crate::medium::{Alarm, Medium, Watched};
use crate::sandbox::id_map::{IdMap, end};
use crate::sandbox::points::{self, Point};
use crate::sandbox::subordinate::Helpers;
use crate::session::ephemeral;
use crate::session::lock::Held;
use crate::session::marks;
use crate::session::pipe;
use crate::session::record::Record;
use crate::session::registry::Registry;
use crate::source::ByteSource;
use crate::squashfs::Archive;
use crate::sys::{descriptor, process, title};
pub use content::Content;
use ending::{Alive, Ending};

/// Kernel overlayfs stacks at most 500 layers; some room is left for what a later version adds.
pub const MAX_LAYERS: usize = 400;

/// More layers than these are merged by the server: each that the kernel's overlay has to ask costs a start half a
/// millisecond.
const MERGED_FROM: usize = 4;

/// File in the data directory that damaged blocks and other errors of the server are written to.
pub const JOURNAL: &str = "errors.log";

/// A layer to serve.
pub struct Layer {
    /// What messages call it.
    pub name: String,
    /// Its bytes.
    pub source: Arc<dyn ByteSource>,
    /// What `source` reads; its descriptor must stay open.
    pub medium: Medium,
}

/// Where the layers of a session are, bottom first.
pub enum Lower {
    /// In the image: served through FUSE.
    Image(Vec<Layer>),
    /// Extracted, for a host without FUSE.
    Extracted(Vec<Extracted>),
}

/// What stacks the layers and the writable directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// The kernel's overlayfs; where that refuses, our own.
    Kernel,
    /// Our own ([`crate::fuse::overlay`]).
    Userspace {
        /// Whether names are found without regard to case.
        casefold: bool,
    },
}

/// What a mount server needs to know.
pub struct Request {
    /// The layers.
    pub lower: Lower,
    /// What stacks them.
    pub stack: Stack,
    /// The session directory, existing and empty.
    pub directory: PathBuf,
    /// The data directory with `root` and `work` in it.
    pub data: PathBuf,
    /// IDs of the session's user namespace.
    pub ids: IdMap,
    /// The session lock, held; it is handed over.
    pub lock: Held,
    /// UUID of the image, for the session record.
    pub image: [u8; 16],
    /// What shapes the stack, for the session record.
    pub shape: Vec<String>,
    /// Files that a start reads, relative to the root.
    pub startup: Vec<Vec<u8>>,
    /// Mount points that the instance of the first start needs; made as the lowest layer, where the kernel's overlay is used.
    pub points: Vec<Point>,
    /// Where to write which files were read, when the session ends.
    pub reads: Option<PathBuf>,
    /// Set for a throw-away session.
    pub throw_away: Option<ThrowAway>,
    /// What is taken from other images.
    pub content: Content,
}

/// A session whose writes lie in memory; its data directory is one of [`ephemeral`].
#[derive(Debug, Clone, Default)]
pub struct ThrowAway {
    /// A directory that is stacked on the layers, and not written to; by the kernel's overlay only.
    pub top: Option<PathBuf>,
}

/// What can go wrong before a session is ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host limit; `fix` says how to lift it.
    #[error("{what}: {why}; {fix}")]
    Host {
        /// What could not be done.
        what: String,
        /// The exact cause.
        why: String,
        /// What to do about it.
        fix: String,
    },
    /// A system call failed on an object.
    #[error("cannot {action} {object}")]
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// /dev/fuse cannot be opened.
    #[error(transparent)]
    NoFuse(Box<Error>),
    /// A layer cannot be read.
    #[error("cannot read {layer}")]
    Layer {
        /// Which.
        layer: String,
        /// Why not.
        source: crate::squashfs::Error,
    },
    /// What a producer shares cannot be used.
    #[error("cannot use {part}: {why}")]
    Content {
        /// Which path of which slot.
        part: String,
        /// Why not.
        why: String,
    },
    /// Session files.
    #[error(transparent)]
    Session(#[from] crate::session::Error),
}

fn io_error(action: &'static str, object: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let object = object.into();
    move |source| Error::Io { action, object, source }
}

/// The starter's end of a mount server that is being started.
#[derive(Debug)]
pub struct Starting {
    channel: UnixStream,
    pid: Pid,
}

/// A mount server that serves. Dropping it tells the server that the starter holds its own liveness pipe by now.
#[derive(Debug)]
pub struct Ready {
    /// Whether the kernel has refused its overlay, so that our own serves.
    pub replaced: bool,
    /// Kept open until the starter has joined; see `ending`.
    _channel: UnixStream,
}

/// Starts a mount server as a child of the caller, which must have one thread only. `others` are descriptors of the
/// caller that the server must not keep; it closes everything but what it needs.
///
/// # Errors
/// When no process can be made.
pub fn start(request: Request) -> Result<Starting, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(io_error("make", "a socket pair"))?;
    match process::fork().map_err(|errno| io_error("start", "the mount server")(errno.into()))? {
        process::Side::Parent(pid) => {
            request.lock.hand_over();
            if let Lower::Extracted(layers) = request.lower {
                layers.into_iter().for_each(|layer| layer.lock.hand_over());
            }
            request.content.hand_over();
            Ok(Starting { channel: ours, pid })
        }
        process::Side::Child => {
            std::mem::forget(ours);
            let status = run(request, theirs);
            std::process::exit(status)
        }
    }
}

/// Why a mount server did not get as far as its namespaces, as one line of text.
#[derive(Debug)]
pub enum Refused {
    /// /dev/fuse cannot be opened; extracted layers would do.
    NoFuse(String),
    /// Anything else.
    Other(String),
}

impl Starting {
    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the session's user namespace exists and its IDs are mapped, so that an instance can be begun in it
    /// while the server goes on mounting. `helpers` map ranges for a caller without privileges.
    ///
    /// # Errors
    /// The server's own error as one line of text.
    pub fn namespaces(&mut self, ids: &IdMap, helpers: Option<&Helpers>) -> Result<(), Refused> {
        self.expect(&[NAMESPACES])?;
        let written = match (ids, helpers) {
            (IdMap::Single { .. }, _) => return Ok(()),
            (IdMap::Ranges { uids, gids }, Some(helpers)) => helpers.write(self.pid, uids, gids),
            _ => ids.write(self.pid),
        };
        written.map_err(|error| Refused::Other(format!("cannot map the session's IDs: {error}")))?;
        // A server that has failed meanwhile reads no more, and has said why.
        self.channel.write_all(&[NAMESPACES]).or_else(|_| self.expect(&[READY, REPLACED]).map(drop))
    }

    /// Waits until the session's root is mounted.
    ///
    /// # Errors
    /// The server's own error as one line of text.
    pub fn ready(mut self) -> Result<Ready, String> {
        match self.expect(&[READY, REPLACED]) {
            Ok(word) => Ok(Ready { replaced: word == REPLACED, _channel: self.channel }),
            Err(Refused::NoFuse(text) | Refused::Other(text)) => Err(text),
        }
    }

    fn expect(&mut self, words: &[u8]) -> Result<u8, Refused> {
        let mut byte = [0];
        self.channel.read_exact(&mut byte).map_err(lost)?;
        if words.contains(&byte[0]) {
            return Ok(byte[0]);
        }
        let mut text = String::new();
        // Whatever could be read of the message is better than none.
        let _ = self.channel.read_to_string(&mut text);
        Err(if byte[0] == NO_FUSE { Refused::NoFuse(text) } else { Refused::Other(text) })
    }
}

fn lost(error: io::Error) -> Refused {
    Refused::Other(format!("the mount server ended before it was ready ({error})"))
}

/// Words of the channel between a starter and its server.
const NAMESPACES: u8 = b'N';
const READY: u8 = b'R';
const REPLACED: u8 = b'U';
const FAILED: u8 = b'E';
const NO_FUSE: u8 = b'F';

fn run(request: Request, mut channel: UnixStream) -> i32 {
    match serve(&request, &mut channel) {
        Ok((served, mut alive)) => {
            let ending = alive.wait_for_end(&request, channel);
            clean_up(request, served, ending);
            0
        }
        Err(error) => {
            let text = crate::error::chain(&error);
            // A starter that has gone needs no message.
            let word = if matches!(error, Error::NoFuse(_)) { NO_FUSE } else { FAILED };
            let _ = channel.write_all(&[word]).and_then(|()| channel.write_all(text.as_bytes()));
            // The session's files are the starter's business, which may be writing them just now.
            let _ = request.lock.file().set_len(0);
            1
        }
    }
}

/// What serves the session's root.
enum Served {
    /// The kernel, on what this server shows or on extracted layers.
    Kernel(Option<fuse::Server>),
    /// Our own overlay.
    Userspace(fuse::Server),
}

impl Served {
    /// The server, unless the layers were extracted.
    fn server(&self) -> Option<&fuse::Server> {
        match self {
            Self::Kernel(server) => server.as_ref(),
            Self::Userspace(server) => Some(server),
        }
    }
}

/// [`Lower`] with what it needs of the host.
enum Opened<'a> {
    Image(&'a [Layer], OwnedFd),
    Extracted(&'a [Extracted]),
}

/// Makes this a process of its own: no terminal, no streams.
fn become_daemon(request: &Request) -> Result<(), Error> {
    process::die_without_core();
    descriptor::detach_standard_streams().map_err(io_error("open", "/dev/null"))?;
    nix::unistd::setsid().map_err(|errno| io_error("start", "a session of processes")(errno.into()))?;
    title::set("fim-mount", format!("fim: mount server of {}", request.directory.display()).as_bytes());
    process::set_umask(0o022);
    journal::direct_to(&request.data.join(JOURNAL));
    Ok(())
}

fn open_archives(layers: &[Layer], alarm: &Arc<Alarm>) -> Result<Vec<Arc<Archive>>, Error> {
    let open = |layer: &Layer| {
        let source = Watched::new(Arc::clone(&layer.source), layer.medium.clone(), Arc::clone(alarm));
        let open = Archive::open(Arc::new(source));
        open.map(Arc::new).map_err(|source| Error::Layer { layer: layer.name.clone(), source })
    };
    layers.iter().map(open).collect()
}

fn serve(request: &Request, channel: &mut UnixStream) -> Result<(Served, Alive), Error> {
    // 1. No descriptor of the starter.
    let mut keep: Vec<i32> = match &request.lower {
        Lower::Image(layers) => layers.iter().map(|layer| layer.medium.descriptor()).collect(),
        Lower::Extracted(layers) => layers.iter().map(|layer| layer.lock.file().as_raw_fd()).collect(),
    };
    keep.extend(request.content.descriptors());
    keep.extend([0, 1, 2, channel.as_raw_fd(), request.lock.file().as_raw_fd()]);
    descriptor::close_all_but(&keep).map_err(|errno| io_error("close", "inherited descriptors")(errno.into()))?;
    // 2. Namespaces of the session. Every ID is written by the starter where that takes its privileges; what needs no
    //    ID is done meanwhile. The kernel wants the FUSE device opened inside the user namespace that mounts; before
    //    anybody builds on this server, for without the device there is another way.
    diagnose::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    let opened = match &request.lower {
        Lower::Image(layers) => {
            Opened::Image(layers, diagnose::open_fuse().map_err(|error| Error::NoFuse(Box::new(error)))?)
        }
        Lower::Extracted(layers) => Opened::Extracted(layers),
    };
    let maps_itself = matches!(request.ids, IdMap::Single { .. });
    if maps_itself {
        request.ids.write(nix::unistd::getpid()).map_err(diagnose::id_map)?;
    }
    channel.write_all(&[NAMESPACES]).map_err(io_error("reach", "the starter"))?;
    become_daemon(request)?;
    let alarm = Alarm::new().map_err(io_error("make", "an event"))?;
    let archives = match &opened {
        Opened::Image(layers, _) => open_archives(layers, &alarm)?,
        Opened::Extracted(_) => Vec::new(),
    };
    if !maps_itself {
        channel.read_exact(&mut [0]).map_err(io_error("reach", "the starter"))?;
    }
    // 3. Later mounts of the host arrive here, ours never leave.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(diagnose::mount("change the propagation of", "/"))?;
    // 4. and 5. The layers, and one overlay on them; beside them, what is taken from other images.
    let served = stack(request, opened, archives)?;
    // Its threads end with the process.
    std::mem::forget(content::serve(request)?);
    // What a session that was killed has left.
    sweep_points(request);
    // 6. From here the session can be joined.
    let path = request.directory.join("alive");
    let alive = Alive::new(pipe::reader(&path)?, pipe::writer(&path)?, alarm);
    let pid = nix::unistd::getpid();
    let server_started = process::start_time(pid).unwrap_or_default();
    let record = Record {
        server: pid,
        server_started,
        image: request.image,
        shape: request.shape.clone(),
        directory: request.directory.clone(),
    };
    record.write(request.lock.file(), request.lock.path())?;
    let replaced = request.stack == Stack::Kernel && matches!(served, Served::Userspace(_));
    let word = if replaced { REPLACED } else { READY };
    channel.write_all(&[word]).map_err(io_error("reach", "the starter"))?;
    Ok((served, alive))
}

/// Mounts the session's root: the layers as directories (one FUSE mount for all, which answers before anything looks at
/// it, or what was extracted) and the kernel's overlay on them; or our own overlay, which needs no other mount.
fn stack(request: &Request, opened: Opened<'_>, archives: Vec<Arc<Archive>>) -> Result<Served, Error> {
    let (layers, root) = (request.directory.join("layers"), request.directory.join("root"));
    let top = request.throw_away.as_ref().and_then(|session| session.top.as_deref());
    let writable = match &request.throw_away {
        None => request.data.clone(),
        Some(_) => overlay::memory(&request.data)?,
    };
    // The kernel would not understand plain marks. (A directory on top has its own.)
    let is_plain = marks::is_recorded(&writable);
    let stack = match request.stack {
        Stack::Kernel if is_plain => Stack::Userspace { casefold: false },
        stack => stack,
    };
    let has_points = stack == Stack::Kernel && !request.points.is_empty();
    if has_points {
        overlay::lay_out(&root, &request.points)?;
    }
    let (device, archives) = match (opened, stack) {
        (Opened::Image(_, device), Stack::Userspace { casefold }) => {
            return userspace::serve(request, &writable, archives, device, casefold).map(Served::Userspace);
        }
        (Opened::Extracted(_), Stack::Userspace { .. }) => return Err(diagnose::userspace_without_fuse()),
        (Opened::Extracted(extracted), Stack::Kernel) => {
            overlay::name_directories(extracted, &layers)?;
            overlay::mount(&layers, extracted.len(), top, &writable, &root, has_points)?
                .map_err(diagnose::overlay(&writable))?;
            return Ok(Served::Kernel(None));
        }
        (Opened::Image(_, device), Stack::Kernel) => (device, archives),
    };
    let merged = archives.len() > MERGED_FROM;
    let count = if merged { 1 } else { archives.len() };
    let server = serve_image(archives.clone(), device, &layers, request, merged)?;
    warm::begin(&layers, count, &request.points, &request.startup);
    let mounted = apart::run(|| overlay::mount(&layers, count, top, &writable, &root, has_points));
    match mounted.map_err(io_error("start", "a thread"))?? {
        Ok(()) => Ok(Served::Kernel(Some(server))),
        // Another overlay uses the directory, or the writable layer is to lie below.
        Err(errno) if top.is_some() || matches!(errno, Errno::EBUSY | Errno::ESTALE) => {
            Err(diagnose::overlay(&writable)(errno))
        }
        Err(_) => {
            let _ = umount2(&layers, MntFlags::MNT_DETACH);
            let device = diagnose::open_fuse()?;
            userspace::serve(request, &writable, archives, device, false).map(Served::Userspace)
        }
    }
}

/// How the layers of a session are served.
fn serving(request: &Request) -> fuse::Options {
    let owners = match &request.ids {
        IdMap::Single { uid, gid, .. } => fuse::Owners::Single { uid: *uid, gid: *gid },
        IdMap::Ranges { uids, gids } => fuse::Owners::Below { uids: end(uids), gids: end(gids) },
        IdMap::Full => fuse::Owners::Real,
    };
    fuse::Options { owners, record: request.reads.is_some(), ..fuse::Options::default() }
}

/// Mounts the layers of an image and serves them.
fn serve_image(
    archives: Vec<Arc<Archive>>,
    device: OwnedFd,
    directory: &Path,
    request: &Request,
    merged: bool,
) -> Result<fuse::Server, Error> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = fuse::mount_data(device.as_raw_fd(), 0, 0);
    mount(Some("fim"), directory, Some("fuse.fim"), flags, Some(options.as_str()))
        .map_err(diagnose::mount("mount", "the layers (FUSE)"))?;
    let merged = if merged { vec![archives.len()] } else { Vec::new() };
    let options = fuse::Options { merged, ..serving(request) };
    fuse::serve(device, archives, &options).map_err(io_error("serve", "the layers"))
}

/// Removes the mount points that instances have made.
fn sweep_points(request: &Request) {
    // Most sessions have none.
    if fs::symlink_metadata(request.data.join(points::FILE)).is_err() {
        return;
    }
    let sweep = || points::sweep(&request.data, &request.directory.join("root"));
    if let Err(error) = apart::run(sweep).and_then(|swept| swept) {
        log::warn!("cannot remove mount points: {error}");
    }
}

/// Removes the session's files.
fn clean_up(request: Request, served: Served, ending: Ending) {
    sweep_points(&request);
    if let (Some(path), Some(server)) = (&request.reads, served.server())
        && let Err(error) = reads::write(path, &server.files_read())
    {
        log::warn!("cannot write which files were read to {}: {error}", path.display());
    }
    // An empty lock says that no session lives, should a reader look before the process is gone.
    let _ = request.lock.file().set_len(0);
    // A mount point cannot be removed where it is one. Should this fail, the host daemon removes what is left.
    let content = (!request.content.is_empty()).then_some(content::DIRECTORY);
    for name in ["root", "layers"].into_iter().chain(content) {
        let _ = umount2(&request.directory.join(name), MntFlags::MNT_DETACH);
    }
    match (served, ending) {
        // Its threads end with the process. Without the medium, some of them wait for that.
        (Served::Kernel(server), _) => std::mem::forget(server),
        (Served::Userspace(server), Ending::Lost) => std::mem::forget(server),
        // What was written may still be in the kernel's cache: an instance that was killed is just going. The kernel
        // writes it back before it gives the mount up. Nobody waits for this but who wants the same data.
        (Served::Userspace(server), Ending::Left) => {
            if let Err(error) = server.join() {
                log::warn!("the writable root ended with an error: {error}");
            }
        }
    }
    if request.throw_away.is_some() {
        let _ = umount2(&request.data.join(ephemeral::MEMORY), MntFlags::MNT_DETACH);
    }
    // Extracted layers are used no more, and whoever finds the session's files gone may remove them.
    drop((request.lower, request.content));
    Registry::new(&request.directory).remove_all();
    if request.throw_away.is_some() {
        ephemeral::remove(&request.data);
    }
    // The lock ends with the process.
    std::mem::forget(request.lock);
}

/// Makes `work/work`, which the kernel creates without any permission, removable for the user.
fn open_work(data: &std::path::Path) {
    let work = data.join("work/work");
    // Missing on a kernel that names it otherwise; then there is nothing to open.
    let _ = fs::set_permissions(work, fs::Permissions::from_mode(0o700));
}
