//! Octets that are no certificate, or a damaged one.

use portcullis_pki::{Certificate, DistinguishedName, pem};

use super::authority::{Authority, verify};

/// Every octet of a certificate changed in turn: nothing but its signature's malleable unused parts may pass, and nothing panics.
#[test]
fn damaged_certificates_are_refused() {
    let root = Authority::root("root");
    let gateway = root.gateway(|_| {});
    let trust = root.trust();
    for at in 0..gateway.len() {
        for bit in [0x01, 0x80] {
            let mut damaged = gateway.clone();
            damaged[at] ^= bit;
            assert!(verify(&trust, &[&damaged]).is_err(), "octet {at}");
        }
    }
    for length in 0..gateway.len() {
        assert!(verify(&trust, &[&gateway[..length]]).is_err(), "cut to {length}");
    }
}

#[test]
fn noise_is_refused() {
    assert!(Certificate::from_der(&[]).is_err());
    assert!(Certificate::from_der(&[0x30; 64]).is_err());
    assert!(Certificate::from_der(&vec![0x30; 1 << 16]).is_err());
    assert!(DistinguishedName::from_der(&vec![0x30; 1 << 16]).is_none());
    assert!(pem::certificates(b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n").is_err());
    assert_eq!(pem::certificates(b"no PEM at all").unwrap().len(), 0);
}
