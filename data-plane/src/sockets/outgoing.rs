//! sendmsg(2) with what it is told beside the bytes.

use std::io::{self, IoSlice};
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

/// Room for a source address, a traffic class and a segment size, in words of 8 bytes.
const CONTROL_WORDS: usize = 16;

/// The control messages of one call.
#[derive(Default)]
pub(super) struct Outgoing {
    control: [u64; CONTROL_WORDS],
    len: usize,
}

impl Outgoing {
    /// The source address.
    pub fn put_source(&mut self, local: IpAddr) {
        match local {
            IpAddr::V4(local) => {
                let address = libc::in_addr { s_addr: u32::from(local).to_be() };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
                self.put(libc::SOL_IP, libc::IP_PKTINFO, info);
            }
            IpAddr::V6(local) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
                    ipi6_ifindex: 0,
                };
                self.put(libc::SOL_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
    }

    /// Another one.
    ///
    /// # Panics
    /// If there is no room: which messages there are is decided in this crate.
    pub fn put<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, data: T) {
        let len = size_of::<T>() as libc::c_uint;
        // SAFETY: no memory is touched.
        let (space, claimed) = unsafe { (libc::CMSG_SPACE(len) as usize, libc::CMSG_LEN(len) as usize) };
        assert!(self.len + space <= size_of_val(&self.control), "control messages");
        // SAFETY: `len` is a sum of aligned spaces inside the array, and the assertion keeps header and data inside.
        unsafe {
            let header = self.control.as_mut_ptr().cast::<u8>().add(self.len).cast::<libc::cmsghdr>();
            header.write(libc::cmsghdr { cmsg_len: claimed, cmsg_level: level, cmsg_type: kind });
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
        }
        self.len += space;
    }

    /// Sends a datagram, in parts, without waiting.
    pub fn send(&self, fd: BorrowedFd<'_>, remote: SocketAddr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let remote = SockAddr::from(remote);
        // SAFETY: integers and pointers, for which all zero is a value.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_name = remote.as_ptr().cast_mut().cast();
        header.msg_namelen = remote.len();
        // An IoSlice is laid out as an iovec.
        header.msg_iov = parts.as_ptr().cast_mut().cast();
        header.msg_iovlen = parts.len();
        if self.len > 0 {
            header.msg_control = self.control.as_ptr().cast_mut().cast();
            header.msg_controllen = self.len;
        }
        // SAFETY: every pointer in the header leads to a live buffer of the length beside it; the kernel only reads.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
