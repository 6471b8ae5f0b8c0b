//! What the operator configured, validated; the keys and their meaning are those of the YAML file.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_pki::{Certificate, DistinguishedName, Subject, Trust};

use crate::codec::{AddressRange, TrafficSelector};
pub use crate::crypto::signature::SigningKey;
use crate::path::DirectCarrier;
use crate::proposal::{EspProposal, IkeProposal, ike_sa_init_fits_udp};
use crate::shared::Shared;

mod secret;

pub use self::secret::Secret;

/// An IKE identity (RFC 7296 section 3.5).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// ID_FQDN.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Email(String),
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_DER_ASN1_DN.
    Name(DistinguishedName),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
}

impl Identity {
    /// What a certificate has to have for it (RFC 4945 section 3.1).
    pub fn subject(&self) -> Subject<'_> {
        match self {
            Self::Fqdn(name) => Subject::Fqdn(name),
            Self::Email(name) => Subject::Email(name),
            Self::Address(address) => Subject::Address(*address),
            Self::Name(name) => Subject::Name(name),
            Self::KeyId(_) => Subject::Other,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fqdn(name) | Self::Email(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::KeyId(octets) => octets.iter().try_for_each(|octet| write!(f, "{octet:02x}")),
        }
    }
}

/// How we prove who we are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalAuth {
    /// Shared key message integrity code (RFC 7296 section 2.15).
    Psk(Secret),
    /// A signature, and the certificate of its key (RFC 7427).
    Certificate(Arc<Credential>),
}

/// A post-quantum preshared key (RFC 8784), mixed into the keys of an IKE SA and its children.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ppk {
    /// The value of PPK_ID, of type PPK_ID_FIXED.
    pub id: Arc<[u8]>,
    /// The key itself.
    pub secret: Secret,
    /// No IKE SA without it (`mandatory_or_not`).
    pub required: bool,
    /// Offered and taken in IKE_INTERMEDIATE too (RFC 9867), where it protects the identities.
    pub intermediate: bool,
}

/// How the peer proves who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoteAuth {
    /// Shared key message integrity code (RFC 7296 section 2.15).
    Psk(Secret),
    /// A signature, and the certificate of its key, which leads to one of these authorities (RFC 7427, RFC 4945).
    Certificate(Arc<Trust>),
}

/// Our certificate and its key.
#[derive(Debug)]
pub struct Credential {
    /// Signs AUTH.
    pub key: SigningKey,
    /// The certificate of the key, then those of authorities between it and what the peer trusts.
    pub chain: Vec<Certificate>,
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.key.public() == other.key.public() && self.chain == other.chain
    }
}

impl Eq for Credential {}

/// Where a connection's IKE SA starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartTransport {
    /// UDP only; never offers SEPARATE_TRANSPORTS and never uses TCP.
    Udp,
    /// UDP, then TCP when the responder agrees to separate transports or UDP is silent.
    UdpThenTcp,
    /// TCP from the first message.
    Tcp,
}

/// What a connection makes of SEPARATE_TRANSPORTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeparateTransports {
    /// No SA without it.
    Require,
    /// Offered, and done without where the policy allows.
    Prefer,
    /// Not offered.
    Off,
}

/// What a connection makes of IKE_SA_INIT_FULL_TRANSCRIPT_AUTH (draft-ietf-ipsecme-ikev2-downgrade-prevention section 8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FullTranscriptAuth {
    /// No IKE SA with a peer that does not announce it.
    Require,
    /// Used where the peer announces it.
    Prefer,
    /// Not announced.
    Off,
}

/// Where the first Child SA of an IKE SA that we initiate is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstChild {
    /// In IKE_AUTH.
    InAuth,
    /// In CREATE_CHILD_SA, after an IKE_AUTH without one (RFC 6023).
    Childless,
    /// Like `Childless`, and after a rekey of the IKE SA in which the additional key exchanges take place. IKE_SA_INIT has none
    /// of them, in either role, so that nobody who is not authenticated makes us do or keep anything for them.
    AfterRekey,
}

/// What happens when no direct carrier passes ESP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnUnreachable {
    /// ESP stops; it is never put into TCP.
    FailClosed,
    /// ESP moves into TCP, and returns when a direct carrier passes again.
    TcpFallback,
}

/// When a child is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartMode {
    /// At start, and again whenever it is lost.
    Always,
    /// When a packet needs it.
    OnTraffic,
    /// By `up`, or by the peer.
    None,
}

/// The `ike:` section of a connection.
#[derive(Clone, Debug)]
pub struct IkePolicy {
    /// Where to start.
    pub transport: StartTransport,
    /// What to make of SEPARATE_TRANSPORTS.
    pub separate_transports: SeparateTransports,
    /// Proposals, best first.
    pub proposals: Vec<IkeProposal>,
    /// Believe unassigned code points without the peer's vendor ID (transport policy rule 6).
    pub assume_code_points: bool,
    /// Both IKE_SA_INIT messages authenticated by both ends. Default `Prefer`.
    pub full_transcript_auth: FullTranscriptAuth,
    /// Where the first Child SA is made. Default `InAuth`.
    pub first_child: FirstChild,
    /// IKE SA is rekeyed this long after it was made, less up to `rekey_jitter_percent`. Default 4 h.
    pub rekey_after: Duration,
    /// The peers authenticate each other again after this time, on another IKE SA that is there before the old one goes: less
    /// up to `rekey_jitter_percent` as initiator; asked for by AUTH_LIFETIME as responder (RFC 4478). Default never.
    pub reauth_after: Option<Duration>,
    /// Hard lifetime of an IKE SA. Default 6 h.
    pub lifetime: Duration,
    /// Jitter of rekey times in percent of the time. Default 10.
    pub rekey_jitter_percent: u8,
    /// Liveness check after this much silence (RFC 7296 section 2.4). Default 30 s.
    pub liveness_after: Duration,
    /// No answer for this long deletes the SA. Default 150 s.
    pub dead_after: Duration,
    /// First retransmission over UDP after this time, doubling. Default 1 s.
    pub retransmit_after: Duration,
    /// Give an exchange up after this many retransmissions over UDP. Default 5.
    pub retransmissions: u8,
    /// A TCP dial or a silent stream during set-up is given up after this time. Default 10 s.
    pub tcp_timeout: Duration,
    /// Largest IP packet with an IKE fragment in it, octets (RFC 7383 section 2.5.1). Default 1280.
    pub fragment_size: u16,
    /// Shortest wait before `start: always` tries again. Default 5 s.
    pub retry_min: Duration,
    /// Longest wait before `start: always` tries again. Default 60 s.
    pub retry_max: Duration,
}

/// Why parts of a configuration cannot work together (transport policy, "Configuration").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contradiction {
    /// `separate_transports: off` with `transport: tcp` and fail-closed.
    OffOnTcpFailsClosed,
    /// `separate_transports: require` with `transport: udp`.
    RequireOnUdp,
    /// tcp-fallback with `transport: udp`.
    FallbackOnUdp,
    /// `transport: udp` with a key exchange that does not fit.
    DoesNotFitUdp,
    /// `first_child: after-rekey` without additional key exchanges.
    NothingAfterRekey,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OffOnTcpFailsClosed => {
                "off with transport: tcp and fail-closed cannot pass traffic: without separate transports ESP belongs in TCP (RFC 9329), and fail-closed forbids that; use prefer or require, or tcp-fallback"
            }
            Self::RequireOnUdp => {
                "require with transport: udp cannot work: separate transports mean IKE on TCP; use udp-then-tcp or tcp"
            }
            Self::FallbackOnUdp => {
                "tcp-fallback with transport: udp cannot work: no TCP stream is ever opened; use udp-then-tcp or tcp, or fail-closed"
            }
            Self::NothingAfterRekey => {
                "after-rekey moves additional key exchanges behind authentication, and these proposals have none; add some (ke1_mlkem768), or use childless"
            }
            Self::DoesNotFitUdp => {
                "transport: udp with a key exchange that does not fit: IKE_SA_INIT exceeds 1280 octets of IP and cannot be fragmented (RFC 7383 section 2.5); use udp-then-tcp or tcp, or put a smaller key exchange first"
            }
        })
    }
}

impl IkePolicy {
    /// The proposals of IKE_SA_INIT.
    pub fn proposals_of_set_up(&self) -> Cow<'_, [IkeProposal]> {
        match self.first_child {
            FirstChild::InAuth | FirstChild::Childless => Cow::Borrowed(&self.proposals),
            FirstChild::AfterRekey => {
                self.proposals.iter().map(IkeProposal::without_additional_key_exchanges).collect()
            }
        }
    }

    /// Why this cannot work with that ESP policy, if it cannot.
    pub fn contradictions(&self, on_unreachable: OnUnreachable) -> impl Iterator<Item = Contradiction> {
        let on_udp = self.transport == StartTransport::Udp;
        let off_on_tcp = self.transport == StartTransport::Tcp
            && self.separate_transports == SeparateTransports::Off
            && on_unreachable == OnUnreachable::FailClosed;
        let defers_nothing = self.first_child == FirstChild::AfterRekey
            && !self.proposals.iter().all(IkeProposal::has_additional_key_exchanges);
        let fits = self.proposals.is_empty() || ike_sa_init_fits_udp(&self.proposals);
        [
            (off_on_tcp, Contradiction::OffOnTcpFailsClosed),
            (on_udp && self.separate_transports == SeparateTransports::Require, Contradiction::RequireOnUdp),
            (on_udp && on_unreachable == OnUnreachable::TcpFallback, Contradiction::FallbackOnUdp),
            (on_udp && !fits, Contradiction::DoesNotFitUdp),
            (defers_nothing, Contradiction::NothingAfterRekey),
        ]
        .into_iter()
        .filter_map(|(is_there, contradiction)| is_there.then_some(contradiction))
    }
}

/// The `esp:` section of a connection.
#[derive(Clone, Debug)]
pub struct EspPolicy {
    /// Direct carriers that are allowed, best first.
    pub transports: Vec<DirectCarrier>,
    /// What happens when none passes.
    pub on_unreachable: OnUnreachable,
    /// How direct carriers are verified by ESP echo.
    pub probe: ProbePolicy,
    /// At most one fall, to TCP or to `blocked`, within this time (transport policy rule 5). Default 60 s.
    pub hold_time: Duration,
    /// What silence means without ESP echo (transport policy rule 1).
    pub unverified_timeout: UnverifiedTimeout,
    /// Idle time after which an end behind NAT sends a keepalive. Default 20 s.
    pub keepalive: Duration,
    /// Falling back to TCP and coming back.
    pub fallback: FallbackTimers,
}

/// The `esp.fallback:` section of a connection (transport policy rules 7, 8 and 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FallbackTimers {
    /// The answer to the DELETE before a new IKE SA is waited for no longer. Default 1 s.
    pub delete_wait: Duration,
    /// A peer that refused ESP in TCP is not asked again within this time. Default 15 min.
    pub refused_for: Duration,
    /// Direct carriers are tried again this long after a fall, then after waits that double. Default 30 s.
    pub trial_first: Duration,
    /// The longest such wait. Default 15 min.
    pub trial_longest: Duration,
    /// After a relapse the first trial waits this long, and twice as long after each further relapse. Default 1 min.
    pub hold_down: Duration,
    /// The longest such wait. Default 1 h.
    pub hold_down_longest: Duration,
    /// A fall within this time after a return is a relapse. Default 10 min.
    pub relapse_within: Duration,
}

impl FallbackTimers {
    /// The times of the transport policy.
    pub const DEFAULT: Self = Self {
        delete_wait: Duration::from_secs(1),
        refused_for: Duration::from_secs(15 * 60),
        trial_first: Duration::from_secs(30),
        trial_longest: Duration::from_secs(15 * 60),
        hold_down: Duration::from_secs(60),
        hold_down_longest: Duration::from_secs(3600),
        relapse_within: Duration::from_secs(600),
    };
}

impl Default for FallbackTimers {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The `probe:` section: how direct carriers are verified by ESP echo (transport policy rules 3 and 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbePolicy {
    /// An echo request is unanswered after this time, and the next one leaves. Default 1 s.
    pub timeout: Duration,
    /// Requests on each carrier before it counts as unanswered. Default 3.
    pub attempts: u8,
    /// The second carrier is probed this much later than the first. Default 250 ms.
    pub stagger: Duration,
    /// An echo leaves when nothing authentic has come for this long. Default 10 s.
    pub idle_interval: Duration,
}

/// How long outbound traffic may go without any inbound while IKE answers, where there is no ESP echo, before the carrier
/// counts as dead (transport policy rule 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnverifiedTimeout {
    /// 30 s; never after a start on UDP without SEPARATE_TRANSPORTS (row 5). The default.
    ByRow,
    /// This long, on every row.
    After(Duration),
    /// Silence means nothing: a local choice that can leave ESP in a hole for good.
    Never,
}

/// One entry of `children:`.
#[derive(Clone, Debug)]
pub struct ChildConfig {
    /// Its name, unique within the connection.
    pub name: Arc<str>,
    /// Our side's selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side's selectors.
    pub remote_ts: Vec<TrafficSelector>,
    /// When it is set up.
    pub start: StartMode,
    /// Proposals, best first; those with key exchange methods ask for PFS.
    pub proposals: Vec<EspProposal>,
    /// Rekeyed this long after it was made, less jitter. Default 1 h.
    pub rekey_after: Duration,
    /// Hard lifetime. Default 1 h 15 min.
    pub lifetime: Duration,
    /// How long an old inbound SA is kept after its deletion, for packets under way. Default 5 s.
    pub linger: Duration,
    /// So many Child SAs with the same selectors, each for a resource of its own such as a processor, if the peer takes part (RFC
    /// 9611). Default 1.
    pub per_resource: u8,
    /// Of those, this one: 0 is the one that is configured, and there always; [`ChildConfig::resources`] makes the others.
    pub resource: u8,
}

impl ChildConfig {
    /// The child itself, and one for each further resource, named after it.
    pub fn resources(&self) -> impl Iterator<Item = Self> + '_ {
        (0..self.per_resource.max(1)).map(|resource| {
            let name = if resource == 0 {
                self.name.clone()
            } else {
                format!("{}{RESOURCE}{resource}", self.name).into()
            };
            Self { name, resource, ..self.clone() }
        })
    }
}

/// Stands between the name of a child and the number of its resource. No configured name has it.
const RESOURCE: char = '#';

/// The name that is configured, of a child that [`ChildConfig::resources`] has named.
pub fn configured_name(name: &str) -> &str {
    name.split_once(RESOURCE).map_or(name, |(configured, _)| configured)
}

/// The peer's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoteAddress {
    /// Any; we are the responder only.
    Any,
    /// This one.
    Ip(IpAddr),
}

/// The `redirect:` section of a connection (RFC 5685). Without it nothing is followed and nobody is sent anywhere.
#[derive(Clone, Debug)]
pub struct RedirectPolicy {
    /// As initiator: gateways that a responder may send us to. Empty: REDIRECT_SUPPORTED is not sent.
    pub follow: Vec<AddressRange>,
    /// At most so many redirects are followed within `within` (MAX_REDIRECTS). Default 5.
    pub most: u8,
    /// REDIRECT_LOOP_DETECT_PERIOD. Default 5 min.
    pub within: Duration,
    /// As responder: where initiators are sent that know REDIRECT.
    pub to: Option<IpAddr>,
    /// When they are.
    pub when: RedirectWhen,
    /// Who was sent away on an established IKE SA is disconnected after this time. Default 30 s.
    pub grace: Duration,
}

/// When a responder sends initiators to another gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedirectWhen {
    /// In IKE_SA_INIT, if every connection for the initiator's address says so: the identity is not known yet.
    Init,
    /// In IKE_AUTH, when the initiator is authenticated.
    Auth,
}

impl Default for RedirectPolicy {
    fn default() -> Self {
        Self {
            follow: Vec::new(),
            most: 5,
            within: Duration::from_secs(300),
            to: None,
            when: RedirectWhen::Init,
            grace: Duration::from_secs(30),
        }
    }
}

/// One configured connection.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Its name, unique.
    pub name: Arc<str>,
    /// Our address, or the one that routes to the peer.
    pub local_address: Option<IpAddr>,
    /// Who we are.
    pub local_id: Identity,
    /// How we prove it.
    pub local_auth: LocalAuth,
    /// Where the peer is.
    pub remote_address: RemoteAddress,
    /// Who the peer has to be.
    pub remote_id: Identity,
    /// How it proves it.
    pub remote_auth: RemoteAuth,
    /// The PPK for this peer.
    pub ppk: Option<Ppk>,
    /// The `redirect:` section.
    pub redirect: Shared<RedirectPolicy>,
    /// The `ike:` section.
    pub ike: Shared<IkePolicy>,
    /// The `esp:` section.
    pub esp: Shared<EspPolicy>,
    /// The `children:` section.
    pub children: Vec<ChildConfig>,
}

impl ConnectionConfig {
    /// One of the two sides signs, so that SIGNATURE_HASH_ALGORITHMS has to go both ways (RFC 7427 section 3).
    pub(crate) fn has_signatures(&self) -> bool {
        matches!(self.local_auth, LocalAuth::Certificate(_)) || self.expects_certificates()
    }

    /// The peer sends certificates.
    pub(crate) fn expects_certificates(&self) -> bool {
        matches!(self.remote_auth, RemoteAuth::Certificate(_))
    }
}

/// What all connections of an endpoint share: limits and code points.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Carried in the top bits of our IKE SPIs, so that a packet finds its shard.
    pub shard: u8,
    /// Port of IKE with the non-ESP marker, UDP and TCP. Always 4500 but in tests.
    pub nat_port: u16,
    /// Notify type of SEPARATE_TRANSPORTS while it is unassigned.
    pub separate_transports_notify: u16,
    /// Notify type of ESP_ECHO_SUPPORTED while it is unassigned.
    pub esp_echo_notify: u16,
    /// TCP 4500 is listened on: S may be echoed (transport policy rule 9).
    pub tcp_listens: bool,
    /// Half-open SAs above which COOKIE is asked for over UDP (RFC 7296 section 2.6). Default 64.
    pub cookie_threshold: usize,
    /// Half-open SAs of strangers from which on a puzzle has to be solved as well, over UDP and TCP (RFC 8019). Default 1024.
    pub puzzle_threshold: usize,
    /// Zero bits of such a puzzle at that threshold; up to 4 more as the places fill up (RFC 8019 section 7.1.1.1). One more
    /// bit doubles the work. Default 16.
    pub puzzle_difficulty: u8,
    /// The hardest puzzle that we solve as initiator. Default 22.
    pub max_puzzle_difficulty: u8,
    /// The longest we search for a solution as initiator. Default 5 s.
    pub puzzle_time: Duration,
    /// Most half-open SAs of strangers. Default 4096.
    pub max_half_open: usize,
    /// Most half-open SAs from one source prefix (IPv4 /24, IPv6 /64 and /48). Default 64.
    pub max_half_open_per_prefix: usize,
    /// Most half-open SAs from the address of a configured peer, for each connection that names it: places of its own, which
    /// no flood takes. Default 16.
    pub max_half_open_per_peer: usize,
    /// Most streams of strangers (no authenticated IKE SA). Default 1024.
    pub max_stranger_streams: usize,
    /// Most streams of strangers from one source prefix. Default 64.
    pub max_stranger_streams_per_prefix: usize,
    /// Most streams without an authenticated IKE SA from the address of a configured peer, for each connection that names it.
    /// Default 16.
    pub max_streams_per_peer: usize,
    /// Half-open SAs are dropped after this time. Default 30 s.
    pub half_open_timeout: Duration,
    /// Most octets a half-open SA may make us keep. Default 16 KiB.
    pub max_half_open_bytes: usize,
    /// The same for one whose peer has to send certificates: four of ML-DSA-87 and a signature take 35 KiB. Default 40 KiB.
    pub max_certificate_bytes: usize,
    /// Most octets that all half-open SAs of strangers together may make us keep. Default 64 MiB.
    pub max_stranger_bytes: usize,
    /// Most Child SA pairs of one IKE SA; above, NO_ADDITIONAL_SAS (RFC 7296 section 1.3). Default 256.
    pub max_children: usize,
    /// Most IKE SAs per second that are set up anew after a loss, a fall or for a trial, over all connections (transport
    /// policy rule 5). Default 50.
    pub reestablish_per_second: u32,
    /// Report keys in events for a key log. Default false.
    pub key_log: bool,
    /// Why this host cannot hold the guard: every connection is refused, under either policy (transport policy, "Shut
    /// means shut"). Default `None`: it can.
    pub guard_missing: Option<Arc<str>>,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            shard: 0,
            nat_port: 4500,
            separate_transports_notify: 42241,
            esp_echo_notify: 42242,
            tcp_listens: true,
            cookie_threshold: 64,
            puzzle_threshold: 1024,
            puzzle_difficulty: 16,
            max_puzzle_difficulty: 22,
            puzzle_time: Duration::from_secs(5),
            max_half_open: 4096,
            max_half_open_per_prefix: 64,
            max_half_open_per_peer: 16,
            max_stranger_streams: 1024,
            max_stranger_streams_per_prefix: 64,
            max_streams_per_peer: 16,
            half_open_timeout: Duration::from_secs(30),
            max_half_open_bytes: 16 * 1024,
            max_certificate_bytes: 40 * 1024,
            max_stranger_bytes: 64 * 1024 * 1024,
            max_children: 256,
            reestablish_per_second: 50,
            key_log: false,
            guard_missing: None,
        }
    }
}

impl Default for IkePolicy {
    fn default() -> Self {
        Self {
            transport: StartTransport::UdpThenTcp,
            separate_transports: SeparateTransports::Prefer,
            proposals: Vec::new(),
            assume_code_points: false,
            full_transcript_auth: FullTranscriptAuth::Prefer,
            first_child: FirstChild::InAuth,
            rekey_after: Duration::from_secs(4 * 3600),
            reauth_after: None,
            lifetime: Duration::from_secs(6 * 3600),
            rekey_jitter_percent: 10,
            liveness_after: Duration::from_secs(30),
            dead_after: Duration::from_secs(150),
            retransmit_after: Duration::from_secs(1),
            retransmissions: 5,
            tcp_timeout: Duration::from_secs(10),
            fragment_size: 1280,
            retry_min: Duration::from_secs(5),
            retry_max: Duration::from_secs(60),
        }
    }
}

impl Default for EspPolicy {
    fn default() -> Self {
        Self {
            transports: vec![DirectCarrier::Ip, DirectCarrier::Udp],
            on_unreachable: OnUnreachable::FailClosed,
            probe: ProbePolicy::default(),
            hold_time: Duration::from_secs(60),
            unverified_timeout: UnverifiedTimeout::ByRow,
            keepalive: Duration::from_secs(20),
            fallback: FallbackTimers::default(),
        }
    }
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            attempts: 3,
            stagger: Duration::from_millis(250),
            idle_interval: Duration::from_secs(10),
        }
    }
}
