//! What the operator and the data plane tell an endpoint.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::action::{ChildId, IkeSaId};
use crate::codec::TrafficSelector;
use crate::config::OnUnreachable;
use crate::path::EspTransport;

/// An operator's wish. The outcome is an [`Event`](crate::event::Event) that carries the same `request`.
#[derive(Clone, Debug)]
pub struct Command {
    /// The caller's number for this wish, copied into the outcome.
    pub request: u64,
    /// Name of the connection.
    pub connection: String,
    /// What to do.
    pub kind: CommandKind,
}

/// What an operator can ask of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandKind {
    /// Establish the IKE SA and the named child, or every child.
    Up {
        /// A child, or all.
        child: Option<String>,
    },
    /// Delete the named child, or the IKE SA with all children; `start: always` does not bring it back before
    /// the next `Up`.
    Down {
        /// A child, or all.
        child: Option<String>,
    },
    /// Rekey the IKE SA.
    RekeyIke,
    /// What happens from now on when no direct carrier passes ESP; live SAs follow at once. A change of the configuration
    /// that says otherwise replaces it.
    SetEspPolicy {
        /// That.
        on_unreachable: OnUnreachable,
    },
    /// Send the peers whose IKE SAs with us they have initiated to another gateway (RFC 5685 section 5).
    Redirect {
        /// That.
        to: IpAddr,
    },
    /// Find out now whether direct carriers pass ESP.
    Probe,
    /// Rekey the named child, or every child.
    RekeyChild {
        /// A child, or all.
        child: Option<String>,
    },
}

/// What the data plane saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// Authenticated ESP arrived on a child: the first since the SA was installed, the first on another carrier or
    /// from another source, or a refresh at most once a second.
    Inbound {
        /// The pair.
        child: ChildId,
        /// How it came.
        carrier: EspTransport,
        /// From where; the port is 0 on IP.
        source: SocketAddr,
        /// To which of our addresses.
        local: IpAddr,
        /// Numbered above everything seen on that SA before.
        is_highest: bool,
        /// An echo message (it moves no path, transport policy rule 4).
        is_echo: bool,
    },
    /// The reply to an [`EchoRequest`](crate::action::EchoRequest) arrived, authenticated, on the inbound SA of a child.
    EchoReply {
        /// The pair whose inbound SA it came on.
        child: ChildId,
        /// Identifier field.
        identifier: u16,
        /// Sequence Number field.
        sequence: u16,
        /// The first octets of the Data field.
        nonce: [u8; 16],
        /// How it came.
        carrier: EspTransport,
        /// From where; the port is 0 on IP.
        source: SocketAddr,
        /// To which of our addresses.
        local: IpAddr,
    },
    /// Sending ESP of an IKE SA fails here: no route, no neighbour, link down, no permission, no buffer (transport policy
    /// rule 5, `local_down`); or works again. Reported on changes only.
    LocalSend {
        /// The IKE SA whose path it is.
        ike_sa: IkeSaId,
        /// The cause, or `None` when it works again.
        failure: Option<String>,
    },
    /// An ICMP error, or something else that nobody has authenticated, says that ESP of an IKE SA does not arrive: worth a
    /// probe, never a decision (rule 5).
    PathDoubt {
        /// The IKE SA.
        ike_sa: IkeSaId,
    },
    /// Data left on a child's outbound SA since the last such fact; at most once a second.
    Outbound {
        /// The pair.
        child: ChildId,
    },
    /// A soft lifetime in bytes or packets was reached: rekey.
    SoftLifetime {
        /// The pair.
        child: ChildId,
    },
    /// A hard lifetime was reached or sequence numbers ran out: the SA no longer passes packets.
    HardLifetime {
        /// The pair.
        child: ChildId,
    },
    /// A packet met a PROTECT policy without an SA (`start: on-traffic`).
    Acquire {
        /// Name of the connection.
        connection: String,
        /// Name of the child.
        child: String,
        /// The packet.
        packet: PacketSelectors,
    },
    /// The caller could not install an SA, for example because a table is full.
    InstallFailed {
        /// The pair.
        child: ChildId,
        /// Operator-readable cause.
        cause: String,
    },
    /// From now on packets to the peer of a connection leave from this address of ours; `None`: this host has none for them
    /// (transport policy rules 5 and 11).
    LocalAddress {
        /// Name of the connection.
        connection: Arc<str>,
        /// The address.
        address: Option<IpAddr>,
    },
    /// Addresses, links or routes of this host have changed: what failed for a local cause may work again.
    LocalChange {
        /// Of the addresses that IKE SAs use ([`local_addresses`](crate::endpoint::Endpoint::local_addresses)), those that
        /// this host does not have now.
        gone: Arc<[IpAddr]>,
    },
}

/// The selectors of one packet that leaves the protected side (RFC 7296 section 2.9): each is one address, and the protocol and
/// port of the packet where they can be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketSelectors {
    /// Of our side.
    pub local: TrafficSelector,
    /// Of the peer's side.
    pub remote: TrafficSelector,
}
