//! `fim-instance exec`: a command in a live instance.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::Pid;
use runtime::host;
use runtime::instance::TerminalUse;
use runtime::request;
use runtime::session::registry::Kind;
use runtime::session::{lock, pipe};
use runtime::sys::process;
use runtime::wire::body::{Request, Terminal};
use runtime::wire::{Ring, VERSION};

use super::client::{Client, size_of};
use super::session::{self, Session};
use crate::launch::{Program, facts, plan};
use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles, stage};

/// Runs `words` in instance `id`; returns the exit code of the command.
pub(super) fn run(
    invocation: &Invocation,
    id: u64,
    words: &[OsString],
    roles: Roles,
    build: Build,
) -> Result<i32, Failure> {
    // 1. The instance, and everything that is decided before it hears of it.
    let session = session::require(invocation)?;
    let (instance, starter) = session.hold(id)?;
    if !invocation.sealed && pipe::writer(&host::doorbell(&session.record.directory))?.is_none() {
        // The host daemon was killed. The next one is a fork of this program and shall not keep the image file busy.
        stage::free_the_file(invocation)?;
    }
    let mut facts = facts::gather(invocation)?;
    // What the instance shows was settled when it started.
    facts.binds.clear();
    let root = instance.kind == Kind::Root;
    // Its ports were published when it started.
    let mut config = invocation.image.config.clone();
    config.declared.ports.clear();
    let program = Program { words: words.to_vec(), root, ..Program::default() };
    let plan = plan::make(&config, &program, &facts, build)?;
    // 2. The pipes of this request.
    let directory = session.registry.directory(id);
    let pipes = request::Client::create(&directory).map_err(|error| {
        if directory.exists() { Message::boxed(runtime::error::chain(&error)) } else { session::ended(id) }
    })?;
    let merged = request::same_file(std::io::stdout(), std::io::stderr());
    let terminal = match plan.terminal {
        TerminalUse::Own { streams, foreground } if streams[0] => {
            Some(Terminal { streams, foreground, size: size_of(streams) })
        }
        _ => None,
    };
    let request = Request {
        version: VERSION,
        argv: plan.command.argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: plan.command.env.iter().map(|word| word.as_bytes().to_vec()).collect(),
        directories: plan.command.directories.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
        merged: merged && terminal.is_none(),
        terminal,
    };
    // 3. Ring the host daemon, which passes the request on, and stay with the command.
    let ring = Ring::Exec { instance: id, request: pipes.id };
    let caller = Caller { session: &session, ring, roles };
    Client::new(pipes, request, Some(starter), format!("instance {id}"))
        .run(&|| caller.announce())
        .map_err(Message::boxed)
}

/// Rings a host daemon, and starts one when the last was killed.
struct Caller<'a> {
    session: &'a Session,
    ring: Ring,
    roles: Roles,
}

impl Caller<'_> {
    /// Rings; returns the daemon's pipe, which shows an error when the daemon has gone.
    fn announce(&self) -> Result<Option<File>, Failure> {
        let directory = &self.session.record.directory;
        let ring = || host::ring_and_hold(directory, self.ring);
        if let Some(daemon) = ring()? {
            return Ok(Some(daemon));
        }
        let starting = lock::wait(&self.session.data, lock::START)?;
        // Another client may have been faster.
        if let Some(daemon) = ring()? {
            return Ok(Some(daemon));
        }
        let server = process::pidfd_open(self.session.record.server)
            .map_err(|_| Message::boxed("the session has ended with its mount server"))?;
        let _daemon: Pid = host::start(directory, &self.session.data, server, &starting, self.roles.host)?;
        match ring()? {
            Some(daemon) => Ok(Some(daemon)),
            None => Err(Message::boxed("the host daemon cannot be started; see the kernel log")),
        }
    }
}
