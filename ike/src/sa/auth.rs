//! IKE_AUTH with shared keys and signatures (RFC 7296 sections 1.2 and 2.15, RFC 7427), both roles, without the Child SA that
//! rides on it.

use portcullis_pki::{Refusal, Subject, Trust, WallTime};

use super::auth_methods;
use super::error::ExchangeError;
use super::payloads::{self, KeyHash, Out, Payload, Received, ReceivedId};
use super::ppk::{self, PpkStage};
use super::settled::Settled;
use crate::codec::{AuthMethod, CertEncoding, NotifyType};
use crate::config::{ConnectionConfig, Credential, Identity, LocalAuth, RemoteAuth};
use crate::crypto::auth::{SignedOctets, Verified};
use crate::crypto::digest::key_hash;
use crate::crypto::schedule::SetupKeys;
use crate::crypto::signature::{SignatureAlgorithm, digital_signature, parse_digital_signature};

/// Most authorities that one CERTREQ names; the peer is asked for a certificate, not for one of all of them.
const MOST_AUTHORITIES: usize = 16;

/// IDi, CERT, CERTREQ, IDr and AUTH of an initiator, and INITIAL_CONTACT if it holds no other IKE SA with this peer.
pub(crate) fn request(
    settled: &Settled,
    config: &ConnectionConfig,
    message_id: u32,
    initial_contact: bool,
) -> Result<Out, ExchangeError> {
    let id_i = payloads::identification(&config.local_id);
    let id_body = id_i.body();
    let mut out = vec![payloads::id_i(id_i)];
    out.extend(certs(config));
    if initial_contact {
        out.push(payloads::notify(NotifyType::INITIAL_CONTACT));
    }
    let authorities = authorities([config].into_iter());
    if !authorities.is_empty() {
        out.push(payloads::cert_request(&authorities));
    }
    out.extend(auth_methods::of_ours([config].into_iter()));
    out.push(payloads::id_r(payloads::identification(&config.remote_id)));
    match config.ppk.as_ref().filter(|_| settled.ppk == PpkStage::InAuth) {
        None => out.push(sign(settled, &settled.keys, true, &id_body, config, message_id)?),
        Some(ppk) => {
            let mixed = settled.keys.with_ppk(ppk.secret.expose());
            out.push(sign(settled, &mixed, true, &id_body, config, message_id)?);
            out.push(ppk::name_in_auth(ppk));
            if !ppk.required
                && let Payload::Auth(plain) =
                    sign(settled, &settled.keys, true, &id_body, config, message_id)?
            {
                // RFC 8784 section 3: the same data as in AUTH, without the PPK.
                out.push(payloads::notify_with(NotifyType::NO_PPK_AUTH, plain.data.into_owned()));
            }
        }
    }
    Ok(out)
}

/// Checks the responder's IDr, certificate and AUTH against the configuration.
pub(crate) fn verify_responder(
    settled: &Settled,
    config: &ConnectionConfig,
    received: &Received,
    message_id: u32,
    wall: WallTime,
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
    verify(settled, false, id_r, config, received, message_id, wall)
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

/// Checks the initiator's certificate and AUTH; its IDi was matched with the configuration before.
pub(crate) fn verify_initiator(
    settled: &Settled,
    config: &ConnectionConfig,
    received: &Received,
    message_id: u32,
    wall: WallTime,
) -> Result<Verified, ExchangeError> {
    let id_i = received.id_i.as_ref().ok_or(ExchangeError::Payloads("no IDi in IKE_AUTH"))?;
    verify(settled, true, id_i, config, received, message_id, wall)
}

/// IDr, CERT and AUTH of a responder. `_peer` is the proof that it knows whom it answers.
pub(crate) fn response(
    settled: &Settled,
    config: &ConnectionConfig,
    message_id: u32,
    _peer: &Verified,
) -> Result<Out, ExchangeError> {
    let id_r = payloads::identification(&config.local_id);
    let auth = sign(settled, &settled.keys, false, &id_r.body(), config, message_id)?;
    let mut out = vec![payloads::id_r(id_r)];
    out.extend(certs(config));
    out.push(auth);
    Ok(out)
}

/// The authorities that peers of these connections are asked for certificates of (RFC 7296 section 3.7), each once.
pub(crate) fn authorities<'a>(configs: impl Iterator<Item = &'a ConnectionConfig>) -> Vec<KeyHash> {
    let mut hashes = Vec::new();
    for config in configs {
        let RemoteAuth::Certificate(trust) = &config.remote_auth else { continue };
        for authority in trust.authorities() {
            let hash = key_hash(authority.subject_public_key_info());
            if hashes.len() < MOST_AUTHORITIES && !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
    }
    hashes
}

/// ESP echo may be announced to this peer, and its announcement be believed: the number of ESP_ECHO_SUPPORTED is unassigned
/// (transport policy rule 6).
pub(crate) fn may_echo(settled: &Settled, config: &ConnectionConfig) -> bool {
    settled.peer_is_portcullis || config.ike.assume_code_points
}

/// Our certificate and those above it, whatever the peer has asked for: there is one credential for each connection.
fn certs(config: &ConnectionConfig) -> impl Iterator<Item = Payload> {
    let chain = match &config.local_auth {
        LocalAuth::Psk(_) => &[][..],
        LocalAuth::Certificate(credential) => &credential.chain,
    };
    chain.iter().map(payloads::cert)
}

fn sign(
    settled: &Settled,
    keys: &SetupKeys,
    of_initiator: bool,
    id_body: &[u8],
    config: &ConnectionConfig,
    message_id: u32,
) -> Result<Payload, ExchangeError> {
    let octets = settled.signed_octets(of_initiator, id_body, message_id);
    match &config.local_auth {
        LocalAuth::Psk(secret) => {
            let mic = octets.shared_key_mic(keys, secret);
            Ok(payloads::auth(AuthMethod::SHARED_KEY, mic.to_vec()))
        }
        LocalAuth::Certificate(credential) => sign_with(settled, keys, &octets, credential),
    }
}

/// Digital Signature where both ends have RFC 7427, which then has to be used (section 3). Without it, only ECDSA says which hash
/// it uses (RFC 4754): RSA Digital Signature is SHA-1 (RFC 7296 section 3.8), and is neither sent nor accepted.
fn sign_with(
    settled: &Settled,
    keys: &SetupKeys,
    octets: &SignedOctets<'_>,
    credential: &Credential,
) -> Result<Payload, ExchangeError> {
    let algorithm = match settled.signature_hashes {
        Some(hashes) => credential.key.algorithm_for(hashes, settled.announced),
        None => credential.key.fixed_algorithm(),
    };
    let algorithm = algorithm.ok_or(ExchangeError::NoSignatureHash)?;
    let signature = octets.sign(keys, &credential.key, algorithm).ok_or(ExchangeError::Provider)?;
    Ok(match algorithm {
        SignatureAlgorithm::EcdsaP256Fixed => payloads::auth(AuthMethod::ECDSA_SHA256_P256, signature),
        SignatureAlgorithm::EcdsaP384Fixed => payloads::auth(AuthMethod::ECDSA_SHA384_P384, signature),
        algorithm => {
            let data = digital_signature(algorithm, &signature).ok_or(ExchangeError::Provider)?;
            payloads::auth(AuthMethod::DIGITAL_SIGNATURE, data)
        }
    })
}

fn verify(
    settled: &Settled,
    of_initiator: bool,
    id: &ReceivedId,
    config: &ConnectionConfig,
    received: &Received,
    message_id: u32,
    wall: WallTime,
) -> Result<Verified, ExchangeError> {
    let auth = received.auth.as_ref().ok_or(ExchangeError::Payloads("no AUTH in IKE_AUTH"))?;
    let octets = settled.signed_octets(of_initiator, &id.body, message_id);
    // RFC 8784 section 3: who has not the PPK that was named takes what goes without it.
    let without_ppk = received.first(NotifyType::NO_PPK_AUTH).filter(|_| settled.ppk == PpkStage::Declined);
    let data = without_ppk.map_or(&auth.data, |notify| &notify.data);
    match &config.remote_auth {
        RemoteAuth::Psk(_) if auth.method != AuthMethod::SHARED_KEY => Err(ExchangeError::AuthMethod),
        RemoteAuth::Psk(secret) => {
            octets.verify_shared_key_mic(&settled.keys, secret, data).ok_or(ExchangeError::Authentication)
        }
        RemoteAuth::Certificate(trust) => {
            let (algorithm, signature) = signature_of(settled, auth.method, data)?;
            let key = verify_chain(trust, received, id, wall)?;
            octets
                .verify_signature(&settled.keys, &key, algorithm, signature)
                .ok_or(ExchangeError::Authentication)
        }
    }
}

/// The signature in AUTH, by an algorithm that we have announced.
fn signature_of<'a>(
    settled: &Settled,
    method: AuthMethod,
    data: &'a [u8],
) -> Result<(SignatureAlgorithm, &'a [u8]), ExchangeError> {
    match (settled.signature_hashes, method) {
        (Some(_), AuthMethod::DIGITAL_SIGNATURE) => {
            parse_digital_signature(data).ok_or(ExchangeError::SignatureAlgorithm)
        }
        (None, AuthMethod::ECDSA_SHA256_P256) => Ok((SignatureAlgorithm::EcdsaP256Fixed, data)),
        (None, AuthMethod::ECDSA_SHA384_P384) => Ok((SignatureAlgorithm::EcdsaP384Fixed, data)),
        _ => Err(ExchangeError::AuthMethod),
    }
}

/// The key of the peer's certificate. The first CERT is the peer's own, the others are above it in any order (RFC 7296 section
/// 3.6); revocation lists in band are passed over (RFC 4945 section 3.3.6).
fn verify_chain(
    trust: &Trust,
    received: &Received,
    id: &ReceivedId,
    wall: WallTime,
) -> Result<portcullis_pki::PublicKey, ExchangeError> {
    let is_list = |encoding| matches!(encoding, CertEncoding::CRL | CertEncoding::ARL);
    let certs: Vec<_> = received.certs.iter().filter(|cert| !is_list(cert.encoding)).collect();
    if certs.iter().any(|cert| cert.encoding != CertEncoding::X509_SIGNATURE) {
        return Err(ExchangeError::Certificate(Refusal::Encoding));
    }
    let chain: Vec<&[u8]> = certs.iter().map(|cert| &*cert.data).collect();
    // As the peer sends it: what it claims has to be in its certificate, not what it is compared with.
    let subject = id.identity.as_ref().map_or(Subject::Other, Identity::subject);
    trust.verify(&chain, subject, wall).map_err(ExchangeError::Certificate)
}

#[cfg(test)]
mod tests;
