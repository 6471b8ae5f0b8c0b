//! What can go wrong in an exchange, by whose fault it is, and the one way from there to a Notify or to silence (RFC 7296
//! section 2.21).

use portcullis_pki::Refusal;

use crate::codec::{NotifyType, PayloadType};
use crate::crypto::{KeError, KeMethod};
use crate::status::Reason;

/// Why an exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExchangeError {
    /// Unparseable: the payloads are not what they claim to be.
    Malformed,
    /// Unparseable: a critical payload that we do not know.
    UnsupportedCritical(PayloadType),
    /// The peer misbehaved: a payload that the exchange needs is missing or comes twice.
    Payloads(&'static str),
    /// The peer misbehaved: its Key Exchange Data is invalid.
    KeyExchange,
    /// The peer misbehaved: it chose what was not offered.
    NotOffered,
    /// The peer is not who it has to be.
    Authentication,
    /// The peer is incompatible: no PPK in common, where one end insists on it.
    Ppk,
    /// The peer is not who it has to be: its certificate.
    Certificate(Refusal),
    /// The peer proves its identity by another method than the configuration asks for.
    AuthMethod,
    /// The peer signs by an algorithm that is not accepted.
    SignatureAlgorithm,
    /// The peer is incompatible: it verifies no signature that our key can make.
    NoSignatureHash,
    /// The peer is incompatible: no proposal in common.
    NoProposal,
    /// The peer is incompatible: it wants this key exchange method, or we do.
    WrongKeMethod(KeMethod),
    /// The peer is incompatible: no traffic selectors in common.
    Selectors,
    /// The peer answered with this error.
    Peer(NotifyType),
    /// The policy forbids it.
    Policy(Reason),
    /// A collision that will pass (RFC 7296 section 2.25).
    Collision,
    /// The Child SA that the peer names does not exist.
    NoSuchChild,
    /// The key exchange that the peer continues does not exist (RFC 9370 section 2.2.4).
    NoSuchKeyExchange,
    /// The peer sends us to a gateway that we do not go to.
    Redirect,
    /// No room for another SA here.
    Full,
    /// No room for another Child SA with these selectors (RFC 9611).
    MaxQueue,
    /// The provider failed.
    Provider,
}

impl ExchangeError {
    /// The notification for the peer; `None` is silence.
    pub(crate) fn notify(self) -> Option<NotifyType> {
        Some(match self {
            Self::Malformed | Self::Payloads(_) | Self::KeyExchange | Self::NotOffered => {
                NotifyType::INVALID_SYNTAX
            }
            Self::UnsupportedCritical(_) => NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            Self::Authentication
            | Self::Ppk
            | Self::Certificate(_)
            | Self::AuthMethod
            | Self::SignatureAlgorithm
            | Self::NoSignatureHash => NotifyType::AUTHENTICATION_FAILED,
            Self::NoProposal | Self::Policy(_) => NotifyType::NO_PROPOSAL_CHOSEN,
            Self::WrongKeMethod(_) => NotifyType::INVALID_KE_PAYLOAD,
            Self::Selectors => NotifyType::TS_UNACCEPTABLE,
            Self::Collision => NotifyType::TEMPORARY_FAILURE,
            Self::NoSuchChild => NotifyType::CHILD_SA_NOT_FOUND,
            Self::NoSuchKeyExchange => NotifyType::STATE_NOT_FOUND,
            Self::Full => NotifyType::NO_ADDITIONAL_SAS,
            Self::MaxQueue => NotifyType::TS_MAX_QUEUE,
            Self::Provider => NotifyType::TEMPORARY_FAILURE,
            Self::Peer(_) | Self::Redirect => return None,
        })
    }

    /// The IKE SA cannot go on after it: INVALID_SYNTAX is fatal on both sides (RFC 7296 section 2.21.3).
    pub(crate) fn is_fatal(self) -> bool {
        self.notify() == Some(NotifyType::INVALID_SYNTAX)
    }

    /// A response that lacks what we require. Anybody may have sent it (RFC 8784 section 6).
    pub(crate) fn is_want_of_something(self) -> bool {
        matches!(self, Self::Ppk | Self::Policy(Reason::PeerNoTranscriptAuth | Reason::PeerNoChildless))
    }

    /// The reason for status and metrics.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Authentication | Self::Peer(NotifyType::AUTHENTICATION_FAILED) => {
                Reason::AuthenticationFailed
            }
            Self::Ppk => Reason::PeerNoPpk,
            Self::Certificate(refusal) => refusal.into(),
            Self::AuthMethod => Reason::AuthMethod,
            Self::SignatureAlgorithm | Self::NoSignatureHash => Reason::SignatureAlgorithm,
            Self::NoProposal
            | Self::WrongKeMethod(_)
            | Self::Peer(NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD) => {
                Reason::NoProposalChosen
            }
            Self::Selectors | Self::Peer(NotifyType::TS_UNACCEPTABLE) => Reason::TsUnacceptable,
            Self::Policy(reason) => reason,
            Self::Redirect => Reason::RedirectRefused,
            Self::Full | Self::MaxQueue | Self::Provider | Self::Peer(NotifyType::NO_ADDITIONAL_SAS) => {
                Reason::LocalLimit
            }
            _ => Reason::ProtocolError,
        }
    }

    /// The word under which it is counted.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnsupportedCritical(_) => "unsupported_critical_payload",
            Self::Payloads(_) => "missing_or_repeated_payload",
            Self::KeyExchange => "invalid_key_exchange_data",
            Self::NotOffered => "answer_not_offered",
            Self::Authentication => "authentication_failed",
            Self::Ppk => "ppk_mismatch",
            Self::Certificate(refusal) => refusal.label(),
            Self::AuthMethod => "auth_method",
            Self::SignatureAlgorithm => "signature_algorithm",
            Self::NoSignatureHash => "no_signature_hash",
            Self::NoProposal => "no_proposal_chosen",
            Self::WrongKeMethod(_) => "invalid_ke_payload",
            Self::Selectors => "ts_unacceptable",
            Self::Peer(_) => "error_from_peer",
            Self::Policy(_) => "refused_by_policy",
            Self::Collision => "temporary_failure",
            Self::NoSuchChild => "child_sa_not_found",
            Self::NoSuchKeyExchange => "state_not_found",
            Self::Redirect => "redirect_refused",
            Self::Full => "local_limit",
            Self::MaxQueue => "ts_max_queue",
            Self::Provider => "provider_failed",
        }
    }
}

impl core::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("the peer's payloads cannot be parsed"),
            Self::UnsupportedCritical(payload) => {
                write!(f, "the peer needs payload {payload}, which is not supported")
            }
            Self::Payloads(what) => write!(f, "the peer's message is wrong: {what}"),
            Self::KeyExchange => f.write_str("the peer's key exchange data is invalid"),
            Self::NotOffered => f.write_str("the peer chose what was not offered"),
            Self::Authentication => {
                f.write_str("the peer could not prove its identity: compare ids and secrets on both sides")
            }
            Self::Ppk => f.write_str(
                "no PPK in common, and one end requires it: compare `ppk` (id, required) on both sides",
            ),
            Self::Certificate(refusal) => write!(f, "the peer's certificate is refused: {refusal}"),
            Self::AuthMethod => f.write_str(
                "the peer proves its identity by another method: compare `auth` on both sides",
            ),
            Self::SignatureAlgorithm => f.write_str(
                "the peer signs by an algorithm that is not accepted: RSA needs 2048 bits, SHA-1 is refused",
            ),
            Self::NoSignatureHash => f.write_str(
                "the peer verifies no signature that our key can make: it needs RFC 7427 and a hash that fits the key",
            ),
            Self::NoProposal => f.write_str("no proposal in common: compare `proposals` on both sides"),
            Self::WrongKeMethod(method) => write!(f, "no agreement on the key exchange method ({method:?})"),
            Self::Selectors => f.write_str(
                "no traffic selectors in common: compare `local_ts` and `remote_ts` on both sides",
            ),
            Self::Peer(NotifyType::AUTHENTICATION_FAILED) => {
                f.write_str("the peer refused our identity or secret: compare ids and secrets on both sides")
            }
            Self::Peer(NotifyType::NO_PROPOSAL_CHOSEN) => {
                f.write_str("the peer answered NO_PROPOSAL_CHOSEN: compare `proposals` on both sides")
            }
            Self::Peer(NotifyType::TS_UNACCEPTABLE) => f.write_str(
                "the peer answered TS_UNACCEPTABLE: compare selectors (`local_ts`, `remote_ts`) on both sides",
            ),
            Self::Peer(NotifyType::NO_ADDITIONAL_SAS) => f.write_str(
                "the peer answered NO_ADDITIONAL_SAS: it has no room for another SA, its operator can make some",
            ),
            Self::Peer(notify) => write!(f, "the peer answered {notify}"),
            Self::Policy(Reason::PeerNoTranscriptAuth) => f.write_str(
                "the peer does not authenticate both IKE_SA_INIT messages: upgrade it, or set full_transcript_auth: prefer",
            ),
            Self::Policy(Reason::PeerNoChildless) => f.write_str(
                "the peer takes no IKE_AUTH without a Child SA (RFC 6023): enable that there, or set first_child: in-auth",
            ),
            Self::Policy(reason) => write!(f, "refused by policy: {reason}"),
            Self::Collision => f.write_str("collides with another exchange"),
            Self::NoSuchChild => f.write_str("the Child SA does not exist"),
            Self::NoSuchKeyExchange => f.write_str("the key exchange does not exist"),
            Self::Redirect => f.write_str(
                "the peer sends us to a gateway that `redirect.follow` does not allow, or too often",
            ),
            Self::Full => f.write_str(
                "no room for another SA: raise `data_plane.sa_slots` or `ike.max_children`, or close connections",
            ),
            Self::MaxQueue => f.write_str("no room for another Child SA with these selectors: `per_resource`"),
            Self::Provider => f.write_str("the crypto provider failed"),
        }
    }
}

impl From<KeError> for ExchangeError {
    fn from(error: KeError) -> Self {
        match error {
            KeError::Length | KeError::InvalidPublicValue => Self::KeyExchange,
            KeError::Unsupported => Self::NoProposal,
            KeError::Provider => Self::Provider,
        }
    }
}
