//! HMAC, AEAD, Diffie-Hellman and digests by `ring`.

use ring::{aead, agreement, digest, hmac as ring_hmac, rand::SystemRandom};
use zeroize::Zeroizing;

use crate::crypto::aead::Aead;
use crate::crypto::ke::{KeError, KeMethod, SharedSecret};
use crate::crypto::prf::{Prf, PrfOutput};

/// HMAC over the concatenation of `parts`.
pub(crate) fn hmac(prf: Prf, key: &[u8], parts: &[&[u8]]) -> PrfOutput {
    let algorithm = match prf {
        Prf::HmacSha256 => ring_hmac::HMAC_SHA256,
        Prf::HmacSha384 => ring_hmac::HMAC_SHA384,
        Prf::HmacSha512 => ring_hmac::HMAC_SHA512,
    };
    let mut context = ring_hmac::Context::with_key(&ring_hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    PrfOutput::new(context.sign().as_ref())
}

fn aead_key(aead: Aead, key: &[u8]) -> Option<aead::LessSafeKey> {
    let algorithm = match aead {
        Aead::Aes128Gcm16 => &aead::AES_128_GCM,
        Aead::Aes256Gcm16 => &aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    Some(aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).ok()?))
}

/// Encrypts `text` in place and returns the tag; `None` if the key does not fit or the text is too long.
pub(crate) fn aead_seal(
    aead: Aead,
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    text: &mut [u8],
) -> Option<[u8; 16]> {
    let tag = aead_key(aead, key)?
        .seal_in_place_separate_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad), text)
        .ok()?;
    tag.as_ref().try_into().ok()
}

/// Decrypts text and tag in place and returns the text; `None` if it is not authentic.
pub(crate) fn aead_open<'a>(
    aead: Aead,
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    text_and_tag: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    aead_key(aead, key)?
        .open_in_place(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad), text_and_tag)
        .ok()
}

/// The private value of one Diffie-Hellman exchange, used once.
pub(crate) struct DhSecret(agreement::EphemeralPrivateKey);

impl DhSecret {
    /// A fresh private value and the Key Exchange Data that belongs to it.
    pub(crate) fn generate(method: KeMethod) -> Result<(Self, Vec<u8>), KeError> {
        Self::generate_from(method, &SystemRandom::new())
    }

    fn generate_from(
        method: KeMethod,
        random: &dyn ring::rand::SecureRandom,
    ) -> Result<(Self, Vec<u8>), KeError> {
        let algorithm = dh_algorithm(method).ok_or(KeError::Unsupported)?;
        let secret =
            agreement::EphemeralPrivateKey::generate(algorithm, random).map_err(|_| KeError::Provider)?;
        let public = secret.compute_public_key().map_err(|_| KeError::Provider)?;
        Ok((Self(secret), strip_point_form(method, public.as_ref())))
    }

    /// The shared secret with the peer's Key Exchange Data. Points that are not on the curve and X25519 results of
    /// zero are refused (RFC 6989 section 2.3, RFC 8031 section 2.3).
    pub(crate) fn agree(self, method: KeMethod, peer: &[u8]) -> Result<SharedSecret, KeError> {
        let algorithm = dh_algorithm(method).ok_or(KeError::Unsupported)?;
        let point = add_point_form(method, peer);
        let public = agreement::UnparsedPublicKey::new(algorithm, point);
        agreement::agree_ephemeral(self.0, &public, |secret| SharedSecret(Zeroizing::new(secret.to_vec())))
            .map_err(|_| KeError::InvalidPublicValue)
    }
}

fn dh_algorithm(method: KeMethod) -> Option<&'static agreement::Algorithm> {
    match method {
        KeMethod::Curve25519 => Some(&agreement::X25519),
        KeMethod::Ecp256 => Some(&agreement::ECDH_P256),
        KeMethod::Ecp384 => Some(&agreement::ECDH_P384),
        KeMethod::MlKem512 | KeMethod::MlKem768 | KeMethod::MlKem1024 => None,
    }
}

/// RFC 5903 section 7 sends x and y alone; `ring` wants the uncompressed form of SEC 1, which is 4, x, y.
fn add_point_form(method: KeMethod, data: &[u8]) -> Vec<u8> {
    match method {
        KeMethod::Ecp256 | KeMethod::Ecp384 => [&[4], data].concat(),
        _ => data.to_vec(),
    }
}

fn strip_point_form(method: KeMethod, data: &[u8]) -> Vec<u8> {
    match (method, data) {
        (KeMethod::Ecp256 | KeMethod::Ecp384, [_, point @ ..]) => point.to_vec(),
        _ => data.to_vec(),
    }
}

/// SHA-1, for NAT detection (RFC 7296 section 2.23) and the names of authorities (section 3.7) only.
pub(crate) fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 20];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

/// SHA-256.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

/// Compares in a time that depends on the lengths alone.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(a, b).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::prf::tests::unhex;

    /// RFC 7748 section 6.1.
    #[test]
    fn x25519_agrees_on_the_published_secret() {
        agrees_on(
            KeMethod::Curve25519,
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        );
    }

    /// RFC 5903 section 8.1.
    #[test]
    fn p256_agrees_on_the_published_secret() {
        agrees_on(
            KeMethod::Ecp256,
            "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
            "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180\
             5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
            "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63\
             56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
            "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
        );
    }

    /// RFC 5903 section 8.2.
    #[test]
    fn p384_agrees_on_the_published_secret() {
        agrees_on(
            KeMethod::Ecp384,
            "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
            "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA\
             9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
            "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571\
             DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
            "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
        );
    }

    /// RFC 6989 section 2.3 and RFC 8031 section 2.3.
    #[test]
    fn public_values_off_the_curve_are_refused() {
        let refused = |method, data: &[u8]| {
            DhSecret::generate(method).unwrap().0.agree(method, data).err()
                == Some(KeError::InvalidPublicValue)
        };
        assert!(refused(KeMethod::Curve25519, &[0; 32]));
        assert!(refused(KeMethod::Ecp256, &[1; 64]));
        assert!(refused(KeMethod::Ecp384, &[1; 96]));
    }

    #[allow(
        deprecated,
        reason = "ring takes a private value from nothing else, and a published vector needs one"
    )]
    fn agrees_on(method: KeMethod, private: &str, public: &str, peer: &str, shared: &str) {
        let private = unhex(private);
        let random = ring::test::rand::FixedSliceRandom { bytes: &private };
        let (secret, ours) = DhSecret::generate_from(method, &random).unwrap();
        assert_eq!(ours, unhex(public));
        assert_eq!(secret.agree(method, &unhex(peer)).unwrap().expose(), unhex(shared));
    }
}
