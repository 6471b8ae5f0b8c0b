//! IKE_AUTH with shared keys (RFC 7296 sections 1.2 and 2.15), both roles, without the Child SA that rides on it.

use super::error::ExchangeError;
use super::payloads::{self, Out, Payload, Received};
use super::ppk::{self, PpkStage};
use super::settled::Settled;
use crate::codec::{AuthMethod, NotifyType};
use crate::config::{Auth, ConnectionConfig, Identity};
use crate::crypto::auth::Verified;
use crate::crypto::schedule::SetupKeys;

/// IDi, IDr and AUTH of an initiator, and INITIAL_CONTACT if it holds no other IKE SA with this peer.
pub(crate) fn request(
    settled: &Settled,
    config: &ConnectionConfig,
    message_id: u32,
    initial_contact: bool,
) -> Out {
    let id_i = payloads::identification(&config.local_id);
    let id_body = id_i.body();
    let mut out = vec![payloads::id_i(id_i)];
    if initial_contact {
        out.push(payloads::notify(NotifyType::INITIAL_CONTACT));
    }
    out.push(payloads::id_r(payloads::identification(&config.remote_id)));
    match config.ppk.as_ref().filter(|_| settled.ppk == PpkStage::InAuth) {
        None => out.push(sign(settled, &settled.keys, true, &id_body, config, message_id)),
        Some(ppk) => {
            let mixed = settled.keys.with_ppk(ppk.secret.expose());
            out.push(sign(settled, &mixed, true, &id_body, config, message_id));
            out.push(ppk::name_in_auth(ppk));
            if !ppk.required
                && let Payload::Auth(plain) = sign(settled, &settled.keys, true, &id_body, config, message_id)
            {
                // RFC 8784 section 3: the same data as in AUTH, without the PPK.
                out.push(payloads::notify_with(NotifyType::NO_PPK_AUTH, plain.data.into_owned()));
            }
        }
    }
    out
}

/// Checks the responder's IDr and AUTH against the configuration.
pub(crate) fn verify_responder(
    settled: &Settled,
    config: &ConnectionConfig,
    received: &Received,
    message_id: u32,
) -> Result<Verified, ExchangeError> {
    let id_r = received.id_r.as_ref();
    if received.auth.is_none()
        && let Some(error) = received.error()
    {
        return Err(ExchangeError::Peer(error));
    }
    let id_r = id_r.ok_or(ExchangeError::Payloads("no IDr in IKE_AUTH"))?;
    if id_r.identity.as_ref() != Some(&config.remote_id) {
        return Err(ExchangeError::Authentication);
    }
    verify(settled, false, &id_r.body, config, received, message_id)
}

/// Who the initiator says it is, and whom it asks for.
pub(crate) fn claimed(received: &Received) -> Result<(&Identity, Option<&Identity>), ExchangeError> {
    let id_i = received.id_i.as_ref().ok_or(ExchangeError::Payloads("no IDi in IKE_AUTH"))?;
    let id_i = id_i.identity.as_ref().ok_or(ExchangeError::Authentication)?;
    let id_r = match received.id_r.as_ref() {
        None => None,
        Some(id_r) => Some(id_r.identity.as_ref().ok_or(ExchangeError::Authentication)?),
    };
    Ok((id_i, id_r))
}

/// Checks the initiator's AUTH; its IDi was matched with the configuration before.
pub(crate) fn verify_initiator(
    settled: &Settled,
    config: &ConnectionConfig,
    received: &Received,
    message_id: u32,
) -> Result<Verified, ExchangeError> {
    let id_i = received.id_i.as_ref().ok_or(ExchangeError::Payloads("no IDi in IKE_AUTH"))?;
    verify(settled, true, &id_i.body, config, received, message_id)
}

/// IDr and AUTH of a responder. `_peer` is the proof that it knows whom it answers.
pub(crate) fn response(
    settled: &Settled,
    config: &ConnectionConfig,
    message_id: u32,
    _peer: &Verified,
) -> Out {
    let id_r = payloads::identification(&config.local_id);
    let auth = sign(settled, &settled.keys, false, &id_r.body(), config, message_id);
    vec![payloads::id_r(id_r), auth]
}

/// ESP echo may be announced to this peer, and its announcement be believed: the number of ESP_ECHO_SUPPORTED is unassigned
/// (transport policy rule 6).
pub(crate) fn may_echo(settled: &Settled, config: &ConnectionConfig) -> bool {
    settled.peer_is_portcullis || config.ike.assume_code_points
}

fn sign(
    settled: &Settled,
    keys: &SetupKeys,
    of_initiator: bool,
    id_body: &[u8],
    config: &ConnectionConfig,
    message_id: u32,
) -> payloads::Payload {
    let Auth::Psk(secret) = &config.local_auth;
    let octets = settled.signed_octets(of_initiator, id_body, message_id);
    payloads::auth(AuthMethod::SHARED_KEY, octets.shared_key_mic(keys, secret.expose()).to_vec())
}

fn verify(
    settled: &Settled,
    of_initiator: bool,
    id_body: &[u8],
    config: &ConnectionConfig,
    received: &Received,
    message_id: u32,
) -> Result<Verified, ExchangeError> {
    let auth = received.auth.as_ref().ok_or(ExchangeError::Payloads("no AUTH in IKE_AUTH"))?;
    let Auth::Psk(secret) = &config.remote_auth;
    if auth.method != AuthMethod::SHARED_KEY {
        return Err(ExchangeError::Authentication);
    }
    let without_ppk = received.first(NotifyType::NO_PPK_AUTH).filter(|_| settled.ppk == PpkStage::Declined);
    let data = without_ppk.map_or(&auth.data, |notify| &notify.data);
    settled
        .signed_octets(of_initiator, id_body, message_id)
        .verify_shared_key_mic(&settled.keys, secret.expose(), data)
        .ok_or(ExchangeError::Authentication)
}
