//! `portcullis status --json`, typed as far as the laboratory reads it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Every configured connection.
    pub connections: Vec<ConnectionStatus>,
    /// What the data plane counts.
    pub data_plane: DataPlaneStatus,
}

/// One connection.
#[derive(Clone, Debug, Deserialize)]
pub struct ConnectionStatus {
    /// Configured name.
    pub name: String,
    /// How ESP travels, or why not.
    pub state: String,
    /// Why.
    pub reason: String,
    /// What proves the carrier.
    pub evidence: String,
    /// Cause and remedy of a failure, or empty.
    #[serde(default)]
    pub detail: String,
    /// `udp` or `tcp`, while an IKE SA is up.
    pub ike_transport: Option<String>,
    /// `ip`, `udp` or `tcp`, while a child is up.
    pub esp_transport: Option<String>,
    /// What happens when no direct carrier passes ESP, and who said so.
    pub policy: PolicyStatus,
    /// Its IKE SAs.
    pub ike_sas: Vec<IkeSaStatus>,
}

/// The policy of a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicyStatus {
    /// `fail-closed` or `tcp-fallback`.
    pub on_unreachable: String,
    /// Where it comes from.
    pub source: String,
}

/// One IKE SA.
#[derive(Clone, Debug, Deserialize)]
pub struct IkeSaStatus {
    /// We are the original initiator.
    pub initiator: bool,
    /// The peer's address for IKE.
    pub remote: String,
    /// SPI of the initiator, hexadecimal.
    pub spi_i: String,
    /// SPI of the responder, hexadecimal.
    pub spi_r: String,
    /// SEPARATE_TRANSPORTS is agreed.
    pub separate_transports: bool,
    /// A post-quantum preshared key is in its keys.
    pub ppk: bool,
    /// How its ESP is verified.
    pub esp: EspStatus,
    /// Every negotiated algorithm.
    pub algorithms: String,
    /// When it was authenticated.
    pub established_at: String,
    /// When it is rekeyed next.
    pub next_rekey_at: String,
    /// What setting it up took.
    pub handshake: Option<Handshake>,
    /// Its Child SAs.
    pub children: Vec<ChildStatus>,
}

/// How ESP of an IKE SA is verified.
#[derive(Clone, Debug, Deserialize)]
pub struct EspStatus {
    /// Both ends answer ESP echo.
    pub echo: bool,
    /// The longest that a verification takes, seconds.
    pub budget_seconds: f64,
    /// The longest from the first packet without an answer to a decision, seconds.
    pub decision_within_seconds: f64,
    /// The last verification.
    pub last_verification: Option<VerificationStatus>,
    /// When ESP in TCP tries to come back, seconds from now.
    pub next_return_in_seconds: Option<u64>,
}

/// A verification that is over.
#[derive(Clone, Debug, Deserialize)]
pub struct VerificationStatus {
    /// How long it took.
    pub seconds: f64,
    /// What it came to.
    pub verdict: String,
}

/// What setting up an IKE SA took.
#[derive(Clone, Debug, Deserialize)]
pub struct Handshake {
    /// From the first IKE_SA_INIT to authentication.
    pub seconds: f64,
    /// IKE octets over UDP.
    pub udp_bytes: SentReceived,
    /// IKE octets over TCP, framing included.
    pub tcp_bytes: SentReceived,
}

/// A count for each direction.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SentReceived {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// One Child SA pair.
#[derive(Clone, Debug, Deserialize)]
pub struct ChildStatus {
    /// Configured name.
    pub name: String,
    /// Inbound SPI, hexadecimal.
    pub spi_in: String,
    /// Outbound SPI, hexadecimal.
    pub spi_out: String,
    /// Negotiated algorithms.
    pub algorithms: String,
    /// Outbound traffic uses it.
    pub in_use: bool,
    /// Packets opened.
    pub packets_in: u64,
    /// Packets sealed.
    pub packets_out: u64,
    /// Octets opened.
    pub bytes_in: u64,
    /// Octets sealed.
    pub bytes_out: u64,
}

/// What the data plane counts.
#[derive(Clone, Debug, Deserialize)]
pub struct DataPlaneStatus {
    /// `xdp` or `tun`.
    pub mode: String,
    /// Every interface, with the path it takes and why.
    pub interfaces: Vec<InterfaceStatus>,
    /// The guard.
    pub guard: GuardStatus,
    /// How full the SA table is.
    pub sa_table: SaTableStatus,
    /// Every worker.
    pub workers: Vec<WorkerStatus>,
    /// XDP verdicts by interface.
    pub xdp: BTreeMap<String, BTreeMap<String, u64>>,
    /// Drops by reason, kernel-side ones included.
    pub drops: BTreeMap<String, u64>,
    /// The sums that have to agree.
    pub accounting: Accounting,
}

/// One interface.
#[derive(Clone, Debug, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `af_xdp_zero_copy`, `af_xdp_copy` or `tun`.
    pub path: String,
    /// Why that path.
    pub reason: String,
}

/// How full the SA table is.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SaTableStatus {
    /// Slots of each direction.
    pub slots: u32,
    /// Inbound slots in use.
    pub inbound: u32,
}

/// The guard.
#[derive(Clone, Debug, Deserialize)]
pub struct GuardStatus {
    /// Every policy of it is in the kernel.
    pub installed: bool,
}

/// One worker's ESP packets.
#[derive(Clone, Debug, Deserialize)]
pub struct WorkerStatus {
    /// Received, by path.
    pub esp_in: ByPath,
    /// Sent, by path.
    pub esp_out: ByPath,
    /// All packets received, by source.
    pub received: BTreeMap<String, u64>,
    /// Packets passed to the worker that owns their SA.
    pub handed_over: u64,
}

/// Packets by the path they took.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ByPath {
    /// AF_XDP sockets.
    pub af_xdp: u64,
    /// UDP and raw sockets.
    pub socket: u64,
}

/// Packets that came in and what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Accounting {
    /// Taken in, on every path.
    pub received: u64,
    /// Sent out, on every path.
    pub sent: u64,
    /// Dropped, for every reason.
    pub dropped: u64,
    /// Waiting for a carrier.
    pub held: u64,
}

impl Accounting {
    /// Every packet that came in went out or has a reason, and none waits.
    pub fn is_balanced(self) -> bool {
        self.received == self.sent + self.dropped && self.held == 0
    }
}

impl Status {
    /// The connection of this name.
    pub fn connection(&self, name: &str) -> Option<&ConnectionStatus> {
        self.connections.iter().find(|c| c.name == name)
    }

    /// Nothing is without a trace, between XDP and the workers or in the workers.
    pub fn is_balanced(&self) -> bool {
        let (redirected, taken) = self.af_xdp();
        self.data_plane.accounting.is_balanced() && redirected == taken
    }

    /// Packets that XDP redirected to AF_XDP sockets, and those that workers took from them or that the kernel counted as
    /// dropped before.
    pub fn af_xdp(&self) -> (u64, u64) {
        let redirected = self.data_plane.xdp.values().filter_map(|verdicts| verdicts.get("redirected")).sum();
        let from_rings = |worker: &WorkerStatus| {
            ["af_xdp_wan", "af_xdp_lan"].iter().filter_map(|source| worker.received.get(*source)).sum::<u64>()
        };
        (redirected, self.data_plane.workers.iter().map(from_rings).sum())
    }

    /// ESP packets of all workers: in over AF_XDP and sockets, out over AF_XDP and sockets.
    pub fn esp_by_path(&self) -> (ByPath, ByPath) {
        let sum = |of: fn(&WorkerStatus) -> ByPath| {
            self.data_plane.workers.iter().map(of).fold(ByPath::default(), |a, b| ByPath {
                af_xdp: a.af_xdp + b.af_xdp,
                socket: a.socket + b.socket,
            })
        };
        (sum(|w| w.esp_in), sum(|w| w.esp_out))
    }
}

impl ConnectionStatus {
    /// A child is in use: traffic passes.
    pub fn is_up(&self) -> bool {
        self.ike_sas.iter().any(|sa| sa.children.iter().any(|child| child.in_use))
    }
}
