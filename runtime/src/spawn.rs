//! Starting a command: what a forked child does between fork and exec.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2, setpgid};

use crate::error::FAILURE;
use crate::sandbox::plan::Command;
use crate::sys::{descriptor, process};

/// The terminal side of a pseudo-terminal that a command gets.
#[derive(Debug)]
pub struct Terminal {
    /// The terminal.
    pub file: File,
    /// Which standard streams it replaces.
    pub streams: [bool; 3],
    /// Whether the command begins in its foreground.
    pub foreground: bool,
}

impl Terminal {
    /// Puts a process group into the foreground. The caller has SIGTTOU blocked.
    ///
    /// # Errors
    /// `ESRCH`, `EPERM` for a group that has gone.
    pub fn give_to(&self, group: Pid) -> nix::Result<()> {
        nix::unistd::tcsetpgrp(&self.file, group)
    }
}

/// Replaces the process by the command's program with this environment. Returns exit code and message when it cannot.
pub type Execute<'a> = &'a dyn Fn(&Command, &[CString]) -> (i32, String);

/// Starts a command in a process group of its own. The caller has one thread only. When this returns, a command with a
/// terminal has it: keys that make signals reach the command and nobody else.
///
/// # Errors
/// As fork(2) and pipe(2).
pub fn start(command: &Command, terminal: Option<&Terminal>, execute: Execute<'_>) -> nix::Result<Pid> {
    let attached = terminal.map(|_| pipe2(OFlag::O_CLOEXEC)).transpose()?;
    match process::fork()? {
        process::Side::Parent(pid) => {
            // Whichever of the two comes first; the child may have called exec already (EACCES).
            let _ = setpgid(pid, pid);
            if let Some((read, write)) = attached {
                drop(write);
                // The end of file, as soon as the child has attached itself or died.
                let _ = File::from(read).read(&mut [0]);
            }
            Ok(pid)
        }
        process::Side::Child => {
            let prepared = prepare(terminal);
            drop(attached);
            std::process::exit(become_command(command, prepared, execute))
        }
    }
}

/// Makes the forked child a process group, in the foreground of its terminal if it is to be.
fn prepare(terminal: Option<&Terminal>) -> nix::Result<()> {
    let itself = Pid::from_raw(0);
    setpgid(itself, itself)?;
    terminal.map_or(Ok(()), attach)
}

/// Turns the forked child into the command; returns the exit code when it cannot.
fn become_command(command: &Command, prepared: nix::Result<()>, execute: Execute<'_>) -> i32 {
    if let Err(errno) = prepared.and_then(|()| descriptor::close_on_exec_above_stderr()) {
        eprintln!("fim: cannot prepare the command: {}", errno.desc());
        return FAILURE;
    }
    process::reset_signals();
    for &signal in &command.ignored {
        process::ignore_signal(signal);
    }
    for (fd, closed) in (0..).zip(command.closed) {
        if closed {
            descriptor::close_standard_stream(fd);
        }
    }
    let entered = command.directories.iter().find(|directory| std::env::set_current_dir(directory).is_ok());
    let env = environment(command, entered.map(|directory| directory.as_path()), Path::new(ZONES));
    let (code, message) = execute(command, &env);
    eprintln!("fim: {message}");
    code
}

fn attach(terminal: &Terminal) -> nix::Result<()> {
    if terminal.foreground {
        terminal.give_to(nix::unistd::getpid())?;
    }
    let [stdin, stdout, stderr] = terminal.streams;
    if stdin {
        nix::unistd::dup2_stdin(&terminal.file)?;
    }
    if stdout {
        nix::unistd::dup2_stdout(&terminal.file)?;
    }
    if stderr {
        nix::unistd::dup2_stderr(&terminal.file)?;
    }
    Ok(())
}

/// Variable that carries the rule of the caller's time zone (TZ in the form of POSIX, tzset(3)) to where it is decided
/// whether the zone's name is of use. No command sees it.
pub const TIME_ZONE_RULE: &str = "FIM_TZ_RULE";

/// Where zone files lie in any image that has them.
const ZONES: &str = "/usr/share/zoneinfo";

/// The environment with PWD as the directory that was entered, and with a time zone that is known here: one without a
/// file in this tree is replaced by its rule, which comes along as [`TIME_ZONE_RULE`].
fn environment(command: &Command, entered: Option<&Path>, zones: &Path) -> Vec<CString> {
    let value = |name: &str| {
        command.env.iter().find_map(|entry| entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let rule = value(TIME_ZONE_RULE)
        .filter(|_| value("TZ").is_none_or(|zone| !zones.join(std::ffi::OsStr::from_bytes(zone)).is_file()));
    let replaced = |entry: &CString| {
        let name = entry.as_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
        name == b"PWD" || name == TIME_ZONE_RULE.as_bytes() || (name == b"TZ" && rule.is_some())
    };
    let mut env: Vec<CString> = command.env.iter().filter(|entry| !replaced(entry)).cloned().collect();
    if let Some(rule) = rule {
        env.extend(CString::new([b"TZ=", rule].concat()));
    }
    if let Some(directory) = entered {
        let mut entry = b"PWD=".to_vec();
        entry.extend_from_slice(directory.as_os_str().as_bytes());
        env.extend(CString::new(entry));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_directory_is_told() {
        let command = Command {
            argv: vec![c"x".into()],
            shell: false,
            env: vec![c"A=1".into(), c"PWD=/old".into(), c"PWDX=2".into()],
            directories: Vec::new(),
            ignored: Vec::new(),
            closed: [false; 3],
        };
        let env = environment(&command, Some(Path::new("/new")), Path::new("/"));
        assert_eq!(env, [c"A=1".to_owned(), c"PWDX=2".to_owned(), c"PWD=/new".to_owned()]);
    }

    #[test]
    fn a_time_zone_without_a_file_is_replaced_by_its_rule() {
        let zones = tempfile::tempdir().unwrap();
        std::fs::write(zones.path().join("Known"), "").unwrap();
        let zone = |env: Vec<CString>| {
            let command = Command {
                argv: Vec::new(),
                shell: false,
                env,
                directories: Vec::new(),
                ignored: Vec::new(),
                closed: [false; 3],
            };
            environment(&command, None, zones.path())
        };
        let rule = c"FIM_TZ_RULE=CET-1".to_owned();
        assert_eq!(zone(vec![c"TZ=Known".into(), rule.clone()]), [c"TZ=Known".to_owned()]);
        assert_eq!(zone(vec![c"TZ=Other".into(), rule.clone()]), [c"TZ=CET-1".to_owned()]);
        assert_eq!(zone(vec![rule]), [c"TZ=CET-1".to_owned()]);
        assert_eq!(zone(vec![c"TZ=Other".into()]), [c"TZ=Other".to_owned()]);
    }
}
