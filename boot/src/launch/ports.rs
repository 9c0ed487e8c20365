//! What an instance takes of the host for itself: names on a bus, its published ports, and the process that serves these.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runtime::control::Channel;
use runtime::image::declared::Port;
use runtime::ports::holder::{self, Holder};
use runtime::ports::{self, Published, Start};
use runtime::session::claims::{self, Claim, Claims};
use runtime::sys::process::{self, Side};
use runtime::sys::{descriptor, title};

use super::plan::LaunchPlan;
use super::session::Joined;
use crate::port::shown;
use crate::{Failure, Invocation, Message, Roles, report};

/// Name of the proxy's process.
const PROXY: &str = "fim-ports";

/// What an instance has taken.
pub(super) struct Claimed {
    claims: Claims,
    published: Vec<Published>,
}

/// Takes the ports that the plan publishes, and what else it takes for itself; `None` when there is nothing. The start lock is held, so that nobody of the same
/// session does it at the same time.
///
/// # Errors
/// A port or name that somebody else has, naming who.
pub(super) fn claim(invocation: &Invocation, plan: &LaunchPlan, joined: &Joined) -> Result<Option<Claimed>, Failure> {
    if plan.ports.is_empty() && plan.listens.is_empty() && plan.names.is_empty() {
        return Ok(None);
    }
    let base = joined.directory.parent().unwrap_or(&joined.directory);
    plan.listens.iter().try_for_each(|port| must_be_free(*port, base))?;
    plan.names.iter().try_for_each(|name| must_be_ours(name, base, &joined.directory))?;
    let key = invocation.installation.key.as_ref().map(ToString::to_string).unwrap_or_default();
    let all = plan.listens.iter().map(|port| Claim::Tcp(*port)).chain(plan.names.iter().cloned()).collect();
    let claims = Claims { key, image: invocation.path.clone(), all };
    let mut claimed = Claimed { claims, published: Vec::new() };
    for port in &plan.ports {
        if let Some(published) = publish(port, base, &joined.directory)? {
            claimed.published.push(published);
            claimed.claims.all.push(Claim::port(port.host, port.udp));
        }
    }
    Ok((!claimed.claims.all.is_empty()).then_some(claimed))
}

/// Looks whether a service with the host's network can have a port that it is known to listen on. It listens itself,
/// which may still fail.
fn must_be_free(port: u16, base: &Path) -> Result<(), Failure> {
    if !holder::is_taken(port, false) {
        return Ok(());
    }
    let owner = claims::owner(base, &Claim::Tcp(port), |_| true).map(|owner| owner.to_string());
    let who = owner.or_else(|| holder::find(port, false).map(|holder| holder.to_string()));
    Err(Message::boxed(format!(
        "port {port} of the host, which it listens on, is in use by {}; end that first, or have each key use a network of \
         its own (fim-perms del network) and fim-port publish",
        who.unwrap_or_else(|| "another program".to_owned())
    )))
}

/// Refuses a name on a bus that another installation may own. Instances of one installation settle it on the bus.
fn must_be_ours(claim: &Claim, base: &Path, session: &Path) -> Result<(), Failure> {
    let (Claim::Name { name, .. }, Some(owner)) = (claim, claims::owner(base, claim, |other| other != session)) else {
        return Ok(());
    };
    Err(Message::boxed(format!(
        "the D-Bus name {name} cannot be owned: it is that of {owner}; end that, or give this one another name in \
         FIM_DBUS_OWN (fim-env)"
    )))
}

/// Listens on one port of the host; `None` when an instance of the same session has it, which was first.
fn publish(port: &Port, base: &Path, session: &Path) -> Result<Option<Published>, Failure> {
    let (number, shown) = (port.host, shown(port));
    let failed = |why: String| Message::boxed(format!("cannot publish port {shown}: {why}"));
    let taken = |who: String| {
        failed(format!("port {number} of the host is in use by {who}; end that, or publish another port of the host"))
    };
    loop {
        match Published::open(port) {
            Ok(published) => return Ok(Some(published)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(failed(format!(
                    "ports below {} of this host are root's; publish a higher one, such as {}:{}",
                    ports::first_free(),
                    u32::from(number) + 8000,
                    port.guest
                )));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
        let wanted = Claim::port(number, port.udp);
        match claims::owner(base, &wanted, |_| true) {
            Some(owner) if owner.session == session && port.service.is_none() => {
                report(&format!(
                    "note: port {shown} reaches instance {} of this installation, which was first; it does not reach this one",
                    owner.instance.id
                ));
                return Ok(None);
            }
            Some(owner) => return Err(taken(owner.to_string())),
            None => {}
        }
        match holder::find(number, port.udp) {
            Some(holder) if holder.name == PROXY && ends(&holder) => {}
            Some(holder) => return Err(taken(holder.to_string())),
            None if holder::is_taken(number, port.udp) => return Err(taken("another program".to_owned())),
            // It has gone in between.
            None => {}
        }
    }
}

/// How long the proxy of an instance that was killed may take to go, in milliseconds: on a machine that does much else.
const GRACE: u16 = 3000;

/// Whether a proxy that no live instance has is just going.
fn ends(holder: &Holder) -> bool {
    let Ok(pidfd) = process::pidfd_open(holder.pid) else { return true };
    matches!(poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], GRACE), Ok(1))
}

impl Claimed {
    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Starts the proxy, a child of this process, where something is published. The second of the two is where it waits
    /// for the instance's network.
    pub(super) fn serve(
        self,
        roles: Roles,
        joined: &Joined,
        instance: &Path,
    ) -> Result<Option<(Proxy, Channel)>, Failure> {
        if self.published.is_empty() {
            return Ok(None);
        }
        let failed = |error: io::Error| Message::boxed(format!("cannot serve the published ports: {error}"));
        let (ours, theirs) = Channel::pair().map_err(failed)?;
        let server = joined.server.try_clone().map_err(failed)?;
        let start = Start { published: self.published, network: theirs, server, starter: nix::unistd::getpid() };
        match process::fork().map_err(|errno| failed(errno.into()))? {
            Side::Parent(pid) => {
                let pidfd = process::pidfd_open(pid).map_err(|errno| failed(errno.into()))?;
                Ok(Some((Proxy { pid, pidfd }, ours)))
            }
            Side::Child => {
                let kept: Vec<_> = [0, 1, 2].into_iter().chain(start.descriptors()).collect();
                let detached = descriptor::close_all_but(&kept)
                    .map_err(io::Error::from)
                    .and_then(|()| descriptor::detach_standard_streams())
                    // Keys of the terminal are the command's.
                    .and_then(|()| Ok(nix::unistd::setsid()?))
                    .and_then(|_| std::env::set_current_dir("/"));
                if detached.is_err() {
                    std::process::exit(runtime::error::FAILURE);
                }
                title::set(PROXY, format!("fim: ports of {}", instance.display()).as_bytes());
                std::process::exit((roles.ports)(start))
            }
        }
    }
}

/// The process that serves published ports; it ends with this.
pub(super) struct Proxy {
    pub(super) pid: Pid,
    pidfd: OwnedFd,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended. When it has, the ports are free.
        let _ = process::pidfd_signal(&self.pidfd, Signal::SIGKILL as i32);
        let _ = poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
    }
}

/// Shows the proxy the network of the instance with this PID 1, which is still open to processes of the session.
pub(super) fn hand_over(pid: Pid, network: &Channel) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    network.send(&[0], Some(namespace.as_fd()))
}
