//! What the data plane tells the control plane.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_common::Spi;

use crate::policy::PolicyKey;
use crate::sa::{Carrier, ChildId};

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
        /// `Ip` or `Udp`.
        carrier: Carrier,
        /// Outer source; port 0 on IP.
        source: SocketAddr,
        /// Outer destination.
        local: IpAddr,
        /// Numbered above everything seen on that SA before.
        is_highest: bool,
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
    },
    /// Addresses or links of this host changed.
    LocalChange,
    /// Something removed a TUN device of ours or switched it off, and it is back with its routes.
    TunRestored {
        /// Its name.
        name: Arc<str>,
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
