//! What a shard is told.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_ike::action::PuzzleId;
use portcullis_ike::command::{CommandKind, Fact};
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::path::{StreamId, UdpPath};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::net::stream::StreamHandle;
use crate::snapshot::ShardSnapshot;

/// Where a shard listens.
pub type InputSender = mpsc::Sender<Input>;

/// What has changed about the network of this host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NetworkChange {
    /// Routes alone.
    Routes,
    /// Addresses or links.
    Addresses,
}

impl NetworkChange {
    /// The one that an event tells of.
    pub fn of(event: &DataPlaneEvent) -> Option<Self> {
        match event {
            DataPlaneEvent::LocalChange => Some(Self::Addresses),
            DataPlaneEvent::RoutesChanged => Some(Self::Routes),
            _ => None,
        }
    }
}

/// One thing for a shard to deal with.
#[derive(Debug)]
pub enum Input {
    /// A UDP datagram arrived.
    Datagram {
        /// From where to where.
        path: UdpPath,
        /// The whole UDP payload.
        payload: Vec<u8>,
    },
    /// A peer opened a stream that belongs to this shard; `StreamUp` follows.
    Accepted {
        /// Its name.
        stream: StreamId,
        /// The way to write to it.
        handle: StreamHandle,
    },
    /// A stream is connected.
    StreamUp {
        /// Its name.
        stream: StreamId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
    },
    /// Octets arrived on a stream.
    StreamBytes {
        /// Its name.
        stream: StreamId,
        /// The octets.
        bytes: Vec<u8>,
    },
    /// A stream could not be connected, or ended.
    StreamDown {
        /// Its name.
        stream: StreamId,
        /// Why.
        cause: StreamDown,
    },
    /// The data plane saw something.
    Fact(Fact),
    /// Addresses, links or routes of this host have changed.
    NetworkChanged(NetworkChange),
    /// A search for the solution of a puzzle has ended.
    Puzzle {
        /// The search.
        search: PuzzleId,
        /// The solution, if one was found in time.
        solution: Option<Vec<u8>>,
    },
    /// An operator wants something.
    Command {
        /// Name of the connection.
        connection: String,
        /// What.
        kind: CommandKind,
        /// The outcome, or why not.
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Another configuration holds from here on.
    Configure(Arc<Config>),
    /// Somebody wants to know how things are.
    Inspect(oneshot::Sender<ShardSnapshot>),
    /// Whether this shard has an IKE SA of a connection.
    Holds {
        /// Name of the connection.
        connection: String,
        /// Whether.
        reply: oneshot::Sender<bool>,
    },
    /// Somebody wants to know whether this shard lives, and of how many connections with an IKE SA.
    Pulse(oneshot::Sender<usize>),
    /// Delete every SA, then end.
    Shutdown,
}
