use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_ML_DSA_44, PKCS_ML_DSA_65,
    PKCS_ML_DSA_87, PKCS_RSA_SHA256, RsaKeySize,
};

use super::*;
use crate::crypto::prf::tests::unhex;

use SignatureAlgorithm as A;
use SignatureHash as H;

/// RFC 4754 sections 8.1 and 8.2.
#[test]
fn ecdsa_of_rfc_4754_verifies_the_published_signatures() {
    for (key_type, algorithm, x, y, r, s) in [
        (
            KeyType::EcdsaP256,
            A::EcdsaP256Fixed,
            "2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970",
            "6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D",
            "CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C",
            "86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315",
        ),
        (
            KeyType::EcdsaP384,
            A::EcdsaP384Fixed,
            "96281BF8DD5E0525CA049C048D345D3082968D10FEDF5C5ACA0C64E6465A97EA5CE10C9DFEC21797415710721F437922",
            "447688BA94708EB6E2E4D59F6AB6D7EDFF9301D249FE49C33096655F5D502FAD3D383B91C5E7EDAA2B714CC99D5743CA",
            "FB017B914E29149432D8BAC29A514640B46F53DDAB2C69948084E2930F1C8F7E08E07C9C63F2D21A07DCB56A6AF56EB3",
            "B263A1305E057F984D38726A1B46874109F417BCA112674C528262A40A629AF1CBB9F516CE0FA7D2FF630863A00E8B9F",
        ),
    ] {
        let key = PublicKey { key_type, bits: [vec![4], unhex(x), unhex(y)].concat() };
        let mut signature = [unhex(r), unhex(s)].concat();
        assert!(verify(&key, algorithm, b"abc", &signature));
        signature[7] ^= 1;
        assert!(!verify(&key, algorithm, b"abc", &signature));
    }
}

/// RFC 8032 section 7.1, test 2.
#[test]
fn ed25519_makes_and_verifies_the_published_signature() {
    let seed = unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    let key = SigningKey::from_der(&[unhex("302e020100300506032b657004220420"), seed].concat()).unwrap();
    assert_eq!(key.public().bits, unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
    let signature = unhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    assert_eq!(key.sign(A::Ed25519, &[0x72]), Some(signature.clone()));
    assert!(verify(&key.public(), A::Ed25519, &[0x72], &signature));
}

#[test]
fn every_key_signs_what_its_public_half_verifies_and_nothing_else() {
    for (key, algorithms) in [
        (
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
            &[
                A::RsaPss(H::Sha256),
                A::RsaPss(H::Sha384),
                A::RsaPss(H::Sha512),
                A::RsaPkcs1(H::Sha256),
                A::RsaPkcs1(H::Sha384),
                A::RsaPkcs1(H::Sha512),
            ][..],
        ),
        (key(&PKCS_ECDSA_P256_SHA256), &[A::Ecdsa(H::Sha256), A::EcdsaP256Fixed]),
        (key(&PKCS_ECDSA_P384_SHA384), &[A::Ecdsa(H::Sha384), A::EcdsaP384Fixed]),
        (key(&PKCS_ED25519), &[A::Ed25519]),
        (key(&PKCS_ML_DSA_44), &[A::MlDsa44]),
        (key(&PKCS_ML_DSA_65), &[A::MlDsa65]),
        (key(&PKCS_ML_DSA_87), &[A::MlDsa87]),
    ] {
        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let other = SigningKey::from_der(other.serialized_der()).unwrap().public();
        let key = SigningKey::from_der(key.serialized_der()).unwrap();
        for algorithm in algorithms {
            let mut signature = key.sign(*algorithm, b"octets").unwrap();
            assert!(verify(&key.public(), *algorithm, b"octets", &signature), "{algorithm:?}");
            assert!(!verify(&key.public(), *algorithm, b"octetz", &signature), "{algorithm:?}");
            assert!(!verify(&other, *algorithm, b"octets", &signature), "{algorithm:?}");
            for wrong in algorithms.iter().filter(|wrong| *wrong != algorithm) {
                assert!(!verify(&key.public(), *wrong, b"octets", &signature), "{algorithm:?} as {wrong:?}");
            }
            signature[0] ^= 1;
            assert!(!verify(&key.public(), *algorithm, b"octets", &signature), "{algorithm:?}");
            assert!(!verify(&key.public(), *algorithm, b"octets", &[]), "{algorithm:?}");
        }
    }
}

/// RFC 7427 section 4: one of the hashes that the other end sent.
#[test]
fn the_algorithm_is_one_that_the_peer_verifies() {
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let rsa = SigningKey::from_der(rsa.serialized_der()).unwrap();
    let p384 = SigningKey::from_der(key(&PKCS_ECDSA_P384_SHA384).serialized_der()).unwrap();
    let ml_dsa = SigningKey::from_der(key(&PKCS_ML_DSA_44).serialized_der()).unwrap();
    let sha1 = SignatureHashes::of(&[HashAlgorithm::SHA1]);
    let sha256 = SignatureHashes::of(&[HashAlgorithm::SHA1, HashAlgorithm::SHA2_256, HashAlgorithm(4711)]);
    let sha512 = SignatureHashes::of(&[HashAlgorithm::SHA2_512]);
    let ours = SignatureHashes::of(&SignatureHashes::OURS);
    for (key, hashes, algorithm) in [
        (&rsa, ours, Some(A::RsaPss(H::Sha256))),
        (&rsa, sha512, Some(A::RsaPss(H::Sha512))),
        (&rsa, sha1, None),
        (&p384, ours, Some(A::Ecdsa(H::Sha384))),
        (&p384, sha256, None),
        (&ml_dsa, ours, Some(A::MlDsa44)),
        (&ml_dsa, sha256, None),
    ] {
        assert_eq!(key.algorithm_for(hashes, None), algorithm, "{key:?} {hashes:?}");
    }
    // RFC 9593: which signatures, not only which hashes.
    let mut announced = Signatures::default();
    announced.insert(A::RsaPkcs1(H::Sha384));
    announced.insert(A::Ed25519);
    assert_eq!(rsa.algorithm_for(ours, Some(announced)), Some(A::RsaPkcs1(H::Sha384)));
    assert_eq!(rsa.algorithm_for(sha512, Some(announced)), Some(A::RsaPss(H::Sha512)));
    assert_eq!(p384.algorithm_for(ours, Some(announced)), Some(A::Ecdsa(H::Sha384)));
    assert_eq!(p384.fixed_algorithm(), Some(A::EcdsaP384Fixed));
    assert_eq!(rsa.fixed_algorithm(), None);
}

/// RFC 7427 section 3.
#[test]
fn authentication_data_is_length_identifier_and_signature() {
    let data = digital_signature(A::Ed25519, b"signature").unwrap();
    assert_eq!(data, [&[7, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70], &b"signature"[..]].concat());
    assert_eq!(parse_digital_signature(&data), Some((A::Ed25519, &b"signature"[..])));
    for length in 0..8 {
        assert_eq!(parse_digital_signature(&data[..length]), None);
    }
}

#[test]
fn what_is_no_key_or_too_short_is_refused() {
    assert!(SigningKey::from_der(&[]).is_none());
    assert!(SigningKey::from_der(&[0x30; 100]).is_none());
    let ed25519 = key(&PKCS_ED25519);
    let der = ed25519.serialized_der();
    assert!((0..der.len()).all(|length| SigningKey::from_der(&der[..length]).is_none()));
    assert_eq!(format!("{:?}", SigningKey::from_der(der).unwrap()), "SigningKey(ed25519)");
}

fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

proptest::proptest! {
    #[test]
    fn any_authentication_data_is_read_or_refused(
        length in 0_u8..80,
        octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
    ) {
        let data = [&[length], &octets[..]].concat();
        if let Some((algorithm, signature)) = parse_digital_signature(&data) {
            // Every form of an identifier means what we send for it.
            let again = digital_signature(algorithm, signature).unwrap();
            proptest::prop_assert_eq!(parse_digital_signature(&again), Some((algorithm, signature)));
        }
    }
}
