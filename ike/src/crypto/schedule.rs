//! The key schedule: RFC 7296 sections 2.14, 2.17 and 2.18, with RFC 9370 section 2.2.2 and 2.2.4.
//!
//! ```text
//! IKE_SA_INIT ──> SetupKeys ──advance──> SetupKeys ──establish──> IkeKeys ──rekey──> IkeKeys
//!                 (SK_e, SK_p)  after each IKE_INTERMEDIATE        (SK_e, SK_d)
//!                                with a key exchange                    └──child──> ChildKeys
//! ```
//!
//! Each step consumes the stage before it, so keys of an older generation cannot be used again. SK_p exist only while
//! AUTH can still be computed. All ciphers are AEAD, so SK_a do not exist (RFC 5282 section 4).

use zeroize::Zeroizing;

use super::aead::{Aead, AeadKey};
use super::ke::SharedSecret;
use super::prf::{Prf, PrfOutput};

/// The algorithms of an IKE SA that its keys depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Suite {
    /// Pseudorandom function.
    pub(crate) prf: Prf,
    /// Cipher of the Encrypted payload.
    pub(crate) aead: Aead,
}

/// Nonces and SPIs of the exchange that a set of keys belongs to, the initiator's first.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Ni.
    pub(crate) nonce_i: &'a [u8],
    /// Nr.
    pub(crate) nonce_r: &'a [u8],
    /// SPIi.
    pub(crate) spi_i: u64,
    /// SPIr.
    pub(crate) spi_r: u64,
}

/// Keys between IKE_SA_INIT and the verified AUTH payloads.
pub(crate) struct SetupKeys {
    keys: IkeKeys,
    p_i: PrfOutput,
    p_r: PrfOutput,
}

impl SetupKeys {
    /// After IKE_SA_INIT: SKEYSEED = prf(Ni | Nr, g^ir), RFC 7296 section 2.14.
    pub(crate) fn new(suite: Suite, context: Context<'_>, shared: &SharedSecret) -> Self {
        let key = Zeroizing::new([context.nonce_i, context.nonce_r].concat());
        let skeyseed = suite.prf.compute(&key, &[shared.expose()]);
        Self::derive(suite, &skeyseed, context)
    }

    /// After an IKE_INTERMEDIATE with a key exchange: SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr), RFC 9370 section
    /// 2.2.2.
    pub(crate) fn advance(self, context: Context<'_>, shared: &SharedSecret) -> Self {
        let suite = self.keys.suite;
        let skeyseed = suite.prf.compute(&self.keys.d, &[shared.expose(), context.nonce_i, context.nonce_r]);
        Self::derive(suite, &skeyseed, context)
    }

    /// With a PPK of IKE_AUTH: SK_d, SK_pi and SK_pr are prf+(PPK, what they were before) (RFC 8784 section 3).
    pub(crate) fn with_ppk(&self, ppk: &[u8]) -> Self {
        let suite = self.keys.suite;
        let mix = |key: &[u8]| PrfOutput::new(&suite.prf.plus(ppk, &[key], key.len()));
        Self {
            keys: IkeKeys { d: mix(&self.keys.d), ..self.keys.clone() },
            p_i: mix(&self.p_i),
            p_r: mix(&self.p_r),
        }
    }

    /// After an IKE_INTERMEDIATE with a PPK: SKEYSEED' = prf+(PPK, SK_d), and all keys anew (RFC 9867).
    pub(crate) fn advance_by_ppk(self, context: Context<'_>, ppk: &[u8]) -> Self {
        let suite = self.keys.suite;
        let skeyseed = suite.prf.plus(ppk, &[&self.keys.d], suite.prf.output_len());
        Self::derive(suite, &skeyseed, context)
    }

    /// After both AUTH payloads are verified: SK_p are wiped.
    pub(crate) fn establish(self) -> IkeKeys {
        self.keys
    }

    /// The keys that protect messages of this stage.
    pub(crate) fn keys(&self) -> &IkeKeys {
        &self.keys
    }

    /// SK_pi or SK_pr.
    pub(crate) fn sk_p(&self, of_initiator: bool) -> &[u8] {
        if of_initiator { &self.p_i } else { &self.p_r }
    }

    /// {SK_d | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr). SK_p have the preferred key size
    /// of the pseudorandom function.
    fn derive(suite: Suite, skeyseed: &[u8], context: Context<'_>) -> Self {
        let (prf_len, aead_len) = (suite.prf.output_len(), suite.aead.keymat_len());
        let spis = [context.spi_i.to_be_bytes(), context.spi_r.to_be_bytes()].concat();
        let seed: [&[u8]; 3] = [context.nonce_i, context.nonce_r, &spis];
        let keymat = suite.prf.plus(skeyseed, &seed, 3 * prf_len + 2 * aead_len);
        let mut rest = keymat.as_slice();
        let d = PrfOutput::new(take(&mut rest, prf_len));
        let e_i = AeadKey::new(suite.aead, take(&mut rest, aead_len));
        let e_r = AeadKey::new(suite.aead, take(&mut rest, aead_len));
        let p_i = PrfOutput::new(take(&mut rest, prf_len));
        let p_r = PrfOutput::new(take(&mut rest, prf_len));
        Self { keys: IkeKeys { suite, d, e_i, e_r }, p_i, p_r }
    }
}

/// Keys of a live IKE SA.
#[derive(Clone)]
pub(crate) struct IkeKeys {
    suite: Suite,
    d: PrfOutput,
    e_i: AeadKey,
    e_r: AeadKey,
}

impl IkeKeys {
    /// The algorithms they are for.
    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    /// SK_ei or SK_er.
    pub(crate) fn sk_e(&self, of_initiator: bool) -> &AeadKey {
        if of_initiator { &self.e_i } else { &self.e_r }
    }

    /// Keys of the IKE SA that replaces this one: SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1) ... SK(n)) by the old
    /// SA's function, then prf+ by the new one's (RFC 7296 section 2.18, RFC 9370 section 2.2.4).
    pub(crate) fn rekey(&self, suite: Suite, context: Context<'_>, shared: &[SharedSecret]) -> Self {
        let (first, additional) = match shared.split_first() {
            Some((first, additional)) => (first.expose(), additional),
            None => (&[][..], shared),
        };
        let mut parts = vec![first, context.nonce_i, context.nonce_r];
        parts.extend(additional.iter().map(SharedSecret::expose));
        let skeyseed = self.suite.prf.compute(&self.d, &parts);
        SetupKeys::derive(suite, &skeyseed, context).keys
    }

    /// Keys of a Child SA: KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1) ... SK(n)), where SK(0) and the rest exist only
    /// with key exchanges of its own (RFC 7296 section 2.17, RFC 9370 section 2.2.4).
    pub(crate) fn child(
        &self,
        cipher: Aead,
        nonce_i: &[u8],
        nonce_r: &[u8],
        shared: &[SharedSecret],
    ) -> ChildKeys {
        let (first, additional) = match shared.split_first() {
            Some((first, additional)) => (first.expose(), additional),
            None => (&[][..], shared),
        };
        let mut seed = vec![first, nonce_i, nonce_r];
        seed.extend(additional.iter().map(SharedSecret::expose));
        let len = cipher.keymat_len();
        let keymat = self.suite.prf.plus(&self.d, &seed, 2 * len);
        let mut rest = keymat.as_slice();
        ChildKeys {
            from_initiator: Zeroizing::new(take(&mut rest, len).to_vec()),
            from_responder: Zeroizing::new(take(&mut rest, len).to_vec()),
        }
    }
}

/// Key and salt of both directions of a Child SA; "initiator" is that of the exchange that made it.
pub(crate) struct ChildKeys {
    /// For packets from the initiator to the responder: taken first (RFC 7296 section 2.17).
    pub(crate) from_initiator: Zeroizing<Vec<u8>>,
    /// For packets from the responder to the initiator.
    pub(crate) from_responder: Zeroizing<Vec<u8>>,
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(len.min(rest.len()));
    *rest = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite { prf: Prf::HmacSha384, aead: Aead::Aes256Gcm16 };
    const CONTEXT: Context<'_> =
        Context { nonce_i: b"initiator nonce.", nonce_r: b"responder nonce.", spi_i: 1, spi_r: 2 };

    fn secret(octet: u8) -> SharedSecret {
        SharedSecret(Zeroizing::new(vec![octet; 32]))
    }

    /// RFC 7296 section 2.14 written out once more, with the order and sizes that RFC 5282 section 7.1 gives.
    #[test]
    fn setup_keys_come_from_prf_plus_in_the_order_of_the_rfc() {
        let keys = SetupKeys::new(SUITE, CONTEXT, &secret(7));
        let nonces = [CONTEXT.nonce_i, CONTEXT.nonce_r].concat();
        let skeyseed = Prf::HmacSha384.compute(&nonces, &[&[7; 32]]);
        let mut seed = nonces.clone();
        seed.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        let all = Prf::HmacSha384.plus(&skeyseed, &[&seed], 48 + 36 + 36 + 48 + 48);
        assert_eq!(&*keys.keys.d, &all[..48]);
        assert_eq!(keys.keys.sk_e(true).expose(), &all[48..84]);
        assert_eq!(keys.keys.sk_e(false).expose(), &all[84..120]);
        assert_eq!(keys.sk_p(true), &all[120..168]);
        assert_eq!(keys.sk_p(false), &all[168..]);
    }

    /// RFC 9370 section 2.2.2.
    #[test]
    fn an_additional_key_exchange_changes_every_key() {
        let before = SetupKeys::new(SUITE, CONTEXT, &secret(7));
        let skeyseed = Prf::HmacSha384.compute(&before.keys.d, &[&[8; 32], CONTEXT.nonce_i, CONTEXT.nonce_r]);
        let expected = SetupKeys::derive(SUITE, &skeyseed, CONTEXT);
        let after = SetupKeys::new(SUITE, CONTEXT, &secret(7)).advance(CONTEXT, &secret(8));
        assert_eq!(after.sk_p(true), expected.sk_p(true));
        assert_eq!(after.keys.sk_e(false).expose(), expected.keys.sk_e(false).expose());
        assert_ne!(after.keys.sk_e(false).expose(), before.keys.sk_e(false).expose());
        assert_ne!(after.sk_p(true), before.sk_p(true));
    }

    /// RFC 8784 section 3, written out for functions with output as long as their key; SK_e stay what they are.
    #[test]
    fn a_ppk_changes_the_keys_of_auth_and_children_alone() {
        let before = SetupKeys::new(SUITE, CONTEXT, &secret(7));
        let after = before.with_ppk(b"ppk");
        let mixed = |key: &[u8]| Prf::HmacSha384.compute(b"ppk", &[key, &[1]]);
        assert_eq!(*after.keys.d, *mixed(&before.keys.d));
        assert_eq!(after.sk_p(true), &*mixed(before.sk_p(true)));
        assert_eq!(after.sk_p(false), &*mixed(before.sk_p(false)));
        assert_eq!(after.keys.sk_e(true).expose(), before.keys.sk_e(true).expose());
        assert_eq!(after.keys.sk_e(false).expose(), before.keys.sk_e(false).expose());
    }

    /// RFC 9867.
    #[test]
    fn a_ppk_in_ike_intermediate_changes_every_key() {
        let before = SetupKeys::new(SUITE, CONTEXT, &secret(7));
        let skeyseed = Prf::HmacSha384.compute(b"ppk", &[&before.keys.d, &[1]]);
        let expected = SetupKeys::derive(SUITE, &skeyseed, CONTEXT);
        let after = SetupKeys::new(SUITE, CONTEXT, &secret(7)).advance_by_ppk(CONTEXT, b"ppk");
        assert_eq!(*after.keys.d, *expected.keys.d);
        assert_eq!(after.sk_p(false), expected.sk_p(false));
        assert_eq!(after.keys.sk_e(true).expose(), expected.keys.sk_e(true).expose());
        assert_ne!(after.keys.sk_e(true).expose(), before.keys.sk_e(true).expose());
    }

    /// RFC 7296 section 2.17: the initiator's key is taken first; RFC 9370 section 2.2.4: SK(0) leads, SK(n) follow.
    #[test]
    fn child_keys_mix_in_every_key_exchange() {
        let keys = SetupKeys::new(SUITE, CONTEXT, &secret(7)).establish();
        let keymat = Prf::HmacSha384.plus(&keys.d, &[&[1; 32], b"ni", b"nr", &[2; 32]], 72);
        let child = keys.child(Aead::Aes256Gcm16, b"ni", b"nr", &[secret(1), secret(2)]);
        assert_eq!(*child.from_initiator, keymat[..36]);
        assert_eq!(*child.from_responder, keymat[36..]);
        let plain = keys.child(Aead::Aes128Gcm16, b"ni", b"nr", &[]);
        assert_eq!(*plain.from_initiator, Prf::HmacSha384.plus(&keys.d, &[b"ninr"], 20)[..]);
    }

    /// RFC 7296 section 2.18: SKEYSEED by the old SA's function, keys by the new one's.
    #[test]
    fn a_rekey_may_change_the_pseudorandom_function() {
        let old = SetupKeys::new(SUITE, CONTEXT, &secret(7)).establish();
        let suite = Suite { prf: Prf::HmacSha256, aead: Aead::ChaCha20Poly1305 };
        let skeyseed =
            Prf::HmacSha384.compute(&old.d, &[&[1; 32], CONTEXT.nonce_i, CONTEXT.nonce_r, &[2; 32]]);
        let expected = SetupKeys::derive(suite, &skeyseed, CONTEXT).keys;
        let new = old.rekey(suite, CONTEXT, &[secret(1), secret(2)]);
        assert_eq!(new.sk_e(true).expose(), expected.sk_e(true).expose());
        assert_eq!(&*new.d, &*expected.d);
    }
}
