//! Joining a session or beginning one, under the start lock.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::Pid;
use runtime::host;
use runtime::image::OverlayKind;
use runtime::mount_server;
use runtime::portal;
use runtime::sandbox::layout::Layouts;
use runtime::session::claims::Claims;
use runtime::session::log::Log;
use runtime::session::record::Record;
use runtime::session::registry::{Instance, Kind, New, Registry};
use runtime::session::{directory, lock, pipe, service};
use runtime::sys::{memfd, process};
use runtime::wire::Ring;

use super::base;
use super::begin::Beginning;
use super::data::Data;
use super::detach::{Detached, Report};
use super::exclusive;
use super::facts::Facts;
use super::former;
use super::plan::LaunchPlan;
use super::rung::{self, Rung};
use super::stacking::Stacking;
use super::stamp::Stamp;
use crate::{Failure, Invocation, Message, Roles, content, stack};

/// A session that this start is going to be part of, with the start lock held.
#[derive(Debug)]
pub struct Joined {
    /// The session directory.
    pub directory: PathBuf,
    /// The mount server, as a pidfd.
    pub server: OwnedFd,
    /// Which IDs it has.
    pub rung: Rung,
    /// The data directory.
    pub data: PathBuf,
    server_state: Server,
    /// Goes before the start lock does.
    fresh: Option<Fresh>,
    starting: lock::Held,
    /// Daemons that this start began and whose parent it therefore is.
    children: Vec<Pid>,
}

/// The files of a session that is being begun: removed again when it fails to begin.
#[derive(Debug)]
struct Fresh(Registry);

impl Drop for Fresh {
    fn drop(&mut self) {
        self.0.remove_all();
    }
}

/// How far the mount server is.
#[derive(Debug)]
pub(super) enum Server {
    /// It serves; the write end of its liveness pipe.
    Live(File),
    /// It is mounting.
    Starting(mount_server::Starting),
}

/// A session that this start is an instance of.
#[derive(Debug)]
pub struct Live {
    registry: Registry,
    id: u64,
    children: Vec<Pid>,
    server: OwnedFd,
    /// Held until the instance has ended; see [`mount_server`].
    alive: File,
}

/// How an attempt to be part of a session went.
#[derive(Debug)]
pub enum Entered {
    /// With the start lock held.
    In(Joined),
    /// The image has been changed since this start read it, so that its layers may be others.
    ImageChanged,
    /// The writable layer was made on other layers.
    OtherBase,
}

/// Joins the session of a data directory, or begins one when none lives. With `careful`, it does not begin one on layers
/// that the writable layer was not made on.
///
/// # Errors
/// When the session of this data directory is of another image, or cannot be begun.
pub fn enter(
    invocation: &Invocation,
    plan: &LaunchPlan,
    place: &Data,
    facts: &Facts,
    careful: bool,
) -> Result<Entered, Failure> {
    let data = place.directory.as_path();
    let mut starting = lock::wait(data, lock::START)?;
    // fim-key may have put another directory in its place.
    let replaced = |starting: &lock::Held| invocation.installation.key.is_some() && !starting.is_current();
    let root = plan.kind == Kind::Root;
    // Whoever adds a managed layer holds the session lock, so this is looked for when that is known to be free, or held
    // by a session.
    let external = || -> Result<_, Failure> {
        let layers = stack::external(&invocation.image, &facts.caller, place.home.as_deref())?;
        let shape: Vec<String> = plan.shape.iter().cloned().chain(stack::shape(&layers, plan.layers)).collect();
        Ok((layers, shape))
    };
    loop {
        match lock::attempt(data, lock::SESSION)? {
            _ if replaced(&starting) => starting = lock::wait(data, lock::START)?,
            Ok(held) => {
                let rung = rung::settle(data, facts, root, false)?;
                exclusive::recover(data, &rung, &facts.caller, &invocation.path)?;
                // A commit that ended a moment ago has moved changes from the data directory into the image.
                if !invocation.image.is_current(&invocation.path) {
                    return Ok(Entered::ImageChanged);
                }
                if careful && place.throw_away.is_none() && base::is_other(data, &invocation.image.config)? {
                    return Ok(Entered::OtherBase);
                }
                if place.throw_away.is_none() {
                    former::remember(invocation, &facts.caller, invocation.installation.key.as_ref(), data);
                }
                // Goes last when this fails, so that a signal finds everything cleaned up.
                let mut interrupt = None;
                let directory = fresh_directory(invocation, place, facts, &starting)?;
                let fresh = Some(Fresh(Registry::new(&directory)));
                let caller = &facts.caller;
                let (external, shape) = external()?;
                let (plugs, producers) =
                    content::serve(&facts.content, place.home.as_deref(), place.throw_away.is_none())?;
                let beginning = Beginning {
                    invocation,
                    data,
                    directory: &directory,
                    caller,
                    rung: &rung,
                    external: &external,
                    packed: place.packed.as_ref(),
                    stack: plan.stacking.stack(),
                    shape,
                    startup: &plan.startup,
                    points: plan.layouts.as_ref().map(Layouts::points).unwrap_or_default(),
                    throw_away: place.throw_away.as_ref().map(|(session, _)| session.clone()),
                    plugs,
                    producers,
                };
                let (server, server_state, pid) = beginning.begin(held, &mut interrupt)?;
                let (data, children) = (data.to_owned(), vec![pid]);
                return Ok(Entered::In(Joined {
                    directory,
                    server,
                    rung,
                    data,
                    server_state,
                    fresh,
                    starting,
                    children,
                }));
            }
            Err(theirs) if is_empty(&theirs, data)? => drop(lock::wait(data, lock::SESSION)?),
            Err(theirs) if exclusive::is_command(&theirs) => {
                // Others that start are to hear of it, too.
                drop(starting);
                exclusive::wait_for_command(&theirs, data)?;
                starting = lock::wait(data, lock::START)?;
            }
            Err(theirs) => {
                let record = Record::read(&theirs, &data.join(lock::SESSION))?;
                let shape = external()?.1;
                // One that is just ending is neither a reason to refuse other layers nor to settle for its IDs.
                if (record.shape != shape || root && rung::is_open(data)?)
                    && Registry::new(&record.directory).live()?.is_empty()
                {
                    exclusive::wait_for_end(&record, starting);
                    starting = lock::wait(data, lock::START)?;
                    continue;
                }
                same_shape(&record, &shape, data)?;
                if let Some((server, alive)) = join(&record)? {
                    let rung = rung::settle(data, facts, root, true)?;
                    let (directory, data) = (record.directory, data.to_owned());
                    let (server_state, children) = (Server::Live(alive), Vec::new());
                    let fresh = None;
                    return Ok(Entered::In(Joined {
                        directory,
                        server,
                        rung,
                        data,
                        server_state,
                        fresh,
                        starting,
                        children,
                    }));
                }
            }
        }
    }
}

/// Whether the holder of the session lock has no record in it: its session has ended, or will not begin because its
/// starter, which held the start lock until then, was killed. Either way it releases the lock without waiting for
/// anybody.
fn is_empty(theirs: &File, data: &Path) -> Result<bool, Failure> {
    let path = data.join(lock::SESSION);
    let metadata = theirs
        .metadata()
        .map_err(|error| Message::boxed(format!("cannot examine the lock {}: {error}", path.display())))?;
    Ok(metadata.len() == 0)
}

/// Makes the session directory, without what an earlier session that was killed left there.
fn fresh_directory(
    invocation: &Invocation,
    place: &Data,
    facts: &Facts,
    starting: &lock::Held,
) -> Result<PathBuf, Failure> {
    // A throw-away session has one directory for everything.
    if place.throw_away.is_some() {
        return fill_directory(place.directory.clone(), starting);
    }
    let data = &place.directory;
    let base = directory::runtime(facts.caller.uid, facts.caller.variable("XDG_RUNTIME_DIR"))?;
    let uuid = &invocation.image.superblock.uuid.0;
    let key = invocation.installation.key.as_ref().map(|key| key.as_str()).unwrap_or_default();
    let path = base.join(directory::session_name(facts.caller.uid, &invocation.path, uuid, OsStr::new(key), data));
    let registry = Registry::new(&path);
    if fs::symlink_metadata(&path).is_ok() {
        directory::open_private(&path, facts.caller.uid, "XDG_RUNTIME_DIR")?;
        registry.remove_all();
    }
    directory::open_private(&path, facts.caller.uid, "XDG_RUNTIME_DIR")?;
    fill_directory(path, starting)
}

fn fill_directory(path: PathBuf, starting: &lock::Held) -> Result<PathBuf, Failure> {
    for name in ["layers", "root"] {
        make(&path.join(name))?;
    }
    pipe::create(&path.join("alive"))?;
    pipe::create(&host::doorbell(&path))?;
    Registry::new(&path).create(starting)?;
    Ok(path)
}

fn make(path: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Message::boxed(format!("cannot make the directory {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A write end of the session's liveness pipe; `None` when no mount server reads it.
fn open_alive(directory: &Path) -> Result<Option<File>, Failure> {
    Ok(pipe::writer(&directory.join("alive"))?)
}

/// Takes part in a live session; `None` when its mount server was killed and is just going, after waiting for that.
fn join(record: &Record) -> Result<Option<(OwnedFd, File)>, Failure> {
    let Ok(server) = process::pidfd_open(record.server) else { return Ok(None) };
    if record.server_is_alive()
        && let Some(alive) = open_alive(&record.directory)?
    {
        return Ok(Some((server, alive)));
    }
    // Its lock is released before its end is announced, so that the next attempt finds it free.
    let mut fds = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::NONE);
    Ok(None)
}

/// Most differences of two stacks that a message names.
const SHOWN: usize = 4;

/// Refuses a start that would need another stack than the one the live session has.
fn same_shape(record: &Record, shape: &[String], data: &Path) -> Result<(), Failure> {
    let theirs = record.shape.iter().filter(|line| !shape.contains(line));
    let ours = shape.iter().filter(|line| !record.shape.contains(line));
    let difference: Vec<String> =
        theirs.map(|line| format!("running: {line}")).chain(ours.map(|line| format!("this start: {line}"))).collect();
    if difference.is_empty() && record.shape == shape {
        return Ok(());
    }
    // Stacks of hundreds of layers may differ in all of them.
    let more = difference.len().saturating_sub(SHOWN);
    let mut shown = difference[..difference.len() - more].join(", ");
    if more > 0 {
        shown.push_str(&format!(", and {more} more"));
    }
    let live = Registry::new(&record.directory).live()?;
    let ids: Vec<String> = live.iter().map(|instance| format!("{}:{}", instance.id, instance.pid)).collect();
    Err(Message::boxed(format!(
        "the data directory {} is in use by instances ({}) with other layers or settings, or of another version ({}); end them first, or set FIM_DIR_DATA to another directory",
        data.display(),
        ids.join(" "),
        shown
    )))
}

impl Joined {
    /// Takes the next instance ID for this process.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn register(&self, plan: &LaunchPlan, claims: Option<&Claims>) -> Result<Instance, Failure> {
        let new = New {
            kind: plan.kind,
            since: plan.now,
            command: &plan.words,
            service: plan.service.as_deref(),
            portal: &plan.portal,
            claims,
        };
        Ok(Registry::new(&self.directory).register(&self.starting, new)?)
    }

    /// Has the host daemon watch this instance. The first start begins the daemon, and so does one that finds it
    /// killed.
    ///
    /// # Errors
    /// When its pipe cannot be opened or no process can be made.
    pub fn tell_host_daemon(&mut self, roles: Roles) -> Result<(), Failure> {
        if !host::ring(&self.directory, Ring::Look)? {
            let server = self.server.try_clone()?;
            let pid = host::start(&self.directory, &self.data, server, &self.starting, roles.host)?;
            self.children.push(pid);
        }
        Ok(())
    }

    /// What makes this instance a detached one: its output goes to its log from now on, or to that of its service in the
    /// installation of this name.
    ///
    /// # Errors
    /// When the log cannot be made.
    pub(super) fn detached(&self, report: Report, instance: &Instance, name: &OsStr) -> Result<Detached, Failure> {
        let registry = Registry::new(&self.directory);
        let (log, stamp) = match &instance.service {
            Some(service) => {
                let name = format!("{}.{service}[{}]", name.to_string_lossy(), instance.pid);
                (service::begin(&self.data, service)?, Some(Stamp::new(name)))
            }
            None => (Log::create(&registry.directory(instance.id))?, None),
        };
        Detached::begin(report, instance.id, log, stamp)
    }

    /// The live instance that is this service. Nobody begins another while the start lock is held.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(super) fn service(&self, name: &str) -> Result<Option<Instance>, Failure> {
        let live = Registry::new(&self.directory).live()?;
        Ok(live.into_iter().find(|instance| instance.service.as_deref() == Some(name)))
    }

    /// Waits until the host daemon listens to the portal of this instance, so that the guest finds it open.
    ///
    /// # Errors
    /// As [`Joined::tell_host_daemon`].
    pub fn wait_for_portal(&mut self, adoption: &portal::Adoption, roles: Roles) -> Result<(), Failure> {
        loop {
            if let Some(daemon) = pipe::writer(&host::doorbell(&self.directory))?
                && adoption.wait(&daemon)?
            {
                return Ok(());
            }
            // It was killed.
            self.tell_host_daemon(roles)?;
        }
    }

    /// Waits until the session's root is mounted, then lets others start.
    ///
    /// # Errors
    /// Why it cannot be mounted.
    pub fn complete(self, id: u64, stacking: Stacking) -> Result<Live, Failure> {
        let registry = Registry::new(&self.directory);
        let alive = match self.server_state {
            Server::Live(alive) => alive,
            Server::Starting(starting) => {
                // Dropped at the end, when the write end is open: the server then counts on that one.
                let ready = starting.ready().map_err(Message::boxed)?;
                let kind = if ready.replaced { Stacking { kind: OverlayKind::Unionfs, ..stacking } } else { stacking };
                log::debug!("Overlay type: {}", kind.token());
                open_alive(&self.directory)?.ok_or_else(|| {
                    Message::boxed("the mount server ended as soon as it was ready; see the kernel log")
                })?
            }
        };
        if let Some(fresh) = self.fresh {
            // From here on the session's files end with the session.
            std::mem::forget(fresh);
        }
        Ok(Live { registry, id, children: self.children, server: self.server, alive })
    }
}

impl Live {
    /// Daemons that are children of this process.
    #[must_use]
    pub fn children(&self) -> Vec<Pid> {
        self.children.clone()
    }

    /// Leaves the session with this exit code, for whoever waits for it. The host daemon removes the instance from the
    /// registry when this process has ended. With `medium_goes`, returns when the session has let go of the image's medium
    /// if this was its last instance: whoever starts an image from a stick pulls it out next.
    pub fn leave(self, code: i32, medium_goes: bool) {
        if let Err(error) = self.registry.conclude(self.id, code) {
            log::debug!("{}", runtime::error::chain(&error));
        }
        if medium_goes && let Err(errno) = self.wait_for_server() {
            log::debug!("cannot wait for the end of the session: {errno}");
        }
    }

    fn wait_for_server(self) -> nix::Result<()> {
        // Watched before it is looked at, so that whoever joins is seen either way.
        let joining = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        joining.add_watch(&self.registry.instances(), AddWatchFlags::IN_CREATE)?;
        let others = self.registry.live().map_or(true, |live| live.iter().any(|instance| instance.id != self.id));
        drop(self.alive);
        let mut joined = others;
        while !joined {
            let mut fds = [self.server.as_fd(), joining.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            poll(&mut fds, PollTimeout::NONE)?;
            if fds[0].any().unwrap_or(true) {
                break;
            }
            // The end of the directory is told as well.
            joined = joining.read_events()?.iter().any(|event| event.mask.contains(AddWatchFlags::IN_CREATE));
        }
        Ok(())
    }
}

/// The sealed program of the live session of this image, when it is the same program: a start that joins copies
/// nothing. Anything unexpected means that there is none.
#[must_use]
pub fn program(invocation: &Invocation) -> Option<File> {
    let caller = super::facts::caller();
    let data = super::data::existing(invocation, &caller)?;
    let lock = File::open(data.join(lock::SESSION)).ok()?;
    let record = Record::read(&lock, &data).ok()?;
    let exe = File::open(format!("/proc/{}/exe", record.server)).ok()?;
    let metadata = exe.metadata().ok()?;
    let is_ours = record.server_is_alive()
        && metadata.uid() == caller.uid
        && metadata.len() == invocation.image.elf_len()
        && memfd::is_sealed_program(&exe);
    (is_ours && record.image == invocation.image.superblock.uuid.0).then_some(exe)
}
