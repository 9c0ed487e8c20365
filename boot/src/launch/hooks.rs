//! Commands that an image runs at turns of an installation's life, as its guest.
//!
//! `install` and then `configure` run before the first command of an installation. A mark in the data directory says that
//! this has begun; it goes when both have succeeded. Whatever ends them before that, the installation is emptied again, by
//! this start or by the next one that finds the mark, so that they always begin with what was packed.

use std::fs::{self, File};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use runtime::image::NamedBit;
use runtime::image::declared::{Hook, HookKind};
use runtime::installation::revision::{FILES, RECORD, Revision};
use runtime::session::lock::{self, Held};
use runtime::sys::process::{self, Side};

use super::facts::{self, Facts};
use super::{Program, data, exclusive, instance, look};
use crate::interrupt::Interrupt;
use crate::layer::reset;
use crate::settings::text;
use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles, report};

/// File in the data directory that is there while the hooks of an installation have not succeeded.
const MARK: &str = "installing";
/// Lock in it, held while they run.
pub(crate) const LOCK: &str = "install.lock";

/// The hooks that run before the first command, in this order.
const FIRST: [HookKind; 2] = [HookKind::Install, HookKind::Configure];

fn hook(invocation: &Invocation, kind: HookKind) -> Option<&Hook> {
    invocation.image.config.declared.hooks.iter().find(|hook| hook.kind == kind)
}

/// Runs the first hooks of an installation that has had no command yet; whether there was anything to be done. Starts at
/// once wait for the one that does it.
///
/// # Errors
/// A hook that cannot be run or fails; the installation is as if it had never run then.
pub(crate) fn install(invocation: &Invocation, facts: &Facts, roles: Roles, build: Build) -> Result<bool, Failure> {
    let hooks: Vec<&Hook> = FIRST.iter().filter_map(|kind| hook(invocation, *kind)).collect();
    if hooks.is_empty() {
        return Ok(false);
    }
    let marked = |data: &Path| data.join(MARK).exists();
    let cut = data::existing(invocation, &facts.caller).is_some_and(|data| marked(&data));
    if facts.revision.before.is_some() && !cut {
        return Ok(false);
    }
    let (place, held) = alone(invocation, facts)?;
    // Another start may have done it.
    if !marked(&place) && Revision::read(&place).is_ok_and(|revision| revision.is_some()) {
        return Ok(true);
    }
    let interrupt = Interrupt::hold()?;
    if marked(&place) {
        report(&"note: an installation was interrupted before its hooks had succeeded; it begins anew");
        undo(invocation)?;
    }
    File::create(place.join(MARK))
        .map_err(|error| Message::boxed(format!("cannot begin the installation in {}: {error}", place.display())))?;
    for hook in hooks {
        if let Err(error) = run_alone(invocation, hook, &interrupt, roles, build) {
            undo(invocation)?;
            return Err(Message::boxed(format!(
                "{error}; nothing of the installation was kept, and the next start runs its hooks again"
            )));
        }
    }
    fs::remove_file(place.join(MARK))
        .map_err(|error| Message::boxed(format!("cannot complete the installation in {}: {error}", place.display())))?;
    drop(interrupt);
    drop(held);
    Ok(true)
}

/// The data directory, with the lock of whoever installs. fim-key may have put another in its place meanwhile.
fn alone(invocation: &Invocation, facts: &Facts) -> Result<(std::path::PathBuf, Held), Failure> {
    loop {
        let place = data::prepare_of(invocation, &facts.caller, invocation.installation.key.as_ref())?;
        let held = lock::wait(&place, LOCK)?;
        if held.is_current() {
            return Ok((place, held));
        }
    }
}

/// Empties an installation that has run nothing but its hooks. What was set for it stays.
fn undo(invocation: &Invocation) -> Result<(), Failure> {
    if let Some(alone) = exclusive::take(invocation, "undo an installation")? {
        reset::empty(&alone)?;
        crate::data::remove(&alone, &[FILES, RECORD, MARK])?;
    }
    Ok(())
}

/// Runs a hook of an installation; nothing when the image has none of this kind.
///
/// # Errors
/// When it cannot be run or fails; what it has done until then stays.
pub(crate) fn run(invocation: &Invocation, kind: HookKind, roles: Roles, build: Build) -> Result<(), Failure> {
    let Some(hook) = hook(invocation, kind) else { return Ok(()) };
    let interrupt = Interrupt::hold()?;
    run_alone(invocation, hook, &interrupt, roles, build).map_err(Message::boxed)
}

/// Whether the installation has had its first command, and so the hooks before it.
pub(crate) fn is_installed(invocation: &Invocation) -> bool {
    let place = data::existing(invocation, &facts::caller());
    place.is_some_and(|data| !data.join(MARK).exists() && Revision::read(&data).is_ok_and(|found| found.is_some()))
}

/// Runs a hook in a process of its own and waits for its end. The text says how it failed.
fn run_alone(
    invocation: &Invocation,
    hook: &Hook,
    interrupt: &Interrupt,
    roles: Roles,
    build: Build,
) -> Result<(), String> {
    let kind = hook.kind.name();
    let words: Vec<String> = hook.words.iter().map(|word| text(word).escape_debug().to_string()).collect();
    let failed = |why: String| format!("the {kind} hook of the image ({}) {why}", words.join(" "));
    match process::fork().map_err(|errno| failed(format!("cannot be started: {errno}")))? {
        Side::Child => {
            interrupt.let_through();
            let code = start(invocation, hook, roles, build).unwrap_or_else(|error| {
                report(&runtime::error::chain(error.as_ref()));
                runtime::error::FAILURE
            });
            std::process::exit(code)
        }
        Side::Parent(pid) => match wait(pid, interrupt) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, code)) => Err(failed(format!("failed with exit code {code}"))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Err(failed(format!("was ended by {signal}"))),
            Ok(other) => Err(failed(format!("ended oddly: {other:?}"))),
            Err(errno) => Err(failed(format!("cannot be waited for: {errno}"))),
        },
    }
}

/// Waits for the end of a hook. A signal that wants an end of the start wants one of the hook.
fn wait(pid: Pid, interrupt: &Interrupt) -> nix::Result<WaitStatus> {
    if interrupt.comes_before(&process::pidfd_open(pid)?) {
        kill(pid, Signal::SIGTERM)?;
    }
    loop {
        match waitpid(pid, None) {
            Err(nix::errno::Errno::EINTR) => {}
            ended => return ended,
        }
    }
}

/// The hook as an instance. What it says goes to stderr, and it reads nothing: both streams are those of the command that
/// the user has started.
fn start(invocation: &Invocation, hook: &Hook, roles: Roles, build: Build) -> Result<i32, Failure> {
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    nix::unistd::dup2_stdout(std::io::stderr())?;
    let words = hook.words.iter().map(|word| std::os::unix::ffi::OsStringExt::from_vec(word.clone())).collect();
    let program = Program { words, ..Program::default() };
    instance(invocation, &program, &look(invocation)?, roles, build, None)
}
