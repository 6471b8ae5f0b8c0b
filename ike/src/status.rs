//! What an endpoint can say about its connections, for `status`, the API and the metrics.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_pki::Refusal;

use crate::action::{ChildId, EspCipher, IkeSaId};
use crate::codec::TrafficSelector;
use crate::path::{EspPath, EspTransport, IkeTransport};
use crate::time::Time;

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for status, API, metrics and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

labelled! {
    /// State of a connection: how ESP travels now (transport policy, below the table).
    State {
        /// No SA and none wanted now.
        Idle => "idle",
        /// An IKE SA is being set up.
        Connecting => "connecting",
        /// Direct carriers are being proven by echo.
        Probing => "probing",
        /// ESP leaves on a direct carrier that nothing has proven yet.
        Unverified => "unverified",
        /// ESP travels over IP protocol 50.
        DirectIp => "direct_ip",
        /// ESP travels over UDP.
        DirectUdp => "direct_udp",
        /// ESP is silent and the cause is being found out.
        Suspect => "suspect",
        /// ESP travels in TCP.
        Tcp => "tcp",
        /// ESP travels in TCP and a direct carrier is being tried on a trial SA.
        Trial => "trial",
        /// ESP is stopped by policy.
        Blocked => "blocked",
        /// The peer answers neither IKE nor ESP.
        PeerDead => "peer_dead",
        /// The cause is here: no route, link down.
        LocalDown => "local_down",
    }
}

labelled! {
    /// Why a connection is in its state.
    Reason {
        /// Nothing more to say.
        None => "none",
        /// A NAT was found on the path.
        Nat => "nat",
        /// An address of ours or the peer's has changed: nothing is known of NATs on the new path, so ESP is in UDP.
        AddressChanged => "address_changed",
        /// IP was not answered, UDP was.
        IpUnanswered => "ip_unanswered",
        /// The peer did not agree to SEPARATE_TRANSPORTS.
        PeerNoSeparate => "peer_no_separate",
        /// SEPARATE_TRANSPORTS is off by configuration.
        SeparateOff => "separate_off",
        /// TCP 4500 was refused or silent.
        IkeTcpUnreachable => "ike_tcp_unreachable",
        /// UDP was silent.
        IkeUdpUnreachable => "ike_udp_unreachable",
        /// Neither UDP nor TCP reached the peer.
        IkeUnreachable => "ike_unreachable",
        /// No direct carrier passes ESP.
        EspUnreachable => "esp_unreachable",
        /// IKE came on a transport that the connection does not allow.
        TransportNotAllowed => "transport_not_allowed",
        /// The carrier needed is not in `esp.transports`.
        CarrierNotAllowed => "carrier_not_allowed",
        /// No inbound ESP within `unverified_timeout` while IKE answers.
        UnverifiedTimeout => "unverified_timeout",
        /// No proposal in common.
        NoProposalChosen => "no_proposal_chosen",
        /// No traffic selectors in common.
        TsUnacceptable => "ts_unacceptable",
        /// Authentication failed.
        AuthenticationFailed => "authentication_failed",
        /// The peer does not authenticate both IKE_SA_INIT messages, and the connection requires it.
        PeerNoTranscriptAuth => "peer_no_transcript_auth",
        /// The peer takes no IKE SA without a child, and the connection asks for that (RFC 6023).
        PeerNoChildless => "peer_no_childless",
        /// The peer has no PPK, or another one, and one end requires it (RFC 8784).
        PeerNoPpk => "peer_no_ppk",
        /// The peer proves its identity by another method than configured.
        AuthMethod => "auth_method",
        /// The peer signs by an algorithm that is not accepted, or verifies none that our key can do.
        SignatureAlgorithm => "signature_algorithm",
        /// The peer sent no certificate.
        CertificateMissing => "certificate_missing",
        /// The peer sent more certificates than a chain may have.
        CertificateChainTooLong => "certificate_chain_too_long",
        /// The peer sent its certificate in a form that is not accepted.
        CertificateEncoding => "certificate_encoding",
        /// The peer's certificate cannot be parsed.
        CertificateMalformed => "certificate_malformed",
        /// The peer's certificate leads to no configured authority.
        CertificateUnknownCa => "certificate_unknown_ca",
        /// The peer's certificate, or one above it, has expired.
        CertificateExpired => "certificate_expired",
        /// The peer's certificate, or one above it, is not valid yet.
        CertificateNotYetValid => "certificate_not_yet_valid",
        /// The peer's certificate, or one above it, is revoked.
        CertificateRevoked => "certificate_revoked",
        /// No configured revocation list is of the issuer of the peer's certificate.
        CertificateRevocationUnknown => "certificate_revocation_unknown",
        /// The revocation list of the issuer of the peer's certificate is out of date.
        CertificateCrlExpired => "certificate_crl_expired",
        /// The peer's certificate is for another use.
        CertificateUsage => "certificate_usage",
        /// The peer's certificate has a critical extension that is not known.
        CertificateCriticalExtension => "certificate_critical_extension",
        /// An issuer of the peer's certificate may not issue it.
        CertificateConstraint => "certificate_constraint",
        /// The peer's certificate has a key or a signature that is not accepted.
        CertificateAlgorithm => "certificate_algorithm",
        /// The peer's certificate is somebody else's.
        CertificateIdentity => "certificate_identity",
        /// The peer refused ESP in TCP.
        PeerRefusedTcp => "peer_refused_tcp",
        /// The peer deleted the SA.
        PeerDeleted => "peer_deleted",
        /// The operator took it down.
        OperatorDown => "operator_down",
        /// The peer broke the protocol.
        ProtocolError => "protocol_error",
        /// The peer asks for the solution of a puzzle that is harder than we solve (RFC 8019).
        PuzzleTooHard => "puzzle_too_hard",
        /// A local table or limit is full.
        LocalLimit => "local_limit",
        /// The peer stopped answering.
        PeerSilent => "peer_silent",
        /// No route to the peer, or no local address.
        NoRoute => "no_route",
        /// The guard cannot be installed.
        GuardMissing => "guard_missing",
        /// The peer was sent to another gateway, or has sent us to one (RFC 5685).
        Redirected => "redirected",
        /// The peer sent us to a gateway that is not allowed, or too often.
        RedirectRefused => "redirect_refused",
        /// The peers had to authenticate each other again (RFC 4478).
        Reauthentication => "reauthentication",
        /// Traffic came back to a direct carrier.
        Returned => "returned",
        /// A trial did not verify.
        TrialFailed => "trial_failed",
    }
}

impl Reason {
    /// It is about who the peer is, or we are.
    pub fn is_about_identity(self) -> bool {
        matches!(self, Self::AuthenticationFailed | Self::AuthMethod | Self::SignatureAlgorithm)
            || Refusal::ALL.iter().any(|refusal| Self::from(*refusal) == self)
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::CertificateMissing,
            Refusal::TooMany => Self::CertificateChainTooLong,
            Refusal::Encoding => Self::CertificateEncoding,
            Refusal::Malformed => Self::CertificateMalformed,
            Refusal::UnknownAuthority => Self::CertificateUnknownCa,
            Refusal::Expired => Self::CertificateExpired,
            Refusal::NotYetValid => Self::CertificateNotYetValid,
            Refusal::Revoked => Self::CertificateRevoked,
            Refusal::RevocationUnknown => Self::CertificateRevocationUnknown,
            Refusal::RevocationExpired => Self::CertificateCrlExpired,
            Refusal::Usage => Self::CertificateUsage,
            Refusal::CriticalExtension => Self::CertificateCriticalExtension,
            Refusal::Constraint => Self::CertificateConstraint,
            Refusal::Algorithm => Self::CertificateAlgorithm,
            Refusal::Subject => Self::CertificateIdentity,
        }
    }
}

labelled! {
    /// What proves the ESP carrier.
    Evidence {
        /// Nothing yet.
        None => "none",
        /// IKE passed on the same transport.
        Ike => "ike",
        /// Authenticated ESP came in.
        Inbound => "inbound",
        /// An ESP echo was answered.
        Echo => "echo",
    }
}

/// How ESP of a connection travels now, and why: the one answer that status, metrics, events and log give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) state: State,
    pub(crate) reason: Reason,
    pub(crate) evidence: Evidence,
    pub(crate) esp_transport: Option<EspTransport>,
}

impl Standing {
    /// Without an SA that carries ESP.
    pub(crate) const fn without_esp(state: State, reason: Reason) -> Self {
        Self { state, reason, evidence: Evidence::None, esp_transport: None }
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnectionStatus {
    /// Its name.
    pub name: Arc<str>,
    /// How ESP travels, or why not. With `address: any`, that of the newest peer.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// What proves it.
    pub evidence: Evidence,
    /// What carries its ESP, while ESP may leave.
    pub esp_transport: Option<EspTransport>,
    /// One sentence for the operator: cause and remedy of a failure, or empty.
    pub detail: String,
    /// When the next attempt is due, if one is planned.
    pub next_attempt: Option<Time>,
    /// Its IKE SAs.
    pub ike_sas: Vec<IkeSaStatus>,
}

/// What a verification came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// An echo came back on this carrier.
    Answered(EspTransport),
    /// None came back on any direct carrier while IKE answered.
    Unreachable,
    /// None came back that decides anything: IKE was silent too, ESP has fallen within the hold time, or only a carrier answered
    /// that is the peer's to choose.
    Undecided,
}

impl Verdict {
    /// The word for status, API, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered(EspTransport::Ip) => "ip_answered",
            Self::Answered(EspTransport::Udp) => "udp_answered",
            Self::Answered(EspTransport::Tcp) => "tcp_answered",
            Self::Unreachable => "unreachable",
            Self::Undecided => "undecided",
        }
    }
}

/// A verification of the carriers of ESP that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verification {
    /// When it was over.
    pub at: Time,
    /// How long it took.
    pub took: Duration,
    /// It was the first of its IKE SA.
    pub is_first: bool,
    /// What it came to.
    pub verdict: Verdict,
}

/// How ESP of an IKE SA is verified.
#[derive(Clone, Copy, Debug)]
pub struct EspStatus {
    /// Both ends have announced ESP echo.
    pub echo: bool,
    /// The longest that a verification takes: attempts × timeout + stagger + 1 RTT.
    pub budget: Duration,
    /// The longest that a decision in mid-life takes, from the first packet without an answer on.
    pub decision_within: Duration,
    /// The last verification.
    pub verification: Option<Verification>,
    /// Smoothed round trips of echoes.
    pub rtt: [(EspTransport, Option<Duration>); 3],
    /// When ESP in TCP next tries to come back.
    pub next_return: Option<Time>,
}

/// One IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSaStatus {
    /// Its name in this endpoint.
    pub id: IkeSaId,
    /// We are the original initiator.
    pub is_initiator: bool,
    /// SPIs, initiator's and responder's.
    pub spis: (u64, u64),
    /// What carries IKE.
    pub transport: IkeTransport,
    /// SEPARATE_TRANSPORTS is agreed.
    pub separate_transports: bool,
    /// Both IKE_SA_INIT messages were authenticated by both ends (IKE_SA_INIT_FULL_TRANSCRIPT_AUTH).
    pub full_transcript_auth: bool,
    /// A PPK is in its keys (RFC 8784).
    pub ppk: bool,
    /// The peer's address for IKE.
    pub remote: SocketAddr,
    /// The peer's authenticated identity.
    pub remote_id: String,
    /// A NAT was found in front of us, in front of the peer.
    pub nat: (bool, bool),
    /// How its ESP travels; none before the first child.
    pub esp_path: Option<EspPath>,
    /// How its ESP is verified.
    pub esp: EspStatus,
    /// Negotiated algorithms in proposal notation, with every key exchange.
    pub algorithms: String,
    /// When it was authenticated.
    pub established: Time,
    /// When the keys were last changed.
    pub rekeyed: Time,
    /// When the next rekey is due.
    pub next_rekey: Time,
    /// When another IKE SA has to take its place, by authentication anew or for another gateway.
    pub leaves: Option<Time>,
    /// Its children.
    pub children: Vec<ChildStatus>,
}

/// One Child SA pair.
#[derive(Clone, Debug)]
pub struct ChildStatus {
    /// The pair.
    pub id: ChildId,
    /// Configured name.
    pub name: Arc<str>,
    /// SPIs, inbound and outbound.
    pub spis: (u32, u32),
    /// Algorithm.
    pub cipher: EspCipher,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Algorithms in proposal notation.
    pub algorithms: String,
    /// Negotiated selectors, ours and the peer's.
    pub selectors: (Arc<[TrafficSelector]>, Arc<[TrafficSelector]>),
    /// Outbound traffic uses it.
    pub in_use: bool,
    /// When it was made.
    pub established: Time,
    /// When the next rekey is due.
    pub next_rekey: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_has_one_word_everywhere() {
        for refusal in Refusal::ALL {
            assert_eq!(Reason::from(*refusal).label(), refusal.label());
        }
    }
}
