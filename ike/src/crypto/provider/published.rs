//! Every algorithm against published vectors, those that must fail included, through every provider that computes it. The files in
//! `vectors` name their sources.

use portcullis_pki::{KeyType, PublicKey};

use super::vectors::{Case, Fixed, cases};
use super::*;
use crate::crypto::signature::{SignatureAlgorithm as A, SignatureHash as H};

/// FIPS 203. `aws-lc-rs` takes neither the seed of a key pair nor the message of an encapsulation; what it makes of its own is
/// decapsulated by `ml-kem`, and the other way round (`each_provider_decapsulates_what_the_other_encapsulates`).
#[test]
fn ml_kem_is_that_of_nist() {
    let sets = cases(include_str!("vectors/ml-kem.txt"));
    assert_eq!(sets.len(), 3);
    for set in sets {
        let (method, label) = (kem_of(set.text("name")), set.label());
        let mut seed = Fixed([set.octets("d"), set.octets("z")].concat());
        let (key, ek) = ring_ml_kem::KemDecapsulator::generate(method, &mut seed).unwrap();
        assert!(ek == set.octets("ek"), "{label}: encapsulation key");
        let (ciphertext, secret) = aws_lc::kem_encapsulate(method, &ek).unwrap();
        assert_eq!(key.decapsulate(&ciphertext).unwrap().expose(), secret.expose(), "{label}");

        let mut message = Fixed(set.octets("m"));
        let (ciphertext, secret) =
            ring_ml_kem::kem_encapsulate(method, &set.octets("encap_ek"), &mut message).unwrap();
        assert!(ciphertext == set.octets("c"), "{label}: ciphertext");
        assert_eq!(secret.expose(), set.octets("k"), "{label}: encapsulated secret");

        for key in expanded(method, &set.octets("dk")) {
            let secret = key.decapsulate(&set.octets("decap_c")).unwrap();
            assert_eq!(secret.expose(), set.octets("decap_k"), "{label}: decapsulated secret");
        }
    }
}

/// FIPS 203 sections 7.2 and 7.3: keys and ciphertexts that the checks refuse, and that implicit rejection gives the published
/// secret.
#[test]
fn ml_kem_accepts_and_refuses_as_wycheproof_does() {
    let mut last_dk = Vec::new();
    let (mut refused, mut accepted) = (0, 0);
    for case in cases(include_str!("vectors/ml-kem-wycheproof.txt")) {
        let (method, label) = (kem_of(case.text("name")), case.label());
        let secrets: Vec<_> = if let Some(m) = case.some_octets("m") {
            let ek = case.octets("ek");
            let ours = ring_ml_kem::kem_encapsulate(method, &ek, &mut Fixed(m));
            let theirs = aws_lc::kem_encapsulate(method, &ek);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{label}");
            ours.into_iter()
                .map(|(ciphertext, secret)| {
                    assert!(ciphertext == case.octets("c"), "{label}: ciphertext");
                    secret
                })
                .collect()
        } else {
            if let Some(dk) = case.some_octets("dk") {
                last_dk = dk;
            }
            let keys = expanded(method, &last_dk);
            let secrets: Vec<_> =
                keys.iter().filter_map(|key| key.decapsulate(&case.octets("c")).ok()).collect();
            assert!(secrets.is_empty() || secrets.len() == keys.len(), "{label}: by one provider only");
            secrets
        };
        assert_eq!(!secrets.is_empty(), case.is_valid(), "{label}");
        for secret in &secrets {
            assert_eq!(secret.expose(), case.octets("k"), "{label}");
        }
        if secrets.is_empty() { refused += 1 } else { accepted += 1 }
    }
    assert!(refused >= 6 && accepted >= 9, "{refused} refused, {accepted} accepted");
}

/// RFC 7748, RFC 5903; RFC 6989 section 2.3 and RFC 8031 section 2.3 for what has to be refused.
#[test]
fn diffie_hellman_agrees_and_refuses_as_wycheproof_does() {
    let mut refused = 0;
    for case in cases(include_str!("vectors/dh.txt")) {
        let (method, label) = (dh_of(case.text("method")), case.label());
        let (private, public) = (case.octets("private"), case.octets("public"));
        // Key Exchange Data has no octet for the form of the point (RFC 5903 section 7).
        let public = if method == KeMethod::Curve25519 { &public[..] } else { &public[1..] };
        let shared = case.is_valid().then(|| case.octets("shared"));
        let by_ring = ring_ml_kem::DhSecret::from_private(method, &private).agree(method, public);
        let reusable = ring_ml_kem::ReusableDh::from_private(method, &private).unwrap().0.agree(public);
        let by_aws_lc = aws_lc::DhSecret::from_private(method, &private).agree(public);
        for (name, agreed) in [("ring", by_ring), ("reusable", reusable), ("aws-lc", by_aws_lc)] {
            assert_eq!(agreed.ok().map(|secret| secret.expose().to_vec()), shared, "{label} by {name}");
        }
        refused += usize::from(shared.is_none());
    }
    assert!(refused >= 20, "only {refused} cases that must fail");
}

/// RFC 4868: HMAC; RFC 5869 and RFC 7296 section 2.13: prf+ is the second half of HKDF.
#[test]
fn hmac_and_prf_plus_are_those_of_wycheproof() {
    let mut seen = [0; 2];
    for case in cases(include_str!("vectors/symmetric.txt")) {
        let (algorithm, label) = (case.text("algorithm"), case.label());
        let Some(prf) = prf_of(algorithm) else { continue };
        if algorithm.starts_with("hmac") {
            let (key, msg) = (case.octets("key"), case.octets("msg"));
            for tag in hmac(prf, &key, &msg) {
                assert_eq!(*tag == case.octets("tag"), case.is_valid(), "{label}");
            }
            seen[0] += 1;
        } else {
            assert!(case.is_valid());
            let okm = case.octets("okm");
            for key in hmac(prf, &case.octets("salt"), &case.octets("ikm")) {
                assert_eq!(*prf.plus(&key, &[&case.octets("info")], okm.len()), okm, "{label}");
            }
            seen[1] += 1;
        }
    }
    assert!(seen[0] >= 18 && seen[1] >= 12, "{seen:?}");
}

/// RFC 5282 and RFC 7634.
#[test]
fn aead_seals_opens_and_refuses_as_wycheproof_does() {
    let (mut refused, mut opened) = (0, 0);
    for case in cases(include_str!("vectors/symmetric.txt")) {
        let aead = match case.text("algorithm") {
            "aes128gcm" => Aead::Aes128Gcm16,
            "aes256gcm" => Aead::Aes256Gcm16,
            "chacha20poly1305" => Aead::ChaCha20Poly1305,
            _ => continue,
        };
        let (key, aad, msg, label) =
            (case.octets("key"), case.octets("aad"), case.octets("msg"), case.label());
        let nonce = case.octets("iv").try_into().unwrap();
        let sealed = [case.octets("ct"), case.octets("tag")].concat();
        let (mut ours, mut theirs) = (sealed.clone(), sealed.clone());
        let texts = [
            ring_ml_kem::aead_open(aead, &key, nonce, &aad, &mut ours).map(|text| text.to_vec()),
            aws_lc::aead_open(aead, &key, nonce, &aad, &mut theirs).map(|text| text.to_vec()),
        ];
        let expected = case.is_valid().then(|| msg.clone());
        assert_eq!(texts, [expected.clone(), expected], "{label}");
        let (mut ours, mut theirs) = (msg.clone(), msg);
        let tag = ring_ml_kem::aead_seal(aead, &key, nonce, &aad, &mut ours).unwrap();
        ours.extend_from_slice(&tag);
        let tag = aws_lc::aead_seal(aead, &key, nonce, &aad, &mut theirs).unwrap();
        theirs.extend_from_slice(&tag);
        assert_eq!((ours == sealed, theirs == sealed), (case.is_valid(), case.is_valid()), "{label}");
        if case.is_valid() { opened += 1 } else { refused += 1 }
    }
    assert!(refused >= 9 && opened >= 20, "{refused} refused, {opened} opened");
}

/// RSA with both paddings, ECDSA in both forms, Ed25519.
#[test]
fn signatures_are_accepted_and_refused_as_by_wycheproof() {
    let kinds = verify_all(cases(include_str!("vectors/signatures.txt")));
    assert_eq!(kinds, 14);
}

/// FIPS 204 without a context.
#[test]
fn ml_dsa_signatures_are_accepted_and_refused_as_by_wycheproof() {
    let kinds = verify_all(cases(include_str!("vectors/ml-dsa.txt")));
    assert_eq!(kinds, 3);
}

/// RFC 8247 section 3.1.1: the signature is good and its key too short, as the peer's and as ours.
#[test]
fn rsa_below_2048_bits_is_refused() {
    let [case] = &cases(include_str!("vectors/rsa-1024.txt"))[..] else { panic!() };
    let key = PublicKey { key_type: KeyType::Rsa, bits: case.octets("key") };
    let (msg, sig) = (case.octets("msg"), case.octets("sig"));
    let short = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        &key.bits,
    );
    assert!(short.verify(&msg, &sig).is_ok());
    assert!(!verify_signature(&key, A::RsaPkcs1(H::Sha256), &msg, &sig));
    assert!(PrivateKey::from_der(&case.octets("private")).is_none());
}

/// Verifies each case; the number of algorithms, each of which has to have cases of both results.
fn verify_all(cases: Vec<Case>) -> usize {
    let mut results = std::collections::BTreeMap::<&str, [usize; 2]>::new();
    let mut bits = Vec::new();
    for case in cases {
        if let Some(key) = case.some_octets("key") {
            bits = key;
        }
        let (key_type, algorithm) = signature_of(case.text("algorithm"));
        let key = PublicKey { key_type, bits: bits.clone() };
        let verified = verify_signature(&key, algorithm, &case.octets("msg"), &case.octets("sig"));
        assert_eq!(verified, case.is_valid(), "{}", case.label());
        results.entry(case.text("algorithm")).or_default()[usize::from(verified)] += 1;
    }
    for (algorithm, [refused, accepted]) in &results {
        assert!(*refused > 0 && *accepted > 0, "{algorithm}: {refused} refused, {accepted} accepted");
    }
    results.len()
}

fn signature_of(name: &str) -> (KeyType, A) {
    match name {
        "rsa-pss-sha256" => (KeyType::Rsa, A::RsaPss(H::Sha256)),
        "rsa-pss-sha384" => (KeyType::Rsa, A::RsaPss(H::Sha384)),
        "rsa-pss-sha512" => (KeyType::Rsa, A::RsaPss(H::Sha512)),
        "rsa-pkcs1-sha256" => (KeyType::Rsa, A::RsaPkcs1(H::Sha256)),
        "rsa-pkcs1-sha384" => (KeyType::Rsa, A::RsaPkcs1(H::Sha384)),
        "rsa-pkcs1-sha512" => (KeyType::Rsa, A::RsaPkcs1(H::Sha512)),
        "ecdsa-p256-sha256" => (KeyType::EcdsaP256, A::Ecdsa(H::Sha256)),
        "ecdsa-p256-sha512" => (KeyType::EcdsaP256, A::Ecdsa(H::Sha512)),
        "ecdsa-p384-sha256" => (KeyType::EcdsaP384, A::Ecdsa(H::Sha256)),
        "ecdsa-p384-sha384" => (KeyType::EcdsaP384, A::Ecdsa(H::Sha384)),
        "ecdsa-p384-sha512" => (KeyType::EcdsaP384, A::Ecdsa(H::Sha512)),
        "ecdsa-p256-fixed" => (KeyType::EcdsaP256, A::EcdsaP256Fixed),
        "ecdsa-p384-fixed" => (KeyType::EcdsaP384, A::EcdsaP384Fixed),
        "ed25519" => (KeyType::Ed25519, A::Ed25519),
        "ml-dsa-44" => (KeyType::MlDsa44, A::MlDsa44),
        "ml-dsa-65" => (KeyType::MlDsa65, A::MlDsa65),
        "ml-dsa-87" => (KeyType::MlDsa87, A::MlDsa87),
        other => panic!("{other} is no signature"),
    }
}

fn kem_of(name: &str) -> KeMethod {
    match name {
        "ml-kem-512" => KeMethod::MlKem512,
        "ml-kem-768" => KeMethod::MlKem768,
        "ml-kem-1024" => KeMethod::MlKem1024,
        other => panic!("{other} is no KEM"),
    }
}

fn dh_of(name: &str) -> KeMethod {
    match name {
        "curve25519" => KeMethod::Curve25519,
        "ecp256" => KeMethod::Ecp256,
        "ecp384" => KeMethod::Ecp384,
        other => panic!("{other} is no group"),
    }
}

fn prf_of(name: &str) -> Option<Prf> {
    match name {
        "hmac-sha256" | "hkdf-sha256" => Some(Prf::HmacSha256),
        "hmac-sha384" | "hkdf-sha384" => Some(Prf::HmacSha384),
        "hmac-sha512" | "hkdf-sha512" => Some(Prf::HmacSha512),
        _ => None,
    }
}

/// HMAC by each provider.
fn hmac(prf: Prf, key: &[u8], text: &[u8]) -> [PrfOutput; 2] {
    [ring_ml_kem::HmacKey::new(prf, key).compute(&[text]), aws_lc::HmacKey::new(prf, key).compute(&[text])]
}

/// A decapsulation key in the form of FIPS 203, of each provider.
fn expanded(method: KeMethod, dk: &[u8]) -> [KemDecapsulator; 2] {
    [
        KemDecapsulator::MlKem(ring_ml_kem::KemDecapsulator::from_expanded(method, dk)),
        KemDecapsulator::AwsLc(aws_lc::KemDecapsulator::from_expanded(method, dk)),
    ]
}
