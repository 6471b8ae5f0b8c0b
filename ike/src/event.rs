//! What happened, for the operator: counters, logs, events stream and tests all derive from these.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::action::{ChildId, EspCipher, IkeSaId};
use crate::path::{EspTransport, IkeTransport};
use crate::status::{Evidence, Reason, State, Verification};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection changed state, reason, evidence or carrier.
    StateChanged {
        /// Name of the connection.
        connection: Arc<str>,
        /// The state before.
        from: State,
        /// The state now.
        to: State,
        /// Why.
        reason: Reason,
        /// What proves it.
        evidence: Evidence,
        /// What carries its ESP, while ESP may leave.
        esp_transport: Option<EspTransport>,
        /// One sentence for the operator.
        detail: String,
    },
    /// An IKE SA was authenticated.
    IkeEstablished {
        /// Name of the connection.
        connection: Arc<str>,
        /// The IKE SA.
        ike_sa: IkeSaId,
        /// We initiated it.
        is_initiator: bool,
        /// The peer's address for IKE.
        remote: SocketAddr,
        /// What carries IKE from here on.
        transport: IkeTransport,
        /// What carried the first message.
        started_on: IkeTransport,
        /// SEPARATE_TRANSPORTS is agreed.
        separate_transports: bool,
        /// Time from the first IKE_SA_INIT to here.
        handshake: Duration,
        /// IKE octets of the handshake, sent and received, over UDP.
        udp_bytes: (u64, u64),
        /// IKE octets of the handshake, sent and received, over TCP (framing included).
        tcp_bytes: (u64, u64),
        /// Algorithms in proposal notation.
        algorithms: String,
        /// The PPK that is configured is in the keys, or is not; none if none is configured.
        ppk: Option<bool>,
    },
    /// A set-up attempt failed, before or at authentication.
    IkeFailed {
        /// Name of the connection, if it was known already.
        connection: Option<Arc<str>>,
        /// We initiated it.
        is_initiator: bool,
        /// The peer's address.
        remote: SocketAddr,
        /// Bounded cause.
        reason: Reason,
        /// One sentence for the operator.
        detail: String,
    },
    /// An IKE SA got new keys.
    IkeRekeyed {
        /// Name of the connection.
        connection: Arc<str>,
        /// The IKE SA.
        ike_sa: IkeSaId,
        /// We initiated the exchange.
        by_us: bool,
        /// Algorithms in proposal notation.
        algorithms: String,
    },
    /// An IKE SA is gone with all its children.
    IkeRemoved {
        /// Name of the connection.
        connection: Arc<str>,
        /// The IKE SA.
        ike_sa: IkeSaId,
        /// Why.
        reason: Reason,
    },
    /// A Child SA pair is in use.
    ChildEstablished {
        /// Name of the connection.
        connection: Arc<str>,
        /// Configured name of the child.
        child_name: Arc<str>,
        /// The pair.
        child: ChildId,
        /// The pair that it replaces.
        replaces: Option<ChildId>,
        /// The exchange was ours.
        by_us: bool,
        /// SPIs, inbound and outbound.
        spis: (u32, u32),
        /// Algorithms in proposal notation.
        algorithms: String,
    },
    /// A Child SA could not be set up or rekeyed.
    ChildFailed {
        /// Name of the connection.
        connection: Arc<str>,
        /// Configured name of the child.
        child_name: Arc<str>,
        /// Bounded cause.
        reason: Reason,
        /// One sentence for the operator.
        detail: String,
    },
    /// A Child SA pair is gone.
    ChildRemoved {
        /// Name of the connection.
        connection: Arc<str>,
        /// Configured name of the child.
        child_name: Arc<str>,
        /// The pair.
        child: ChildId,
        /// Another pair has replaced it.
        rekeyed: bool,
    },
    /// The outcome of a [`Command`](crate::command::Command).
    CommandDone {
        /// The caller's number.
        request: u64,
        /// Done, or the reason why not.
        result: Result<String, String>,
    },
    /// A peer has sent us to another gateway (RFC 5685).
    Redirected {
        /// Name of the connection.
        connection: Arc<str>,
        /// The gateway, as the peer puts it.
        gateway: String,
        /// Why it is not followed.
        refused: Option<String>,
    },
    /// A stream of an IKE SA was lost, or restored.
    Stream {
        /// Name of the connection.
        connection: Arc<str>,
        /// Restored, or lost.
        up: bool,
    },
    /// What a verification measured on one carrier.
    EspProbed {
        /// Name of the connection.
        connection: Arc<str>,
        /// The IKE SA.
        ike_sa: IkeSaId,
        /// The carrier.
        carrier: EspTransport,
        /// An echo came back on it.
        answered: bool,
    },
    /// A verification of the carriers of ESP is over.
    EspVerified {
        /// Name of the connection.
        connection: Arc<str>,
        /// The IKE SA.
        ike_sa: IkeSaId,
        /// What it came to, and how long it took.
        verification: Verification,
    },
    /// Keys for a key log; only with `EndpointConfig::key_log`.
    Keys(KeyEvent),
}

/// Keys of one generation, as key logs want them.
#[derive(Clone)]
pub enum KeyEvent {
    /// Keys of an IKE SA: after IKE_SA_INIT, after each IKE_INTERMEDIATE, after a rekey.
    Ike {
        /// SPIs, initiator's and responder's.
        spis: (u64, u64),
        /// Counts the key sets of this SPI pair, from 0.
        generation: u32,
        /// Encryption algorithm in proposal notation.
        encryption: &'static str,
        /// SK_ei with its salt.
        sk_ei: Zeroizing<Vec<u8>>,
        /// SK_er with its salt.
        sk_er: Zeroizing<Vec<u8>>,
    },
    /// Keys of one direction of a Child SA.
    Esp {
        /// SPI of that direction.
        spi: u32,
        /// Outer source address.
        source: std::net::IpAddr,
        /// Outer destination address.
        destination: std::net::IpAddr,
        /// Algorithm.
        cipher: EspCipher,
        /// Key with its salt.
        key: Zeroizing<Vec<u8>>,
    },
}

impl core::fmt::Debug for KeyEvent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ike { spis, generation, .. } => {
                write!(f, "KeyEvent::Ike({spis:x?}, generation {generation}, ..)")
            }
            Self::Esp { spi, .. } => write!(f, "KeyEvent::Esp({spi:08x}, ..)"),
        }
    }
}

/// Plain counters of an endpoint, for the metrics; all since the start.
#[derive(Clone, Default, Debug)]
pub struct Counters {
    /// IKE messages received and sent, by transport (UDP, TCP).
    pub messages_in: [u64; 2],
    /// See `messages_in`.
    pub messages_out: [u64; 2],
    /// IKE octets received and sent, by transport (UDP, TCP).
    pub bytes_in: [u64; 2],
    /// See `bytes_in`.
    pub bytes_out: [u64; 2],
    /// Requests retransmitted over UDP.
    pub retransmissions: u64,
    /// Stored responses sent again.
    pub responses_repeated: u64,
    /// COOKIE notifications sent.
    pub cookies_sent: u64,
    /// Puzzles given to initiators.
    pub puzzles_given: u64,
    /// Solutions of initiators, right and wrong.
    pub puzzle_solutions: [u64; 2],
    /// Requests served without a solution although a puzzle was given (RFC 8019 section 7.1).
    pub puzzles_waived: u64,
    /// Puzzles that responders gave us: solved, given up.
    pub puzzles_taken: [u64; 2],
    /// Initiators that were sent to another gateway.
    pub redirects: u64,
    /// Streams dialled again for a live IKE SA.
    pub stream_reconnects: u64,
    /// ESP packets that came in TCP and were handed to the data plane.
    pub esp_in_tcp_delivered: u64,
    /// ESP packets that came in TCP and were dropped, by bounded reason.
    pub esp_in_tcp_dropped: std::collections::BTreeMap<&'static str, u64>,
    /// ESP echo requests sent, by carrier: IP, UDP, TCP.
    pub echo_requests: PerCarrier,
    /// Replies to them, by carrier.
    pub echo_replies: PerCarrier,
    /// Verifications that are over, by verdict.
    pub verifications: std::collections::BTreeMap<&'static str, u64>,
    /// Falls of ESP, into TCP in place or to a stop.
    pub esp_falls: u64,
    /// Trials of direct carriers that brought ESP back from TCP.
    pub returns: u64,
    /// Trials of direct carriers that failed.
    pub trials_failed: u64,
    /// Half-open SAs now.
    pub half_open: u64,
    /// Octets that half-open SAs of strangers make us keep now.
    pub stranger_bytes: u64,
    /// Streams of strangers now.
    pub stranger_streams: u64,
    /// Messages that were dropped or answered with an error, by bounded reason.
    pub rejected: std::collections::BTreeMap<&'static str, u64>,
}

/// One counter for each carrier of ESP.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PerCarrier {
    /// IP protocol 50.
    pub ip: u64,
    /// UDP port 4500.
    pub udp: u64,
    /// TCP streams.
    pub tcp: u64,
}

impl core::ops::Index<EspTransport> for PerCarrier {
    type Output = u64;

    fn index(&self, carrier: EspTransport) -> &u64 {
        match carrier {
            EspTransport::Ip => &self.ip,
            EspTransport::Udp => &self.udp,
            EspTransport::Tcp => &self.tcp,
        }
    }
}

impl core::ops::IndexMut<EspTransport> for PerCarrier {
    fn index_mut(&mut self, carrier: EspTransport) -> &mut u64 {
        match carrier {
            EspTransport::Ip => &mut self.ip,
            EspTransport::Udp => &mut self.udp,
            EspTransport::Tcp => &mut self.tcp,
        }
    }
}

impl Counters {
    /// Counts an ESP packet that came in TCP and is dropped.
    pub(crate) fn drop_esp_in_tcp(&mut self, reason: &'static str) {
        *self.esp_in_tcp_dropped.entry(reason).or_default() += 1;
    }
}
