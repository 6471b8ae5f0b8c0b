//! IKE_INTERMEDIATE with additional key exchanges (RFC 9242, RFC 9370 section 2.2.2), both roles.

use super::error::ExchangeError;
use super::payloads::{self, Out, Received};
use super::settled::Settled;
use crate::crypto::ke::respond;
use crate::crypto::{KeInitiator, KeMethod, Rng, SharedSecret};

/// An initiator that waits for the response to one IKE_INTERMEDIATE.
pub(crate) struct IntermediateSent {
    ke: KeInitiator,
}

impl IntermediateSent {
    /// The payloads of the request for the method of this round, and the state that waits.
    pub(crate) fn new(method: KeMethod, rng: &mut Rng) -> Result<(Out, Self), ExchangeError> {
        let (ke, data) = KeInitiator::generate(method, rng)?;
        Ok((vec![payloads::ke(method, data)], Self { ke }))
    }

    /// The shared secret of this round, from the response.
    pub(crate) fn answered(self, received: &Received) -> Result<SharedSecret, ExchangeError> {
        if let Some(error) = received.error() {
            return Err(ExchangeError::Peer(error));
        }
        let ke = received.ke.as_ref().ok_or(ExchangeError::Payloads("no KE in IKE_INTERMEDIATE"))?;
        if KeMethod::from_id(ke.method) != Some(self.ke.method()) {
            return Err(ExchangeError::NotOffered);
        }
        Ok(self.ke.finish(&ke.data)?)
    }
}

/// A responder's half of one round: the payloads of the response, and the shared secret.
pub(crate) fn respond_to_intermediate(
    settled: &Settled,
    received: &Received,
    rng: &mut Rng,
) -> Result<(Out, SharedSecret), ExchangeError> {
    let method =
        settled.next_round().ok_or(ExchangeError::Payloads("no key exchange is due in IKE_INTERMEDIATE"))?;
    let ke = received.ke.as_ref().ok_or(ExchangeError::Payloads("no KE in IKE_INTERMEDIATE"))?;
    if KeMethod::from_id(ke.method) != Some(method) {
        return Err(ExchangeError::Payloads("another key exchange method was negotiated for this round"));
    }
    let (data, shared) = respond(method, &ke.data, rng)?;
    Ok((vec![payloads::ke(method, data)], shared))
}
