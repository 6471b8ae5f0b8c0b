//! Sending whole IP packets of our own making: the kernel routes them and finds the neighbour.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::allow::allow_in_clear;

/// A raw socket for packets that bring their IP header, so that DF, DSCP and ECN are what ESP needs them to be.
#[derive(Debug)]
pub struct IpSender {
    socket: Socket,
}

impl IpSender {
    /// Opens the socket of one family, past the guard.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EAFNOSUPPORT where the family is off.
    pub fn open(is_ipv4: bool) -> io::Result<Self> {
        let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        // IPPROTO_RAW: the header comes with the packet, and nothing is ever received.
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.set_nonblocking(true)?;
        if let Err(error) = allow_in_clear(socket.as_fd(), !is_ipv4)
            && error.raw_os_error() != Some(libc::ENOPROTOOPT)
        {
            return Err(error);
        }
        Ok(Self { socket })
    }

    /// Sends an IP packet.
    ///
    /// # Errors
    /// No route, EMSGSIZE above the MTU of the way out, a full queue.
    pub fn send(&self, packet: &[u8], destination: IpAddr) -> io::Result<()> {
        self.socket.send_to(packet, &SockAddr::from(SocketAddr::new(destination, 0))).map(drop)
    }
}
