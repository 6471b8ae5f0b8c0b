//! Cryptography: the algorithms of IKEv2 behind one seam.
//!
//! `provider` alone names the crates that compute; `prf`, `aead`, `ke` and `digest` are what the rest of
//! `ike` calls, in the words of the IANA registry. `schedule` and `auth` are RFC 7296 sections 2.13 to 2.18,
//! RFC 9242 section 3.3 and RFC 9370 section 2.2 on top of them.
//!
//! Randomness comes from the caller's generator, so that one seed gives one run, with one exception: `aws-lc-rs` draws that
//! of key exchanges and signatures from the system, and `ring` the private values of X25519, P-256 and P-384, because they
//! accept no other source. Message sizes, order and timing do not depend on them.

pub(crate) mod aead;
pub(crate) mod auth;
pub(crate) mod digest;
pub(crate) mod ke;
pub(crate) mod prf;
mod provider;
pub(crate) mod schedule;
pub(crate) mod signature;

pub(crate) use aead::{Aead, AeadKey};
pub(crate) use ke::{KeError, KeInitiator, KeMethod, ReusableKe, SharedSecret};
pub(crate) use prf::Prf;
pub use provider::Provider;

/// The generator that an endpoint is seeded with.
pub(crate) type Rng = rand_chacha::ChaCha20Rng;

/// A generator for one secret. The one that it comes from gets a new seed at once, so that neither its memory nor the seed
/// of the endpoint gives the secret away later (RFC 7296 section 2.12).
pub(crate) fn once(rng: &mut Rng) -> Rng {
    use rand_core::{Rng as _, SeedableRng as _};
    let (mut child, mut next) = (zeroize::Zeroizing::new([0; 32]), zeroize::Zeroizing::new([0; 32]));
    rng.fill_bytes(&mut *child);
    rng.fill_bytes(&mut *next);
    *rng = Rng::from_seed(*next);
    Rng::from_seed(*child)
}

#[cfg(test)]
mod tests {
    use rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    /// draft-ietf-ipsecme-ikev2-mlkem section 3, RFC 7296 section 2.12: two secrets have nothing in common, and what the endpoint's
    /// generator gives afterwards is not what it would have given.
    #[test]
    fn each_secret_has_a_generator_of_its_own() {
        let mut parent = Rng::from_seed([1; 32]);
        let mut as_it_was = parent.clone();
        let (mut one, mut other) = (once(&mut parent), once(&mut parent));
        let streams = [&mut as_it_was, &mut parent, &mut one, &mut other].map(|rng| {
            let mut octets = vec![0; 256];
            rng.fill_bytes(&mut octets);
            octets
        });
        let words = |octets: &[u8]| octets.chunks(8).map(<[u8]>::to_vec).collect::<Vec<_>>();
        for (i, stream) in streams.iter().enumerate() {
            for other in &streams[..i] {
                assert!(words(stream).iter().all(|word| !words(other).contains(word)));
            }
        }
    }
}
