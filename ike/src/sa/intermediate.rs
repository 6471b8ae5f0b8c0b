//! IKE_INTERMEDIATE with an additional key exchange, a PPK, or both (RFC 9242, RFC 9370 section 2.2.2, RFC 9867), both roles.

use super::error::ExchangeError;
use super::payloads::{self, Out, Received};
use super::ppk;
use super::settled::{Round, Settled};
use crate::config::Ppk;
use crate::crypto::ke::respond;
use crate::crypto::{KeInitiator, KeMethod, Rng, SharedSecret};

/// An initiator that waits for the response to one IKE_INTERMEDIATE.
pub(crate) struct IntermediateSent {
    ke: Option<KeInitiator>,
    ppk: Option<Ppk>,
}

/// What a round gives for the keys.
pub(crate) struct Yield {
    shared: Option<SharedSecret>,
    ppk: Option<Ppk>,
}

impl Yield {
    /// The keys of the next stage.
    pub(crate) fn advance(&self, settled: Settled) -> Settled {
        settled.advance(self.shared.as_ref(), self.ppk.as_ref())
    }
}

impl IntermediateSent {
    /// The payloads of the request for this round, and the state that waits. `ours` is the PPK of the connection.
    pub(crate) fn new(
        settled: &Settled,
        round: Round,
        ours: Option<&Ppk>,
        rng: &mut Rng,
    ) -> Result<(Out, Self), ExchangeError> {
        let mut out = Out::new();
        let mut ke = None;
        if let Some(method) = round.method {
            let (initiator, data) = KeInitiator::generate(method, rng)?;
            out.push(payloads::ke(method, data));
            ke = Some(initiator);
        }
        let ppk = ours.filter(|_| round.ppk).cloned();
        out.extend(ppk.iter().map(|ppk| ppk::offer_in_intermediate(settled, ppk)));
        Ok((out, Self { ke, ppk }))
    }

    /// What the response gives.
    pub(crate) fn answered(self, received: &Received) -> Result<Yield, ExchangeError> {
        if let Some(error) = received.error() {
            return Err(ExchangeError::Peer(error));
        }
        let shared = match self.ke {
            None => None,
            Some(initiator) => {
                let ke = received.ke.as_ref().ok_or(ExchangeError::Payloads("no KE in IKE_INTERMEDIATE"))?;
                if KeMethod::from_id(ke.method) != Some(initiator.method()) {
                    return Err(ExchangeError::NotOffered);
                }
                Some(initiator.finish(&ke.data)?)
            }
        };
        let ppk = match self.ppk {
            Some(ppk) if ppk::taken_in_intermediate(received, &ppk)? => Some(ppk),
            _ => None,
        };
        Ok(Yield { shared, ppk })
    }
}

/// A responder's half of one round: the payloads of the response, and what it gives. `ours` are the PPKs of the connections
/// that may be meant, and `required` says that none of these goes on without.
pub(crate) fn respond_to_intermediate(
    settled: &Settled,
    round: Round,
    received: &Received,
    ours: &[Ppk],
    required: bool,
    rng: &mut Rng,
) -> Result<(Out, Yield), ExchangeError> {
    let mut out = Out::new();
    let mut shared = None;
    if let Some(method) = round.method {
        let ke = received.ke.as_ref().ok_or(ExchangeError::Payloads("no KE in IKE_INTERMEDIATE"))?;
        if KeMethod::from_id(ke.method) != Some(method) {
            return Err(ExchangeError::Payloads("another key exchange method was negotiated for this round"));
        }
        let (data, secret) = respond(method, &ke.data, rng)?;
        out.push(payloads::ke(method, data));
        shared = Some(secret);
    }
    let chosen = round.ppk.then(|| ppk::choose_in_intermediate(settled, received, ours)).flatten();
    if round.ppk && chosen.is_none() && required {
        return Err(ExchangeError::Ppk);
    }
    let ppk = chosen.map(|(ppk, answer)| {
        out.push(answer);
        ppk.clone()
    });
    Ok((out, Yield { shared, ppk }))
}
