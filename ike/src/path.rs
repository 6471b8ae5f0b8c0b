//! Where bytes come from and go to: UDP address pairs, TCP streams, ESP carriers.

use core::fmt;
use std::net::{IpAddr, SocketAddr};

/// The two ends of a UDP exchange as we see them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UdpPath {
    /// Our address and port (500 or 4500).
    pub local: SocketAddr,
    /// The peer's address and port as the packet showed them.
    pub remote: SocketAddr,
}

/// A TCP connection. The endpoint names those it dials, the caller those it accepts; see
/// [`StreamId::dialled`] and [`StreamId::accepted`] for the two halves of the number space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    const ACCEPTED: u64 = 1 << 63;

    /// The `n`th connection that this endpoint asked for.
    pub const fn dialled(n: u64) -> Self {
        Self(n & !Self::ACCEPTED)
    }

    /// The `n`th connection that the caller accepted.
    pub const fn accepted(n: u64) -> Self {
        Self(n | Self::ACCEPTED)
    }

    /// True for a connection that the peer opened: the peer is the TCP Originator (RFC 9329 section 1.2).
    pub const fn is_accepted(self) -> bool {
        self.0 & Self::ACCEPTED != 0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.is_accepted() { "accepted" } else { "dialled" };
        write!(f, "{side}#{}", self.0 & !Self::ACCEPTED)
    }
}

/// What carries IKE messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IkeTransport {
    /// UDP port 500 or 4500 (RFC 7296 section 2).
    Udp,
    /// A TCP stream (RFC 9329).
    Tcp,
}

impl IkeTransport {
    /// The word for status, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// A carrier of ESP other than TCP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DirectCarrier {
    /// IP protocol 50 (RFC 4303).
    Ip,
    /// UDP port 4500 (RFC 3948).
    Udp,
}

impl DirectCarrier {
    /// The word for status, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Udp => "udp",
        }
    }
}

/// What happens to outbound ESP of an IKE SA now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EspCarrier {
    /// Sent on a direct carrier.
    Direct(DirectCarrier),
    /// Held in a bounded queue until the carrier is known (transport policy rule 4: 64 packets for 1 s).
    Hold,
    /// Dropped: the policy does not let it out.
    Shut,
}

/// How ESP of one IKE SA travels; it belongs to the IKE SA and all its children use it
/// (transport policy rule 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EspPath {
    /// What carries outbound packets.
    pub carrier: EspCarrier,
    /// Our outer address.
    pub local: IpAddr,
    /// Our UDP port for ESP in UDP, normally 4500.
    pub local_port: u16,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// The peer's UDP port for ESP in UDP; behind a NAT not 4500.
    pub remote_port: u16,
}
