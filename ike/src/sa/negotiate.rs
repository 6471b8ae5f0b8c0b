//! What two sides negotiate, in terms of what this crate can compute: proposals in, cipher, pseudorandom function and key
//! exchange methods out.

use std::sync::Arc;

use super::error::ExchangeError;
use crate::action::EspCipher;
use crate::codec::{Proposal, SnId, Spi, TransformType};
use crate::crypto::schedule::Suite;
use crate::crypto::{Aead, KeMethod, Prf};
use crate::proposal::{
    self, AdditionalKe, EspProposal, EspSuite, IkeProposal, IkeSuite, select_esp, select_ike,
};

/// The algorithms of an IKE SA.
#[derive(Clone, Debug)]
pub(crate) struct IkeChoice {
    /// Those that keys depend on.
    pub(crate) suite: Suite,
    /// Method of the first key exchange.
    pub(crate) ke: KeMethod,
    /// Methods of the additional ones, in order.
    pub(crate) additional: Vec<KeMethod>,
    /// All of them in proposal notation.
    pub(crate) notation: Arc<str>,
}

/// The algorithms of a Child SA.
#[derive(Clone, Debug)]
pub(crate) struct EspChoice {
    /// Cipher.
    pub(crate) cipher: Aead,
    /// Extended sequence numbers.
    pub(crate) esn: bool,
    /// Method of its own key exchange, if there is one.
    pub(crate) ke: Option<KeMethod>,
    /// Methods of the additional ones, in order.
    pub(crate) additional: Vec<KeMethod>,
    /// All of them in proposal notation.
    pub(crate) notation: Arc<str>,
}

impl EspChoice {
    /// The cipher as the data plane names it.
    pub(crate) fn esp_cipher(&self) -> EspCipher {
        match self.cipher {
            Aead::Aes128Gcm16 => EspCipher::Aes128Gcm16,
            Aead::Aes256Gcm16 => EspCipher::Aes256Gcm16,
            Aead::ChaCha20Poly1305 => EspCipher::ChaCha20Poly1305,
        }
    }
}

/// The offer for an IKE SA; the SPI is there in a rekey only.
pub(crate) fn offer_ike(ours: &[IkeProposal], spi: Option<u64>) -> Vec<Proposal> {
    proposal::offer_ike(ours, spi.map_or(Spi::None, Spi::Ike)).proposals
}

/// The method that the first KE payload of an offer is for: that of the best proposal which can be computed.
pub(crate) fn first_ke_method(ours: &[IkeProposal]) -> Option<KeMethod> {
    ke_methods(&offer_ike(ours, None)).next()
}

/// One of the proposals has this method for its first key exchange.
pub(crate) fn offers_ke(ours: &[IkeProposal], method: KeMethod) -> bool {
    ke_methods(&offer_ike(ours, None)).any(|offered| offered == method)
}

/// One of the proposals has additional key exchanges.
pub(crate) fn has_additional_ke(ours: &[IkeProposal]) -> bool {
    ours.iter().any(IkeProposal::has_additional_key_exchanges)
}

/// A responder's choice for IKE_SA_INIT. Proposals with additional key exchanges need a peer that can do
/// IKE_INTERMEDIATE.
pub(crate) fn choose_ike(
    offered: &[Proposal],
    ours: &[IkeProposal],
    can_additional: bool,
) -> Option<(Proposal, IkeChoice)> {
    let selection = select_ike(&usable(offered, can_additional), ours)?;
    Some((selection.answer(Spi::None), ike_choice(&selection.suite)?))
}

/// A responder's choice for an IKE rekey: the answer without our SPI, the algorithms, the peer's SPI. Who offers additional key
/// exchanges here can do IKE_FOLLOWUP_KE, whatever IKE_SA_INIT had (RFC 9370 section 2.2.4).
pub(crate) fn choose_ike_rekey(
    offered: &[Proposal],
    ours: &[IkeProposal],
) -> Option<(Proposal, IkeChoice, u64)> {
    let selection = select_ike(offered, ours)?;
    let peer_spi = selection.peer_spi.ike().filter(|spi| *spi != 0)?;
    Some((selection.answer(Spi::None), ike_choice(&selection.suite)?, peer_spi))
}

/// An initiator's check of the answer in IKE_SA_INIT.
pub(crate) fn accept_ike(answer: &[Proposal], ours: &[IkeProposal]) -> Result<IkeChoice, ExchangeError> {
    let (suite, _) =
        proposal::accept_ike(&offer_ike(ours, None), answer).map_err(|_| ExchangeError::NotOffered)?;
    ike_choice(&suite).ok_or(ExchangeError::NotOffered)
}

/// An initiator's check of the answer to an IKE rekey; also returns the peer's SPI.
pub(crate) fn accept_ike_rekey(
    answer: &[Proposal],
    ours: &[IkeProposal],
) -> Result<(IkeChoice, u64), ExchangeError> {
    let (suite, spi) =
        proposal::accept_ike(&offer_ike(ours, None), answer).map_err(|_| ExchangeError::NotOffered)?;
    let spi = spi.ike().filter(|spi| *spi != 0).ok_or(ExchangeError::NotOffered)?;
    Ok((ike_choice(&suite).ok_or(ExchangeError::NotOffered)?, spi))
}

/// The offer for a Child SA. In IKE_AUTH it has no key exchange (RFC 7296 section 1.2).
pub(crate) fn offer_esp(ours: &[EspProposal], spi: u32, with_ke: bool) -> Vec<Proposal> {
    proposal::offer_esp(&esp_proposals(ours, with_ke), spi).proposals
}

/// The method that the KE payload of an offer is for, if its best proposal asks for one.
pub(crate) fn first_esp_ke_method(ours: &[EspProposal]) -> Option<KeMethod> {
    KeMethod::from_id(ours.first()?.ke.first()?.0)
}

/// A responder's choice for a Child SA: the answer without our SPI, the algorithms, the peer's SPI.
pub(crate) fn choose_esp(
    offered: &[Proposal],
    ours: &[EspProposal],
    with_ke: bool,
) -> Option<(Proposal, EspChoice, u32)> {
    let selection = select_esp(offered, &esp_proposals(ours, with_ke))?;
    let peer_spi = selection.peer_spi.child().filter(|spi| *spi >= 256)?;
    Some((selection.answer(Spi::None), esp_choice(&selection.suite)?, peer_spi))
}

/// An initiator's check of the answer for a Child SA; also returns the peer's SPI.
pub(crate) fn accept_esp(
    answer: &[Proposal],
    ours: &[EspProposal],
    with_ke: bool,
) -> Result<(EspChoice, u32), ExchangeError> {
    let (suite, spi) =
        proposal::accept_esp(&offer_esp(ours, 0, with_ke), answer).map_err(|_| ExchangeError::NotOffered)?;
    // RFC 4303 section 2.1: SPIs from 1 to 255 are reserved, 0 is for local use.
    let spi = spi.child().filter(|spi| *spi >= 256).ok_or(ExchangeError::NotOffered)?;
    Ok((esp_choice(&suite).ok_or(ExchangeError::NotOffered)?, spi))
}

fn esp_proposals(ours: &[EspProposal], with_ke: bool) -> Vec<EspProposal> {
    ours.iter()
        .map(|proposal| if with_ke { proposal.clone() } else { proposal.without_key_exchange() })
        .collect()
}

/// Without the transforms that a peer which knows no IKE_INTERMEDIATE may not be held to.
fn usable(offered: &[Proposal], can_additional: bool) -> Vec<Proposal> {
    let with_additional =
        |proposal: &&Proposal| can_additional || !proposal.transforms.iter().any(is_additional);
    offered.iter().filter(with_additional).cloned().collect()
}

fn is_additional(transform: &crate::codec::Transform) -> bool {
    transform.transform_type.additional_key_exchange_index().is_some() && transform.id != 0
}

fn ke_methods(offer: &[Proposal]) -> impl Iterator<Item = KeMethod> {
    offer
        .iter()
        .flat_map(|proposal| &proposal.transforms)
        .filter(|transform| transform.transform_type == TransformType::KE)
        .filter_map(|transform| KeMethod::from_id(transform.id))
}

fn ike_choice(suite: &IkeSuite) -> Option<IkeChoice> {
    Some(IkeChoice {
        suite: Suite {
            prf: Prf::from_id(suite.prf.0)?,
            aead: Aead::from_id(suite.encr.id.0, suite.encr.key_bits)?,
        },
        ke: KeMethod::from_id(suite.ke.0)?,
        additional: additional(&suite.additional)?,
        notation: suite.to_string().into(),
    })
}

fn esp_choice(suite: &EspSuite) -> Option<EspChoice> {
    let ke = match suite.ke {
        None => None,
        Some(method) => Some(KeMethod::from_id(method.0)?),
    };
    Some(EspChoice {
        cipher: Aead::from_id(suite.encr.id.0, suite.encr.key_bits)?,
        esn: suite.sn == SnId::PARTIAL_64,
        ke,
        additional: additional(&suite.additional)?,
        notation: suite.to_string().into(),
    })
}

fn additional(methods: &[AdditionalKe]) -> Option<Vec<KeMethod>> {
    methods.iter().map(|ke| KeMethod::from_id(ke.method.0)).collect()
}

/// One of our proposals allows these algorithms.
pub(crate) fn allows(ours: &IkeProposal, choice: &IkeChoice) -> bool {
    let encr = ours.encr.iter().any(|e| Aead::from_id(e.id.0, e.key_bits) == Some(choice.suite.aead));
    let prf = ours.prf.iter().any(|prf| Prf::from_id(prf.0) == Some(choice.suite.prf));
    let ke = ours.ke.iter().any(|ke| KeMethod::from_id(ke.0) == Some(choice.ke));
    let mut chosen = choice.additional.iter().peekable();
    let additional = ours.additional.iter().all(|methods| {
        let is_next =
            chosen.peek().is_some_and(|c| methods.iter().any(|m| KeMethod::from_id(m.0) == Some(**c)));
        if is_next {
            chosen.next();
        }
        is_next || methods.is_empty() || methods.iter().any(|m| m.0 == 0)
    });
    encr && prf && ke && additional && chosen.peek().is_none()
}
