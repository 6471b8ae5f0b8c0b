//! Both providers are held to the same rules, and to each other.

use rand_core::SeedableRng as _;

use super::*;
use crate::crypto::prf::tests::unhex;
use crate::crypto::{Rng, once};

const KEMS: [KeMethod; 3] = [KeMethod::MlKem512, KeMethod::MlKem768, KeMethod::MlKem1024];

#[test]
fn each_provider_agrees_with_the_other_on_every_group() {
    for method in [KeMethod::Curve25519, KeMethod::Ecp256, KeMethod::Ecp384] {
        let (one, ours) = ring_ml_kem::DhSecret::generate(method).unwrap();
        let (other, theirs) = aws_lc::DhSecret::generate(method).unwrap();
        assert_eq!(
            one.agree(method, &theirs).unwrap().expose(),
            other.agree(&ours).unwrap().expose(),
            "{method:?}"
        );
    }
}

#[test]
fn each_provider_decapsulates_what_the_other_encapsulates() {
    let mut rng = Rng::from_seed([7; 32]);
    for method in KEMS {
        let (key, public) = aws_lc::KemDecapsulator::generate(method).unwrap();
        let (ciphertext, secret) = ring_ml_kem::kem_encapsulate(method, &public, &mut rng).unwrap();
        assert_eq!(key.decapsulate(&ciphertext).unwrap().expose(), secret.expose(), "{method:?}");
        let (key, public) = ring_ml_kem::KemDecapsulator::generate(method, &mut rng).unwrap();
        let (ciphertext, secret) = aws_lc::kem_encapsulate(method, &public).unwrap();
        assert_eq!(key.decapsulate(&ciphertext).unwrap().expose(), secret.expose(), "{method:?}");
    }
}

/// FIPS 203 section 7.2, modulus check: every coefficient, at the smallest and the largest value that is not reduced.
#[test]
fn encapsulation_keys_with_an_unreduced_coefficient_are_refused() {
    let mut rng = Rng::from_seed([9; 32]);
    for (method, k) in KEMS.into_iter().zip([2, 3, 4]) {
        let (_, valid) = ring_ml_kem::KemDecapsulator::generate(method, &mut rng).unwrap();
        for coefficient in 0..256 * k {
            for value in [3329_u16, 4095] {
                let mut key = valid.clone();
                let at = coefficient / 2 * 3;
                let [low, high] = value.to_le_bytes();
                if coefficient % 2 == 0 {
                    key[at] = low;
                    key[at + 1] = key[at + 1] & 0xf0 | high;
                } else {
                    key[at + 1] = key[at + 1] & 0x0f | low << 4;
                    key[at + 2] = high << 4 | low >> 4;
                }
                let refused = [
                    ring_ml_kem::kem_encapsulate(method, &key, &mut rng).err(),
                    aws_lc::kem_encapsulate(method, &key).err(),
                ];
                assert_eq!(
                    refused,
                    [Some(KeError::InvalidPublicValue); 2],
                    "{method:?} {coefficient} {value}"
                );
            }
        }
    }
}

/// FIPS 203 section 7.3: length is the type check; a wrong ciphertext gives another secret without an error.
#[test]
fn wrong_ciphertexts_are_refused_by_length_or_rejected_implicitly() {
    let mut rng = Rng::from_seed([8; 32]);
    for method in KEMS {
        let ours = ring_ml_kem::KemDecapsulator::generate(method, &mut rng).unwrap();
        let theirs = aws_lc::KemDecapsulator::generate(method).unwrap();
        for (decapsulator, public) in
            [(KemDecapsulator::MlKem(ours.0), ours.1), (KemDecapsulator::AwsLc(theirs.0), theirs.1)]
        {
            let (mut ciphertext, secret) = aws_lc::kem_encapsulate(method, &public).unwrap();
            assert_eq!(decapsulator.decapsulate(&ciphertext[1..]).err(), Some(KeError::Length));
            ciphertext[0] ^= 1;
            assert_ne!(decapsulator.decapsulate(&ciphertext).unwrap().expose(), secret.expose());
        }
    }
}

#[test]
fn hmac_is_the_same_by_both() {
    for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
        for key in [&[1; 20][..], &[2; 200]] {
            let parts: [&[u8]; 3] = [b"one", b"", &[3; 300]];
            let (ours, theirs) = (ring_ml_kem::HmacKey::new(prf, key), aws_lc::HmacKey::new(prf, key));
            let (ours, theirs) = (ours.compute(&parts), theirs.compute(&parts));
            assert_eq!(*ours, *theirs, "{prf:?}");
        }
    }
}

/// FIPS 180-4, "abc", as NIST's examples of SHA-1 and SHA-256 give it.
#[test]
fn digests_are_those_that_nist_published() {
    let sha1 = unhex("a9993e364706816aba3e25717850c26c9cd0d89d");
    let sha256 = unhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!([ring_ml_kem::sha1(b"abc"), aws_lc::sha1(b"abc")].map(Vec::from), [sha1.clone(), sha1]);
    assert_eq!(
        [ring_ml_kem::sha256(b"abc"), aws_lc::sha256(b"abc")].map(Vec::from),
        [sha256.clone(), sha256]
    );
}

#[test]
fn what_one_seals_the_other_opens_and_a_changed_bit_neither() {
    for (aead, key) in
        [(Aead::Aes128Gcm16, &[1; 16][..]), (Aead::Aes256Gcm16, &[2; 32]), (Aead::ChaCha20Poly1305, &[3; 32])]
    {
        let plain = [5; 77];
        let (mut one, mut other) = (plain, plain);
        let ours = ring_ml_kem::aead_seal(aead, key, [9; 12], b"aad", &mut one).unwrap();
        let theirs = aws_lc::aead_seal(aead, key, [9; 12], b"aad", &mut other).unwrap();
        assert_eq!((one, ours), (other, theirs), "{aead:?}");
        let sealed = [&one[..], &ours].concat();
        let opened = [
            ring_ml_kem::aead_open(aead, key, [9; 12], b"aad", &mut sealed.clone()).map(|text| text.to_vec()),
            aws_lc::aead_open(aead, key, [9; 12], b"aad", &mut sealed.clone()).map(|text| text.to_vec()),
        ];
        assert_eq!(opened, [Some(plain.to_vec()), Some(plain.to_vec())], "{aead:?}");
        let mut changed = sealed;
        changed[0] ^= 1;
        assert!(ring_ml_kem::aead_open(aead, key, [9; 12], b"aad", &mut changed.clone()).is_none());
        assert!(aws_lc::aead_open(aead, key, [9; 12], b"aad", &mut changed).is_none());
    }
}

/// draft-ietf-ipsecme-ikev2-mlkem section 3: a new key pair and a new ciphertext for every exchange, of every method.
#[test]
fn no_two_exchanges_have_a_key_or_a_ciphertext_in_common() {
    let mut rng = Rng::from_seed([3; 32]);
    for method in KEMS {
        let ours =
            [(); 2].map(|()| ring_ml_kem::KemDecapsulator::generate(method, &mut once(&mut rng)).unwrap().1);
        let theirs = [(); 2].map(|()| aws_lc::KemDecapsulator::generate(method).unwrap().1);
        assert!(ours[0] != ours[1] && theirs[0] != theirs[1], "{method:?}");
        let key = &ours[0];
        let ours =
            [(); 2].map(|()| ring_ml_kem::kem_encapsulate(method, key, &mut once(&mut rng)).unwrap().0);
        let theirs = [(); 2].map(|()| aws_lc::kem_encapsulate(method, key).unwrap().0);
        assert!(ours[0] != ours[1] && theirs[0] != theirs[1], "{method:?}");
    }
    for method in [KeMethod::Curve25519, KeMethod::Ecp256, KeMethod::Ecp384] {
        let ours = [(); 2].map(|()| ring_ml_kem::DhSecret::generate(method).unwrap().1);
        let theirs = [(); 2].map(|()| aws_lc::DhSecret::generate(method).unwrap().1);
        assert!(ours[0] != ours[1] && theirs[0] != theirs[1], "{method:?}");
    }
}
