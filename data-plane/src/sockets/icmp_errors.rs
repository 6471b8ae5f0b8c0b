//! ICMP errors about what this host sent, from the error queues of its sockets (ip(7), IP_RECVERR).
//!
//! The kernel finds the socket by the quoted header, so that also those about packets which left by AF_XDP arrive. They are
//! not authenticated: whoever can guess addresses can make them (RFC 4301 section 8.2).

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{address, control_messages, set_int};

const IPV6_RECVERR: libc::c_int = 25;
const DEST_UNREACHABLE_V4: u8 = 3;
const FRAGMENTATION_NEEDED_V4: u8 = 4;
const TIME_EXCEEDED_V4: u8 = 11;
const PARAMETER_PROBLEM_V4: u8 = 12;
const DEST_UNREACHABLE_V6: u8 = 1;
const TIME_EXCEEDED_V6: u8 = 3;
const PARAMETER_PROBLEM_V6: u8 = 4;

/// An error about a packet of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// Where the packet was going; port 0 from raw sockets.
    pub destination: SocketAddr,
    /// Who says so: an address of this host if the kernel itself could not deliver it.
    pub offender: IpAddr,
    /// The first octets behind the IP or UDP header, if they were quoted: the SPI, or the non-ESP marker.
    pub quoted: Option<[u8; 4]>,
    /// It says that packets do not arrive. Others, such as "fragmentation needed", speak of one packet.
    pub is_unreachable: bool,
}

/// Asks for the error queue of a socket. The socket's next call fails once for each error; see [`next`].
pub(super) fn ask_for_errors(fd: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    match is_ipv6 {
        false => set_int(fd, libc::SOL_IP, libc::IP_RECVERR, 1),
        true => set_int(fd, libc::SOL_IPV6, IPV6_RECVERR, 1),
    }
}

/// The next error of a socket; `None` if there is none, or none that was made by ICMP.
///
/// # Errors
/// WouldBlock when the queue is empty.
pub(super) fn next(fd: BorrowedFd<'_>) -> io::Result<Option<IcmpError>> {
    let mut quoted = [0; 4];
    let mut buffer = libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: quoted.len() };
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = [0u64; 32];
    // SAFETY: integers and pointers, for which all zero is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of_val(&name) as libc::socklen_t;
    message.msg_iov = &mut buffer;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: every pointer in the header leads to a live buffer of the length beside it.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before, and written by the kernel as the address of the socket's family.
    let destination = address(unsafe { name.assume_init_ref() });
    let quoted = (len as usize >= quoted.len()).then_some(quoted);
    // SAFETY: the kernel has filled the control buffer, which lives until the end of this function.
    let mut controls = unsafe { control_messages(&message) };
    let said = controls.find_map(|(level, kind, data)| match (level, kind) {
        (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, IPV6_RECVERR) => extended_error(data),
        _ => None,
    });
    let (Ok(destination), Some((offender, is_unreachable))) = (destination, said) else { return Ok(None) };
    Ok(Some(IcmpError { destination, offender, quoted, is_unreachable }))
}

/// `struct sock_extended_err` (linux/errqueue.h) and the address behind it: who made the error, and whether it says that
/// nothing arrives. `None` if it is not one of ICMP.
fn extended_error(data: &[u8]) -> Option<(IpAddr, bool)> {
    let (error, offender) = data.split_first_chunk::<16>()?;
    let [_, _, _, _, origin, kind, code, ..] = *error;
    let is_unreachable = match origin {
        libc::SO_EE_ORIGIN_ICMP => match kind {
            DEST_UNREACHABLE_V4 => code != FRAGMENTATION_NEEDED_V4,
            TIME_EXCEEDED_V4 | PARAMETER_PROBLEM_V4 => true,
            _ => false,
        },
        libc::SO_EE_ORIGIN_ICMP6 => {
            matches!(kind, DEST_UNREACHABLE_V6 | TIME_EXCEEDED_V6 | PARAMETER_PROBLEM_V6)
        }
        _ => return None,
    };
    // Family in the host's order, port, then the address; IPv6 has a flow label before it.
    let family = libc::c_int::from(u16::from_ne_bytes(*offender.first_chunk()?));
    let offender = match family {
        libc::AF_INET => IpAddr::from(*offender.get(4..)?.first_chunk::<4>()?),
        libc::AF_INET6 => IpAddr::from(*offender.get(8..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some((offender, is_unreachable))
}
