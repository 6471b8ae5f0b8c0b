//! What the verbs write, read back by the configuration and by a peer.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use portcullis_ike::config::SigningKey;
use portcullis_pki::{Certificate, Refusal, Subject, Trust};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    pki: Pki,
}

fn run(directory: &Path, line: &str) -> Result<()> {
    use clap::Parser as _;
    let words = line.replace('@', &directory.display().to_string());
    Line::try_parse_from(std::iter::once("pki").chain(words.split(' ')))?.pki.run()
}

fn certificate(directory: &Path, name: &str) -> Certificate {
    pem::certificates(&std::fs::read(directory.join(name)).unwrap()).unwrap().remove(0)
}

fn trust(directory: &Path) -> Trust {
    let mut trust = Trust::new();
    trust.add_authority(certificate(directory, "ca.pem")).unwrap();
    trust
}

#[test]
fn every_kind_makes_an_authority_a_certificate_and_a_request() {
    for kind in ["rsa", "ecdsa-p256", "ecdsa-p384", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"] {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        run(at, &format!("ca --key {kind} --out @")).unwrap();
        run(at, &format!("issue --ca @ --id gw1.example.net --id 192.0.2.1 --key {kind} --out @")).unwrap();
        run(at, &format!("request --id gw2.example.net --key {kind} --out @")).unwrap();
        run(at, "issue --ca @ --id gw2.example.net --request @/gw2.example.net.csr --out @").unwrap();
        for (name, ids) in [
            (
                "gw1.example.net",
                &[Subject::Fqdn("gw1.example.net"), Subject::Address([192, 0, 2, 1].into())][..],
            ),
            ("gw2.example.net", &[Subject::Fqdn("gw2.example.net")]),
        ] {
            let issued = certificate(at, &format!("{name}.pem"));
            for id in ids {
                let key = trust(at).verify(&[issued.der()], *id, now()).unwrap();
                let file = std::fs::read(at.join(format!("{name}.key"))).unwrap();
                let der = PrivateKeyDer::from_pem_slice(&file).unwrap();
                assert_eq!(SigningKey::from_der(der.secret_der()).unwrap().public(), key, "{kind}");
            }
        }
        for key in ["ca.key", "gw1.example.net.key", "gw2.example.net.key"] {
            assert_eq!(std::fs::metadata(at.join(key)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}

#[test]
fn revoked_certificates_stay_on_the_list() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    run(at, "ca --out @").unwrap();
    for name in ["a", "b", "c"] {
        run(at, &format!("issue --ca @ --id {name}.example --out @")).unwrap();
    }
    run(at, "revoke --ca @ @/a.example.pem").unwrap();
    run(at, "revoke --ca @ @/b.example.pem").unwrap();
    let mut trust = trust(at);
    for list in pem::revocation_lists(&std::fs::read(at.join("ca.crl")).unwrap()).unwrap() {
        assert!(trust.add_revocation_list(&list).unwrap() > now() + 29 * DAY);
    }
    for (name, verdict) in
        [("a.example", Err(Refusal::Revoked)), ("b.example", Err(Refusal::Revoked)), ("c.example", Ok(()))]
    {
        let issued = certificate(at, &format!("{name}.pem"));
        assert_eq!(trust.verify(&[issued.der()], Subject::Fqdn(name), now()).map(drop), verdict, "{name}");
    }
}

#[test]
fn nothing_is_overwritten_and_what_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    run(at, "ca --out @").unwrap();
    let before = std::fs::read(at.join("ca.key")).unwrap();
    let error = run(at, "ca --out @").unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    assert_eq!(std::fs::read(at.join("ca.key")).unwrap(), before);
    run(at, "ca --out @/other").unwrap();
    std::fs::copy(at.join("other/ca.key"), at.join("ca.key")).unwrap();
    let error = run(at, "issue --ca @ --id a.example --out @").unwrap_err();
    assert!(error.to_string().contains("not the key"), "{error}");
    for bad in ["keyid:00", "../a", "dn:CN=a"] {
        assert!(run(at, &format!("issue --ca @/other --id {bad} --out @")).is_err(), "{bad}");
    }
    // A request whose key was exchanged on the way.
    run(at, "request --id a.example --out @").unwrap();
    let request = std::fs::read_to_string(at.join("a.example.csr")).unwrap();
    let damaged = request.replacen("MII", "MIH", 1);
    std::fs::write(at.join("damaged.csr"), damaged).unwrap();
    assert!(run(at, "issue --ca @/other --id a.example --request @/damaged.csr --out @").is_err());
}
