//! X25519, P-256 and P-384 by `aws-lc-rs`.

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::crypto::ke::{KeError, KeMethod, SharedSecret};

/// The private value of one exchange. It may answer several peer values, each of which is tested (RFC 6989 section 2).
pub(crate) struct DhSecret {
    method: KeMethod,
    key: PrivateKey,
}

impl DhSecret {
    /// A fresh private value and the Key Exchange Data that belongs to it.
    pub(crate) fn generate(method: KeMethod) -> Result<(Self, Vec<u8>), KeError> {
        let key = PrivateKey::generate(algorithm(method)?).map_err(|_| KeError::Provider)?;
        Self::with_public(method, key)
    }

    fn with_public(method: KeMethod, key: PrivateKey) -> Result<(Self, Vec<u8>), KeError> {
        let public = key.compute_public_key().map_err(|_| KeError::Provider)?;
        // RFC 5903 section 7 sends x and y alone; SEC 1 puts the form before them, 4 for "uncompressed".
        let data = match (method, public.as_ref()) {
            (KeMethod::Ecp256 | KeMethod::Ecp384, [_, point @ ..]) => point.to_vec(),
            (_, public) => public.to_vec(),
        };
        Ok((Self { method, key }, data))
    }

    /// The shared secret with the peer's Key Exchange Data. Points that are not on the curve and X25519 results of zero are
    /// refused (RFC 6989 section 2.3, RFC 8031 section 2.3).
    pub(crate) fn agree(&self, peer: &[u8]) -> Result<SharedSecret, KeError> {
        let point = match self.method {
            KeMethod::Ecp256 | KeMethod::Ecp384 => [&[4], peer].concat(),
            _ => peer.to_vec(),
        };
        let peer = UnparsedPublicKey::new(algorithm(self.method)?, point);
        agreement::agree(&self.key, peer, KeError::InvalidPublicValue, |secret| {
            Ok(SharedSecret(Zeroizing::new(secret.to_vec())))
        })
    }
}

fn algorithm(method: KeMethod) -> Result<&'static agreement::Algorithm, KeError> {
    match method {
        KeMethod::Curve25519 => Ok(&agreement::X25519),
        KeMethod::Ecp256 => Ok(&agreement::ECDH_P256),
        KeMethod::Ecp384 => Ok(&agreement::ECDH_P384),
        KeMethod::MlKem512 | KeMethod::MlKem768 | KeMethod::MlKem1024 => Err(KeError::Unsupported),
    }
}

#[cfg(test)]
impl DhSecret {
    /// The private value of a published vector.
    pub(crate) fn from_private(method: KeMethod, private: &[u8]) -> Self {
        Self { method, key: PrivateKey::from_private_key(algorithm(method).unwrap(), private).unwrap() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::provider::dh_vectors;

    #[test]
    fn published_secrets_are_agreed_on() {
        for vector in dh_vectors::ALL {
            let key = PrivateKey::from_private_key(algorithm(vector.method).unwrap(), &vector.private());
            let (secret, public) = DhSecret::with_public(vector.method, key.unwrap()).unwrap();
            assert_eq!(public, vector.public(), "{:?}", vector.method);
            assert_eq!(secret.agree(&vector.peer()).unwrap().expose(), vector.shared());
        }
    }

    /// RFC 6989 section 2.3 and RFC 8031 section 2.3.
    #[test]
    fn public_values_off_the_curve_are_refused() {
        for (method, data) in dh_vectors::OFF_THE_CURVE {
            let refused = DhSecret::generate(method).unwrap().0.agree(data).err();
            assert_eq!(refused, Some(KeError::InvalidPublicValue), "{method:?}");
        }
    }
}
