//! Connections of published ports.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use runtime::ports::LOOPBACK;

use super::Watch;
use super::flow::{Flow, Pipes};

/// How often clients are accepted before the others get their turn.
const ROUNDS: usize = 32;

/// How long a host without descriptors is left alone, in milliseconds.
const SHORTAGE: u16 = 1000;

/// Each side of a connection is told of once; what can be done then is done (edge-triggered).
fn both_ways() -> EpollFlags {
    EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET
}

struct Listener {
    number: u64,
    socket: TcpListener,
    guest: u16,
}

/// A client of the host and the guest's server.
struct Connection {
    client: TcpStream,
    server: OwnedFd,
    /// While the server has not answered: the address to try after this one.
    connecting: Option<Option<SocketAddr>>,
    up: Flow,
    down: Flow,
}

/// Every connection, and what makes new ones.
pub(super) struct Connections {
    listeners: Vec<Listener>,
    open: HashMap<u64, Connection>,
    /// Those that may have more to move at once.
    busy: Vec<u64>,
    /// Most connections at a time. Further clients wait in the kernel's queue.
    limit: usize,
    /// Whether nobody is accepted at the moment.
    full: bool,
    pipes: Pipes,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        let (listeners, open, busy, pipes) = (Vec::new(), HashMap::new(), Vec::new(), Pipes::default());
        Self { listeners, open, busy, limit, full: false, pipes }
    }

    pub(super) fn listen(&mut self, socket: TcpListener, guest: u16, watch: &mut Watch) -> io::Result<()> {
        let number = watch.number();
        watch.add(&socket, EpollFlags::EPOLLIN, number)?;
        self.listeners.push(Listener { number, socket, guest });
        Ok(())
    }

    /// How long to wait for events: not at all while there is something to move, and without an end when not, unless
    /// the host itself has run out of descriptors.
    pub(super) fn timeout(&self) -> EpollTimeout {
        match (self.busy.is_empty(), self.full && self.open.is_empty()) {
            (false, _) => EpollTimeout::ZERO,
            (true, true) => EpollTimeout::from(SHORTAGE),
            (true, false) => EpollTimeout::NONE,
        }
    }

    /// Does what an event asks for.
    pub(super) fn turn(&mut self, number: u64, events: EpollFlags, watch: &mut Watch) {
        if let Some(at) = self.listeners.iter().position(|listener| listener.number == number) {
            self.accept(at, watch);
        } else if self.open.contains_key(&number) {
            self.follow(number, events.contains(EpollFlags::EPOLLERR), watch);
        }
    }

    /// Goes on with those that had more to move.
    pub(super) fn go_on(&mut self, watch: &Watch) {
        for number in std::mem::take(&mut self.busy) {
            self.follow(number, false, watch);
        }
    }

    /// Accepts clients again after the host has been left alone for a while.
    pub(super) fn retry(&mut self, watch: &Watch) {
        if self.open.is_empty() {
            self.resume(watch);
        }
    }

    fn accept(&mut self, at: usize, watch: &mut Watch) {
        for _ in 0..ROUNDS {
            if self.open.len() >= self.limit {
                return self.pause(watch);
            }
            let Listener { socket, guest, .. } = &self.listeners[at];
            let (client, address) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if is_shortage(&error) => return self.pause(watch),
                // Nobody is there any more, or the client has gone already.
                Err(_) => return,
            };
            let number = watch.number();
            match Connection::begin(client, address.ip(), *guest, number, watch) {
                Ok(connection) => drop(self.open.insert(number, connection)),
                Err(client) => reset(&client),
            }
        }
    }

    /// Lets further clients wait until a connection has ended.
    fn pause(&mut self, watch: &Watch) {
        self.full = true;
        self.listeners.iter().for_each(|listener| watch.remove(listener.socket.as_fd()));
    }

    fn resume(&mut self, watch: &Watch) {
        if std::mem::take(&mut self.full) {
            for listener in &self.listeners {
                // A port that cannot be watched any more has no new clients.
                let _ = watch.add(&listener.socket, EpollFlags::EPOLLIN, listener.number);
            }
        }
    }

    fn follow(&mut self, number: u64, failed: bool, watch: &Watch) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        let outcome = connection.turn(number, &mut self.pipes, watch);
        match outcome {
            Ok(_) if failed && connection.is_broken() => self.cut(number),
            Ok(Turn::Waits) => return,
            Ok(Turn::Goes) => {
                if !self.busy.contains(&number) {
                    self.busy.push(number);
                }
                return;
            }
            Ok(Turn::Over) => drop(self.open.remove(&number)),
            Err(_) => self.cut(number),
        }
        self.resume(watch);
    }

    /// Ends a connection on both sides as one that has failed.
    fn cut(&mut self, number: u64) {
        if let Some(connection) = self.open.remove(&number) {
            reset(&connection.client);
            reset(&connection.server);
        }
    }
}

/// How a connection goes on.
enum Turn {
    /// When something happens.
    Waits,
    /// At once.
    Goes,
    /// Not at all.
    Over,
}

impl Connection {
    /// Connects a client to the guest's server; gives the client back when that is impossible at once.
    fn begin(client: TcpStream, address: IpAddr, guest: u16, number: u64, watch: &Watch) -> Result<Self, TcpStream> {
        // The version of IP that the client has chosen goes first.
        let mut addresses = LOOPBACK.map(|address| SocketAddr::new(address, guest));
        addresses.sort_by_key(|candidate| candidate.is_ipv4() != address.is_ipv4());
        let [first, second] = addresses;
        let begun = reach(first).map(|server| (server, Some(second))).or_else(|_| Ok((reach(second)?, None)));
        let watched = |(server, next): (OwnedFd, Option<SocketAddr>)| {
            client.set_nonblocking(true)?;
            // What is written at once shall go at once, as it would without a proxy.
            client.set_nodelay(true)?;
            watch.add(&server, both_ways(), number)?;
            watch.add(&client, both_ways(), number)?;
            Ok::<_, io::Error>((server, next))
        };
        let begun: nix::Result<_> = begun;
        match begun.map_err(io::Error::from).and_then(watched) {
            Ok((server, next)) => {
                let (up, down) = (Flow::default(), Flow::default());
                Ok(Self { client, server, connecting: Some(next), up, down })
            }
            Err(_) => Err(client),
        }
    }

    fn turn(&mut self, number: u64, pipes: &mut Pipes, watch: &Watch) -> nix::Result<Turn> {
        if !self.is_connected(number, watch)? {
            return Ok(Turn::Waits);
        }
        let more =
            self.up.turn(&self.client, &self.server, pipes)? | self.down.turn(&self.server, &self.client, pipes)?;
        match (self.up.is_over() && self.down.is_over(), more) {
            (true, _) => Ok(Turn::Over),
            (_, true) => Ok(Turn::Goes),
            _ => Ok(Turn::Waits),
        }
    }

    /// Whether the server has answered. Where it does not listen by one version of IP, it may by the other.
    fn is_connected(&mut self, number: u64, watch: &Watch) -> nix::Result<bool> {
        let Some(next) = self.connecting else { return Ok(true) };
        match (nix::sys::socket::getsockopt(&self.server, sockopt::SocketError)?, next) {
            (0, _) if nix::sys::socket::getpeername::<SockaddrStorage>(self.server.as_raw_fd()).is_ok() => {
                setsockopt(&self.server, sockopt::TcpNoDelay, &true)?;
                self.connecting = None;
                Ok(true)
            }
            (0, _) => Ok(false),
            (libc::ECONNREFUSED, Some(address)) => {
                self.server = reach(address)?;
                self.connecting = Some(None);
                watch.add(&self.server, both_ways(), number)?;
                Ok(false)
            }
            (errno, _) => Err(Errno::from_raw(errno)),
        }
    }

    /// Whether one of the sides has failed without having been read to that point.
    fn is_broken(&self) -> bool {
        let failed = |fd: &dyn Fn() -> nix::Result<i32>| fd().is_ok_and(|errno| errno != 0);
        failed(&|| nix::sys::socket::getsockopt(&self.client, sockopt::SocketError))
            || failed(&|| nix::sys::socket::getsockopt(&self.server, sockopt::SocketError))
    }
}

/// Begins to connect a socket of the instance's network.
fn reach(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let server = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect(server.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(server),
        Err(errno) => Err(errno),
    }
}

/// Has the other side see a reset instead of an end when the socket is closed.
fn reset(socket: &impl AsFd) {
    // One that is closed already has nobody to tell.
    let _ = setsockopt(&socket.as_fd(), sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Whether there are no descriptors or no memory for another client.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
