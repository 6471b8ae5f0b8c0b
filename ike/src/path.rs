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
    /// Every carrier.
    pub const ALL: [Self; 2] = [Self::Ip, Self::Udp];

    /// The word for status, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Udp => "udp",
        }
    }
}

/// What carries one ESP packet: a direct carrier, or a TCP stream (RFC 9329 section 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EspTransport {
    /// IP protocol 50 (RFC 4303).
    Ip,
    /// UDP port 4500 (RFC 3948).
    Udp,
    /// A TCP stream, beside IKE.
    Tcp,
}

impl EspTransport {
    /// The word for status, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// The direct carrier that it is, if it is one.
    pub const fn direct(self) -> Option<DirectCarrier> {
        match self {
            Self::Ip => Some(DirectCarrier::Ip),
            Self::Udp => Some(DirectCarrier::Udp),
            Self::Tcp => None,
        }
    }
}

impl From<DirectCarrier> for EspTransport {
    fn from(carrier: DirectCarrier) -> Self {
        match carrier {
            DirectCarrier::Ip => Self::Ip,
            DirectCarrier::Udp => Self::Udp,
        }
    }
}

/// What happens to outbound ESP of an IKE SA now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EspCarrier {
    /// Sent on a direct carrier.
    Direct(DirectCarrier),
    /// Written to this TCP stream, beside IKE (RFC 9329 section 3); dropped and counted while it is not up.
    Stream(StreamId),
    /// Held in a bounded queue until the carrier is known (transport policy rule 4: 64 packets for 1 s).
    Hold,
    /// Dropped: the policy does not let it out.
    Shut,
}

impl EspCarrier {
    /// What carries outbound packets, if anything does.
    pub const fn transport(self) -> Option<EspTransport> {
        match self {
            Self::Direct(DirectCarrier::Ip) => Some(EspTransport::Ip),
            Self::Direct(DirectCarrier::Udp) => Some(EspTransport::Udp),
            Self::Stream(_) => Some(EspTransport::Tcp),
            Self::Hold | Self::Shut => None,
        }
    }
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
    /// Which echo requests of the peer are answered.
    pub echo: EchoAnswers,
    /// Inbound packets that come in TCP pass. If not they are opened, so that a forged one decides nothing, reported and
    /// dropped (transport policy rules 5 and 7).
    pub takes_tcp: bool,
}

/// Which ESP echo requests of the peer the data plane answers for an IKE SA (transport policy rules 3 and 6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct EchoAnswers {
    /// Over direct carriers: this end has announced ESP echo. A request over IP from another address than
    /// `ip_only_from` is not answered (rule 3).
    pub direct: bool,
    /// Over TCP streams: never under fail-closed (rule 6).
    pub stream: bool,
    /// The peer's address of IKE.
    pub ip_only_from: Option<IpAddr>,
}
