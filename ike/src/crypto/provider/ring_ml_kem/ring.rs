//! Diffie-Hellman by `ring`, and comparison in constant time.

use ring::{agreement, rand::SystemRandom};
use zeroize::Zeroizing;

use crate::crypto::ke::{KeError, KeMethod, SharedSecret};

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

/// Compares in a time that depends on the lengths alone.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(a, b).into()
}

#[cfg(test)]
impl DhSecret {
    /// The private value of a published vector.
    #[allow(deprecated, reason = "ring takes a private value from nothing else")]
    pub(crate) fn from_private(method: KeMethod, private: &[u8]) -> Self {
        let random = ring::test::rand::FixedSliceRandom { bytes: private };
        Self::generate_from(method, &random).unwrap().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::provider::dh_vectors;

    #[test]
    #[allow(
        deprecated,
        reason = "ring takes a private value from nothing else, and a published vector needs one"
    )]
    fn published_secrets_are_agreed_on() {
        for vector in dh_vectors::ALL {
            let private = vector.private();
            let random = ring::test::rand::FixedSliceRandom { bytes: &private };
            let (secret, ours) = DhSecret::generate_from(vector.method, &random).unwrap();
            assert_eq!(ours, vector.public(), "{:?}", vector.method);
            assert_eq!(secret.agree(vector.method, &vector.peer()).unwrap().expose(), vector.shared());
        }
    }

    /// RFC 6989 section 2.3 and RFC 8031 section 2.3.
    #[test]
    fn public_values_off_the_curve_are_refused() {
        for (method, data) in dh_vectors::OFF_THE_CURVE {
            let refused = DhSecret::generate(method).unwrap().0.agree(method, data).err();
            assert_eq!(refused, Some(KeError::InvalidPublicValue), "{method:?}");
        }
    }
}
