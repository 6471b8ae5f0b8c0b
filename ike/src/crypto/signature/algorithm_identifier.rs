//! AlgorithmIdentifier in DER (RFC 7427 appendix A). There are few, so that they are compared as octets, as section 1 of the
//! RFC allows; only RSASSA-PSS has more than one form, and they are made here.

use super::{SignatureAlgorithm, SignatureHash};

use SignatureAlgorithm as A;
use SignatureHash as H;

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const NULL: [u8; 2] = [0x05, 0x00];
const HASHES: [H; 3] = [H::Sha256, H::Sha384, H::Sha512];

/// What we send. Parameters are NULL for RSA PKCS #1 and hashes ("preferredPresent"), and absent for the others; the default
/// trailerField is left out, as DER has it.
pub(super) fn encode(algorithm: SignatureAlgorithm) -> Option<Vec<u8>> {
    Some(match algorithm {
        A::RsaPss(hash) => pss(hash, true, false),
        A::RsaPkcs1(hash) => sequence(&[&object(pkcs1_oid(hash)), &NULL]),
        A::Ecdsa(hash) => sequence(&[&object(ecdsa_oid(hash))]),
        A::Ed25519 => sequence(&[&object(&[0x2b, 0x65, 0x70])]),
        A::MlDsa44 => ml_dsa(0x11),
        A::MlDsa65 => ml_dsa(0x12),
        A::MlDsa87 => ml_dsa(0x13),
        A::EcdsaP256Fixed | A::EcdsaP384Fixed => return None,
    })
}

/// What a peer sent, in any form that the algorithm's specification allows. RSASSA-PSS with empty or default parameters means
/// SHA-1 and is none of them (RFC 8247 section 3.2).
pub(super) fn decode(identifier: &[u8]) -> Option<SignatureAlgorithm> {
    let fixed = [A::Ed25519, A::MlDsa44, A::MlDsa65, A::MlDsa87];
    let hashed = HASHES.into_iter().flat_map(|hash| [A::RsaPss(hash), A::RsaPkcs1(hash), A::Ecdsa(hash)]);
    hashed.chain(fixed).find(|algorithm| has_form(*algorithm, identifier))
}

fn has_form(algorithm: SignatureAlgorithm, identifier: &[u8]) -> bool {
    encode(algorithm).is_some_and(|ours| ours == identifier)
        || match algorithm {
            // RFC 4055 section 2.1: absent parameters of a hash mean the same as NULL. RFC 7427 appendix A.4.3: the default
            // trailerField written out.
            A::RsaPss(hash) => [(true, true), (false, true), (false, false)]
                .iter()
                .any(|(null, trailer)| pss(hash, *null, *trailer) == identifier),
            A::RsaPkcs1(hash) => sequence(&[&object(pkcs1_oid(hash))]) == identifier,
            _ => false,
        }
}

/// RSASSA-PSS-params (RFC 4055 section 3.1).
fn pss(hash: H, null: bool, trailer: bool) -> Vec<u8> {
    let parameters: &[u8] = if null { &NULL } else { &[] };
    let hash_algorithm = sequence(&[&object(hash_oid(hash)), parameters]);
    let mgf1 = sequence(&[&object(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08]), &hash_algorithm]);
    let salt_len = match hash {
        H::Sha256 => 32,
        H::Sha384 => 48,
        H::Sha512 => 64,
    };
    let trailer: &[u8] = if trailer { &[0xa3, 3, 2, 1, 1] } else { &[] };
    let parameters = sequence(&[
        &tagged(0xa0, &hash_algorithm),
        &tagged(0xa1, &mgf1),
        &[0xa2, 3, 2, 1, salt_len],
        trailer,
    ]);
    sequence(&[&object(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a]), &parameters])
}

fn ml_dsa(last: u8) -> Vec<u8> {
    sequence(&[&object(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, last])])
}

fn pkcs1_oid(hash: H) -> &'static [u8] {
    match hash {
        H::Sha256 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        H::Sha384 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
        H::Sha512 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
    }
}

fn ecdsa_oid(hash: H) -> &'static [u8] {
    match hash {
        H::Sha256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        H::Sha384 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        H::Sha512 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
    }
}

fn hash_oid(hash: H) -> &'static [u8] {
    match hash {
        H::Sha256 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
        H::Sha384 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
        H::Sha512 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
    }
}

fn object(oid: &[u8]) -> Vec<u8> {
    tagged(OID, oid)
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

/// Nothing here is longer than the 127 octets that a length of one octet says.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[tag, length], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::prf::tests::unhex;

    /// RFC 7427 appendix A; the text on post-quantum signatures, appendix; RFC 8420 appendix A.
    #[test]
    fn identifiers_are_the_published_ones() {
        for (algorithm, published) in [
            (A::RsaPkcs1(H::Sha256), "300d06092a864886f70d01010b0500"),
            (A::RsaPkcs1(H::Sha384), "300d06092a864886f70d01010c0500"),
            (A::RsaPkcs1(H::Sha512), "300d06092a864886f70d01010d0500"),
            (A::Ecdsa(H::Sha256), "300a06082a8648ce3d040302"),
            (A::Ecdsa(H::Sha384), "300a06082a8648ce3d040303"),
            (A::Ecdsa(H::Sha512), "300a06082a8648ce3d040304"),
            (A::Ed25519, "300506032b6570"),
            (A::MlDsa44, "300b0609608648016503040311"),
            (A::MlDsa65, "300b0609608648016503040312"),
            (A::MlDsa87, "300b0609608648016503040313"),
        ] {
            assert_eq!(encode(algorithm), Some(unhex(published)), "{algorithm:?}");
            assert_eq!(decode(&unhex(published)), Some(algorithm));
        }
        // Appendix A.4.3, with the trailerField that DER leaves out.
        let pss_sha256 = "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
                          300d06096086480165030402010500a203020120a303020101";
        assert_eq!(decode(&unhex(pss_sha256)), Some(A::RsaPss(H::Sha256)));
    }

    #[test]
    fn every_form_of_pss_is_read() {
        for hash in HASHES {
            for (null, trailer) in [(true, true), (true, false), (false, true), (false, false)] {
                assert_eq!(decode(&pss(hash, null, trailer)), Some(A::RsaPss(hash)));
            }
            assert_eq!(decode(&sequence(&[&object(pkcs1_oid(hash))])), Some(A::RsaPkcs1(hash)));
        }
    }

    /// SHA-1 of RFC 7427 appendix A.1.1, A.3.1, A.4.1 and A.4.2, and what is no identifier.
    #[test]
    fn sha1_and_noise_are_refused() {
        for refused in [
            "300d06092a864886f70d0101050500",
            "300906072a8648ce3d0401",
            "300d06092a864886f70d01010a3000",
            "303e06092a864886f70d01010a3031a00b300906052b0e03021a0500a118301606092a864886f70d010108300906052b0e\
             03021a0500a203020114a303020101",
            "",
            "30",
            "300506032b657000",
            "300d06092a864886f70d01010b0501",
        ] {
            assert_eq!(decode(&unhex(refused)), None, "{refused}");
        }
    }
}
