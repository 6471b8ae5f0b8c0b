//! The AUTH payload (RFC 7296 section 2.15), for shared keys and signatures, and what IKE_INTERMEDIATE adds to it (RFC 9242 section 3.3).

use portcullis_pki::PublicKey;

use super::digest::constant_time_eq;
use super::prf::PrfOutput;
use super::schedule::SetupKeys;
use super::signature::{self, SignatureAlgorithm, SigningKey};
use crate::config::Secret;

/// IntAuth_i or IntAuth_r: the running MAC over one side's IKE_INTERMEDIATE messages.
#[derive(Default)]
pub(crate) struct IntAuth(Option<PrfOutput>);

impl IntAuth {
    /// IntAuth_n = prf(SK_p, IntAuth_(n-1) | A | P). `keys` are those that protected the message; `a` runs from the IKE
    /// header to the generic header of the Encrypted payload with both lengths adjusted, `p` is its plain content.
    pub(crate) fn update(&mut self, keys: &SetupKeys, of_initiator: bool, a: &[u8], p: &[u8]) {
        let previous = self.0.as_deref().unwrap_or(&[]);
        let next = keys.keys().suite().prf.compute(keys.sk_p(of_initiator), &[previous, a, p]);
        self.0 = Some(next);
    }

    fn octets(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

/// ZeroPrefix: no IKE message begins with it, because SPIi is never zero (draft-ietf-ipsecme-ikev2-downgrade-prevention
/// section 6).
const ZERO_PREFIX: [u8; 8] = [0; 8];

/// What one side signs.
pub(crate) struct SignedOctets<'a> {
    /// RealMessage1 or RealMessage2: that side's last IKE_SA_INIT message.
    pub(crate) message: &'a [u8],
    /// The other side's, if both announced IKE_SA_INIT_FULL_TRANSCRIPT_AUTH
    /// (draft-ietf-ipsecme-ikev2-downgrade-prevention section 6).
    pub(crate) peer_message: Option<&'a [u8]>,
    /// The other side's nonce.
    pub(crate) peer_nonce: &'a [u8],
    /// RestOfInitIDPayload or RestOfRespIDPayload: the ID payload without its generic header.
    pub(crate) id_body: &'a [u8],
    /// This side is the original initiator.
    pub(crate) of_initiator: bool,
    /// IntAuth_i and IntAuth_r; empty when no IKE_INTERMEDIATE took place.
    pub(crate) int_auth: (&'a IntAuth, &'a IntAuth),
    /// Message ID of the IKE_AUTH exchange.
    pub(crate) auth_message_id: u32,
}

impl SignedOctets<'_> {
    /// AUTH = prf(prf(Shared Secret, "Key Pad for IKEv2"), SignedOctets).
    pub(crate) fn shared_key_mic(&self, keys: &SetupKeys, secret: &Secret) -> PrfOutput {
        let prf = keys.keys().suite().prf;
        self.with_parts(keys, |parts| prf.compute(secret.key_pad(prf), parts))
    }

    /// InitiatorSignedOctets or ResponderSignedOctets, in one piece.
    fn octets(&self, keys: &SetupKeys) -> Vec<u8> {
        self.with_parts(keys, |parts| parts.concat())
    }

    /// Calls with the parts of the signed octets.
    fn with_parts<T>(&self, keys: &SetupKeys, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        let maced_id = keys.keys().suite().prf.compute(keys.sk_p(self.of_initiator), &[self.id_body]);
        let message_id = self.auth_message_id.to_be_bytes();
        let (before, peer_message) = match self.peer_message {
            Some(peer_message) => (&ZERO_PREFIX[..], peer_message),
            None => (&[][..], &[][..]),
        };
        let int_auth = self.int_auth.0.octets().zip(self.int_auth.1.octets());
        let (int_auth_i, int_auth_r, message_id) = match int_auth {
            Some((i, r)) => (i, r, &message_id[..]),
            None => (&[][..], &[][..], &[][..]),
        };
        with(&[
            before,
            peer_message,
            self.message,
            self.peer_nonce,
            &maced_id,
            int_auth_i,
            int_auth_r,
            message_id,
        ])
    }

    /// A signature over the octets; `None` if the provider failed.
    pub(crate) fn sign(
        &self,
        keys: &SetupKeys,
        key: &SigningKey,
        algorithm: SignatureAlgorithm,
    ) -> Option<Vec<u8>> {
        key.sign(algorithm, &self.octets(keys))
    }

    /// Checks the peer's signature, with the key of its certificate.
    pub(crate) fn verify_signature(
        &self,
        keys: &SetupKeys,
        key: &PublicKey,
        algorithm: SignatureAlgorithm,
        signature: &[u8],
    ) -> Option<Verified> {
        signature::verify(key, algorithm, &self.octets(keys), signature).then_some(Verified(()))
    }

    /// Checks the peer's AUTH data in constant time. [`Verified`] is what the next state asks for.
    pub(crate) fn verify_shared_key_mic(
        &self,
        keys: &SetupKeys,
        secret: &Secret,
        auth: &[u8],
    ) -> Option<Verified> {
        constant_time_eq(&self.shared_key_mic(keys, secret), auth).then_some(Verified(()))
    }
}

/// The peer has proven its identity. Only the checks above make one.
#[derive(Debug)]
pub(crate) struct Verified(());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aead::Aead;
    use crate::crypto::ke::{KeInitiator, KeMethod, respond};
    use crate::crypto::prf::Prf;
    use crate::crypto::schedule::{Context, Suite};
    use rand_core::SeedableRng;

    /// RFC 7296 section 2.15 and RFC 9242 section 3.3.2, written out.
    #[test]
    fn auth_covers_message_nonce_identity_and_intermediate_exchanges() {
        let keys = keys();
        let psk = &Secret::new(b"secret".to_vec());
        let prf = Prf::HmacSha256;
        let key = prf.compute(psk.expose(), &[b"Key Pad for IKEv2"]);
        let maced_id = prf.compute(keys.sk_p(true), &[b"id"]);
        let plain = prf.compute(&key, &[b"message", b"nonce", &maced_id]);
        assert!(
            octets(&IntAuth::default(), &IntAuth::default())
                .verify_shared_key_mic(&keys, psk, &plain)
                .is_some()
        );

        let (mut int_i, mut int_r) = (IntAuth::default(), IntAuth::default());
        for (a, p) in [(b"a1", b"p1"), (b"a2", b"p2")] {
            int_i.update(&keys, true, a, p);
            int_r.update(&keys, false, a, p);
        }
        let i1 = prf.compute(keys.sk_p(true), &[b"a1p1"]);
        let i2 = prf.compute(keys.sk_p(true), &[&i1, b"a2p2"]);
        let r1 = prf.compute(keys.sk_p(false), &[b"a1p1"]);
        let r2 = prf.compute(keys.sk_p(false), &[&r1, b"a2p2"]);
        let full = prf.compute(&key, &[b"message", b"nonce", &maced_id, &i2, &r2, &[0, 0, 0, 3]]);
        let octets = octets(&int_i, &int_r);
        assert!(octets.verify_shared_key_mic(&keys, psk, &full).is_some());
        assert!(octets.verify_shared_key_mic(&keys, psk, &plain).is_none());
        assert!(octets.verify_shared_key_mic(&keys, &Secret::new(b"other".to_vec()), &full).is_none());
        assert!(octets.verify_shared_key_mic(&keys, psk, &full[..16]).is_none());
    }

    /// draft-ietf-ipsecme-ikev2-downgrade-prevention sections 6 and 7.1, written out.
    #[test]
    fn a_full_transcript_puts_eight_zeros_and_the_peers_message_first() {
        let keys = keys();
        let (mut int_i, mut int_r) = (IntAuth::default(), IntAuth::default());
        int_i.update(&keys, true, b"a", b"p");
        int_r.update(&keys, false, b"a", b"p");
        let plain = octets(&int_i, &int_r);
        let full = SignedOctets { peer_message: Some(b"response"), ..octets(&int_i, &int_r) };
        let prf = Prf::HmacSha256;
        let key = prf.compute(b"secret", &[b"Key Pad for IKEv2"]);
        let maced_id = prf.compute(keys.sk_p(true), &[b"id"]);
        let int_i = prf.compute(keys.sk_p(true), &[b"ap"]);
        let int_r = prf.compute(keys.sk_p(false), &[b"ap"]);
        let prefix = [&[0; 8][..], b"response", b"message", b"nonce"].concat();
        let expected = prf.compute(&key, &[&prefix, &maced_id, &int_i, &int_r, &[0, 0, 0, 3]]);
        let psk = &Secret::new(b"secret".to_vec());
        assert!(full.verify_shared_key_mic(&keys, psk, &expected).is_some());
        assert!(plain.verify_shared_key_mic(&keys, psk, &expected).is_none());
    }

    fn octets<'a>(int_i: &'a IntAuth, int_r: &'a IntAuth) -> SignedOctets<'a> {
        SignedOctets {
            message: b"message",
            peer_message: None,
            peer_nonce: b"nonce",
            id_body: b"id",
            of_initiator: true,
            int_auth: (int_i, int_r),
            auth_message_id: 3,
        }
    }

    fn keys() -> SetupKeys {
        let mut rng = crate::crypto::Rng::from_seed([1; 32]);
        let (_, data) = KeInitiator::generate(KeMethod::MlKem512, &mut rng).unwrap();
        let (_, shared) = respond(KeMethod::MlKem512, &data, &mut rng).unwrap();
        let suite = Suite { prf: Prf::HmacSha256, aead: Aead::Aes128Gcm16 };
        SetupKeys::new(suite, Context { nonce_i: &[1; 16], nonce_r: &[2; 16], spi_i: 3, spi_r: 4 }, &shared)
    }
}
