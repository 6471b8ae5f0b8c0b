//! Raw sockets for IP protocol 50: ESP that the kernel reassembled or that no XDP program saw.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::allow::allow_in_clear;
use super::icmp_errors::{self, IcmpError};
use super::kernel_drops::kernel_drops;
use super::message;

/// IP protocol of ESP (RFC 4303).
const ESP: libc::c_int = 50;

/// A raw socket that receives ESP of one address family.
#[derive(Debug)]
pub struct RawEsp {
    socket: Socket,
    is_ipv4: bool,
}

/// An ESP packet that was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawReceived {
    /// Where in the buffer it lies; IPv4 sockets deliver the IP header before it.
    pub esp: Range<usize>,
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination.
    pub local: IpAddr,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
    /// When the kernel got it, by the wall clock.
    pub arrived: Option<Duration>,
}

impl RawEsp {
    /// Opens the socket of one family, past the guard.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EAFNOSUPPORT where the family is off.
    pub fn open(is_ipv4: bool) -> io::Result<Self> {
        let domain = if is_ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(ESP)))?;
        socket.set_nonblocking(true)?;
        message::ask_for_ancillary(socket.as_fd(), !is_ipv4)?;
        icmp_errors::ask_for_errors(socket.as_fd(), !is_ipv4)?;
        // Above the system's limit with privilege, else as much as it allows.
        let _ = message::set_int(
            socket.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            super::RECEIVE_BUFFER_BYTES,
        );
        if let Err(error) = allow_in_clear(socket.as_fd(), !is_ipv4)
            && error.raw_os_error() != Some(libc::ENOPROTOOPT)
        {
            return Err(error);
        }
        Ok(Self { socket, is_ipv4 })
    }

    /// What the kernel dropped here, modulo 2^32.
    ///
    /// # Errors
    /// On kernels before 4.12.
    pub fn kernel_drops(&self) -> io::Result<u32> {
        kernel_drops(self.socket.as_fd())
    }

    /// The next ICMP error about ESP that this host sent; `None` for one of another kind.
    ///
    /// # Errors
    /// WouldBlock if there is none.
    pub fn next_error(&self) -> io::Result<Option<IcmpError>> {
        icmp_errors::next(self.socket.as_fd())
    }

    /// Receives a packet.
    ///
    /// # Errors
    /// WouldBlock if there is none; InvalidData if the buffer is too small for it.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<RawReceived> {
        let received = message::receive(self.socket.as_fd(), buffer)?;
        let header_len = match self.is_ipv4 {
            true => buffer.first().map_or(0, |first| usize::from(first & 0x0f) * 4),
            false => 0,
        };
        Ok(RawReceived {
            esp: header_len.min(received.len)..received.len,
            source: received.source.ip(),
            local: received.local,
            traffic_class: received.traffic_class,
            arrived: received.arrived,
        })
    }
}

impl AsFd for RawEsp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
