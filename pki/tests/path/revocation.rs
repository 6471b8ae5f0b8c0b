//! Revocation lists from configured files.

use portcullis_pki::Refusal;
use rcgen::SerialNumber;

use super::authority::{Authority, day, verify};

/// Gateways of the test authority have serial number 7.
const GATEWAY_SERIAL: u64 = 7;

#[test]
fn revoked_certificates_are_refused() {
    let root = Authority::root("root");
    let gateway = root.gateway(|_| {});
    let mut trust = root.trust();
    trust.add_revocation_list(&root.revokes(&[1, GATEWAY_SERIAL], day(1100))).unwrap();
    assert_eq!(verify(&trust, &[&gateway]), Err(Refusal::Revoked));
    let other = root.gateway(|params| params.serial_number = Some(SerialNumber::from(8_u64)));
    assert_eq!(verify(&trust, &[&other]), Ok(()));
}

#[test]
fn revoked_issuers_are_refused() {
    let root = Authority::root("root");
    let middle = root.below("middle", |params| params.serial_number = Some(SerialNumber::from(3_u64)));
    let gateway = middle.gateway(|_| {});
    let mut trust = root.trust();
    trust.add_revocation_list(&middle.revokes(&[], day(1100))).unwrap();
    trust.add_revocation_list(&root.revokes(&[3], day(1100))).unwrap();
    assert_eq!(verify(&trust, &[&gateway, &middle.der]), Err(Refusal::Revoked));
}

#[test]
fn lists_that_are_missing_or_out_of_date_leave_nothing_accepted() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let gateway = root.gateway(|_| {});
    let mut trust = root.trust();
    trust.add_revocation_list(&other.revokes(&[], day(1100))).unwrap();
    assert_eq!(verify(&trust, &[&gateway]), Err(Refusal::RevocationUnknown));
    let mut trust = root.trust();
    trust.add_revocation_list(&root.revokes(&[], day(999))).unwrap();
    assert_eq!(verify(&trust, &[&gateway]), Err(Refusal::RevocationExpired));
    let forger = Authority::root("root");
    let mut trust = root.trust();
    trust.add_revocation_list(&forger.revokes(&[], day(1100))).unwrap();
    assert_eq!(verify(&trust, &[&gateway]), Err(Refusal::RevocationUnknown), "the issuer's name alone");
}
