//! Requests of clients outside: each gets a monitor process, forked from PID 1.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use runtime::monitor::{self, Service};
use runtime::sandbox::plan::{Account, Command};
use runtime::sys::mount::Detached;
use runtime::sys::process::{self, Side};
use runtime::sys::title;
use runtime::wire::body::Request;
use runtime::wire::{RequestId, frame};

use crate::command;

/// Forks a monitor for a request. PID 1 goes on at once and reaps the monitor like any other child.
pub(crate) fn start(pipes: &Detached, id: RequestId, account: &Account) -> nix::Result<()> {
    match process::fork()? {
        Side::Parent(_) => Ok(()),
        Side::Child => {
            title::set("fim-exec", b"fim: command");
            let command = |request| Ok(command_of(&request, account));
            monitor::run(
                pipes,
                id,
                &Service { limit: frame::LIMIT, command: &command, execute: &command::become_program },
            );
            std::process::exit(0)
        }
    }
}

/// The command as it was asked for, by the user that the instance was started for: what says who that is may have
/// changed in the image since.
fn command_of(request: &Request, account: &Account) -> Command {
    // Words came as argument vectors of a real process: none holds a NUL but a forged one, which is cut there.
    let word = |bytes: &Vec<u8>| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        CString::new(&bytes[..end]).unwrap_or_default()
    };
    Command {
        argv: request.argv.iter().map(word).collect(),
        shell: false,
        env: with_identity(request.env.iter().map(word), account),
        directories: request
            .directories
            .iter()
            .map(|directory| PathBuf::from(std::ffi::OsString::from_vec(directory.clone())))
            .collect(),
        ignored: Vec::new(),
        closed: [false; 3],
    }
}

/// The environment with the instance's user in it.
fn with_identity(env: impl Iterator<Item = CString>, account: &Account) -> Vec<CString> {
    let Account { name, home, shell, .. } = account;
    let identity = [("USER", name), ("LOGNAME", name), ("HOME", home), ("SHELL", shell)];
    let is_other = |entry: &CString| {
        let name = entry.as_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
        identity.iter().all(|(ours, _)| ours.as_bytes() != name)
    };
    let ours = identity.iter().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok());
    env.filter(is_other).chain(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instances_user_takes_the_place_of_the_callers() {
        let account = Account { name: "app".into(), uid: 7, gid: 7, home: "/h o".into(), shell: "/bin/sh".into() };
        let env = [c"USER=ann", c"HOMES=x", c"HOME=/home/ann", c"broken"].map(ToOwned::to_owned);
        let env = with_identity(env.into_iter(), &account);
        let expected = [c"HOMES=x", c"broken", c"USER=app", c"LOGNAME=app", c"HOME=/h o", c"SHELL=/bin/sh"];
        assert_eq!(env, expected.map(ToOwned::to_owned));
    }
}
