//! The launch plan: a pure function of the image's configuration, the command line and the host facts. Every conflict
//! is found here.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use runtime::image::declared::{Port, Service};
use runtime::image::{Config, NamedBit, Permission};
use runtime::installation::revision::Revision;
use runtime::instance::TerminalUse;
use runtime::mount_server::MAX_LAYERS;
use runtime::portal::PROGRAMS;
use runtime::sandbox::layout::Layouts;
use runtime::sandbox::plan::{Access, Account, Command, Fresh, Plan, Step};
use runtime::session::claims::Claim;
use runtime::session::registry::Kind;
use runtime::spawn::TIME_ZONE_RULE;

use super::facts::{self, Facts};
use super::grants::{self, Gift, Grant};
use super::stacking::Stacking;
use super::{Program, binds, environment, identity, joined_words, revision, terminal_use};
use crate::content;
use crate::layout::{self, plan::Shared, word::Places};
use crate::version::Build;

/// A start that cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A word with a NUL byte cannot be handed to any program.
    #[error("an argument or variable holds a NUL byte")]
    Nul,
    /// The kernel stacks no more.
    #[error("the image has {0} layers and at most {MAX_LAYERS} can be stacked; merge some")]
    Layers(usize),
    /// A name that `fim-portal` would not have stored.
    #[error("the image allows a host command by an invalid name, {name:?}: {reason}; use fim-portal clear")]
    Portal {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A bind that cannot be made.
    #[error(transparent)]
    Bind(#[from] binds::Error),
    /// Ports that are the host's own already.
    #[error(
        "port {} is published, but with the permission network the guest has the host's network, and its ports are the \
         host's own already; take one of them away: fim-port clear, or fim-perms del network",
        crate::port::shown(.0)
    )]
    PublishedOnHost(Port),
    /// A layout that cannot be made.
    #[error(transparent)]
    Layout(#[from] layout::plan::Problems),
    /// An image without a layer has nothing to run.
    #[error("the image has no layer; build it again")]
    NoLayer,
}

impl From<std::ffi::NulError> for Error {
    fn from(_: std::ffi::NulError) -> Self {
        Self::Nul
    }
}

/// Everything a start is going to do.
#[derive(Debug, Clone)]
pub struct LaunchPlan {
    /// What stacks the layers.
    pub stacking: Stacking,
    /// What of the image shapes the stack of the session; a start that differs is refused.
    pub shape: Vec<String>,
    /// How many layers the image gives to it.
    pub layers: usize,
    /// Namespaces of the instance, but for its mounts, which are a copy of the session's.
    pub namespaces: CloneFlags,
    /// What the instance sees.
    pub sandbox: Plan,
    /// Files of the application at other places, which come last.
    pub layouts: Option<Layouts>,
    /// What it runs.
    pub command: Command,
    /// Whether and how it gets a terminal.
    pub terminal: TerminalUse,
    /// Who it runs as, for listings.
    pub kind: Kind,
    /// The command, for listings.
    pub words: Vec<u8>,
    /// What the permissions give.
    pub grants: Vec<Grant>,
    /// Whether mount points may be missing in the image.
    pub makes_points: bool,
    /// Host commands that the guest may run.
    pub portal: Vec<String>,
    /// Name of the service that the instance is.
    pub service: Option<String>,
    /// Ports of the instance that the host's loopback is to reach.
    pub ports: Vec<Port>,
    /// Names that the instance may own on the user's bus, where a filter sees to that.
    pub names: Vec<Claim>,
    /// Ports of the host that the instance is going to listen on itself.
    pub listens: Vec<u16>,
    /// Revision of the files that the instance sees.
    pub revision: Revision,
    /// Files that a session which begins with this start reads ahead.
    pub startup: Vec<Vec<u8>>,
    /// Seconds since the epoch.
    pub now: u64,
}

/// Decides.
///
/// # Errors
/// Whatever conflicts.
pub fn make(config: &Config, program: &Program, facts: &Facts, build: Build) -> Result<LaunchPlan, Error> {
    let layers = config.layers.iter().filter(|layer| layer.kind == runtime::image::LayerKind::Squashfs).count();
    match layers {
        0 => return Err(Error::NoLayer),
        1..=MAX_LAYERS => {}
        _ => return Err(Error::Layers(layers)),
    }
    for name in &config.portal {
        runtime::portal::check_name(name).map_err(|reason| Error::Portal { name: name.clone(), reason })?;
    }
    let root = identity::is_root(config, program.root, facts);
    let account = identity::account(config, root, facts);
    let grants = grants(config, facts, &account, root);
    let network = config.permissions.contains(Permission::Network);
    let mut namespaces =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    namespaces.set(CloneFlags::CLONE_NEWNET, !network);
    let ports = ports(config, program, network)?;
    let stacking = Stacking::of(config, |name| facts.caller.variable(name));
    let layouts = layouts(config, facts, &grants)?;
    Ok(LaunchPlan {
        stacking,
        shape: shape(config, build, stacking).into_iter().chain(content::shape(&facts.content)).collect(),
        layers,
        namespaces,
        command: command(config, program, facts, &account, build, &grants)?,
        sandbox: Plan {
            steps: steps(config, program, facts, &account, &grants)?,
            account,
            private_network: !network,
            // Servers of several installations, which do not know of each other, have the same port.
            low_ports: facts.installation.key.is_some() || ports.iter().any(|port| port.guest < FIRST_USUAL_PORT),
            keep_capabilities: root,
        },
        terminal: terminal_use(facts.terminals, facts.foreground),
        kind: if root { Kind::Root } else { Kind::Exec },
        words: joined_words(&program.words),
        names: grants::owned_names(&grants),
        makes_points: !grants.is_empty() || !facts.binds.is_empty() || !facts.content.is_empty() || layouts.is_some(),
        layouts,
        grants,
        portal: config.portal.clone(),
        service: program.service.clone(),
        ports,
        listens: listens(config, program, network),
        revision: facts.revision.now.clone(),
        startup: startup(config, program),
        now: facts.now,
    })
}

/// The first port that needs no privilege, unless the host has another (ip-sysctl.rst).
const FIRST_USUAL_PORT: u16 = 1024;

/// The ports that this start publishes: those of its service, and those of whichever instance is first.
fn ports(config: &Config, program: &Program, network: bool) -> Result<Vec<Port>, Error> {
    let of_this = |port: &&Port| port.service.is_none() || port.service == program.service;
    let ports: Vec<Port> = config.declared.ports.iter().filter(of_this).cloned().collect();
    match ports.first() {
        Some(first) if network => Err(Error::PublishedOnHost(first.clone())),
        _ => Ok(ports),
    }
}

/// The ports that a service is known to have, where they are the host's.
fn listens(config: &Config, program: &Program, network: bool) -> Vec<u16> {
    let is_this = |service: &&Service| program.service.as_ref() == Some(&service.name);
    config.declared.services.iter().find(is_this).filter(|_| network).map(|it| it.listens.clone()).unwrap_or_default()
}

/// The layouts, when there are any.
fn layouts(config: &Config, facts: &Facts, grants: &[Grant]) -> Result<Option<Layouts>, layout::plan::Problems> {
    let declared = &config.declared.layouts;
    if declared.is_empty() {
        return Ok(None);
    }
    let places = revision::places(&facts.revision.now);
    layout::plan::plan(declared, &places, &shared(config, facts, grants, &places)).map(Some)
}

/// What of the host the guest sees by binds and permissions, and what of other images by plugs.
pub(crate) fn shared(config: &Config, facts: &Facts, grants: &[Grant], places: &Places) -> Vec<Shared> {
    let host = |owner: String| format!("{owner} shares with the host");
    let binds = facts.binds.iter().filter(|bind| bind.fault.is_none());
    let binds = binds.map(|bind| Shared { path: bind.target.clone(), owner: host(format!("bind {}", bind.index)) });
    let granted = grants.iter().filter_map(|grant| match &grant.gift {
        Gift::Mount { target, .. } => {
            let owner = host(format!("the permission {}", grant.permission.name()));
            Some(Shared { path: target.clone(), owner })
        }
        _ => None,
    });
    let plugs = config.declared.plugs.iter().flat_map(|plug| {
        let owner = format!("the plug '{}' has from another image", plug.name);
        content::targets(plug, places).into_iter().map(move |path| Shared { path, owner: owner.clone() })
    });
    binds.chain(granted).chain(plugs).collect()
}

/// The boot command reads the whole start-up set; of any other, what most programs read: the settings and libraries.
fn startup(config: &Config, program: &Program) -> Vec<Vec<u8>> {
    let is_shared = |path: &[u8]| path.starts_with(b"etc/") || path.windows(3).any(|part| part == b".so");
    config.startup.iter().filter(|path| program.boots || is_shared(path)).cloned().collect()
}

fn shape(config: &Config, build: Build, stacking: Stacking) -> Vec<String> {
    let mut shape = vec![format!("program {} {}", build.version, build.commit)];
    for layer in config.layers.iter().filter(|layer| layer.kind == runtime::image::LayerKind::Squashfs) {
        shape.push(format!("layer {}", layer.digest));
    }
    shape.extend(stacking.shape());
    shape
}

fn command(
    config: &Config,
    program: &Program,
    facts: &Facts,
    account: &Account,
    build: Build,
    grants: &[Grant],
) -> Result<Command, Error> {
    let mut ours: Vec<(&str, OsString)> = vec![
        ("FIM_VERSION", build.short().into()),
        ("FIM_COMMIT", build.commit.into()),
        ("FIM_TIMESTAMP", build.timestamp.into()),
        ("FIM_DIST", config.name.clone().into()),
        ("FIM_PID", std::process::id().to_string().into()),
        ("FIM_OFFSET", facts.payload.to_string().into()),
        ("FIM_BIN_SELF", facts.image.clone().into()),
        ("FIM_DIR_SELF", facts::directory(&facts.image).into()),
    ];
    ours.extend(OWN_DIRECTORIES.map(|(name, path)| (name, path.into())));
    ours.extend(revision::variables(&facts.installation, &facts.revision.now));
    if reads_shell_start(config, program, facts) {
        ours.push(("BASHRC_FILE", SHELL_START.into()));
    }
    ours.extend(grants::variables(grants));
    if facts.caller.variable("TZ").is_none() {
        ours.extend(facts.zone.iter().map(|zone| ("TZ", zone.into())));
        ours.extend(facts.zone_rule.iter().map(|rule| (TIME_ZONE_RULE, rule.into())));
    }
    let env = environment::build(&facts.caller.env, &config.env, account, &ours, &facts.outputs);
    let env = env
        .iter()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<_, _>>()?;
    let argv = program.words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?;
    let mut directories: Vec<PathBuf> = facts.cwd.iter().cloned().collect();
    directories.extend([PathBuf::from(&account.home), PathBuf::from("/")]);
    Ok(Command { argv, shell: program.shell, env, directories, ignored: facts.ignored.clone(), closed: facts.closed })
}

/// Directories of the instance that FlatImage has names for.
const OWN_DIRECTORIES: [(&str, &str); 6] = [
    ("FIM_DIR_GLOBAL", grants::OWN),
    ("FIM_DIR_APP", grants::OWN),
    ("FIM_DIR_APP_BIN", PROGRAMS),
    ("FIM_DIR_APP_SBIN", PROGRAMS),
    ("FIM_DIR_INSTANCE", grants::OWN),
    ("FIM_DIR_RUNTIME", grants::OWN),
];

/// What shells used by hand read first.
const SHELL_START: &str = "/run/fim/bashrc";

/// Whether somebody may use a shell by hand, or wants a prompt of his own; other starts need no file for it.
fn reads_shell_start(config: &Config, program: &Program, facts: &Facts) -> bool {
    program.shell || facts.terminals.contains(&true) || config.env.iter().any(|(name, _)| name == b"PS1")
}

/// Everything that the permissions give to this user.
pub(crate) fn grants(config: &Config, facts: &Facts, account: &Account, root: bool) -> Vec<Grant> {
    let (caller, host, stored) = (&facts.caller, &facts.host, &config.env[..]);
    grants::all(config.permissions, &grants::Scene { caller, account, host, stored, root })
}

/// Device nodes of the instance; each is the host's own, bound.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Parts of a fresh /proc that a real-root caller could write without any capability, because the kernel compares user
/// IDs there.
const KERNEL_KNOBS: [&str; 5] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

fn fresh(kind: Fresh, target: &str) -> Step {
    Step::Fresh { kind, target: target.into() }
}

fn tmpfs(mode: u32, target: &str) -> Step {
    fresh(Fresh::Tmpfs { mode, exec: true }, target)
}

fn directory(target: impl Into<PathBuf>, mode: u32) -> Step {
    Step::Directory { target: target.into(), mode }
}

fn symlink(target: &str, to: &str) -> Step {
    Step::Symlink { target: target.into(), to: to.into() }
}

fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access, optional: bool) -> Step {
    Step::Bind { source: source.into(), target: target.into(), access, optional }
}

/// Devices that every instance has, or the host's.
fn devices(grants: &[Grant]) -> Vec<Step> {
    let terminals = [fresh(Fresh::Devpts, "/dev/pts"), tmpfs(0o1777, "/dev/shm")];
    let whole: Vec<Grant> = grants.iter().filter(|grant| grant.permission == Permission::Dev).cloned().collect();
    if !whole.is_empty() {
        return grants::steps(&whole).into_iter().chain(terminals).collect();
    }
    let mut steps = vec![fresh(Fresh::Tmpfs { mode: 0o755, exec: false }, "/dev")];
    steps.extend(DEVICES.map(|name| {
        let path = Path::new("/dev").join(name);
        bind(&path, &path, Access::Device, false)
    }));
    steps.extend([directory("/dev/pts", 0o755), directory("/dev/shm", 0o1777)]);
    steps.extend(terminals);
    steps.extend([
        symlink("/dev/ptmx", "pts/ptmx"),
        symlink("/dev/fd", "/proc/self/fd"),
        symlink("/dev/stdin", "/proc/self/fd/0"),
        symlink("/dev/stdout", "/proc/self/fd/1"),
        symlink("/dev/stderr", "/proc/self/fd/2"),
    ]);
    steps
}

/// What every instance sees, then what the permissions grant, then the binds, so that no grant hides one.
fn steps(
    config: &Config,
    program: &Program,
    facts: &Facts,
    account: &Account,
    grants: &[Grant],
) -> Result<Vec<Step>, Error> {
    let mut steps = vec![fresh(Fresh::Proc, "/proc")];
    steps.extend(devices(grants));
    steps.extend([
        tmpfs(0o1777, "/tmp"),
        tmpfs(0o755, "/run"),
        directory("/run/lock", 0o1777),
        directory("/run/user", 0o755),
        directory(format!("/run/user/{}", account.uid), 0o700),
        fresh(Fresh::Tmpfs { mode: 0o755, exec: false }, "/sys"),
    ]);
    steps.extend(facts.sys.iter().map(|path| bind(path, path, Access::ReadOnly, true)));
    if facts.privileged {
        steps.extend(KERNEL_KNOBS.map(|path| Step::ReadOnly { target: path.into() }));
    }
    steps.extend(crate::portal::steps(&config.portal));
    if reads_shell_start(config, program, facts) {
        let content = identity::shell_start(config, facts);
        steps.push(Step::File { target: SHELL_START.into(), content, mode: 0o644 });
    }
    let rest: Vec<Grant> = grants.iter().filter(|grant| grant.permission != Permission::Dev).cloned().collect();
    steps.extend(grants::steps(&rest));
    steps.extend(binds::steps(&facts.binds)?);
    steps.push(Step::Home { target: account.home.clone().into() });
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead() {
        let startup: Vec<Vec<u8>> =
            ["etc/passwd", "lib64/ld-linux-x86-64.so.2", "opt/app"].map(|path| path.into()).into();
        let config = Config { startup: startup.clone(), ..Config::default() };
        assert_eq!(super::startup(&config, &Program::boot(&config, &[])), startup);
        let other = Program::given(&["true".into()], false).unwrap();
        assert_eq!(super::startup(&config, &other), startup[..2]);
    }
}
