//! Published ports: the host's side of them, which is made before the instance exists, and what their proxy starts from.

pub mod holder;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

use crate::control::Channel;
use crate::image::declared::Port;

/// Where the host's side listens, and where the guest's servers are looked for.
pub const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The sockets of one published port on the host's loopback, one for each version of IP that the host has.
#[derive(Debug)]
pub struct Published {
    /// The port of the guest.
    pub guest: u16,
    /// What listens.
    pub sockets: Sockets,
}

/// Sockets that do not block.
#[derive(Debug)]
pub enum Sockets {
    /// For connections.
    Tcp(Vec<TcpListener>),
    /// For datagrams.
    Udp(Vec<UdpSocket>),
}

impl Published {
    /// Listens on the host's port.
    ///
    /// # Errors
    /// `EADDRINUSE`, and `EACCES` for a port that takes a privilege.
    pub fn open(port: &Port) -> io::Result<Self> {
        let tcp = |address| {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true).map(|()| socket)
        };
        let udp = |address| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true).map(|()| socket)
        };
        let sockets = if port.udp { Sockets::Udp(both(port.host, udp)?) } else { Sockets::Tcp(both(port.host, tcp)?) };
        Ok(Self { guest: port.guest, sockets })
    }

    fn descriptors(&self) -> Vec<RawFd> {
        match &self.sockets {
            Sockets::Tcp(sockets) => sockets.iter().map(AsRawFd::as_raw_fd).collect(),
            Sockets::Udp(sockets) => sockets.iter().map(AsRawFd::as_raw_fd).collect(),
        }
    }
}

/// One socket for each version of IP; a host may have no IPv6.
fn both<T>(port: u16, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<Vec<T>> {
    let [first, second] = LOOPBACK.map(|address| SocketAddr::new(address, port));
    let mut sockets = vec![bind(first)?];
    match bind(second) {
        Ok(socket) => sockets.push(socket),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

/// The first port of the calling process's network that needs no privilege.
#[must_use]
pub fn first_free() -> u16 {
    const USUAL: u16 = 1024;
    let text = std::fs::read_to_string(crate::sandbox::apply::FIRST_FREE_PORT).unwrap_or_default();
    text.trim().parse().unwrap_or(USUAL)
}

/// All that the proxy of an instance starts from; inherited across fork.
#[derive(Debug)]
pub struct Start {
    /// What it listens on, in the host's network namespace.
    pub published: Vec<Published>,
    /// The instance's network namespace arrives here; the end of file, when there will be no instance.
    pub network: Channel,
    /// The mount server, in whose user namespace it goes on.
    pub server: OwnedFd,
    /// The starter, which it does not outlive.
    pub starter: Pid,
}

impl Start {
    /// The descriptors that it needs.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        use std::os::fd::AsFd;
        let published = self.published.iter().flat_map(Published::descriptors);
        published.chain([self.network.as_fd().as_raw_fd(), self.server.as_raw_fd()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = free.local_addr().unwrap().port();
        let port = Port { host: number, guest: 80, udp: false, service: None };
        assert_eq!(Published::open(&port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(free);
        let published = Published::open(&port).unwrap();
        assert!(!published.descriptors().is_empty());
        assert_eq!(Published::open(&port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // Datagrams have ports of their own.
        Published::open(&Port { udp: true, ..port }).unwrap();
    }
}
