//! recvmsg(2) with what it says beside the bytes.

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// A datagram that was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Its length in bytes, over all buffers.
    pub len: usize,
    /// Where it came from; port 0 on raw sockets.
    pub source: SocketAddr,
    /// The address of ours that it came to.
    pub local: IpAddr,
    /// DSCP and ECN of its header.
    pub traffic_class: u8,
    /// If the kernel joined datagrams: bytes of each but the last, which may be shorter.
    pub segment: Option<NonZeroUsize>,
    /// When the kernel got it, by the wall clock.
    pub arrived: Option<Duration>,
}

impl Received {
    /// The datagrams in what was received into `buffer`.
    pub fn datagrams<'a>(&self, buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let received = buffer.get(..self.len).unwrap_or_default();
        let size = self.segment.map_or(received.len(), NonZeroUsize::get).max(1);
        // An empty datagram is one, too.
        let empty = received.is_empty().then_some(received);
        received.chunks(size).chain(empty)
    }
}

/// Asks for destination address, traffic class and time of arrival with every datagram of a socket.
pub(super) fn ask_for_ancillary(fd: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    let options = match is_ipv6 {
        false => [(libc::SOL_IP, libc::IP_PKTINFO), (libc::SOL_IP, libc::IP_RECVTOS)],
        true => [(libc::SOL_IPV6, libc::IPV6_RECVPKTINFO), (libc::SOL_IPV6, libc::IPV6_RECVTCLASS)],
    };
    let time = (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS);
    options.into_iter().chain([time]).try_for_each(|(level, option)| set_int(fd, level, option, 1))
}

/// Sets an integer option.
pub(super) fn set_int(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: pointer and length describe one integer.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one datagram, or what the kernel joined, without waiting.
///
/// # Errors
/// WouldBlock if there is none; InvalidData if it is longer than the buffer.
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = [0u64; 24];
    // SAFETY: integers and pointers, for which all zero is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of_val(&name) as libc::socklen_t;
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the header leads to a live buffer of the length beside it.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    if message.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: zeroed before, and written by the kernel as the address of the socket's family.
    let source = address(unsafe { name.assume_init_ref() })?;
    let Ancillary { local, traffic_class, segment, arrived } = ancillary(&message);
    let unspecified =
        if source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let local = local.unwrap_or(unspecified);
    Ok(Received { len: len as usize, source, local, traffic_class, segment, arrived })
}

pub(super) fn address(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let at = std::ptr::from_ref(storage);
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, and the storage is larger and aligned for it.
            let v4 = unsafe { &*at.cast::<libc::sockaddr_in>() };
            Ok((Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)), u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &*at.cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, 0).into())
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What comes beside the bytes.
#[derive(Default)]
struct Ancillary {
    local: Option<IpAddr>,
    traffic_class: u8,
    segment: Option<NonZeroUsize>,
    arrived: Option<Duration>,
}

fn ancillary(message: &libc::msghdr) -> Ancillary {
    let mut found = Ancillary::default();
    let int = |data: &[u8]| data.first_chunk().map(|c| libc::c_int::from_ne_bytes(*c));
    // SAFETY: the kernel has filled the control buffer, which the caller keeps for the whole call.
    for (level, kind, data) in unsafe { control_messages(message) } {
        match (level, kind) {
            // `struct in_pktinfo`: interface, local address, destination of the header.
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                let address = data.get(8..).and_then(|d| d.first_chunk::<4>());
                found.local = address.map(|a| Ipv4Addr::from(*a).into()).or(found.local);
            }
            // `struct in6_pktinfo`: the address comes first.
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                found.local = data.first_chunk::<16>().map(|a| Ipv6Addr::from(*a).into()).or(found.local);
            }
            (libc::SOL_IP, libc::IP_TOS) => found.traffic_class = data.first().copied().unwrap_or(0),
            (libc::SOL_IPV6, libc::IPV6_TCLASS) => found.traffic_class = int(data).unwrap_or(0) as u8,
            (libc::SOL_UDP, libc::UDP_GRO) => {
                found.segment = int(data).and_then(|size| NonZeroUsize::new(usize::try_from(size).ok()?));
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => found.arrived = time(data),
            _ => {}
        }
    }
    found
}

/// `struct timespec`.
fn time(data: &[u8]) -> Option<Duration> {
    const WORD: usize = size_of::<libc::c_long>();
    let word = |data: &[u8]| data.first_chunk().map(|word| libc::c_long::from_ne_bytes(*word));
    let (seconds, nanoseconds) = (word(data)?, word(data.get(WORD..)?)?);
    Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?))
}

/// Level, type and data of every control message.
///
/// # Safety
/// `message` is as recvmsg(2) left it, and its control buffer outlives the iterator.
pub(super) unsafe fn control_messages(
    message: &libc::msghdr,
) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    // SAFETY: the header describes the control buffer, as the caller promises.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    std::iter::from_fn(move || {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a header inside the control buffer.
        let header = unsafe { next.as_ref() }?;
        // SAFETY: no memory is touched.
        let before = unsafe { libc::CMSG_LEN(0) } as usize;
        // SAFETY: the header is followed by its data, as long as the kernel says, inside the buffer.
        let data = unsafe {
            std::slice::from_raw_parts(
                libc::CMSG_DATA(header),
                (header.cmsg_len as usize).saturating_sub(before),
            )
        };
        // SAFETY: as for CMSG_FIRSTHDR.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
        Some((header.cmsg_level, header.cmsg_type, data))
    })
}
