//! What an endpoint asks its caller to do.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::codec::TrafficSelector;
use crate::event::Event;
use crate::path::{DirectCarrier, EspPath, StreamId, UdpPath};
use crate::puzzle::Puzzle;

/// One IKE SA of one endpoint, never reused within the life of the process. An IKE rekey keeps it: it names
/// what the operator sees as one association.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IkeSaId(pub u64);

/// One pair of Child SAs (inbound and outbound), never reused. A rekey makes a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChildId(pub u64);

/// What the caller has to carry out, in the order of the queue.
#[derive(Debug)]
pub enum Action {
    /// Send these bytes as one UDP datagram, as they are: on port 4500 the non-ESP marker (RFC 3948 section
    /// 2.2) is in them already, and a NAT keepalive is the single octet 0xff.
    SendDatagram {
        /// From where to where.
        path: UdpPath,
        /// The whole UDP payload.
        payload: Vec<u8>,
    },
    /// Open a TCP connection and report it with `handle_stream_up` or `handle_stream_down`.
    Dial {
        /// The name of the connection in all that follows.
        stream: StreamId,
        /// The local address to bind, or the kernel's choice.
        local: Option<IpAddr>,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// Write these bytes to a stream, as they are: prefix, length and marker (RFC 9329 sections 3 and 4) are
    /// in them already.
    SendStream {
        /// The connection.
        stream: StreamId,
        /// Bytes to append to what was sent before.
        bytes: Vec<u8>,
    },
    /// Close a connection after what was sent has left. No `handle_stream_down` follows.
    CloseStream {
        /// The connection.
        stream: StreamId,
    },
    /// What becomes of the ESP packets in a stream (RFC 9329 section 3), from the next frame on. Until this is said, and
    /// after `ike_sa: None`, every octet goes to `handle_stream_bytes`. While they are accepted the caller takes them out of
    /// the octets and opens them, like those of a direct carrier; what becomes of them then is their path's to say
    /// ([`EspPath::takes_tcp`](crate::path::EspPath::takes_tcp)).
    AcceptEsp {
        /// The connection.
        stream: StreamId,
        /// Those of this IKE SA's children, and no others (RFC 9329 section 5); or none.
        ike_sa: Option<IkeSaId>,
    },
    /// Open this ESP packet: it is one that is opened on its stream, and arrived before the caller had heard of
    /// [`Action::AcceptEsp`].
    DeliverEsp {
        /// The connection that it came on.
        stream: StreamId,
        /// The packet, from its SPI on.
        packet: Vec<u8>,
    },
    /// Make an inbound SA live, before anything that lets the peer use it is sent.
    InstallInbound(Box<InboundChildSa>),
    /// Put an outbound SA in place without using it.
    InstallOutbound(Box<OutboundChildSa>),
    /// From now on protect this child's traffic with this SA: the rekey switch.
    UseOutbound {
        /// The pair whose outbound SA is used.
        child: ChildId,
    },
    /// Stop using the outbound SA, if it is the one in use, and forget it.
    RemoveOutbound {
        /// The pair.
        child: ChildId,
    },
    /// Forget the inbound SA; its SPI may be allocated again.
    RemoveInbound {
        /// The pair.
        child: ChildId,
        /// Its SPI.
        spi: u32,
    },
    /// Set how ESP of this IKE SA travels. Always precedes the first SA of it.
    UpdatePath {
        /// The IKE SA.
        ike_sa: IkeSaId,
        /// The whole new path.
        path: EspPath,
    },
    /// No SA of this IKE SA is left; forget its path.
    RemovePath {
        /// The IKE SA.
        ike_sa: IkeSaId,
    },
    /// Send one dummy packet (RFC 4303 section 2.6) on this child's outbound SA, so that the peer learns
    /// the carrier (transport policy rules 3 and 4).
    SendDummy {
        /// The pair.
        child: ChildId,
    },
    /// Send one ESP echo message (draft-ietf-ipsecme-encrypted-esp-ping, merged text of August 2026) on this
    /// child's outbound SA, whatever its path is.
    SendEcho(EchoRequest),
    /// Search for the solution of a puzzle (RFC 8019) on a thread that may be busy for this long, and report with
    /// `handle_puzzle`.
    SolvePuzzle {
        /// The name of the search.
        search: PuzzleId,
        /// The puzzle.
        puzzle: Puzzle,
        /// When to give up.
        most: Duration,
    },
    /// The largest packet that the path of this IKE SA takes was not answered (an [`EchoSize::PathMtu`] with DF): assume a
    /// smaller one, also for the next such echo, which follows (transport policy rule 3).
    LowerPathMtu {
        /// The IKE SA.
        ike_sa: IkeSaId,
    },
    /// Tell the operator; also what metrics are made of.
    Event(Event),
}

/// One search for the solution of a puzzle, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PuzzleId {
    /// The IKE SA that is being set up.
    pub ike_sa: IkeSaId,
    /// Counts its puzzles.
    pub number: u8,
}

/// One ESP echo request to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EchoRequest {
    /// The pair: it leaves on its outbound SA and asks for the reply on its inbound SA.
    pub child: ChildId,
    /// Identifier field.
    pub identifier: u16,
    /// Sequence Number field.
    pub sequence: u16,
    /// The first octets of the Data field; only a reply that repeats them is a proof (transport policy rule 1).
    pub nonce: [u8; 16],
    /// The R flag: a reply is asked for. Without it the message only refreshes a NAT mapping (rule 10).
    pub wants_reply: bool,
    /// How it leaves.
    pub route: EchoRoute,
    /// How long it is.
    pub size: EchoSize,
}

/// How an echo request leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EchoRoute {
    /// On a direct carrier, between these addresses; the ports are those of UDP and have no meaning over IP.
    Direct {
        /// The carrier.
        carrier: DirectCarrier,
        /// Our address and port.
        local: SocketAddr,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// On a TCP stream.
    Stream(StreamId),
}

/// How long an echo request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EchoSize {
    /// Header and nonce.
    Small,
    /// As long as the largest packet that the path takes, with DF (transport policy rule 3).
    PathMtu,
}

/// The algorithms of a Child SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EspCipher {
    /// ENCR_AES_GCM_16 with a 128-bit key (RFC 4106).
    Aes128Gcm16,
    /// ENCR_AES_GCM_16 with a 256-bit key (RFC 4106).
    Aes256Gcm16,
    /// ENCR_CHACHA20_POLY1305 (RFC 7634).
    ChaCha20Poly1305,
}

/// What both directions of a Child SA share.
#[derive(Clone, Debug)]
pub struct ChildSaCommon {
    /// The pair.
    pub child: ChildId,
    /// The IKE SA whose path it uses.
    pub ike_sa: IkeSaId,
    /// Name of the configured connection.
    pub connection: Arc<str>,
    /// Name of the configured child.
    pub child_name: Arc<str>,
    /// Which of its Child SAs with the same selectors it is (RFC 9611); 0 unless there are several.
    pub resource: u8,
    /// Algorithm.
    pub cipher: EspCipher,
    /// Key and salt, in the order KEYMAT gives them (RFC 7296 section 2.17, RFC 4106 section 8.1).
    pub key: Zeroizing<Vec<u8>>,
    /// Extended (64-bit) sequence numbers, RFC 4303 section 2.2.1.
    pub esn: bool,
    /// Negotiated selectors of our side.
    pub local_ts: Arc<[TrafficSelector]>,
    /// Negotiated selectors of the peer's side.
    pub remote_ts: Arc<[TrafficSelector]>,
    /// How much before a soft lifetime in bytes or packets it is to be rekeyed, in parts of 65536 of it, so that SAs made
    /// together are not rekeyed together (RFC 7296 section 2.8). The same in both directions.
    pub early: u16,
}

/// An inbound Child SA to install.
#[derive(Debug)]
pub struct InboundChildSa {
    /// Shared with the other direction, but for the key.
    pub common: ChildSaCommon,
    /// Our SPI, from the [`SpiSource`](crate::endpoint::SpiSource).
    pub spi: u32,
}

/// An outbound Child SA to install.
#[derive(Debug)]
pub struct OutboundChildSa {
    /// Shared with the other direction, but for the key.
    pub common: ChildSaCommon,
    /// The peer's SPI.
    pub spi: u32,
}
