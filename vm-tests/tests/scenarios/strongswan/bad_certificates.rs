//! Certificates that strongSwan shows and that are refused, in either role, each with its reason; nothing leaves in clear.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use portcullis_vm_tests::{Authority, DaemonConfig, Side};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType, date_time_ymd};

use super::certificates::{authority, certify_strongswan};
use super::{CHILD, OURS, Scene, THEIRS};
use crate::{SOON, change};

#[test]
fn bad_certificates_are_refused_with_their_reason_in_either_role() {
    let quick =
        [("children/net/start", "none"), ("ike/retransmit_after", "200ms"), ("ike/retransmissions", "2")];
    let mut scene = Scene::new("udp-then-tcp", &quick);
    scene.pair.a.start().unwrap();
    let good = authority(&scene, "good", "ecdsa-p256");
    let stranger = authority(&scene, "stranger", "ecdsa-p256");
    good.issue("other.example.net").unwrap();
    let id = Side::B.id();
    let revoked = authority(&scene, "revoked", "ecdsa-p256");
    revoked.revoke(&[&id]).unwrap();
    let of = |authority: &Authority, id: &str| (authority.certificate(id), authority.key(id));
    for (reason, trusted, (certificate, key), crl) in [
        ("certificate_expired", &good, expired(&scene, &good), None),
        ("certificate_identity", &good, of(&good, "other.example.net"), None),
        ("certificate_unknown_ca", &good, of(&stranger, &id), None),
        ("certificate_revoked", &revoked, of(&revoked, &id), Some(revoked.revocation_list())),
    ] {
        let mut settings = scene.pair.settings.clone();
        settings.set(&format!("connections/{THEIRS}/remote/auth"), "pubkey");
        certify_strongswan(&scene, &mut settings, trusted, (&certificate, &key));
        // What it claims, whatever its certificate says: charon replaces an id that its own certificate does not have.
        settings.set(&format!("connections/{THEIRS}/local/id"), id.as_str());
        scene.pair.b.load(&settings).unwrap();
        change(&scene.pair.a, |config: &mut DaemonConfig| {
            trusted.certify(config, Side::A);
            trusted.trust(config, Side::A);
            let list = format!("connections/{OURS}/remote/crl");
            match &crl {
                Some(path) => config.set(&list, path.display().to_string()),
                None => config.remove(&list),
            }
        });
        scene.pair.a.verb(&["reload"]).unwrap();
        for initiator in [Side::A, Side::B] {
            is_refused(&scene, initiator, reason);
        }
    }
    scene.stays_shut();
    scene.router.finish().unwrap();
}

fn is_refused(scene: &Scene, initiator: Side, reason: &str) {
    let (a, b) = (&scene.pair.a, &scene.pair.b);
    let refused = match initiator {
        Side::A => a.verb(&["up", OURS, "--child", CHILD]).is_err(),
        Side::B => b.initiate(CHILD).is_err(),
    };
    assert!(refused, "{reason}, {initiator:?} initiates");
    let says = a.wait_connection(OURS, SOON, |c| c.reason == reason);
    let says = says.unwrap_or_else(|error| panic!("{reason}, {initiator:?}: {error:#}\n{}", scene.logs()));
    assert!(says.ike_sas.is_empty() && says.detail.contains("certificate"), "{}", says.detail);
    a.verb(&["down", OURS]).unwrap();
    a.wait_connection(OURS, SOON, |c| c.reason != reason).unwrap();
}

/// A certificate of `authority` for gw-b that ended a minute ago.
fn expired(scene: &Scene, authority: &Authority) -> (PathBuf, PathBuf) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let issuer_key = KeyPair::from_pem(&fs::read_to_string(authority.authority_key()).unwrap()).unwrap();
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, "Portcullis CA");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(Side::B.id().try_into().unwrap())];
    params.not_before = date_time_ymd(1970, 1, 1) + (now - Duration::from_secs(7200));
    params.not_after = date_time_ymd(1970, 1, 1) + (now - Duration::from_secs(60));
    let certificate = params.signed_by(&key, &Issuer::new(issuer, issuer_key)).unwrap();
    let directory = scene.pair.lab.instance.directory();
    let paths = (directory.join("expired.pem"), directory.join("expired.key"));
    fs::write(&paths.0, certificate.pem()).unwrap();
    fs::write(&paths.1, key.serialize_pem()).unwrap();
    paths
}
