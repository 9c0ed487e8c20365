//! The launch plan: a pure function of the image's configuration, the command line and the host facts. Every conflict
//! is found here.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use runtime::image::{Config, Permission};
use runtime::instance::TerminalUse;
use runtime::mount_server::MAX_LAYERS;
use runtime::sandbox::account;
use runtime::sandbox::id_map::IdMap;
use runtime::sandbox::plan::{Access, Account, Command, Fresh, Plan, Step};
use runtime::session::registry::Kind;
use runtime::spawn::TIME_ZONE_RULE;

use super::facts::Facts;
use super::{Program, environment, joined_words, terminal_use};
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
    /// What shapes the stack of the session; a start that differs is refused.
    pub shape: Vec<String>,
    /// IDs of the session's user namespace.
    pub session_ids: IdMap,
    /// Namespaces of the instance, but for its mounts, which are a copy of the session's.
    pub namespaces: CloneFlags,
    /// What the instance sees.
    pub sandbox: Plan,
    /// What it runs.
    pub command: Command,
    /// Whether and how it gets a terminal.
    pub terminal: TerminalUse,
    /// Who it runs as, for listings.
    pub kind: Kind,
    /// The command, for listings.
    pub words: Vec<u8>,
    /// Host commands that the guest may run.
    pub portal: Vec<String>,
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
    let account = identity(program.root, facts);
    let network = config.permissions.contains(Permission::Network);
    let mut namespaces =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    namespaces.set(CloneFlags::CLONE_NEWNET, !network);
    let (session_ids, ids) = id_maps(facts, &account);
    Ok(LaunchPlan {
        shape: shape(config, build),
        session_ids,
        namespaces,
        command: command(config, program, facts, &account, build)?,
        sandbox: Plan {
            steps: steps(config, facts, &account),
            account,
            private_network: !network,
            ids,
            keep_capabilities: program.root,
        },
        terminal: terminal_use(facts.terminals, facts.foreground),
        kind: if program.root { Kind::Root } else { Kind::Exec },
        words: joined_words(&program.words),
        portal: config.portal.clone(),
        now: facts.now,
    })
}

/// The session maps 0 to the caller, so that the whole tree belongs to one known ID; the instance's own namespace
/// maps the ID that the command is to see. Root with privileges has every ID in both.
fn id_maps(facts: &Facts, account: &Account) -> (IdMap, IdMap) {
    if facts.privileged {
        return (IdMap::Full, IdMap::Full);
    }
    let session = IdMap::Single { uid: 0, gid: 0, parent_uid: facts.caller.uid, parent_gid: facts.caller.gid };
    let instance = IdMap::Single { uid: account.uid, gid: account.gid, parent_uid: 0, parent_gid: 0 };
    (session, instance)
}

fn identity(root: bool, facts: &Facts) -> Account {
    if root || facts.caller.uid == 0 {
        return Account { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: "/bin/sh".into() };
    }
    let variable = |name: &str| facts.caller.variable(name).and_then(|value| value.to_str()).map(str::to_owned);
    let (passwd_name, passwd_home) = match &facts.caller.account {
        Some((name, home, _)) => (Some(name.clone()), Some(home.clone())),
        None => (None, None),
    };
    let name = variable("USER").or(passwd_name).or_else(|| variable("LOGNAME")).unwrap_or_default();
    let name = account::field(&name, &format!("user{}", facts.caller.uid));
    let home = variable("HOME").or(passwd_home).filter(|home| home.starts_with('/')).unwrap_or_default();
    let home = account::field(&home, &format!("/home/{name}"));
    Account { name, uid: facts.caller.uid, gid: facts.caller.gid, home, shell: "/bin/sh".into() }
}

fn shape(config: &Config, build: Build) -> Vec<String> {
    let mut shape = vec![format!("program {} {}", build.version, build.commit)];
    for layer in config.layers.iter().filter(|layer| layer.kind == runtime::image::LayerKind::Squashfs) {
        shape.push(format!("layer {}", layer.digest));
    }
    shape
}

fn command(
    config: &Config,
    program: &Program,
    facts: &Facts,
    account: &Account,
    build: Build,
) -> Result<Command, Error> {
    let mut ours: Vec<(&str, OsString)> = vec![
        ("FIM_VERSION", build.short().into()),
        ("FIM_COMMIT", build.commit.into()),
        ("FIM_TIMESTAMP", build.timestamp.into()),
        ("FIM_DIST", config.name.clone().into()),
        ("FIM_PID", std::process::id().to_string().into()),
    ];
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

/// What every instance sees, then what the permissions grant.
fn steps(config: &Config, facts: &Facts, account: &Account) -> Vec<Step> {
    let mut steps = vec![fresh(Fresh::Proc, "/proc"), fresh(Fresh::Tmpfs { mode: 0o755, exec: false }, "/dev")];
    steps.extend(DEVICES.map(|name| {
        let path = Path::new("/dev").join(name);
        bind(&path, &path, Access::Device, false)
    }));
    steps.extend([
        directory("/dev/pts", 0o755),
        fresh(Fresh::Devpts, "/dev/pts"),
        symlink("/dev/ptmx", "pts/ptmx"),
        directory("/dev/shm", 0o1777),
        tmpfs(0o1777, "/dev/shm"),
        symlink("/dev/fd", "/proc/self/fd"),
        symlink("/dev/stdin", "/proc/self/fd/0"),
        symlink("/dev/stdout", "/proc/self/fd/1"),
        symlink("/dev/stderr", "/proc/self/fd/2"),
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
    if config.permissions.contains(Permission::Network) {
        for name in ["host.conf", "hosts", "nsswitch.conf", "resolv.conf"] {
            let path = Path::new("/etc").join(name);
            steps.push(bind(&path, &path, Access::ReadOnly, true));
        }
    }
    steps.push(Step::Home { target: account.home.clone().into() });
    steps.extend(crate::portal::steps(&config.portal));
    steps
}
