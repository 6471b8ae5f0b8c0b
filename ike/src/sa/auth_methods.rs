//! SUPPORTED_AUTH_METHODS (RFC 9593): what an end takes for proof, best first. It says more than SIGNATURE_HASH_ALGORITHMS: which
//! signatures, not only which hashes. The responder says it in IKE_SA_INIT, or in the first IKE_INTERMEDIATE where a long key
//! exchange leaves no room for it; the initiator in IKE_AUTH.
//!
//! It is a hint. An end that finds nothing of its own in the other's list tries what it has, and hears the verdict.

use super::payloads::{self, Payload, Received};
use crate::codec::{AuthMethod, NotifyType};
use crate::config::{ConnectionConfig, RemoteAuth};
use crate::crypto::signature::{SignatureAlgorithm, Signatures, announced, announcement};

/// No certificate of a particular authority is meant.
const NO_CERT_LINK: u8 = 0;

/// What these connections take from their peers, if certificates are among it.
pub(crate) fn of_ours<'a>(configs: impl Iterator<Item = &'a ConnectionConfig> + Clone) -> Option<Payload> {
    if !configs.clone().any(ConnectionConfig::expects_certificates) {
        return None;
    }
    let mut data = Vec::new();
    for algorithm in SignatureAlgorithm::ALL {
        let (method, identifier) = match algorithm {
            SignatureAlgorithm::EcdsaP256Fixed => (AuthMethod::ECDSA_SHA256_P256, Vec::new()),
            SignatureAlgorithm::EcdsaP384Fixed => (AuthMethod::ECDSA_SHA384_P384, Vec::new()),
            algorithm => match announcement(algorithm) {
                Some(identifier) => (AuthMethod::DIGITAL_SIGNATURE, identifier),
                None => continue,
            },
        };
        let length = u8::try_from(identifier.len() + 3).ok()?;
        data.extend([length, method.0, NO_CERT_LINK]);
        data.extend(identifier);
    }
    if configs.clone().any(|config| matches!(config.remote_auth, RemoteAuth::Psk(_))) {
        data.extend([2, AuthMethod::SHARED_KEY.0]);
    }
    Some(payloads::notify_with(NotifyType::SUPPORTED_AUTH_METHODS, data))
}

/// The signatures in the peer's lists. `None` if it sent none, an empty one (more follows in IKE_INTERMEDIATE), or none that can
/// be read.
pub(crate) fn of_peer(received: &Received) -> Option<Signatures> {
    let mut signatures = Signatures::default();
    for notify in received.notifies(NotifyType::SUPPORTED_AUTH_METHODS) {
        let mut rest = &*notify.data;
        // An announcement that is not understood is skipped by its length, which counts itself.
        while let Some((length, _)) = rest.split_first() {
            let Some((one, next)) =
                rest.split_at_checked(usize::from(*length)).filter(|(one, _)| one.len() >= 2)
            else {
                break;
            };
            rest = next;
            match one {
                [_, method, _] if *method == AuthMethod::ECDSA_SHA256_P256.0 => {
                    signatures.insert(SignatureAlgorithm::EcdsaP256Fixed);
                }
                [_, method, _] if *method == AuthMethod::ECDSA_SHA384_P384.0 => {
                    signatures.insert(SignatureAlgorithm::EcdsaP384Fixed);
                }
                [_, method, _, identifier @ ..] if *method == AuthMethod::DIGITAL_SIGNATURE.0 => {
                    if let Some(algorithm) = announced(identifier) {
                        signatures.insert(algorithm);
                    }
                }
                _ => {}
            }
        }
    }
    (!signatures.is_empty()).then_some(signatures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Notify, Payload};

    #[test]
    fn announcements_are_read_and_unknown_ones_skipped() {
        let ed25519 = [10, 14, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
        for (data, expected) in [
            (vec![], None),
            (vec![2, 2], None),
            (ed25519.to_vec(), Some(vec![SignatureAlgorithm::Ed25519])),
            (
                [&[2, 13, 5, 77, 1, 2, 3, 3, 9, 0][..], &ed25519].concat(),
                Some(vec![SignatureAlgorithm::Ed25519, SignatureAlgorithm::EcdsaP256Fixed]),
            ),
            ([&[0][..], &ed25519].concat(), None),
            ([&[1][..], &ed25519].concat(), None),
            (ed25519[..9].to_vec(), None),
            ([&ed25519[..], &[200, 14]].concat(), Some(vec![SignatureAlgorithm::Ed25519])),
        ] {
            let notify = Notify::with_data(NotifyType::SUPPORTED_AUTH_METHODS, data.clone().into());
            let found = of_peer(&Received::new(vec![Payload::Notify(notify)]));
            let listed = |signatures: Signatures| {
                SignatureAlgorithm::ALL.into_iter().filter(|a| signatures.has(*a)).collect()
            };
            assert_eq!(found.map(listed), expected, "{data:?}");
        }
    }
}
