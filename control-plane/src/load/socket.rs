//! The UDP socket of all tunnels, each of which may have an address of its own.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};

use anyhow::{Context, Result};
use portcullis_data_plane::sockets::Udp4500;
use portcullis_ike::path::UdpPath;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The port that IKE speaks on after IKE_SA_INIT, and whose messages have the non-ESP marker (RFC 3948 section 2.2). The real
/// port is nobody's business but the NAT's that it looks like.
const NAT_PORT: u16 = 4500;
/// Octets of the largest datagram.
const LARGEST: usize = 65_535;

/// See the module.
pub struct Socket {
    socket: Udp4500,
    /// The same socket, to wait on.
    readiness: UdpSocket,
    peer: SocketAddr,
    buffer: Vec<u8>,
    /// What the kernel had no room for.
    unsent: VecDeque<(IpAddr, Vec<u8>)>,
}

impl Socket {
    /// Opens it. Also returns the address that leads to the peer.
    ///
    /// # Errors
    /// If there is none, or the kernel refuses a socket.
    pub fn open(peer: SocketAddr, local: Option<IpAddr>) -> Result<(Self, IpAddr)> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = match local {
            Some(local) => local,
            None => {
                let probe = StdUdpSocket::bind((any, 0)).context("binding a UDP socket")?;
                probe.connect(peer).with_context(|| format!("connecting to {peer}"))?;
                probe.local_addr()?.ip()
            }
        };
        let socket = StdUdpSocket::bind((any, 0)).context("binding a UDP socket")?;
        let readiness = socket.try_clone()?;
        let socket = Udp4500::new(socket)?;
        let readiness = UdpSocket::from_std(readiness)?;
        Ok((Self { socket, readiness, peer, buffer: vec![0; LARGEST], unsent: VecDeque::new() }, local))
    }

    /// Sends a datagram as soon as the kernel has room for it.
    pub fn send(&mut self, path: UdpPath, payload: Vec<u8>) {
        self.unsent.push_back((path.local.ip(), payload));
    }

    /// Sends what waits, as far as the kernel has room.
    pub fn flush(&mut self) {
        while let Some((local, payload)) = self.unsent.front() {
            let send = || self.socket.send(payload, *local, self.peer);
            match self.readiness.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Another error is that of one datagram, which is lost like others and sent again.
                Ok(()) | Err(_) => drop(self.unsent.pop_front()),
            }
        }
    }

    /// Something waits.
    pub fn is_full(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The next datagram, if there is one.
    pub fn receive(&mut self) -> Option<(UdpPath, &[u8])> {
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        let received = self.readiness.try_io(Interest::READABLE, || socket.receive(buffer));
        let received = received.ok()?;
        let local = SocketAddr::new(received.local, NAT_PORT);
        Some((UdpPath { local, remote: self.peer }, self.buffer.get(..received.len)?))
    }

    /// Waits until something can be received.
    ///
    /// # Errors
    /// Those of the runtime.
    pub async fn readable(&self) -> io::Result<()> {
        self.readiness.readable().await
    }

    /// Waits until something that waits can be sent.
    ///
    /// # Errors
    /// Those of the runtime.
    pub async fn writable(&self) -> io::Result<()> {
        self.readiness.writable().await
    }

    /// Passes over ICMP errors about what was sent, which would keep the socket ready for ever: the endpoint repeats what is
    /// lost, and counts it.
    pub fn discard_errors(&self) {
        while self.socket.next_error().is_ok() {}
    }
}
