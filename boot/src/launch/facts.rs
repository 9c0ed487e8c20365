//! What a start needs to know of the host, read once.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use runtime::installation::{Installation, revision};
use runtime::sandbox::account;
use runtime::sys::{capability, process};

use super::binds::Expanded;
use super::expansion::{self, Outputs};
use super::grants::host::{self, Host};
use crate::content::Supply;
use crate::{Failure, Invocation};

/// Who starts the program.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
    /// Name, home and shell from the host's passwd, when it knows the caller.
    pub account: Option<(String, String, String)>,
    /// The caller's environment.
    pub env: Vec<(OsString, OsString)>,
}

/// The host as the launch plan sees it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who starts.
    pub caller: Caller,
    /// Whether the caller is root with privileges over every ID, so that each can be mapped.
    pub privileged: bool,
    /// The caller's working directory, when it can be told.
    pub cwd: Option<PathBuf>,
    /// Which standard streams are terminals.
    pub terminals: [bool; 3],
    /// Whether the caller is in the foreground of its terminal.
    pub foreground: bool,
    /// Standard streams that the caller had closed.
    pub closed: [bool; 3],
    /// Signals that the caller ignores.
    pub ignored: Vec<i32>,
    /// Name of the host's time zone (`Europe/Berlin`), when /etc/localtime is a link that tells it.
    pub zone: Option<String>,
    /// Its rule (`CET-1CEST,M3.5.0,M10.5.0/3`), for images that do not know the name.
    pub zone_rule: Option<String>,
    /// Which of the directories that are shown of /sys exist.
    pub sys: Vec<PathBuf>,
    /// What commands in stored values printed, when the caller lets them run.
    pub outputs: Outputs,
    /// What the granted permissions need to know.
    pub host: Host,
    /// Stored binds, expanded.
    pub binds: Vec<Expanded>,
    /// What the plugs of the image get.
    pub content: Vec<Supply>,
    /// Absolute path of the image file.
    pub image: PathBuf,
    /// The installation.
    pub installation: Installation,
    /// Which revision of it this start belongs to.
    pub revision: revision::Step,
    /// Where its payload begins, in bytes.
    pub payload: u64,
    /// Seconds since the epoch.
    pub now: u64,
}

impl Caller {
    /// A variable of the caller's environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }
}

/// Parts of /sys that programs need to size themselves and that tell nothing else.
const SYS: [&str; 2] = ["/sys/devices/system/cpu", "/sys/devices/system/node"];

/// What is needed to find the caller's data.
#[must_use]
pub fn caller() -> Caller {
    let uid = geteuid().as_raw();
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    Caller { uid, gid: getegid().as_raw(), account: account::lookup(&passwd, uid), env: std::env::vars_os().collect() }
}

/// Runs the commands in stored values, on the host, when the caller has said so with `FIM_ENV_EXEC=1`: the values are the
/// image's, and whoever built it is trusted with nothing else.
#[must_use]
pub fn command_outputs(caller: &Caller, stored: &[(Vec<u8>, Vec<u8>)]) -> Outputs {
    if caller.variable("FIM_ENV_EXEC").is_none_or(|value| value != "1") {
        return Outputs::new();
    }
    let run = |text: &[u8]| {
        let output = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(OsStr::from_bytes(text))
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::inherit())
            .output();
        let mut printed = output.map(|output| output.stdout).unwrap_or_else(|error| {
            crate::report(&format!("warning: cannot run /bin/sh for a stored variable: {error}"));
            Vec::new()
        });
        while printed.last() == Some(&b'\n') {
            printed.pop();
        }
        printed.retain(|&byte| byte != 0);
        (text.to_vec(), printed)
    };
    stored.iter().flat_map(|(_, value)| expansion::commands(value)).map(run).collect()
}

/// Looks at the host.
///
/// # Errors
/// When a standard stream is a directory: through one, a guest could walk the host.
pub fn gather(invocation: &Invocation) -> Result<Facts, Failure> {
    refuse_directories()?;
    let caller = caller();
    refuse_activation(&caller)?;
    let zone = fs::read_link("/etc/localtime").ok().and_then(|link| {
        let text = link.to_str()?;
        text.split_once("zoneinfo/").map(|(_, name)| name.to_owned())
    });
    let terminals = [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()];
    let outputs = command_outputs(&caller, &invocation.image.config.env);
    let config = &invocation.image.config;
    let cwd = std::env::current_dir().ok();
    let binds = expanded_binds(invocation, &caller, cwd.as_deref());
    Ok(Facts {
        outputs,
        host: host::look(config.permissions, &caller),
        binds,
        // For starts only, which may have to ask.
        content: Vec::new(),
        image: invocation.path.clone(),
        installation: invocation.installation.clone(),
        revision: super::revision::decide(super::data::candidates(invocation, &caller), config)?,
        payload: invocation.image.superblock.payload,
        privileged: is_privileged(&caller),
        caller,
        cwd,
        terminals,
        foreground: super::terminal::in_foreground(terminals),
        closed: invocation.closed,
        ignored: process::ignored_signals(),
        zone,
        zone_rule: fs::read("/etc/localtime").ok().and_then(|file| zone_rule(&file)),
        sys: SYS.iter().map(PathBuf::from).filter(|path| path.is_dir()).collect(),
        now: now(),
    })
}

/// Seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Whether the caller is root with privileges over every ID.
#[must_use]
pub fn is_privileged(caller: &Caller) -> bool {
    caller.uid == 0 && capability::has(capability::SYS_ADMIN) && knows_every_id()
}

/// The stored binds with the variables of this start. Where the image and its data lie counts among them.
fn expanded_binds(invocation: &Invocation, caller: &Caller, cwd: Option<&Path>) -> Vec<Expanded> {
    let binds = &invocation.image.config.binds;
    if binds.is_empty() {
        return Vec::new();
    }
    // A start says itself that it cannot tell where its data is.
    let data = super::data::place(invocation, caller).ok().flatten();
    let own = [
        ("FIM_BIN_SELF", invocation.path.clone().into_os_string()),
        ("FIM_DIR_SELF", directory(&invocation.path).as_os_str().to_owned()),
        ("FIM_DIR_DATA", data.unwrap_or_default().into_os_string()),
    ];
    super::binds::expand_all(binds, caller, &own, cwd)
}

/// The directory that a file lies in.
#[must_use]
pub fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Whether the caller's user namespace maps the usual range of IDs. Root of a namespace with one (`unshare -r`) could
/// not use files of any other owner, and is served as a caller with one ID.
fn knows_every_id() -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|path| {
        let map = fs::read_to_string(path).unwrap_or_default();
        let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        counts.sum::<u64>() >= 65_536
    })
}

/// Refuses sockets that systemd has opened for this process (sd_listen_fds(3)). They are the host's: a guest would answer
/// from its own network what was asked of the host, and no descriptor but the standard streams goes inside.
fn refuse_activation(caller: &Caller) -> Result<(), Failure> {
    let number = |name| caller.variable(name)?.to_str()?.parse::<u32>().ok();
    if number("LISTEN_FDS").is_none_or(|count| count == 0) || number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(());
    }
    Err(crate::Message::boxed(
        "socket activation is not supported: LISTEN_FDS hands over sockets of the host, and the guest has a network of its \
         own; start it as a plain service, and publish its ports with fim-port",
    ))
}

fn refuse_directories() -> Result<(), Failure> {
    use std::os::fd::AsFd;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for (name, fd) in [("stdin", stdin.as_fd()), ("stdout", stdout.as_fd()), ("stderr", stderr.as_fd())] {
        if nix::sys::stat::fstat(fd).is_ok_and(|stat| stat.st_mode & 0o170_000 == 0o040_000) {
            return Err(crate::Message::boxed(format!(
                "{name} is a directory: the guest could reach the host through it; redirect {name} from a file or /dev/null"
            )));
        }
    }
    Ok(())
}

/// The rule for times to come that ends a zone file: the last line, between two line ends (RFC 9636, section 3.3).
fn zone_rule(file: &[u8]) -> Option<String> {
    let body = file.strip_prefix(b"TZif").and(file.strip_suffix(b"\n"))?;
    let line = body.rsplit(|&byte| byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    (!text.is_empty() && text.len() < 256 && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use runtime::installation::Asked;

    use super::*;

    /// A host as plain as can be, for a caller without privileges that has these variables.
    pub(crate) fn facts(env: &[(&str, &str)]) -> Facts {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Facts {
            caller: Caller { uid: 1000, gid: 100, account: None, env },
            privileged: false,
            cwd: None,
            terminals: [false; 3],
            foreground: false,
            closed: [false; 3],
            ignored: Vec::new(),
            zone: None,
            zone_rule: None,
            sys: Vec::new(),
            outputs: Outputs::new(),
            host: Host::default(),
            binds: Vec::new(),
            content: Vec::new(),
            image: "/images/app.flatimage".into(),
            installation: Installation::choose(Path::new("/images/app.flatimage"), Asked::default()).unwrap(),
            revision: revision::Step::decide(None, "content".to_owned()),
            payload: 4096,
            now: 0,
        }
    }

    #[test]
    fn the_rule_of_a_zone_file() {
        let rule = |bytes: &[u8]| zone_rule(bytes);
        assert_eq!(rule(b"TZif2\0\0data\nCET-1CEST,M3.5.0,M10.5.0/3\n").as_deref(), Some("CET-1CEST,M3.5.0,M10.5.0/3"));
        for bytes in [&b""[..], b"TZif2\n\n", b"no zone\nUTC0\n", b"TZif1 old"] {
            assert_eq!(rule(bytes), None);
        }
    }
}
