//! UDP port 4500: IKE and ESP in one (RFC 3948).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::SockAddr;

use super::allow::allow_in_clear;
use super::icmp_errors::{self, IcmpError};
use super::kernel_drops::kernel_drops;
use super::message::{self, Received};

/// A UDP socket on port 4500 of one address family.
#[derive(Debug)]
pub struct Udp4500 {
    socket: UdpSocket,
    is_ipv4: bool,
}

impl Udp4500 {
    /// Takes over a bound socket and prepares it: no waiting, destination address and traffic class with each
    /// datagram, IP fragmentation for IKE messages that need it, past the guard.
    ///
    /// # Errors
    /// What the kernel refuses; a kernel without XFRM has no guard of that kind, which is no error.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let is_ipv4 = socket.local_addr()?.is_ipv4();
        socket.set_nonblocking(true)?;
        message::ask_for_ancillary(socket.as_fd(), !is_ipv4)?;
        icmp_errors::ask_for_errors(socket.as_fd(), !is_ipv4)?;
        let discovery = match is_ipv4 {
            true => (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
            false => (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
        };
        message::set_int(socket.as_fd(), discovery.0, discovery.1, discovery.2)?;
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

    /// True for the IPv4 socket.
    pub fn is_ipv4(&self) -> bool {
        self.is_ipv4
    }

    /// Receives a datagram into `frame`, and what it cannot take into `overflow`.
    ///
    /// # Errors
    /// WouldBlock if there is none.
    pub fn receive(&self, frame: &mut [u8], overflow: &mut [u8]) -> io::Result<Received> {
        message::receive(self.socket.as_fd(), frame, overflow)
    }

    /// What the kernel dropped here, modulo 2^32.
    ///
    /// # Errors
    /// On kernels before 4.12.
    pub fn kernel_drops(&self) -> io::Result<u32> {
        kernel_drops(self.socket.as_fd())
    }

    /// The next ICMP error about something sent from port 4500; `None` for one of another kind.
    ///
    /// # Errors
    /// WouldBlock if there is none.
    pub fn next_error(&self) -> io::Result<Option<IcmpError>> {
        icmp_errors::next(self.socket.as_fd())
    }

    /// Sends a datagram from an address of ours.
    ///
    /// # Errors
    /// What the kernel says: no route, no buffer.
    pub fn send(&self, payload: &[u8], local: IpAddr, remote: SocketAddr) -> io::Result<()> {
        // The first call after an ICMP error, about whatever peer, fails with that error and sends nothing.
        self.send_once(payload, local, remote).or_else(|_| self.send_once(payload, local, remote))
    }

    fn send_once(&self, payload: &[u8], local: IpAddr, remote: SocketAddr) -> io::Result<()> {
        let remote = SockAddr::from(remote);
        let mut control = [0u64; 8];
        let mut buffer = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        // SAFETY: integers and pointers, for which all zero is a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = remote.as_ptr().cast_mut().cast();
        header.msg_namelen = remote.len();
        header.msg_iov = &mut buffer;
        header.msg_iovlen = 1;
        if !local.is_unspecified() {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control);
            put_source(&mut header, local);
        }
        // SAFETY: every pointer in the header leads to a live buffer of the length beside it; the kernel only reads.
        let sent = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &header, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Adds the source address to a message whose control buffer has room for it.
fn put_source(message: &mut libc::msghdr, local: IpAddr) {
    match local {
        IpAddr::V4(local) => {
            let address = libc::in_addr { s_addr: u32::from(local).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
            put(message, libc::SOL_IP, libc::IP_PKTINFO, info);
        }
        IpAddr::V6(local) => {
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
            put(message, libc::SOL_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
}

fn put<T>(message: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, data: T) {
    let len = size_of::<T>() as libc::c_uint;
    // SAFETY: the control buffer has 64 aligned bytes, enough for one header with either packet info.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(len) as usize;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
        message.msg_controllen = libc::CMSG_SPACE(len) as usize;
    }
}

impl AsFd for Udp4500 {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_tells_where_it_came_from_and_to_and_how() {
        for loopback in ["127.0.0.1", "::1"] {
            let address: IpAddr = loopback.parse().unwrap();
            let Ok(bound) = UdpSocket::bind((address, 0)) else { continue };
            let to = bound.local_addr().unwrap();
            let Ok(receiver) = Udp4500::new(bound) else { continue };
            let sender = UdpSocket::bind((address, 0)).unwrap();
            let from = sender.local_addr().unwrap();
            let socket = socket2::SockRef::from(&sender);
            match address.is_ipv4() {
                true => socket.set_tos_v4(0xb8).unwrap(),
                false => socket.set_tclass_v6(0xb8).unwrap(),
            }
            sender.send_to(b"0123456789", to).unwrap();
            let (mut frame, mut overflow) = ([0; 4], [0; 100]);
            let received = receiver.receive(&mut frame, &mut overflow).unwrap();
            let expected = Received { len: 10, source: from, local: address, traffic_class: 0xb8 };
            assert_eq!(received, expected);
            assert_eq!((&frame[..], &overflow[..6]), (&b"0123"[..], &b"456789"[..]));
            assert_eq!(
                receiver.receive(&mut frame, &mut overflow).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
            receiver.send(b"answer", address, from).unwrap();
            let mut answer = [0; 16];
            assert_eq!(sender.recv_from(&mut answer).unwrap(), (6, to));
        }
    }
}
