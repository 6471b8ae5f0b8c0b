//! A worker's end of an interface.

use crate::config::Role;
use crate::packet::ethernet::MacAddress;
use crate::xsk::Socket;

/// The AF_XDP socket of one worker on one interface.
pub struct Port {
    /// Index of the interface.
    pub ifindex: u32,
    /// What is behind it.
    pub role: Role,
    /// What matches no policy is dropped (RFC 4301 section 4.4.1).
    pub protected: bool,
    /// Its link-layer address.
    pub mac: MacAddress,
    /// The rings.
    pub socket: Socket,
    /// Packets were queued since the last flush.
    pub(super) dirty: bool,
}

impl Port {
    /// A port over a bound socket.
    pub fn new(ifindex: u32, role: Role, protected: bool, mac: MacAddress, socket: Socket) -> Self {
        Self { ifindex, role, protected, mac, socket, dirty: false }
    }
}
