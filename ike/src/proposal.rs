//! Proposals: what an operator writes, what goes into SA payloads, and what two sides agree on.
//!
//! [`IkeProposal`] and [`EspProposal`] are written and printed as strongSwan users write them
//! (`aes256gcm16-prfsha384-x25519-ke1_mlkem768`). A responder chooses with [`select_ike`] and [`select_esp`], an
//! initiator checks the answer with [`accept_ike`] and [`accept_esp`]; both get a suite, which has exactly one algorithm
//! of each type. Only algorithms that can be carried out have a keyword, so a suite is never one that cannot.
//!
//! All ciphers are AEAD: no integrity transform is offered, and only NONE accepted (RFC 7296 section 3.3).

mod answer;
mod keyword;
mod offer;
mod select;
mod size;
mod suite;
mod text;

use crate::codec::{KeMethod, PrfId, SnId, TransformType};

pub use answer::{AnswerError, accept_esp, accept_ike};
pub use offer::{offer_esp, offer_ike};
pub use select::{Selection, select_esp, select_ike};
pub use size::ike_sa_init_fits_udp;
pub use suite::{AdditionalKe, Encryption, EspSuite, IkeSuite};
pub use text::{Missing, ProposalError, ProposalKind};

/// Methods of the additional key exchanges 1 to 7 (RFC 9370), each list best first. An empty list is the same as one
/// that holds only NONE; a list with NONE and others makes that exchange optional.
pub type AdditionalKes = [Vec<KeMethod>; TransformType::ADDITIONAL_KEY_EXCHANGES];

/// Algorithms for an IKE SA. Every list is best first; one of each is to be agreed on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IkeProposal {
    /// Ciphers of the Encrypted payload.
    pub encr: Vec<Encryption>,
    /// Pseudorandom functions.
    pub prf: Vec<PrfId>,
    /// Key exchange methods of IKE_SA_INIT. The first is what an initiator sends a public value for.
    pub ke: Vec<KeMethod>,
    /// Key exchange methods of IKE_INTERMEDIATE.
    pub additional: AdditionalKes,
}

/// Algorithms for a Child SA. Every list is best first; one of each is to be agreed on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EspProposal {
    /// Ciphers of ESP.
    pub encr: Vec<Encryption>,
    /// Key exchange methods of CREATE_CHILD_SA, for perfect forward secrecy. Empty: none; with NONE: optional.
    pub ke: Vec<KeMethod>,
    /// Key exchange methods of IKE_FOLLOWUP_KE.
    pub additional: AdditionalKes,
    /// Sequence numbers.
    pub sn: Vec<SnId>,
}

impl IkeProposal {
    /// The proposal for IKE_SA_INIT where additional key exchanges come after authentication.
    pub fn without_additional_key_exchanges(&self) -> Self {
        Self { additional: AdditionalKes::default(), ..self.clone() }
    }

    /// Some additional key exchange is proposed, so IKE_SA_INIT needs INTERMEDIATE_EXCHANGE_SUPPORTED (RFC 9370 section
    /// 2.2.1).
    pub fn has_additional_key_exchanges(&self) -> bool {
        has_methods(&self.additional)
    }
}

impl EspProposal {
    /// The proposal for IKE_AUTH, where a Child SA has no key exchange of its own (RFC 7296 section 1.2).
    pub fn without_key_exchange(&self) -> Self {
        Self { ke: Vec::new(), additional: AdditionalKes::default(), ..self.clone() }
    }

    /// Some additional key exchange is proposed.
    pub fn has_additional_key_exchanges(&self) -> bool {
        has_methods(&self.additional)
    }
}

fn has_methods(additional: &AdditionalKes) -> bool {
    additional.iter().flatten().any(|method| *method != KeMethod::NONE)
}
