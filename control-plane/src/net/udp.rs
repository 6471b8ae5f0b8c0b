//! UDP 500.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};

use portcullis_data_plane::sockets::Udp4500;
use portcullis_ike::path::UdpPath;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Longest datagram that is taken.
const MAX_DATAGRAM: usize = 65_535;

/// A bound IKE socket without the non-ESP marker.
#[derive(Debug)]
pub struct IkeSocket {
    socket: Udp4500,
    /// The same socket, to wait on.
    readiness: UdpSocket,
    port: u16,
}

impl IkeSocket {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new(socket: StdSocket) -> io::Result<Self> {
        let port = socket.local_addr()?.port();
        let readiness = socket.try_clone()?;
        let socket = Udp4500::new(socket)?;
        Ok(Self { socket, readiness: UdpSocket::from_std(readiness)?, port })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True for IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.socket.is_ipv4()
    }

    /// Waits for the next datagram.
    ///
    /// # Errors
    /// What the kernel reports.
    pub async fn receive(&self) -> io::Result<(UdpPath, Vec<u8>)> {
        let receive = || {
            let mut buffer = vec![0; MAX_DATAGRAM];
            let received = self.socket.receive(&mut buffer)?;
            buffer.truncate(received.len);
            buffer.shrink_to_fit();
            let local = SocketAddr::new(received.local, self.port);
            Ok((UdpPath { local, remote: received.source }, buffer))
        };
        self.readiness.async_io(Interest::READABLE, receive).await
    }

    /// Sends one datagram at once, or not at all: IKE repeats what is lost.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn send(&self, path: UdpPath, payload: &[u8]) -> io::Result<()> {
        self.socket.send(payload, path.local.ip(), path.remote)
    }
}
