//! The proxy of published ports: one process for each instance that has some. Its listening sockets are the host's; every
//! socket that it makes is one of the instance's network namespace, which it joins without the instance's files or
//! processes. It has no capability by the time it hears of a client, and is not in the guest's sight.
//!
//! One thread waits by epoll(7) and does nothing while nobody sends.

mod flow;
mod tcp;
mod udp;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use runtime::ports::{Published, Sockets, Start};
use runtime::sys::{capability, descriptor};

/// Most descriptors that the proxy needs besides those of clients.
const OTHERS: u64 = 64;

/// Runs until the starter ends it; returns the exit code of the process.
#[must_use]
pub fn run(start: Start) -> i32 {
    descriptor::raise_limit();
    match enter(&start).and_then(|begun| if begun { serve(start.published) } else { Ok(()) }) {
        Ok(()) => 0,
        // Nobody reads anything of this process; the starter says that it has ended.
        Err(_) => runtime::error::FAILURE,
    }
}

/// Becomes a process of the instance's network and of nothing else; false when there will be no instance.
fn enter(start: &Start) -> io::Result<bool> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != start.starter {
        return Ok(false);
    }
    let Some((_, Some(network))) = start.network.receive()? else { return Ok(false) };
    // The session's user namespace owns the networks of its instances.
    setns(&start.server, CloneFlags::CLONE_NEWUSER)?;
    setns(&network, CloneFlags::CLONE_NEWNET)?;
    capability::drop_all()?;
    prctl::set_no_new_privs()?;
    Ok(true)
}

/// What a descriptor is watched as: everything has a number, and none is given twice.
pub(crate) struct Watch {
    epoll: Epoll,
    next: u64,
}

impl Watch {
    fn new() -> nix::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, next: 0 })
    }

    /// A number for something that is going to be watched.
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn add(&self, fd: impl AsFd, flags: EpollFlags, number: u64) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(flags, number))
    }

    fn remove(&self, fd: BorrowedFd<'_>) {
        // It may not have been watched.
        let _ = self.epoll.delete(fd);
    }
}

/// Most events that are taken at once.
const BATCH: usize = 64;

fn serve(published: Vec<Published>) -> io::Result<()> {
    let mut watch = Watch::new()?;
    let datagram_sockets = |published: &Published| match &published.sockets {
        Sockets::Tcp(_) => 0,
        Sockets::Udp(sockets) => sockets.len() as u64,
    };
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let room = Room::of(descriptors, published.iter().map(datagram_sockets).sum());
    let mut connections = tcp::Connections::new(room.connections);
    let mut datagrams = udp::Datagrams::new(room.clients);
    for Published { guest, sockets } in published {
        match sockets {
            Sockets::Tcp(listeners) => {
                listeners.into_iter().try_for_each(|listener| connections.listen(listener, guest, &mut watch))?;
            }
            Sockets::Udp(sockets) => {
                sockets.into_iter().try_for_each(|socket| datagrams.listen(socket, guest, &mut watch))?;
            }
        }
    }
    let mut events = [EpollEvent::empty(); BATCH];
    loop {
        let count = match watch.epoll.wait(&mut events, connections.timeout()) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            // Whichever of the two knows the number; none does when it has just gone.
            connections.turn(event.data(), event.events(), &mut watch);
            datagrams.turn(event.data(), &mut watch);
        }
        connections.go_on(&watch);
        if count == 0 {
            connections.retry(&watch);
        }
    }
}

/// How many clients there may be at once.
struct Room {
    /// Connections of all ports: each takes two sockets and at most two pipes.
    connections: usize,
    /// Remembered clients of one port for datagrams: each takes a socket.
    clients: usize,
}

impl Room {
    const MOST_CONNECTIONS: u64 = 1024;
    const MOST_CLIENTS: u64 = 256;

    /// Where descriptors are short, both kinds of ports have their half of them.
    fn of(descriptors: u64, datagram_ports: u64) -> Self {
        let left = descriptors.saturating_sub(OTHERS);
        let clients = (left / 2 / datagram_ports.max(1)).clamp(1, Self::MOST_CLIENTS);
        let connections = (left.saturating_sub(clients * datagram_ports) / 6).clamp(1, Self::MOST_CONNECTIONS);
        let count = |number: u64| usize::try_from(number).unwrap_or(1);
        Self { connections: count(connections), clients: count(clients) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_enough_for_all_that_are_let_in() {
        let room = Room::of(1 << 20, 3);
        assert_eq!((room.connections, room.clients), (1024, 256));
        for (descriptors, ports) in [(100, 0), (160, 1), (256, 2), (1024, 1), (4096, 10), (0, 0), (64, 5)] {
            let room = Room::of(descriptors, ports);
            assert!(room.connections > 0 && room.clients > 0);
            let taken = OTHERS + 6 * room.connections as u64 + ports * room.clients as u64;
            assert!(taken <= descriptors.max(OTHERS + 6 + ports), "{descriptors} {ports}: {taken}");
        }
    }
}
