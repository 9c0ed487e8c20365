//! A filter between the guest and a D-Bus bus: xdg-dbus-proxy(1) of the host, which ends with the starter.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::unistd::Pid;
use runtime::sandbox::plan::{Access, Step};

use super::grants::{Gift, Grant};
use crate::{Failure, Message, report};

/// Name of the program.
pub(super) const PROGRAM: &str = "xdg-dbus-proxy";

/// A filter that runs as long as this is kept.
#[derive(Debug)]
pub(super) struct Filter {
    /// The proxy ends when the last read end of the pipe that it writes to has gone.
    _pipe: File,
    /// Its process, a child of this one.
    pub pid: Pid,
    /// What shows its sockets in the guest.
    pub steps: Vec<Step>,
}

/// Starts one proxy for every bus that is granted through one; its sockets are made in the instance's directory.
///
/// # Errors
/// When there are no descriptors left. A proxy that does not work is a warning: the guest then has no bus.
pub(super) fn start(program: Option<&Path>, grants: &[Grant], directory: &Path) -> Result<Option<Filter>, Failure> {
    let Some(program) = program else { return Ok(None) };
    let mut steps = Vec::new();
    let mut words: Vec<OsString> = vec!["--fd=1".into()];
    for (number, grant) in grants.iter().enumerate() {
        let Gift::Bus { address, target, rules } = &grant.gift else { continue };
        let source: PathBuf = directory.join(format!("bus-{number}"));
        words.extend([address.into(), source.clone().into_os_string(), "--filter".into()]);
        words.extend(rules.iter().map(OsString::from));
        steps.push(Step::Bind { source, target: target.clone(), access: Access::ReadWrite, optional: true });
    }
    if steps.is_empty() {
        return Ok(None);
    }
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // A process group of its own: keys of the terminal are the command's.
    let spawned = Command::new(program)
        .args(words)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::from(write))
        .stderr(Stdio::null())
        .spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            report(&format!("warning: the bus is not shared: {}: {error}", program.display()));
            return Ok(None);
        }
    };
    let mut pipe = File::from(read);
    let ready =
        pipe.read(&mut [0]).map_err(|error| Message::boxed(format!("cannot hear from the bus filter: {error}")))?;
    if ready == 0 {
        report(&format!("warning: the bus is not shared: {} ended at once; try it by hand", program.display()));
        steps.clear();
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    Ok(Some(Filter { _pipe: pipe, pid, steps }))
}
