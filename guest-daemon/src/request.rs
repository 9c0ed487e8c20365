//! Requests of clients outside: each gets a monitor process, forked from PID 1.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use runtime::monitor::{self, Service};
use runtime::sandbox::plan::Command;
use runtime::sys::mount::Detached;
use runtime::sys::process::{self, Side};
use runtime::sys::title;
use runtime::wire::body::Request;
use runtime::wire::{RequestId, frame};

use crate::command;

/// Forks a monitor for a request. PID 1 goes on at once and reaps the monitor like any other child.
pub(crate) fn start(pipes: &Detached, id: RequestId) -> nix::Result<()> {
    match process::fork()? {
        Side::Parent(_) => Ok(()),
        Side::Child => {
            title::set("fim-exec", b"fim: command");
            let command = |request| Ok(command_of(&request));
            monitor::run(
                pipes,
                id,
                &Service { limit: frame::LIMIT, command: &command, execute: &command::become_program },
            );
            std::process::exit(0)
        }
    }
}

fn command_of(request: &Request) -> Command {
    // Words came as argument vectors of a real process: none holds a NUL but a forged one, which is cut there.
    let word = |bytes: &Vec<u8>| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        CString::new(&bytes[..end]).unwrap_or_default()
    };
    Command {
        argv: request.argv.iter().map(word).collect(),
        shell: false,
        env: request.env.iter().map(word).collect(),
        directories: request
            .directories
            .iter()
            .map(|directory| PathBuf::from(std::ffi::OsString::from_vec(directory.clone())))
            .collect(),
        ignored: Vec::new(),
        closed: [false; 3],
    }
}
