//! What only a peer that is not ours would send.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_pki::Certificate;
use rand_core::SeedableRng as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, SignatureAlgorithm,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

use super::*;
use crate::config::{EspPolicy, FullTranscriptAuth, IkePolicy, RemoteAddress, SigningKey};
use crate::crypto::Rng;
use crate::sa::init::{Ends, InitAnswer, InitSent, RedirectWish, Terms, Wishes, respond_to_init};

/// Certificates of `rcgen` are valid from 1975 on.
const NOW: WallTime = WallTime::from_secs(21_000 * 86_400);

/// RFC 7427 section 3, RFC 4754: method 14 is used if and only if both ends have sent SIGNATURE_HASH_ALGORITHMS.
#[test]
fn without_signature_hashes_ecdsa_alone_is_left() {
    for (algorithm, method) in [
        (&PKCS_ECDSA_P256_SHA256, Some(AuthMethod::ECDSA_SHA256_P256)),
        (&PKCS_ECDSA_P384_SHA384, Some(AuthMethod::ECDSA_SHA384_P384)),
        (&PKCS_ED25519, None),
        (&PKCS_RSA_SHA256, None),
    ] {
        let (a, b) = pair(algorithm);
        let (mut at_a, mut at_b) = settled(&a, &b);
        let modern = message(request(&at_a, &a, 1, true));
        assert_eq!(modern.auth.as_ref().unwrap().method, AuthMethod::DIGITAL_SIGNATURE);
        verify_initiator(&at_b, &b, &modern, 1, NOW).unwrap();

        (at_a.signature_hashes, at_b.signature_hashes) = (None, None);
        assert_eq!(verify_initiator(&at_b, &b, &modern, 1, NOW).err(), Some(ExchangeError::AuthMethod));
        let Some(method) = method else {
            assert_eq!(request(&at_a, &a, 1, true).err(), Some(ExchangeError::NoSignatureHash));
            continue;
        };
        let old = message(request(&at_a, &a, 1, true));
        assert_eq!(old.auth.as_ref().unwrap().method, method);
        let verified = verify_initiator(&at_b, &b, &old, 1, NOW).unwrap();
        let answer = message(response(&at_b, &b, 1, &verified));
        verify_responder(&at_a, &a, &answer, 1, NOW).unwrap();
        let (_, modern_b) = settled(&a, &b);
        assert_eq!(verify_initiator(&modern_b, &b, &old, 1, NOW).err(), Some(ExchangeError::AuthMethod));
    }
}

/// RFC 7296 section 3.6: HTTP_CERT_LOOKUP_SUPPORTED is never sent.
#[test]
fn certificates_by_url_are_refused() {
    let (a, b) = pair(&PKCS_ECDSA_P256_SHA256);
    let (at_a, at_b) = settled(&a, &b);
    let refusal = |received: &Received| verify_initiator(&at_b, &b, received, 1, NOW).err();
    for encoding in [
        CertEncoding::HASH_AND_URL_CERTIFICATE,
        CertEncoding::HASH_AND_URL_BUNDLE,
        CertEncoding::PKCS7,
        CertEncoding::RAW_PUBLIC_KEY,
    ] {
        let mut received = message(request(&at_a, &a, 1, true));
        received.certs[0].encoding = encoding;
        assert_eq!(refusal(&received), Some(ExchangeError::Certificate(Refusal::Encoding)));
    }
    let mut received = message(request(&at_a, &a, 1, true));
    received.certs.insert(0, super::payloads::ReceivedCert { encoding: CertEncoding::CRL, data: vec![1] });
    assert_eq!(refusal(&received), None, "a revocation list in band is passed over");
    received.certs.truncate(1);
    assert_eq!(refusal(&received), Some(ExchangeError::Certificate(Refusal::Missing)));
    let mut received = message(request(&at_a, &a, 1, true));
    received.certs[0].data = vec![0x30; 70_000];
    assert_eq!(refusal(&received), Some(ExchangeError::Certificate(Refusal::Malformed)));
}

/// RFC 9593: the responder in IKE_SA_INIT, unless a long key exchange leaves no room for it, the initiator in IKE_AUTH.
#[test]
fn each_end_hears_which_signatures_the_other_takes() {
    let (mut a, mut b) = pair(&PKCS_ECDSA_P256_SHA256);
    let all = |announced: Option<crate::crypto::signature::Signatures>| {
        announced.is_some_and(|found| {
            crate::crypto::signature::SignatureAlgorithm::ALL.into_iter().all(|one| found.has(one))
        })
    };
    let (at_a, at_b) = settled(&a, &b);
    assert!(all(at_a.announced) && at_b.announced.is_none());
    assert!(all(auth_methods::of_peer(&message(request(&at_a, &a, 1, true)))));
    for end in [&mut a, &mut b] {
        end.ike.proposals = vec!["aes256gcm16-prfsha384-mlkem768".parse().unwrap()];
    }
    let (at_a, at_b) = settled(&a, &b);
    assert!(at_a.announced.is_none() && at_b.owed_auth_methods.is_none(), "there is no IKE_INTERMEDIATE");
    for end in [&mut a, &mut b] {
        end.ike.proposals = vec!["aes256gcm16-prfsha384-mlkem768-ke1_x25519".parse().unwrap()];
    }
    let (at_a, at_b) = settled(&a, &b);
    assert!(at_a.announced.is_none());
    let owed = *at_b.owed_auth_methods.unwrap();
    assert!(all(auth_methods::of_peer(&Received::new(vec![owed]))));
}

/// A signature over another exchange, by SHA-1, or cut short.
#[test]
fn signatures_that_do_not_fit_are_refused() {
    let (a, b) = pair(&PKCS_ECDSA_P256_SHA256);
    let (at_a, at_b) = settled(&a, &b);
    let received = message(request(&at_a, &a, 2, true));
    verify_initiator(&at_b, &b, &received, 2, NOW).unwrap();
    let (_, other) = settled(&a, &b);
    assert_eq!(verify_initiator(&other, &b, &received, 2, NOW).err(), Some(ExchangeError::Authentication));
    let data = received.auth.unwrap().data;
    for (data, error) in [
        (data[..data.len() - 1].to_vec(), ExchangeError::Authentication),
        (data[..4].to_vec(), ExchangeError::SignatureAlgorithm),
        (Vec::new(), ExchangeError::SignatureAlgorithm),
        (
            [&[11, 0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], &data[13..]].concat(),
            ExchangeError::SignatureAlgorithm,
        ),
    ] {
        let mut received = message(request(&at_a, &a, 2, true));
        received.auth.as_mut().unwrap().data = data;
        assert_eq!(verify_initiator(&at_b, &b, &received, 2, NOW).err(), Some(error));
    }
}

/// The payloads as they arrive.
fn message(out: Result<Out, ExchangeError>) -> Received {
    let chain = payloads::encode(&out.unwrap()).unwrap();
    Received::decode(&chain).unwrap()
}

/// Both ends after an IKE_SA_INIT between them.
fn settled(a: &ConnectionConfig, b: &ConnectionConfig) -> (Settled, Settled) {
    use rand_core::Rng as _;
    let mut rng = Rng::from_seed([3; 32]);
    let (ends_a, ends_b) = (ends([1, 2]), ends([2, 1]));
    let mut nonce = vec![0; 32];
    // Private values come from the system, so that two runs never agree.
    rng.fill_bytes(&mut nonce);
    let wishes = Wishes {
        redirect: RedirectWish::None,
        separate: None,
        assume_code_points: false,
        full_transcript: FullTranscriptAuth::Prefer,
        ppk: None,
        signatures: a.has_signatures(),
        childless: false,
    };
    let mut sent = InitSent::new(&a.ike.proposals, wishes, nonce, &mut rng).unwrap();
    sent.request = b"request".to_vec();
    let request = Received::new(sent.payloads(1, ends_a));
    let authorities = authorities([b].into_iter());
    let terms = Terms {
        proposals: &[&b.ike.proposals],
        separate: None,
        assume_code_points: false,
        full_transcript: true,
        ppk: None,
        signs: b.has_signatures(),
        authorities: &authorities,
        auth_methods: auth_methods::of_ours([b].into_iter()),
        puzzle: None,
    };
    let (out, mut at_b) =
        respond_to_init(&request, b"request", (1, 2), ends_b, &terms, vec![9; 32], &mut rng).unwrap();
    at_b.messages.1 = b"response".to_vec();
    let answer = Received::new(out);
    let answered = sent.answered(&answer, b"response", (1, 2), ends_a, &mut rng).unwrap();
    let InitAnswer::Settled(at_a) = answered else { panic!("not settled") };
    (*at_a, at_b)
}

fn ends([local, remote]: [u8; 2]) -> Ends {
    let address = |last| (IpAddr::from([192, 0, 2, last]), 4500).into();
    Ends { local: address(local), remote: address(remote) }
}

fn pair(algorithm: &'static SignatureAlgorithm) -> (ConnectionConfig, ConnectionConfig) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = params("root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
    let mut trust = Trust::new();
    trust.add_authority(root).unwrap();
    let (trust, issuer) = (Arc::new(trust), Issuer::new(params, key));
    let end = |local: &str, remote: &str| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let der = self::params(local).signed_by(&key, &issuer).unwrap();
        let credential = Credential {
            key: SigningKey::from_der(key.serialized_der()).unwrap(),
            chain: vec![Certificate::from_der(der.der()).unwrap()],
        };
        ConnectionConfig {
            redirect: Default::default(),
            name: "c".into(),
            local_address: None,
            local_id: Identity::Fqdn(local.into()),
            local_auth: LocalAuth::Certificate(credential.into()),
            remote_address: RemoteAddress::Any,
            remote_id: Identity::Fqdn(remote.into()),
            remote_auth: RemoteAuth::Certificate(trust.clone()),
            ppk: None,
            ike: IkePolicy {
                proposals: vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()],
                ..IkePolicy::default()
            }
            .into(),
            esp: EspPolicy::default().into(),
            children: Vec::new(),
        }
    };
    (end("a", "b"), end("b", "a"))
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    params
}
