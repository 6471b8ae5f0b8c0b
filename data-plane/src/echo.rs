//! ESP echo as the control plane asks for it (draft-ietf-ipsecme-encrypted-esp-ping, merged text of August 2026).

use std::net::{IpAddr, SocketAddr};

use crate::sa::{Carrier, ChildId, EchoAnswers, Path};
use crate::stream::StreamKey;

/// First octets of a request's data: a reply that repeats them was made by who read the request.
pub type Nonce = [u8; 16];

/// One echo request to send on a pair's outbound SA, whatever the path of the SA is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EchoRequest {
    /// The pair; the reply is asked for on its inbound SA.
    pub child: ChildId,
    /// Identifier field.
    pub identifier: u16,
    /// Sequence Number field.
    pub sequence: u16,
    /// First octets of the Data field.
    pub nonce: Nonce,
    /// The R flag; without it the request only refreshes what is on the way (transport policy rule 10).
    pub wants_reply: bool,
    /// How it leaves.
    pub route: EchoRoute,
    /// How long it is.
    pub size: EchoSize,
}

/// How an echo message leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EchoRoute {
    /// Over IP protocol 50.
    Ip {
        /// Our address.
        local: IpAddr,
        /// The peer's address.
        remote: IpAddr,
    },
    /// In UDP.
    Udp {
        /// Our address and port.
        local: SocketAddr,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// In a TCP stream.
    Stream(StreamKey),
}

/// How long an echo request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EchoSize {
    /// Header and nonce.
    Small,
    /// As long as the largest packet that data sends this way, with DF (transport policy rule 3).
    PathMtu,
}

impl EchoRoute {
    /// A direct route as a path that one packet takes.
    pub(crate) fn path(self) -> Option<Path> {
        let (carrier, local, remote) = match self {
            Self::Ip { local, remote } => {
                (Carrier::Ip, SocketAddr::new(local, 0), SocketAddr::new(remote, 0))
            }
            Self::Udp { local, remote } => (Carrier::Udp, local, remote),
            Self::Stream(_) => return None,
        };
        Some(Path {
            carrier,
            local: local.ip(),
            local_port: local.port(),
            remote: remote.ip(),
            remote_port: remote.port(),
            echo: EchoAnswers::default(),
            takes_tcp: false,
        })
    }
}
