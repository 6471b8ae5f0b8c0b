//! Post-quantum preshared keys: in IKE_AUTH (RFC 8784), or in the last IKE_INTERMEDIATE (RFC 9867), both roles.

use std::sync::Arc;

use super::error::ExchangeError;
use super::payloads::{self, Out, Received};
use super::settled::Settled;
use crate::codec::NotifyType;
use crate::config::{ConnectionConfig, Ppk};
use crate::crypto::digest::constant_time_eq;

/// PPK_ID_FIXED (RFC 8784 section 5.1).
const PPK_ID_FIXED: u8 = 2;
/// Octets of the PPK confirmation in PPK_IDENTITY_KEY (RFC 9867).
const CONFIRMATION_LEN: usize = 8;

/// How far an IKE SA is with its PPK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PpkStage {
    /// None is agreed on.
    None,
    /// USE_PPK: the initiator names it in IKE_AUTH.
    InAuth,
    /// USE_PPK_INT: the initiator names it in the last IKE_INTERMEDIATE.
    InIntermediate,
    /// The one with this PPK_ID is in the keys.
    Mixed(Arc<[u8]>),
    /// The responder does not have the one that was named in IKE_AUTH: NO_PPK_AUTH authenticates the initiator.
    Declined,
}

/// What the two ends have said in IKE_SA_INIT.
pub(crate) fn agreed(ours: Option<PpkOffer>, received: &Received) -> PpkStage {
    let Some(ours) = ours else { return PpkStage::None };
    let can_intermediate = received.has(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED);
    if ours.in_intermediate && can_intermediate && received.has(NotifyType::USE_PPK_INT) {
        PpkStage::InIntermediate
    } else if received.has(NotifyType::USE_PPK) {
        PpkStage::InAuth
    } else {
        PpkStage::None
    }
}

/// What an end makes of PPKs in IKE_SA_INIT: it has some.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PpkOffer {
    /// It takes them in IKE_INTERMEDIATE too.
    pub(crate) in_intermediate: bool,
    /// It does not go on without.
    pub(crate) required: bool,
}

impl PpkOffer {
    /// That of an initiator.
    pub(crate) fn of(ppk: &Ppk) -> Self {
        Self { in_intermediate: ppk.intermediate, required: ppk.required }
    }

    /// That of a responder which may be one of several connections; none if it has no PPK for any.
    pub(crate) fn of_all<'a>(ppks: impl Iterator<Item = Option<&'a Ppk>>) -> Option<Self> {
        ppks.map(|ppk| ppk.map(Self::of)).fold(None, |all, one| match (all, one) {
            (None, one) => one,
            (all, None) => all,
            (Some(all), Some(one)) => Some(Self {
                in_intermediate: all.in_intermediate || one.in_intermediate,
                required: all.required && one.required,
            }),
        })
    }

    /// An initiator's notifications.
    pub(crate) fn notifications(self) -> Out {
        let kinds = [(true, NotifyType::USE_PPK), (self.in_intermediate, NotifyType::USE_PPK_INT)];
        kinds.into_iter().filter(|(is_sent, _)| *is_sent).map(|(_, kind)| payloads::notify(kind)).collect()
    }
}

impl PpkStage {
    /// A responder's notification: one of the two, never both (RFC 9867).
    pub(crate) fn notification(&self) -> Option<payloads::Payload> {
        match self {
            Self::InAuth => Some(payloads::notify(NotifyType::USE_PPK)),
            Self::InIntermediate => Some(payloads::notify(NotifyType::USE_PPK_INT)),
            Self::None | Self::Mixed(_) | Self::Declined => None,
        }
    }
}

/// PPK_IDENTITY_KEY of an initiator in its last IKE_INTERMEDIATE.
pub(crate) fn offer_in_intermediate(settled: &Settled, ppk: &Ppk) -> payloads::Payload {
    let data = [&ppk_id(ppk)[..], &confirmation(settled, ppk)].concat();
    payloads::notify_with(NotifyType::PPK_IDENTITY_KEY, data)
}

/// The responder's choice in the last IKE_INTERMEDIATE: the PPK of the initiator's that it has, and the notification
/// that says so.
pub(crate) fn choose_in_intermediate<'a>(
    settled: &Settled,
    received: &Received,
    ours: &'a [Ppk],
) -> Option<(&'a Ppk, payloads::Payload)> {
    let is_offered = |ppk: &&Ppk| {
        received.notifies(NotifyType::PPK_IDENTITY_KEY).any(|offered| {
            let Some(at) = offered.data.len().checked_sub(CONFIRMATION_LEN) else { return false };
            let (id, proof) = offered.data.split_at(at);
            id == ppk_id(ppk) && constant_time_eq(proof, &confirmation(settled, ppk))
        })
    };
    let ppk = ours.iter().find(is_offered)?;
    Some((ppk, payloads::notify_with(NotifyType::PPK_IDENTITY, ppk_id(ppk))))
}

/// The responder's answer to [`offer_in_intermediate`]: it has taken the PPK, or none.
pub(crate) fn taken_in_intermediate(received: &Received, ppk: &Ppk) -> Result<bool, ExchangeError> {
    match received.first(NotifyType::PPK_IDENTITY) {
        Some(chosen) if chosen.data == ppk_id(ppk) => Ok(true),
        Some(_) => Err(ExchangeError::NotOffered),
        None if ppk.required => Err(ExchangeError::Ppk),
        None => Ok(false),
    }
}

/// PPK_IDENTITY of an initiator in IKE_AUTH (RFC 8784 section 3). NO_PPK_AUTH is the caller's, unless the PPK is required.
pub(crate) fn name_in_auth(ppk: &Ppk) -> payloads::Payload {
    payloads::notify_with(NotifyType::PPK_IDENTITY, ppk_id(ppk))
}

/// The responder's side of IKE_AUTH: table 1 of RFC 8784 section 3. The PPK is in the keys afterwards, or is known to be left
/// out. What comes back is its answer, PPK_IDENTITY without data.
pub(crate) fn asked_in_auth(
    settled: &mut Settled,
    config: &ConnectionConfig,
    received: &Received,
) -> Result<Option<payloads::Payload>, ExchangeError> {
    let required = config.ppk.as_ref().is_some_and(|ppk| ppk.required);
    match &settled.ppk {
        PpkStage::InAuth => {
            let named = received.first(NotifyType::PPK_IDENTITY).ok_or(ExchangeError::Ppk)?;
            let ours = config.ppk.as_ref().filter(|ppk| named.data == ppk_id(ppk));
            if let Some(ppk) = ours {
                settled.mix_in_auth(ppk);
                return Ok(Some(payloads::notify(NotifyType::PPK_IDENTITY)));
            }
            if required || !received.has(NotifyType::NO_PPK_AUTH) {
                return Err(ExchangeError::Ppk);
            }
            settled.ppk = PpkStage::Declined;
            Ok(None)
        }
        PpkStage::Mixed(id) => match &config.ppk {
            Some(ppk) if ppk.id == *id => Ok(None),
            // The addresses meant several connections, the identities mean another than the PPK.
            _ => Err(ExchangeError::Ppk),
        },
        _ if required => Err(ExchangeError::Ppk),
        _ => Ok(None),
    }
}

/// The initiator's side of the IKE_AUTH response: the PPK goes into the keys if the responder has used it.
pub(crate) fn answered_in_auth(
    settled: &mut Settled,
    config: &ConnectionConfig,
    received: &Received,
) -> Result<(), ExchangeError> {
    let (PpkStage::InAuth, Some(ppk)) = (&settled.ppk, &config.ppk) else { return Ok(()) };
    if received.auth.is_none() && received.error().is_some() {
        // What went wrong is for the caller to say.
        return Ok(());
    }
    if received.has(NotifyType::PPK_IDENTITY) {
        settled.mix_in_auth(ppk);
        return Ok(());
    }
    settled.ppk = PpkStage::None;
    if ppk.required { Err(ExchangeError::Ppk) } else { Ok(()) }
}

/// PPK_ID as messages have it.
fn ppk_id(ppk: &Ppk) -> Vec<u8> {
    [&[PPK_ID_FIXED], &*ppk.id].concat()
}

/// The first octets of prf(PPK, Ni | Nr | SPIi | SPIr) (RFC 9867).
fn confirmation(settled: &Settled, ppk: &Ppk) -> [u8; CONFIRMATION_LEN] {
    let (spi_i, spi_r) = (settled.spis.0.to_be_bytes(), settled.spis.1.to_be_bytes());
    let parts: [&[u8]; 4] = [&settled.nonce_i, &settled.nonce_r, &spi_i, &spi_r];
    let whole = settled.choice.suite.prf.compute(ppk.secret.expose(), &parts);
    let mut first = [0; CONFIRMATION_LEN];
    first.iter_mut().zip(whole.iter()).for_each(|(to, from)| *to = *from);
    first
}
