//! What `portcullis status --json` and `GET /v1/status` answer: the operator's view of a [`Snapshot`](crate::snapshot::Snapshot).
//!
//! Times are RFC 3339 in UTC; SPIs are hexadecimal without a prefix; counts are since the start of the daemon, those of
//! an SA since it was made.

mod build;
pub mod explain;
mod merge;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use merge::{Merged, connections};

/// The whole answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Name of the gateway.
    pub instance: String,
    /// Version of the daemon.
    pub version: String,
    /// How long it has run, in seconds.
    pub uptime_seconds: u64,
    /// Why the policy store cannot be read; every connection is fail-closed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_store_problem: Option<String>,
    /// Every configured connection, in the order of the file.
    pub connections: Vec<Connection>,
    /// What the data plane counts.
    pub data_plane: DataPlane,
}

/// One connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// Configured name.
    pub name: String,
    /// How ESP travels, or why not.
    pub state: String,
    /// Why.
    pub reason: String,
    /// What proves the carrier.
    pub evidence: String,
    /// Cause and remedy of a failure, or empty.
    pub detail: String,
    /// `udp` or `tcp`, while an IKE SA is up.
    pub ike_transport: Option<String>,
    /// `ip`, `udp` or `tcp`, while ESP may leave.
    pub esp_transport: Option<String>,
    /// Seconds until the next attempt, if one is planned.
    pub next_attempt_in_seconds: Option<u64>,
    /// What happens when no direct carrier passes ESP, and who said so.
    pub policy: Policy,
    /// Its IKE SAs, the newest first.
    pub ike_sas: Vec<IkeSa>,
}

/// The policy of a connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// `fail-closed` or `tcp-fallback`.
    pub on_unreachable: String,
    /// `api`, `configuration`, `api-default`, `built-in` or `store-unreadable`.
    pub source: String,
}

/// One IKE SA.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct IkeSa {
    /// We are the original initiator.
    pub initiator: bool,
    /// SPI of the initiator.
    pub spi_i: String,
    /// SPI of the responder.
    pub spi_r: String,
    /// What carries IKE: `udp` or `tcp`.
    pub transport: String,
    /// SEPARATE_TRANSPORTS is agreed.
    pub separate_transports: bool,
    /// Both IKE_SA_INIT messages were authenticated by both ends (downgrade prevention).
    pub full_transcript_auth: bool,
    /// A post-quantum preshared key is in its keys.
    pub ppk: bool,
    /// The peer's address for IKE.
    pub remote: String,
    /// The peer's authenticated identity.
    pub remote_id: String,
    /// Where a NAT was found.
    pub nat: Nat,
    /// How its ESP is verified.
    pub esp: Esp,
    /// Every negotiated algorithm, each key exchange included.
    pub algorithms: String,
    /// When it was authenticated.
    pub established_at: String,
    /// When its keys were last changed.
    pub rekeyed_at: String,
    /// When the next rekey is due.
    pub next_rekey_at: String,
    /// When another IKE SA has to take its place: the peers authenticate each other again, or the peer was sent elsewhere.
    pub leaves_at: Option<String>,
    /// How often its keys were changed.
    pub rekeys: u64,
    /// What setting it up took.
    pub handshake: Option<Handshake>,
    /// Its Child SAs.
    pub children: Vec<Child>,
}

/// Where a NAT was found.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Nat {
    /// In front of us.
    pub local: bool,
    /// In front of the peer.
    pub remote: bool,
}

/// How ESP of an IKE SA is verified.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Esp {
    /// Both ends answer ESP echo.
    pub echo: bool,
    /// The longest that a verification takes, seconds: attempts × timeout + stagger + 1 RTT.
    pub budget_seconds: f64,
    /// The longest from the first packet without an answer to a decision, seconds.
    pub decision_within_seconds: f64,
    /// The last verification.
    pub last_verification: Option<LastVerification>,
    /// Smoothed round trips of echoes by carrier, seconds.
    pub rtt_seconds: BTreeMap<String, f64>,
    /// When ESP in TCP tries to come back, seconds from now.
    pub next_return_in_seconds: Option<u64>,
}

/// A verification that is over.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LastVerification {
    /// When it was over.
    pub at: String,
    /// How long it took, seconds.
    pub seconds: f64,
    /// What it came to.
    pub verdict: String,
}

/// What setting an IKE SA up took.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Handshake {
    /// From the first IKE_SA_INIT to authentication, in seconds.
    pub seconds: f64,
    /// IKE octets over UDP.
    pub udp_bytes: SentReceived,
    /// IKE octets over TCP, framing included.
    pub tcp_bytes: SentReceived,
}

/// A count for each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SentReceived {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// One Child SA pair.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Child {
    /// Configured name.
    pub name: String,
    /// Inbound SPI.
    pub spi_in: String,
    /// Outbound SPI.
    pub spi_out: String,
    /// Negotiated algorithms.
    pub algorithms: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Outbound traffic uses it.
    pub in_use: bool,
    /// Negotiated selectors of our side.
    pub local_ts: Vec<String>,
    /// Negotiated selectors of the peer's side.
    pub remote_ts: Vec<String>,
    /// Packets opened.
    pub packets_in: u64,
    /// Packets sealed.
    pub packets_out: u64,
    /// Inner octets opened.
    pub bytes_in: u64,
    /// Inner octets sealed.
    pub bytes_out: u64,
    /// When it was made.
    pub established_at: String,
    /// When the next rekey is due.
    pub next_rekey_at: String,
}

/// What the data plane counts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DataPlane {
    /// What runs: `xdp` or `tun`.
    pub mode: String,
    /// Every interface, with the path it takes and why.
    pub interfaces: Vec<Interface>,
    /// The guard.
    pub guard: Guard,
    /// How full the SA table is.
    pub sa_table: SaTable,
    /// Every worker.
    pub workers: Vec<Worker>,
    /// Packets by XDP verdict, for each interface with a program.
    pub xdp: BTreeMap<String, BTreeMap<String, u64>>,
    /// Dropped packets by reason: by workers, and by the kernel on the way to them.
    pub drops: BTreeMap<String, u64>,
    /// The sums that agree once traffic has drained.
    pub accounting: Accounting,
}

/// One interface.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `wan` or `lan`.
    pub role: String,
    /// `af_xdp_zero_copy`, `af_xdp_copy` or `tun`.
    pub path: String,
    /// Why that path.
    pub reason: String,
}

/// The guard.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Guard {
    /// The kernel holds every policy of it.
    pub installed: bool,
    /// What holds them.
    pub backend: String,
    /// How many there are.
    pub policies: u64,
    /// How often something took policies away and they were put back.
    pub restores: u64,
    /// Packets it stopped on the way out.
    pub drops_outbound: u64,
    /// Packets it stopped on the way in.
    pub drops_inbound: u64,
}

/// How full the SA table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SaTable {
    /// Slots of each direction.
    pub slots: u32,
    /// Inbound slots in use.
    pub inbound: u32,
    /// Outbound slots in use.
    pub outbound: u32,
}

/// One worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// ESP packets received, by path.
    pub esp_in: ByPath,
    /// ESP packets sent, by path.
    pub esp_out: ByPath,
    /// Packets received, by source.
    pub received: BTreeMap<String, u64>,
    /// Their octets.
    pub received_bytes: BTreeMap<String, u64>,
    /// Packets sent, by sink.
    pub sent: BTreeMap<String, u64>,
    /// Their octets.
    pub sent_bytes: BTreeMap<String, u64>,
    /// Packets not forwarded, by reason; only reasons that there were.
    pub drops: BTreeMap<String, u64>,
    /// Packets that wait for a carrier now.
    pub held: u64,
    /// Packets passed to the worker that owns their SA.
    pub handed_over: u64,
    /// SAs that it gave to another worker.
    pub moved_sas: u64,
    /// Packets that were given to the kernel together with others of their flow, by sink.
    pub joined: BTreeMap<String, u64>,
    /// Rounds in which it found packets.
    pub batches: u64,
    /// Seconds in such rounds.
    pub busy_seconds: f64,
}

/// Packets by the path they took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ByPath {
    /// AF_XDP sockets.
    pub af_xdp: u64,
    /// UDP and raw sockets.
    pub socket: u64,
}

/// Packets that came to workers and what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Accounting {
    /// Received from every source, and made here.
    pub received: u64,
    /// Sent to every sink.
    pub sent: u64,
    /// Dropped, for every reason.
    pub dropped: u64,
    /// Waiting for a carrier.
    pub held: u64,
}
