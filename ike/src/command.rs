//! What the operator and the data plane tell an endpoint.

use std::net::{IpAddr, SocketAddr};

use crate::action::ChildId;
use crate::path::DirectCarrier;

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
        carrier: DirectCarrier,
        /// From where; the port is 0 on IP.
        source: SocketAddr,
        /// To which of our addresses.
        local: IpAddr,
        /// Numbered above everything seen on that SA before.
        is_highest: bool,
        /// An echo message (it moves no path, transport policy rule 4).
        is_echo: bool,
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
    },
    /// The caller could not install an SA, for example because a table is full.
    InstallFailed {
        /// The pair.
        child: ChildId,
        /// Operator-readable cause.
        cause: String,
    },
    /// A local address of ours was added or removed, or a link changed: dead streams may be redialled.
    LocalChange,
}
