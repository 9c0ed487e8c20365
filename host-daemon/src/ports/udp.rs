//! Datagrams of published ports. Each client has a socket of its own in the instance's network, so that the guest tells
//! clients apart, and what it answers finds its way.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::epoll::EpollFlags;
use runtime::ports::LOOPBACK;

use super::Watch;

/// Datagrams that are passed on before others get their turn.
const ROUNDS: usize = 64;
/// Longest datagram in bytes (udp(7)).
const LONGEST: usize = 65_535;

/// Every published port for datagrams.
pub(super) struct Datagrams {
    ports: Vec<Port>,
    /// Clients of one port that are remembered; one more takes the place of whoever was silent for longest.
    limit: usize,
}

struct Port {
    number: u64,
    socket: UdpSocket,
    guest: u16,
    /// Which of the loopback addresses the guest answers at.
    version: usize,
    clients: HashMap<SocketAddr, Client>,
    limit: usize,
    /// Counts datagrams of clients.
    clock: u64,
}

struct Client {
    number: u64,
    socket: UdpSocket,
    used: u64,
}

impl Datagrams {
    pub(super) fn new(limit: usize) -> Self {
        Self { ports: Vec::new(), limit }
    }

    pub(super) fn listen(&mut self, socket: UdpSocket, guest: u16, watch: &mut Watch) -> io::Result<()> {
        let number = watch.number();
        watch.add(&socket, EpollFlags::EPOLLIN, number)?;
        self.ports.push(Port {
            number,
            socket,
            guest,
            version: 0,
            clients: HashMap::new(),
            limit: self.limit,
            clock: 0,
        });
        Ok(())
    }

    /// Does what an event asks for.
    pub(super) fn turn(&mut self, number: u64, watch: &mut Watch) {
        for port in &mut self.ports {
            if port.number == number {
                return port.ask(watch);
            }
            let client = port.clients.iter().find(|(_, client)| client.number == number);
            if let Some(address) = client.map(|(address, _)| *address) {
                return port.answer(address, watch);
            }
        }
    }
}

impl Port {
    /// Passes on what clients send.
    fn ask(&mut self, watch: &mut Watch) {
        let mut bytes = [0; LONGEST];
        for _ in 0..ROUNDS {
            let (len, address) = match self.socket.recv_from(&mut bytes) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Told of an answer that reached nobody.
                Err(_) => continue,
            };
            // A datagram that cannot be passed on is lost, as datagrams may be.
            let Ok(client) = self.client(address, watch) else { continue };
            if client.socket.send(&bytes[..len]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                self.refused(address, watch);
            }
        }
    }

    /// The socket that stands for a client in the instance's network.
    fn client(&mut self, address: SocketAddr, watch: &mut Watch) -> io::Result<&mut Client> {
        self.clock += 1;
        if !self.clients.contains_key(&address) {
            self.make_room(watch);
            let [any, guest] = [0, self.guest].map(|port| SocketAddr::new(LOOPBACK[self.version], port));
            let socket = UdpSocket::bind(any)?;
            socket.connect(guest)?;
            socket.set_nonblocking(true)?;
            let number = watch.number();
            watch.add(&socket, EpollFlags::EPOLLIN, number)?;
            self.clients.insert(address, Client { number, socket, used: 0 });
        }
        let client = self.clients.get_mut(&address).ok_or(io::ErrorKind::NotFound)?;
        client.used = self.clock;
        Ok(client)
    }

    fn make_room(&mut self, watch: &Watch) {
        if self.clients.len() >= self.limit
            && let Some(oldest) = self.clients.iter().min_by_key(|(_, client)| client.used).map(|(address, _)| *address)
        {
            self.forget(oldest, watch);
        }
    }

    fn forget(&mut self, address: SocketAddr, watch: &Watch) {
        if let Some(client) = self.clients.remove(&address) {
            watch.remove(client.socket.as_fd());
        }
    }

    /// Nobody is at the guest's port by this version of IP: the next datagram tries the other.
    fn refused(&mut self, address: SocketAddr, watch: &Watch) {
        self.forget(address, watch);
        self.version = (self.version + 1) % LOOPBACK.len();
    }

    /// Passes on what the guest answers to a client.
    fn answer(&mut self, address: SocketAddr, watch: &Watch) {
        let mut bytes = [0; LONGEST];
        for _ in 0..ROUNDS {
            let Some(client) = self.clients.get(&address) else { return };
            match client.socket.recv(&mut bytes) {
                // A client that takes no more loses it.
                Ok(len) => drop(self.socket.send_to(&bytes[..len], address)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return self.refused(address, watch);
                }
                Err(_) => return,
            }
        }
    }
}
