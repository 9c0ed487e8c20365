//! Starting an instance, as numbered steps. `docs/ARCHITECTURE.md` mirrors them.

mod announce;
mod base;
mod begin;
pub mod binds;
mod bus;
pub mod data;
mod detach;
pub mod environment;
mod ephemeral;
pub(crate) mod exclusive;
pub mod expansion;
pub mod facts;
mod former;
pub mod grants;
pub(crate) mod hooks;
pub mod identity;
mod ld_cache;
mod lines;
mod places;
pub mod plan;
mod ports;
pub(crate) mod revision;
pub(crate) mod rung;
pub mod session;
pub(crate) mod signals;
pub(crate) mod stacking;
mod stamp;
mod starter;
pub(crate) mod terminal;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::sched::CloneFlags;
use runtime::control::{Channel, ToGuest};
use runtime::emulation::{Answering, Emulator};
use runtime::image::Config;
use runtime::image::declared::Service;
use runtime::instance::{self, Start, TerminalUse};
use runtime::portal::Adoption;
use runtime::sandbox::plan::{Plan, Step};
use runtime::sandbox::points::Journal;
use runtime::session::registry::Registry;
use runtime::sys::process::{self, Side};
use runtime::sys::{descriptor, title};
use session::Entered;

use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles, content};

/// What to run, as the command line asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Program word and arguments; only the arguments when `shell` is set.
    pub words: Vec<OsString>,
    /// Whether the program is whichever shell the image has.
    pub shell: bool,
    /// Whether it is what the image is made for.
    pub boots: bool,
    /// Whether it runs as user 0.
    pub root: bool,
    /// Whether it goes on after the start has returned.
    pub detached: bool,
    /// Whether what it writes is thrown away.
    pub ephemeral: bool,
    /// Name of the service that it is.
    pub service: Option<String>,
}

/// The words that `fim-exec` and `fim-root` take for themselves, in front of the program only.
const DETACH: &str = "--detach";
const EPHEMERAL: &str = "--ephemeral";

impl Program {
    /// The words after `fim-exec` or `fim-root`; `None` when there is none.
    #[must_use]
    pub fn given(words: &[OsString], root: bool) -> Option<Self> {
        let mut program = Self { root, ..Self::default() };
        let mut words = words;
        while let [first, rest @ ..] = words {
            // Each once: a second one is the program's name.
            match () {
                () if first == DETACH && !program.detached => program.detached = true,
                () if first == EPHEMERAL && !program.ephemeral => program.ephemeral = true,
                () => break,
            }
            words = rest;
        }
        program.words = words.to_vec();
        (!words.is_empty()).then_some(program)
    }

    /// The stored boot command with the arguments of the command line appended.
    #[must_use]
    pub fn boot(config: &Config, args: &[OsString]) -> Self {
        let stored = config.boot.iter().flat_map(|boot| {
            std::iter::once(boot.program.clone()).chain(boot.args.iter().cloned()).map(OsString::from_vec)
        });
        let mut words: Vec<OsString> = stored.collect();
        let shell = words.is_empty();
        words.extend_from_slice(args);
        Self { words, shell, boots: true, ..Self::default() }
    }
}

/// Runs a program in a new instance; returns its exit code.
///
/// # Errors
/// Anything that keeps the instance from starting, or ends it from outside.
pub fn run(invocation: &Invocation, program: &Program, roles: Roles, build: Build) -> Result<i32, Failure> {
    // 1. Look at the host once; decide everything from that, the image and the command line. A detached start goes on
    //    in a daemon, of which this process only hears how it went.
    let facts = look_installed(invocation, program, roles, build)?;
    if program.detached {
        let id = detached(invocation, program, facts, roles, build)?;
        return crate::cli::print(&format!("{id}\n")).map(|()| 0);
    }
    instance(invocation, program, &facts, roles, build, None)
}

/// Runs a service of the installation in a detached instance; returns when its command has started. One that runs
/// already is left alone.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_service(
    invocation: &Invocation,
    service: &Service,
    roles: Roles,
    build: Build,
) -> Result<(), Failure> {
    let words = service.words.iter().cloned().map(OsString::from_vec).collect();
    let program = Program { words, detached: true, service: Some(service.name.clone()), ..Program::default() };
    // It does not depend on where it was started.
    let facts = facts::Facts { cwd: None, ..look_installed(invocation, &program, roles, build)? };
    detached(invocation, &program, facts, roles, build).map(drop)
}

/// Runs a program in a detached instance; returns its ID. The daemon that supervises it does not return.
fn detached(
    invocation: &Invocation,
    program: &Program,
    facts: facts::Facts,
    roles: Roles,
    build: Build,
) -> Result<String, Failure> {
    if is_ephemeral(program, &facts) {
        return Err(Message::boxed(
            "--detach cannot be combined with --ephemeral (or FIM_EPHEMERAL=1): no later command could find the instance; \
             start it in the background, or use FIM_DIR_DATA with a temporary directory",
        ));
    }
    match detach::fork(facts)? {
        detach::Side::Caller(hearing) => hearing.hear(),
        detach::Side::Supervisor(facts, report) => {
            let ours = report.try_clone().map_err(Failure::from);
            let outcome = ours.and_then(|ours| instance(invocation, program, &facts, roles, build, Some(ours)));
            report.end(&outcome);
            std::process::exit(outcome.unwrap_or(runtime::error::FAILURE))
        }
    }
}

/// The host as a start needs to know it whose installation has had its first hooks. An image without hooks has none.
fn look_installed(
    invocation: &Invocation,
    program: &Program,
    roles: Roles,
    build: Build,
) -> Result<facts::Facts, Failure> {
    let facts = look(invocation)?;
    if !is_ephemeral(program, &facts) && hooks::install(invocation, &facts, roles, build)? {
        // There are data now, and what the hooks have changed.
        return look(invocation);
    }
    Ok(facts)
}

/// The host as a start needs to know it.
fn look(invocation: &Invocation) -> Result<facts::Facts, Failure> {
    let mut facts = facts::gather(invocation)?;
    facts.content = content::resolve(invocation, &facts)?;
    Ok(facts)
}

/// Whether what the program writes is thrown away.
fn is_ephemeral(program: &Program, facts: &facts::Facts) -> bool {
    program.ephemeral || ephemeral::is_wanted(&facts.caller)
}

fn instance(
    invocation: &Invocation,
    program: &Program,
    facts: &facts::Facts,
    roles: Roles,
    build: Build,
    report: Option<detach::Report>,
) -> Result<i32, Failure> {
    let plan = plan::make(&invocation.image.config, program, facts, build)?;
    binds::warn_of_missing(&facts.binds);
    // 2. Find or make the writable data.
    let prepared = if is_ephemeral(program, facts) {
        ephemeral::prepare(invocation, &facts.caller, plan.stacking.stack())
    } else {
        data::prepare(invocation, &facts.caller, plan.stacking.stack())
    };
    let mut data = prepared?;
    log::debug!("Writable data: {}", data.directory.display());
    let points = plan.makes_points.then(|| Journal::open(&data.directory)).transpose()?;
    // 3. Join the session that uses it, or begin one. The start lock is held from here to step 6.
    let mut joined = match session::enter(invocation, &plan, &data, facts, true)? {
        Entered::In(joined) => joined,
        Entered::ImageChanged => {
            // The next attempt makes its own.
            drop(data);
            let invocation = invocation.read_again()?;
            return instance(&invocation, program, &look(&invocation)?, roles, build, report);
        }
        Entered::OtherBase => {
            base::decide(invocation, facts, report.is_none(), &data.directory)?;
            match session::enter(invocation, &plan, &data, facts, false)? {
                Entered::In(joined) => joined,
                _ => return Err(Message::boxed("the image was changed while this start asked; start it again")),
            }
        }
    };
    let files = if data.throw_away.is_some() {
        revision::passing_steps(&plan.revision)
    } else {
        revision::settle(&data.directory, &facts.revision, &joined.rung, &facts.caller)?;
        revision::steps(&data.directory, &plan.revision)
    };
    if let (Some(name), Some(report)) = (&plan.service, &report)
        && let Some(running) = joined.service(name)?
    {
        report.started(running.id);
        return Ok(0);
    }
    let content = content::steps(&facts.content, &joined.directory, &plan.revision);
    let files = files.into_iter().chain(content).collect();
    // 4. Be an instance: take the next ID, and the ports of the host that are published.
    let claimed = ports::claim(invocation, &plan, &joined)?;
    let instance = joined.register(&plan, claimed.as_ref().map(ports::Claimed::claims))?;
    // 5. Make PID 1 of the instance, as a child of this process; it begins while the session may still be mounting.
    let (ours, theirs) = Channel::pair()?;
    let directory = Registry::new(&joined.directory).directory(instance.id);
    let filter = bus::start(facts.host.proxy.as_deref(), &plan.grants, &directory)?;
    let guest = Guest { plan: &plan, joined: &joined, id: instance.id, roles, filter: filter.as_ref(), files };
    let name = invocation.installation.instance_name();
    let detached = report.map(|report| joined.detached(report, &instance, &name)).transpose()?;
    let served = claimed.map(|claimed| claimed.serve(roles, &joined, &directory)).transpose()?;
    let (proxy, network) = served.flatten().unzip();
    let intermediate = guest.start(theirs, points, network)?;
    if detached.is_some() {
        descriptor::detach_standard_streams()?;
    }
    let adoption = guest.portal().map(|directory| Adoption::expect(&directory)).transpose()?;
    joined.tell_host_daemon(roles)?;
    if let Some(adoption) = &adoption {
        joined.wait_for_portal(adoption, roles)?;
    }
    // 6. Have it build the instance as soon as the session's root is mounted, and let others start.
    let live = joined.complete(instance.id, plan.stacking)?;
    if let Some((_, fresh)) = data.throw_away.take() {
        fresh.hand_over();
    }
    match ours.send(&ToGuest::Build.encode(), None) {
        // Whoever was to hear it has ended, and has said why.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    // 7. Stay as the parent that the user sees, or that supervises a detached instance.
    let told = announce::announce(&invocation.image.config);
    let children = live.children().into_iter().chain(filter.iter().map(|filter| filter.pid)).chain(told).collect();
    let ports = proxy.as_ref().map(|proxy| proxy.pid);
    let status = starter::Starter::new(ours, plan.terminal, intermediate, children, detached, ports).run();
    // Whoever waits for the end of this process finds the ports free.
    drop(proxy);
    // 8. The exit code is the command's own.
    let code = *status.as_ref().unwrap_or(&runtime::error::FAILURE);
    if let Some(service) = &plan.service
        && let Err(error) = runtime::session::service::conclude(&data.directory, service, code)
    {
        log::debug!("{}", runtime::error::chain(&error));
    }
    live.leave(code, data::on_a_medium(invocation, &facts.caller));
    status.map_err(|text| Message::boxed(with_cause(text, invocation)))
}

/// Why an instance was ended from outside, and whether the medium of the image is what is missing.
fn with_cause(text: String, invocation: &Invocation) -> String {
    let Some(error) = invocation.medium().lost() else { return text };
    let path = invocation.path.display();
    format!("{text}: {path} cannot be read any more ({error}); attach the medium that it is on again")
}

struct Guest<'a> {
    plan: &'a plan::LaunchPlan,
    joined: &'a session::Joined,
    id: u64,
    roles: Roles,
    filter: Option<&'a bus::Filter>,
    /// What puts the files of the installation in place, and what its plugs get.
    files: Vec<Step>,
}

impl Guest<'_> {
    /// The instance's directory when its guest may run host commands.
    fn portal(&self) -> Option<PathBuf> {
        let granted = !self.plan.portal.is_empty();
        granted.then(|| Registry::new(&self.joined.directory).directory(self.id))
    }

    fn sandbox(&self) -> Plan {
        let mut sandbox = self.plan.sandbox.clone();
        sandbox.steps.extend(self.filter.iter().flat_map(|filter| filter.steps.iter().cloned()));
        sandbox.steps.extend(self.files.iter().cloned());
        sandbox.steps.extend(self.portal().map(|directory| crate::portal::bind(&directory)));
        // Last: they show files of the installation, and nothing that comes after would be seen through them.
        sandbox.steps.extend(self.plan.layouts.iter().cloned().map(Step::Layouts));
        sandbox
    }

    /// Makes an intermediate that joins the session's namespaces, clones PID 1 of the instance from there as a child
    /// of this process, writes its ID maps and ends. Returns the intermediate's process ID.
    fn start(
        &self,
        channel: Channel,
        points: Option<Journal>,
        network: Option<Channel>,
    ) -> Result<nix::unistd::Pid, Failure> {
        let (gate, keeper) = instance::gate()?;
        match process::fork().map_err(|errno| Message::boxed(format!("cannot start an instance: {errno}")))? {
            Side::Parent(pid) => Ok(pid),
            Side::Child => std::process::exit(self.intermediate(channel, gate, keeper, points, network)),
        }
    }

    fn intermediate(
        &self,
        channel: Channel,
        gate: instance::Gate,
        keeper: instance::Keeper,
        points: Option<Journal>,
        network: Option<Channel>,
    ) -> i32 {
        let failed = |text: String| {
            // Whoever reads this is the parent, which sees the end of the channel in any case.
            let _ = channel.send(&runtime::control::FromGuest::Failed(text).encode(), None);
            runtime::error::FAILURE
        };
        descriptor::restore_limit();
        // Locks, the image and the ends of other channels are this process's business no more; whoever waits for their
        // last copy to be closed must not wait for an instance.
        let kept = [0, 1, 2, channel.as_fd().as_raw_fd(), gate.as_raw_fd(), keeper.as_raw_fd()];
        let points_fd = points.as_ref().map(|points| points.file().as_raw_fd());
        let network_fd = network.as_ref().map(|network| network.as_fd().as_raw_fd());
        let more = [self.joined.server.as_raw_fd()].into_iter().chain(points_fd).chain(network_fd);
        let kept: Vec<RawFd> = kept.into_iter().chain(more).collect();
        let prepared = descriptor::close_all_but(&kept)
            .and_then(|()| nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL))
            .and_then(|()| nix::sched::setns(&self.joined.server, CloneFlags::CLONE_NEWUSER));
        if let Err(errno) = prepared {
            return failed(format!("cannot join the session's namespaces: {}", errno.desc()));
        }
        match process::clone_sibling(self.plan.namespaces) {
            Ok(Side::Child) => {
                // Their ends are to be seen when the other processes have gone.
                drop((keeper, network));
                let Ok(server) = self.joined.server.try_clone() else {
                    return failed("out of file descriptors".to_owned());
                };
                let start = Start {
                    root: self.joined.directory.join("root"),
                    directory: Registry::new(&self.joined.directory).directory(self.id),
                    plan: self.sandbox(),
                    emulate_root: self.emulates_root(),
                    command: self.plan.command.clone(),
                    points,
                    terminal: self.plan.terminal,
                    channel,
                    gate,
                    server,
                };
                (self.roles.guest)(&start)
            }
            Ok(Side::Parent(pid)) => {
                drop(gate);
                if let Some(error) = network.and_then(|network| ports::hand_over(pid, &network).err()) {
                    return failed(format!("cannot show the instance's network to its published ports: {error}"));
                }
                match self.keep(pid, &keeper) {
                    Ok(answering) => {
                        // The starter must see the end of the guest daemon, not of this process.
                        drop(channel);
                        answering.iter().for_each(Answering::wait);
                        0
                    }
                    // PID 1 reports what went wrong before it asked; a refused map is reported here.
                    Err((_, error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
                    Err((action, error)) => failed(format!("cannot {action}: {error}")),
                }
            }
            Err(errno) => failed(format!("cannot make the instance's namespaces: {}", errno.desc())),
        }
    }
}

impl Guest<'_> {
    fn emulates_root(&self) -> bool {
        self.joined.rung.emulates(self.plan.sandbox.keep_capabilities)
    }

    /// Writes the ID maps of PID 1 and, where root is emulated, begins to answer for it.
    fn keep(
        &self,
        pid: nix::unistd::Pid,
        keeper: &instance::Keeper,
    ) -> Result<Option<Answering>, (&'static str, std::io::Error)> {
        let emulation = |error| ("emulate the users of the image", error);
        let sandbox = &self.plan.sandbox;
        let emulator =
            self.emulates_root().then(|| Emulator::prepare(&self.joined.data)).transpose().map_err(emulation)?;
        keeper
            .write_maps(pid, &self.joined.rung.instance(&sandbox.account))
            .map_err(|error| ("map the instance's IDs", error))?;
        let Some(emulator) = emulator else { return Ok(None) };
        let Some((listener, mounts)) = keeper.take_over().map_err(emulation)? else {
            log::debug!("Root is not emulated: a program outside answers the calls of this one already");
            return Ok(None);
        };
        title::set("fim-owners", b"fim: owners of an instance");
        descriptor::detach_standard_streams().map_err(emulation)?;
        emulator.begin(listener, mounts, &self.sandbox().passing()).map(Some).map_err(emulation)
    }
}

/// Words as one byte string, separated by NUL.
pub(crate) fn joined_words(words: &[OsString]) -> Vec<u8> {
    words.iter().map(|word| OsStr::as_bytes(word)).collect::<Vec<_>>().join(&0)
}

/// Whether and how the command gets a terminal. A command at the end or the beginning of a pipeline, or in the
/// background, begins in the background of its terminal: should it read from it, it is stopped, and the starter, which
/// then knows, brings it forward.
#[must_use]
pub fn terminal_use(terminals: [bool; 3], in_foreground: bool) -> TerminalUse {
    if terminals.contains(&true) {
        TerminalUse::Own { streams: terminals, foreground: in_foreground && terminals[0] && terminals[1] }
    } else {
        TerminalUse::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_words() {
        let mut config = Config::default();
        let shell = Program::boot(&config, &["-c".into(), "x".into()]);
        assert!(shell.shell && shell.words == ["-c", "x"]);
        config.boot = Some(runtime::image::Boot { program: b"echo".to_vec(), args: vec![b"a b".to_vec()] });
        let stored = Program::boot(&config, &["c".into()]);
        assert!(!stored.shell && stored.words == ["echo", "a b", "c"]);
    }

    #[test]
    fn detach_counts_as_the_first_word_only() {
        let given = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            Program::given(&words, false).map(|program| (program.words.len(), program.detached))
        };
        assert_eq!(given("--detach sleep 5"), Some((2, true)));
        assert_eq!(given("--detach --detach"), Some((1, true)));
        assert_eq!(given("--ephemeral --detach x"), Some((1, true)));
        assert_eq!(given("--ephemeral --ephemeral"), Some((1, false)));
        assert_eq!(given("--ephemeral"), None);
        assert_eq!(given("sleep --detach"), Some((2, false)));
        assert_eq!(given("-- --detach"), Some((2, false)));
        assert_eq!(given("--detached"), Some((1, false)));
        assert_eq!(given("--detach"), None);
        assert_eq!(given(""), None);
    }

    #[test]
    fn terminals() {
        assert_eq!(terminal_use([false; 3], true), TerminalUse::None);
        let own = |streams, foreground| TerminalUse::Own { streams, foreground };
        assert_eq!(terminal_use([true; 3], true), own([true; 3], true));
        assert_eq!(terminal_use([true; 3], false), own([true; 3], false));
        assert_eq!(terminal_use([true, false, true], true), own([true, false, true], false));
        assert_eq!(terminal_use([false, false, true], true), own([false, false, true], false));
    }
}
