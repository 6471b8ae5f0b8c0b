//! UDP port 4500: IKE and ESP in one (RFC 3948).

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

use super::allow::allow_in_clear;
use super::icmp_errors::{self, IcmpError};
use super::kernel_drops::kernel_drops;
use super::message::{self, Received};
use super::outgoing::Outgoing;

/// A UDP socket on port 4500 of one address family.
#[derive(Debug)]
pub struct Udp4500 {
    socket: UdpSocket,
    bound: SocketAddr,
    is_ipv4: bool,
    /// What the kernel lets be fragmented now; it does not change while something is sent that depends on it.
    fragmentation: RwLock<Fragmentation>,
    segments: AtomicBool,
    /// So many calls are not tried, since the way out could not cut lately.
    untried: AtomicU32,
    /// That was said.
    is_told: AtomicBool,
}

/// Calls that are not tried after one that the way out could not do: a route, or an MTU that has just changed, may have been
/// the cause, and not the card.
const UNTRIED: u32 = 1000;

/// Whether the host and routers may fragment what a socket sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fragmentation {
    /// IKE messages that need it.
    Allowed,
    /// ESP that must not be.
    Forbidden,
}

/// ESP packets that the kernel cuts from one buffer: all the same but for their data.
#[derive(Clone, Copy, Debug)]
pub struct Segmented<'a> {
    /// An address and port of ours.
    pub local: SocketAddr,
    /// Where they go.
    pub remote: SocketAddr,
    /// DSCP and ECN of every header.
    pub traffic_class: u8,
    /// DF in every header; means nothing over IPv6.
    pub dont_fragment: bool,
    /// Bytes of each packet but the last, which may be shorter.
    pub size: u16,
    /// The packets without UDP header.
    pub packets: &'a [IoSlice<'a>],
}

impl Udp4500 {
    /// Takes over a bound socket and prepares it: no waiting, what comes beside each datagram, IP fragmentation for IKE messages that need it, past the guard.
    ///
    /// # Errors
    /// What the kernel refuses; a kernel without XFRM has no guard of that kind, which is no error.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let bound = socket.local_addr()?;
        let is_ipv4 = bound.is_ipv4();
        socket.set_nonblocking(true)?;
        message::ask_for_ancillary(socket.as_fd(), !is_ipv4)?;
        icmp_errors::ask_for_errors(socket.as_fd(), !is_ipv4)?;
        set_fragmentation(socket.as_fd(), is_ipv4, Fragmentation::Allowed)?;
        // Above the system's limit with privilege, else as much as it allows.
        for (option, bytes) in [
            (libc::SO_RCVBUFFORCE, super::RECEIVE_BUFFER_BYTES),
            (libc::SO_SNDBUFFORCE, super::SEND_BUFFER_BYTES),
        ] {
            let _ = message::set_int(socket.as_fd(), libc::SOL_SOCKET, option, bytes);
        }
        if let Err(error) = allow_in_clear(socket.as_fd(), !is_ipv4)
            && error.raw_os_error() != Some(libc::ENOPROTOOPT)
        {
            return Err(error);
        }
        let fragmentation = RwLock::new(Fragmentation::Allowed);
        let (segments, is_told) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { socket, bound, is_ipv4, fragmentation, segments, untried: AtomicU32::new(0), is_told })
    }

    /// Lets the kernel join datagrams that come one after the other, and cut what is sent, where it can (Linux 4.18, 5.0).
    /// Who receives must know: see [`Received::segment`].
    pub fn enable_offloads(&self) -> UdpOffloads {
        let set = |option, value| message::set_int(self.socket.as_fd(), libc::SOL_UDP, option, value).is_ok();
        let (joins, cuts) = (set(libc::UDP_GRO, 1), set(libc::UDP_SEGMENT, 0));
        self.segments.store(cuts, Ordering::Relaxed);
        UdpOffloads { joins, cuts }
    }

    /// True if the kernel cuts what is sent from this address of ours.
    pub fn segments_from(&self, local: SocketAddr) -> bool {
        let is_ours = self.bound.ip() == local.ip()
            || self.bound.ip().is_unspecified() && self.bound.is_ipv4() == local.is_ipv4();
        is_ours && self.bound.port() == local.port() && self.segments.load(Ordering::Relaxed)
    }

    /// True for the IPv4 socket.
    pub fn is_ipv4(&self) -> bool {
        self.is_ipv4
    }

    /// Receives a datagram, or several that the kernel joined.
    ///
    /// # Errors
    /// WouldBlock if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        message::receive(self.socket.as_fd(), buffer)
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
        let mut fragmentation = self.fragmentation.write().unwrap_or_else(PoisonError::into_inner);
        self.set_fragmentation(&mut fragmentation, Fragmentation::Allowed)?;
        let mut message = Outgoing::default();
        if !local.is_unspecified() {
            message.put_source(local);
        }
        message.send(self.socket.as_fd(), remote, &[IoSlice::new(payload)])
    }

    /// Sends ESP packets, which the kernel cuts from one buffer as late as it can. All of them leave, or none.
    ///
    /// # Errors
    /// What the kernel says; WouldBlock also while IKE is being sent, and for a while after EINVAL, EIO or EOPNOTSUPP: the way
    /// out could not do it.
    pub fn send_segmented(&self, segmented: &Segmented<'_>) -> io::Result<()> {
        let wanted = match segmented.dont_fragment || !self.is_ipv4 {
            true => Fragmentation::Forbidden,
            false => Fragmentation::Allowed,
        };
        let busy = || io::Error::from(io::ErrorKind::WouldBlock);
        let untried = self.untried.load(Ordering::Relaxed);
        if untried > 0 {
            // Of several workers one may count for another: it is a while either way.
            self.untried.store(untried - 1, Ordering::Relaxed);
            return Err(busy());
        }
        let mut fragmentation = self.fragmentation.try_read().map_err(|_| busy())?;
        if *fragmentation != wanted {
            drop(fragmentation);
            self.set_fragmentation(&mut *self.fragmentation.try_write().map_err(|_| busy())?, wanted)?;
            fragmentation = self.fragmentation.try_read().map_err(|_| busy())?;
            if *fragmentation != wanted {
                return Err(busy());
            }
        }
        let mut message = Outgoing::default();
        message.put_source(segmented.local.ip());
        match self.is_ipv4 {
            true => message.put(libc::SOL_IP, libc::IP_TOS, libc::c_int::from(segmented.traffic_class)),
            false => {
                message.put(libc::SOL_IPV6, libc::IPV6_TCLASS, libc::c_int::from(segmented.traffic_class))
            }
        }
        message.put(libc::SOL_UDP, libc::UDP_SEGMENT, segmented.size);
        let send = || message.send(self.socket.as_fd(), segmented.remote, segmented.packets);
        // As in `send`: the first call may tell of an ICMP error about another.
        let sent = send().or_else(|_| send());
        if let Err(error) = &sent
            && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP))
        {
            self.untried.store(UNTRIED, Ordering::Relaxed);
            if !self.is_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "the kernel does not cut UDP datagrams on their way out: ESP is sent one by one, and tried together now and then");
            }
        }
        sent
    }

    fn set_fragmentation(&self, now: &mut Fragmentation, wanted: Fragmentation) -> io::Result<()> {
        if *now != wanted {
            set_fragmentation(self.socket.as_fd(), self.is_ipv4, wanted)?;
            *now = wanted;
        }
        Ok(())
    }
}

/// What the kernel does for a UDP socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpOffloads {
    /// It joins datagrams that come one after the other.
    pub joins: bool,
    /// It cuts what is sent.
    pub cuts: bool,
}

/// Sets what the kernel may fragment. Where it must not, it has no opinion on the path's MTU either: the data plane has.
fn set_fragmentation(fd: BorrowedFd<'_>, is_ipv4: bool, fragmentation: Fragmentation) -> io::Result<()> {
    let (level, option, value) = match (is_ipv4, fragmentation) {
        (true, Fragmentation::Allowed) => (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        (true, Fragmentation::Forbidden) => (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        (false, Fragmentation::Allowed) => {
            (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
        }
        (false, Fragmentation::Forbidden) => {
            (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
    };
    message::set_int(fd, level, option, value)
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
            let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let before = now();
            sender.send_to(b"0123456789", to).unwrap();
            let mut buffer = [0; 100];
            let received = receiver.receive(&mut buffer).unwrap();
            let arrived = received.arrived.unwrap();
            assert!((before..=now()).contains(&arrived), "{arrived:?}");
            let expected = Received {
                len: 10,
                source: from,
                local: address,
                traffic_class: 0xb8,
                segment: None,
                arrived: Some(arrived),
            };
            assert_eq!(received, expected);
            assert_eq!(received.datagrams(&buffer).collect::<Vec<_>>(), [b"0123456789"]);
            assert_eq!(receiver.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            receiver.send(b"answer", address, from).unwrap();
            let mut answer = [0; 16];
            assert_eq!(sender.recv_from(&mut answer).unwrap(), (6, to));
        }
    }

    /// A way out that cannot cut, or could not for a moment, is tried again.
    #[test]
    fn what_was_refused_together_is_tried_together_again() {
        let bind = || Udp4500::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let (Ok(sender), Ok(receiver)) = (bind(), bind()) else { return };
        if !sender.enable_offloads().cuts {
            return;
        }
        let send = |packets: &[IoSlice<'_>], size| {
            sender.send_segmented(&Segmented {
                local: sender.bound,
                remote: receiver.bound,
                traffic_class: 0,
                dont_fragment: true,
                size,
                packets,
            })
        };
        let packets = [IoSlice::new(b"one"), IoSlice::new(b"two"), IoSlice::new(b"3")];
        send(&packets, 3).unwrap();
        let mut buffer = [0; 16];
        let arrived = [(); 3].map(|()| receiver.receive(&mut buffer).unwrap().len);
        assert_eq!(arrived, [3, 3, 1]);
        // More segments than any kernel takes.
        assert_eq!(send(&[IoSlice::new(&[0; 2000])], 1).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let refused = (0..UNTRIED).filter(|_| send(&packets, 3).is_err()).count();
        assert_eq!(refused, UNTRIED as usize);
        send(&packets, 3).unwrap();
    }
}
