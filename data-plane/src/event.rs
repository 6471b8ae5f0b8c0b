//! What the data plane tells the control plane.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_common::Spi;

use crate::echo::Nonce;
use crate::policy::PolicyKey;
use crate::sa::{Carrier, ChildId, PathId};
use crate::spd::Flow;

/// An IKE message that arrived on UDP 4500, non-ESP marker included.
#[derive(Debug)]
pub struct IkeDatagram {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The whole UDP payload.
    pub payload: Vec<u8>,
}

/// One thing that happened to packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DataPlaneEvent {
    /// Authenticated ESP arrived: the first on an SA, the first from another source or carrier, else at most
    /// once a second.
    Inbound {
        /// The pair.
        child: ChildId,
        /// Our SPI.
        spi: Spi,
        /// `Ip`, `Udp` or `Stream`.
        carrier: Carrier,
        /// Outer source; port 0 on IP.
        source: SocketAddr,
        /// Outer destination.
        local: IpAddr,
        /// Numbered above everything seen on that SA before.
        is_highest: bool,
        /// ESP echo, which moves no path (transport policy rule 4). Reported apart from all else: an echo never keeps
        /// the event about the next packet of data back.
        is_echo: bool,
    },
    /// An authenticated ESP echo reply arrived. Whether it answers a request of ours is for the reader to judge; a peer
    /// that sends many is limited per SA.
    EchoReply {
        /// The pair whose inbound SA it came on.
        child: ChildId,
        /// Identifier field.
        identifier: u16,
        /// Sequence Number field.
        sequence: u16,
        /// First octets of the Data field.
        nonce: Nonce,
        /// `Ip` or `Udp`.
        carrier: Carrier,
        /// Outer source; port 0 on IP.
        source: SocketAddr,
        /// Outer destination.
        local: IpAddr,
    },
    /// ESP of a path cannot leave this host, or can again (transport policy rule 5). Changes only, at most one a second.
    LocalSend {
        /// The path.
        path: PathId,
        /// Why not; `None`: it leaves again.
        failure: Option<LocalFailure>,
    },
    /// An ICMP error says that ESP of a path does not arrive. Nobody has authenticated it; at most one a second for each
    /// path.
    PathDoubt {
        /// The path.
        path: PathId,
    },
    /// Data left on the pair's outbound SA; at most once a second.
    Outbound {
        /// The pair.
        child: ChildId,
    },
    /// A soft lifetime in bytes or packets was reached.
    SoftLifetime {
        /// The pair.
        child: ChildId,
    },
    /// A hard lifetime was reached, or the sequence numbers ran out.
    HardLifetime {
        /// The pair.
        child: ChildId,
    },
    /// A packet met a PROTECT policy without an SA; rate-limited per policy.
    Acquire {
        /// The policy.
        policy: PolicyKey,
        /// The packet.
        flow: Flow,
    },
    /// Addresses or links of this host changed.
    LocalChange,
    /// Routes of this host changed.
    RoutesChanged,
    /// Something removed a TUN device of ours or switched it off, and it is back with its routes.
    TunRestored {
        /// Its name.
        name: Arc<str>,
    },
    /// Something removed routes or rules that lead into our TUN device, and they are back.
    RoutingRestored {
        /// How many were missing.
        missing: usize,
    },
    /// A configured interface is not there any more.
    InterfaceLost {
        /// Its name.
        name: Arc<str>,
    },
    /// A configured interface is there again, as another device.
    InterfaceReturned {
        /// Its name.
        name: Arc<str>,
        /// It is used again; otherwise only a restart helps: AF_XDP sockets are bound to the device that went.
        is_used: bool,
    },
    /// Something removed guard policies and they were put back.
    GuardRestored {
        /// How many were missing.
        missing: usize,
    },
}

/// Why ESP does not leave this host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LocalFailure {
    /// No route to the peer.
    NoRoute,
    /// The next hop does not answer neighbour discovery.
    NoNeighbour,
    /// The interface that leads to the peer has no link.
    LinkDown,
    /// A filter on this host refuses it (EPERM).
    NotPermitted,
    /// The kernel has no memory for it.
    NoBuffer,
    /// Another error of the kernel's.
    Refused {
        /// The errno.
        errno: i32,
    },
}

impl fmt::Display for LocalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "no route to the peer",
            Self::NoNeighbour => "the next hop does not answer",
            Self::LinkDown => "the link is down",
            Self::NotPermitted => "a filter on this host refuses it",
            Self::NoBuffer => "the kernel has no memory for it",
            Self::Refused { errno } => return write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        })
    }
}
