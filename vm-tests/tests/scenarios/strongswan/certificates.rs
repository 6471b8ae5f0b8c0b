//! Certificates of every kind that strongSwan knows, in either role, and a shared key on one side with a certificate on the other.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use portcullis_vm_tests::strongswan::{IkeSa, Settings};
use portcullis_vm_tests::{Authority, DaemonConfig, Ping, Side};

use super::{CHILD, OURS, Scene, THEIRS};
use crate::{SOON, artefacts, change};

const KINDS: [&str; 4] = ["ecdsa-p256", "ecdsa-p384", "ed25519", "rsa"];

/// How one end proves itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    Psk,
    Certificate,
}

#[test]
fn certificates_of_every_kind_authenticate_in_either_role() {
    let mut scene = Scene::new("udp-then-tcp", &[("children/net/start", "none")]);
    scene.pair.a.start().unwrap();
    for kind in KINDS {
        let authority = authority(&scene, kind, kind);
        load(&scene, &authority, Proof::Certificate, Proof::Certificate);
        for initiator in [Side::A, Side::B] {
            comes_up(&scene, initiator, kind);
        }
    }
    let authority = authority(&scene, "mixed", "ecdsa-p256");
    for (ours, theirs) in [(Proof::Psk, Proof::Certificate), (Proof::Certificate, Proof::Psk)] {
        load(&scene, &authority, ours, theirs);
        for initiator in [Side::A, Side::B] {
            comes_up(&scene, initiator, &format!("{ours:?} and {theirs:?}"));
        }
    }
    scene.finish();
}

/// An authority that has issued to both gateways.
pub(super) fn authority(scene: &Scene, name: &str, kind: &'static str) -> Authority {
    let directory = scene.pair.lab.instance.directory().join(format!("pki-{name}"));
    let authority = Authority::new(&artefacts().binary, directory, kind).unwrap();
    for side in [Side::A, Side::B] {
        authority.issue(&side.id()).unwrap();
    }
    authority
}

/// strongSwan proves itself with the certificate and key in these files, and trusts `authority`.
pub(super) fn certify_strongswan(
    scene: &Scene,
    settings: &mut Settings,
    authority: &Authority,
    (certificate, key): (&std::path::Path, &std::path::Path),
) {
    let etc = scene.pair.b.credentials();
    fs::copy(certificate, etc.join("x509/gw-b.pem")).unwrap();
    fs::copy(key, etc.join("private/gw-b.key")).unwrap();
    fs::set_permissions(etc.join("private/gw-b.key"), fs::Permissions::from_mode(0o600)).unwrap();
    trust_by_strongswan(scene, authority);
    let local = format!("connections/{THEIRS}/local");
    settings.set(&format!("{local}/auth"), "pubkey");
    settings.set(&format!("{local}/certs"), "gw-b.pem");
}

fn trust_by_strongswan(scene: &Scene, authority: &Authority) {
    fs::copy(authority.authority(), scene.pair.b.credentials().join("x509ca/ca.pem")).unwrap();
}

/// Both ends know nothing but this.
fn load(scene: &Scene, authority: &Authority, ours: Proof, theirs: Proof) {
    let mut settings = scene.pair.settings.clone();
    trust_by_strongswan(scene, authority);
    if ours == Proof::Certificate {
        settings.set(&format!("connections/{THEIRS}/remote/auth"), "pubkey");
    }
    if theirs == Proof::Certificate {
        let id = Side::B.id();
        certify_strongswan(
            scene,
            &mut settings,
            authority,
            (&authority.certificate(&id), &authority.key(&id)),
        );
    }
    scene.pair.b.load(&settings).unwrap();
    let secret = scene.pair.lab.instance.directory().join("psk").display().to_string();
    change(&scene.pair.a, |config: &mut DaemonConfig| {
        for end in ["local", "remote"] {
            let end = format!("connections/{OURS}/{end}");
            for key in ["certificate", "key", "ca", "crl"] {
                config.remove(&format!("{end}/{key}"));
            }
            config.set(&format!("{end}/auth"), "psk");
            config.set(&format!("{end}/secret_file"), secret.as_str());
        }
        if ours == Proof::Certificate {
            authority.certify(config, Side::A);
        }
        if theirs == Proof::Certificate {
            authority.trust(config, Side::A);
        }
    });
    scene.pair.a.verb(&["reload"]).unwrap();
}

/// Up, traffic, down.
fn comes_up(scene: &Scene, initiator: Side, case: &str) {
    let (a, b) = (&scene.pair.a, &scene.pair.b);
    match initiator {
        Side::A => a.verb(&["up", OURS, "--child", CHILD]).map(drop),
        Side::B => b.initiate(CHILD),
    }
    .unwrap_or_else(|error| panic!("{case}, {initiator:?} initiates: {error:#}\n{}", scene.logs()));
    scene.wait_up();
    let report = Ping { count: 3, ..Ping::to(Side::B.host().0) }.run(&scene.pair.lab.host_a).unwrap();
    assert_eq!(report.answered, 3, "{case}, {initiator:?}\n{}", scene.logs());
    a.verb(&["down", OURS]).unwrap_or_else(|error| panic!("{case}: {error:#}"));
    b.wait_sas(SOON, <[IkeSa]>::is_empty).unwrap_or_else(|error| panic!("{case}: {error:#}"));
}

/// strongSwan 6.1 reads no key and no certificate of ML-DSA; a version that does has to go into the table above.
#[test]
fn strongswan_does_not_load_ml_dsa() {
    let scene = Scene::new("udp-then-tcp", &[("children/net/start", "none")]);
    let authority = authority(&scene, "ml-dsa", "ml-dsa-65");
    let mut settings = scene.pair.settings.clone();
    let id = Side::B.id();
    certify_strongswan(&scene, &mut settings, &authority, (&authority.certificate(&id), &authority.key(&id)));
    let refused = scene.pair.b.load(&settings).expect_err("ML-DSA is loaded").to_string();
    println!("measured: {refused}");
    assert!(refused.contains("gw-b.key") && refused.contains("failed"), "{refused}");
    scene.finish();
}
