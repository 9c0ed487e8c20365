//! The host side of the portals of live instances: hears their doorbells and forks one monitor for each request, so
//! that no guest can make the daemon wait.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, execve};
use runtime::error::NOT_EXECUTABLE;
use runtime::monitor::{self, Service};
use runtime::portal::{self, Portal};
use runtime::sandbox::plan::Command;
use runtime::session::registry::{Instance, Registry};
use runtime::sys::process::{self, Side};
use runtime::sys::{descriptor, title};
use runtime::wire::body::Request;
use runtime::wire::{Doorbells, RequestId, Ring};

/// Where programs are looked for when the user's environment does not say.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The portals of all live instances that have one.
pub(crate) struct Portals {
    open: BTreeMap<u64, Open>,
    /// Given up to open a pipe where descriptors are short: no starter may be left waiting for an answer.
    spare: Option<File>,
    /// Monitors of instances that have ended: each ends by itself when it notices.
    leaving: Vec<Running>,
}

struct Open {
    portal: Portal,
    instance: Instance,
    doorbells: Doorbells,
    running: Vec<Running>,
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// A request that is being served.
struct Running {
    request: RequestId,
    monitor: Pid,
    pidfd: OwnedFd,
}

impl Running {
    fn wait(&self) {
        // It has ended, as its pidfd told.
        let _ = waitpid(self.monitor, Some(WaitPidFlag::WNOHANG));
    }
}

impl Portals {
    pub(crate) fn new() -> Self {
        Self { open: BTreeMap::new(), spare: spare(), leaving: Vec::new() }
    }

    /// Begins to listen to an instance and tells its starter. A portal that cannot be opened stays closed.
    pub(crate) fn adopt(&mut self, registry: &Registry, instance: &Instance) {
        self.open(registry, instance);
        self.answer(registry, instance.id);
    }

    /// Lets a starter go on that waits for its instance to be adopted.
    pub(crate) fn answer(&mut self, registry: &Registry, id: u64) {
        self.spare = None;
        if let Err(error) = portal::answer(&registry.directory(id)) {
            log::debug!("{}", runtime::error::chain(&error));
        }
        self.spare = spare();
    }

    fn open(&mut self, registry: &Registry, instance: &Instance) {
        match Portal::open(&registry.directory(instance.id)) {
            Ok(Some(portal)) => {
                let instance = instance.clone();
                let open = Open { portal, instance, doorbells: Doorbells::default(), running: Vec::new() };
                self.open.insert(open.instance.id, open);
            }
            Ok(None) => {}
            Err(error) => log::debug!("{}", runtime::error::chain(&error)),
        }
    }

    /// Stops listening to an instance that has ended.
    pub(crate) fn close(&mut self, id: u64) {
        if let Some(open) = self.open.remove(&id) {
            self.leaving.extend(open.running);
        }
    }

    /// Every descriptor to be watched for input, in the order that [`Portals::turn`] takes their events.
    pub(crate) fn watch(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let leaving = self.leaving.iter().map(|running| running.pidfd.as_fd());
        leaving.chain(self.open.values().flat_map(|open| {
            let running = open.running.iter().map(|running| running.pidfd.as_fd());
            std::iter::once(open.portal.bell.as_fd()).chain(running)
        }))
    }

    /// Does what the events of one wait ask for.
    pub(crate) fn turn(&mut self, events: &[bool]) {
        let mut events = events.iter().copied();
        self.leaving.retain(|running| {
            let ended = events.next().unwrap_or(false);
            if ended {
                running.wait();
            }
            !ended
        });
        for open in self.open.values_mut() {
            let rung = events.next().unwrap_or(false);
            let Open { portal, running, .. } = open;
            let before = running.len();
            running.retain(|running| {
                let ended = events.next().unwrap_or(false);
                if ended {
                    running.wait();
                    portal.remove(running.request);
                }
                !ended
            });
            if running.len() < before {
                open.top_up(0);
            }
            if rung {
                open.listen();
            }
        }
    }
}

impl Open {
    /// Makes free places, `more` commands about to run besides those that do.
    fn top_up(&mut self, more: usize) {
        if let Err(error) = self.portal.top_up(self.running.len() + more) {
            // The guest is told that too many commands run.
            log::debug!("{}", runtime::error::chain(&error));
        }
    }

    /// Reads one piece of what the guest wrote. Whatever it is, only the names of free places mean anything.
    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        let Ok(len) = self.portal.bell.read(&mut bytes) else { return };
        for ring in self.doorbells.feed(&bytes[..len]) {
            let Ring::Portal { request, .. } = ring else { continue };
            if !self.portal.take(request) {
                continue;
            }
            // Before this place is seen to be taken, so that no client finds none while more commands may run.
            self.top_up(1);
            // At a process limit the request is lost, and its place with it.
            match self.start(request) {
                Ok(running) => self.running.push(running),
                Err(errno) => {
                    log::debug!("cannot serve a request of instance {}: {}", self.instance.id, errno.desc());
                    self.portal.remove(request);
                    self.top_up(0);
                }
            }
        }
    }

    fn start(&self, request: RequestId) -> nix::Result<Running> {
        match process::fork()? {
            Side::Parent(monitor) => {
                // A child that nobody has waited for keeps its number.
                let pidfd = process::pidfd_open(monitor).inspect_err(|_| {
                    process::kill(monitor, Signal::SIGKILL as i32);
                    let _ = waitpid(monitor, None);
                })?;
                Ok(Running { request, monitor, pidfd })
            }
            Side::Child => {
                title::set("fim-portal", b"fim: host command");
                // Whatever else is open is the daemon's.
                if descriptor::close_all_but(&[0, 1, 2]).is_ok()
                    && let Ok(directory) = self.portal.directory()
                {
                    let command = |request| self.command(request);
                    let limit = portal::REQUEST_LIMIT;
                    monitor::run(&directory, request, &Service { limit, command: &command, execute: &execute });
                }
                std::process::exit(0)
            }
        }
    }

    /// What a request may make of the host: a program that is on the list, with the guest's arguments. Environment and
    /// directory are the user's own.
    fn command(&self, request: Request) -> Result<Command, String> {
        let words: Vec<CString> = request
            .argv
            .into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()
            .map_err(|_| "an argument holds a NUL byte".to_owned())?;
        let name = words.first().map(|word| word.to_bytes()).unwrap_or_default();
        if !portal::allows(&self.portal.allowed, name) {
            return Err(refusal(&String::from_utf8_lossy(name)));
        }
        let env = self.environment().ok_or("the instance has ended")?;
        let home = variable(&env, "HOME").map(|home| PathBuf::from(std::ffi::OsString::from_vec(home.to_vec())));
        let directories = home.into_iter().filter(|home| home.is_absolute()).chain([PathBuf::from("/")]).collect();
        Ok(Command { argv: words, shell: false, env, directories, ignored: Vec::new(), closed: [false; 3] })
    }

    /// The environment of the process that started the instance, as its user gave it (proc_pid_environ(5)), without what
    /// steers loaders or is ours.
    fn environment(&self) -> Option<Vec<CString>> {
        let bytes = fs::read(format!("/proc/{}/environ", self.instance.pid)).ok()?;
        // What was read is that process's only if it still lives: a process ID may be given again.
        self.instance.is_alive().then(|| clean(&bytes))
    }
}

fn clean(environ: &[u8]) -> Vec<CString> {
    let own = |entry: &&[u8]| entry.contains(&b'=') && !entry.starts_with(b"LD_") && !entry.starts_with(b"FIM_");
    environ.split(|&byte| byte == 0).filter(own).filter_map(|entry| CString::new(entry).ok()).collect()
}

fn variable<'a>(env: &'a [CString], name: &str) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn refusal(name: &str) -> String {
    if name.contains('/') {
        return format!("{name} may not run on the host: name the program without its directory");
    }
    format!(
        "{name} may not run on the host; to allow it, run this outside and start the image again: IMAGE fim-portal allow {name}"
    )
}

/// Replaces the process by the program on the user's PATH. No shell is ever asked.
fn execute(command: &Command, env: &[CString]) -> (i32, String) {
    let (code, reason) = try_path(&command.argv, env);
    let name = command.argv.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    (code, format!("{name}: {reason}"))
}

fn try_path(argv: &[CString], env: &[CString]) -> (i32, &'static str) {
    let name = argv.first().map(|word| word.to_bytes()).unwrap_or_default();
    let mut reason = None;
    for directory in variable(env, "PATH").unwrap_or(PATH.as_bytes()).split(|&byte| byte == b':') {
        // A relative one would be meant relative to a directory that the user is not in.
        if !directory.starts_with(b"/") {
            continue;
        }
        let Ok(file) = CString::new([directory, b"/", name].concat()) else { continue };
        let Err(errno) = execve(&file, argv, env);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::E2BIG => return (NOT_EXECUTABLE, "the argument list is too long"),
            Errno::ENOEXEC => return (NOT_EXECUTABLE, "cannot execute: required file format not understood"),
            _ => reason = Some("permission denied"),
        }
    }
    // The text and the code are those that scripts know.
    reason.map_or((1, "program not found on the host"), |reason| (NOT_EXECUTABLE, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_the_users_and_clean() {
        let env = clean(b"HOME=/home/ann\0LD_LIBRARY_PATH=/x\0FIM_DEBUG=1\0A=\0LDX=1\0broken\0\0PATH=/bin");
        assert_eq!(env, [c"HOME=/home/ann", c"A=", c"LDX=1", c"PATH=/bin"].map(ToOwned::to_owned));
        assert_eq!(variable(&env, "HOME"), Some(&b"/home/ann"[..]));
        assert_eq!(variable(&env, "HOM"), None);
    }

    #[test]
    fn refusals_say_how_to_allow() {
        assert!(refusal("firefox").ends_with("fim-portal allow firefox"));
        assert!(refusal("/bin/sh").contains("without its directory"));
    }
}
