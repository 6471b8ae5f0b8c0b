//! Files of certificates as an operator gives them, good and bad.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_ike::config::{Identity, LocalAuth, RemoteAuth};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use super::*;
use crate::config::{Checked, Config, Problem, parse};

const DAY: Duration = Duration::from_secs(86_400);

/// A directory with the files of one gateway: `ca.pem`, `ca.crl`, `gw.pem`, `gw.key`.
struct Files {
    directory: TempDir,
    params: CertificateParams,
    key: KeyPair,
}

impl Files {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params("root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let files = Self { directory: tempfile::tempdir().unwrap(), params, key };
        files.write("ca.pem", &files.params.self_signed(&files.key).unwrap().pem());
        files.write("ca.crl", &files.revocation_list(now() + DAY));
        files.issue("gw", &KeyPair::generate().unwrap(), |_| {});
        files
    }

    fn issue(&self, name: &str, key: &KeyPair, change: impl Fn(&mut CertificateParams)) {
        let mut params = params("gw1");
        params.subject_alt_names = vec![SanType::DnsName("gw1.example.net".try_into().unwrap())];
        change(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        self.write(&format!("{name}.pem"), &params.signed_by(key, &issuer).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn revocation_list(&self, next_update: WallTime) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + (now() - 2 * DAY),
            next_update: date_time_ymd(1970, 1, 1) + next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().pem().unwrap()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
        std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A connection whose sides are these; `@` is the directory.
    fn parse(&self, local: &str, remote: &str) -> Result<Checked, (Vec<Problem>, Vec<Problem>)> {
        let yaml = format!(
            "data_plane: {{ interfaces: {{ wan0: {{ role: wan }} }} }}\n\
             connections:\n  dc:\n    local: {{ {local} }}\n    remote: {{ address: 192.0.2.2, {remote} }}\n    \
             ike: {{ proposals: [aes256gcm16-prfsha384-x25519] }}\n    \
             children: {{ net: {{ local_ts: 10.1.0.0/16, remote_ts: 10.2.0.0/16 }} }}\n"
        );
        let yaml = yaml.replace('@', &self.directory.path().display().to_string());
        parse(&yaml, None, &Secrets::Read { credentials: None })
    }

    fn accepted(&self, local: &str, remote: &str) -> (Config, Vec<Problem>) {
        let checked = self.parse(local, remote).unwrap_or_else(|refused| panic!("{refused:?}"));
        (checked.config, checked.warnings)
    }

    fn refused(&self, local: &str, remote: &str, key: &str, message: &str) {
        let (errors, _) =
            self.parse(local, remote).map(|_| panic!("accepted: {local} {remote}")).unwrap_err();
        assert!(
            errors.iter().any(|e| e.key == format!("connections.dc.{key}") && e.message.contains(message)),
            "{key} {message}: {errors:#?}"
        );
    }
}

const LOCAL: &str = "id: gw1.example.net, auth: cert, certificate: @/gw.pem, key: @/gw.key";
const REMOTE: &str = "id: gw2.example.net, auth: cert, ca: @/ca.pem";

#[test]
fn both_sides_may_have_their_own_method() {
    let files = Files::new();
    files.write("psk", "a secret that nobody can guess");
    let (config, warnings) = files.accepted(LOCAL, &format!("{REMOTE}, crl: [@/ca.crl]"));
    assert_eq!(warnings, []);
    let connection = &config.connections[0];
    assert!(matches!(connection.ike.local_auth, LocalAuth::Certificate(_)));
    assert!(matches!(connection.ike.remote_auth, RemoteAuth::Certificate(_)));
    let kinds: Vec<_> = connection.expiring.iter().map(|file| file.kind.label()).collect();
    assert_eq!(kinds, ["certificate", "ca", "crl"]);
    assert!(connection.expiring.iter().all(|file| file.until > now() && file.until < now() + 3 * DAY));

    let (config, _) = files.accepted(LOCAL, "id: gw2.example.net, auth: psk, secret_file: @/psk");
    assert!(matches!(config.connections[0].ike.remote_auth, RemoteAuth::Psk(_)));
    let (config, _) = files.accepted("id: gw1.example.net, auth: psk, secret_file: @/psk", REMOTE);
    assert!(matches!(config.connections[0].ike.local_auth, LocalAuth::Psk(_)));
    files.refused(LOCAL, "id: gw2.example.net, auth: psk", "remote", "our side has none");
}

#[test]
fn every_file_is_refused_with_its_cause() {
    let files = Files::new();
    files.issue("other", &KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![SanType::DnsName("other.example.net".try_into().unwrap())];
    });
    files.issue("usage", &KeyPair::generate().unwrap(), |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    });
    files.write("none.pem", "nothing\n");
    files.write("broken.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    files.issue("public", &KeyPair::generate().unwrap(), |_| {});
    std::fs::set_permissions(files.path("public.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let local = |certificate: &str, key: &str| {
        format!("id: gw1.example.net, auth: cert, certificate: @/{certificate}, key: @/{key}")
    };
    for (certificate, key, at, message) in [
        ("missing.pem", "gw.key", "local.certificate", "No such file"),
        ("none.pem", "gw.key", "local.certificate", "no certificate in it"),
        ("broken.pem", "gw.key", "local.certificate", "cannot be parsed"),
        ("gw.pem", "missing.key", "local.key", "No such file"),
        ("gw.pem", "gw.pem", "local.key", "no private key"),
        ("gw.pem", "other.key", "local.key", "not the key of the certificate"),
        ("public.pem", "public.key", "local.key", "anybody could read it"),
        ("other.pem", "other.key", "local.certificate", "does not have the id gw1.example.net"),
        ("usage.pem", "usage.key", "local.certificate", "another use"),
    ] {
        files.refused(&local(certificate, key), REMOTE, at, message);
    }
    for (remote, at, message) in [
        ("id: gw2, auth: cert", "remote", "'ca' is missing"),
        ("id: gw2, auth: cert, ca: []", "remote.ca", "at least one file"),
        ("id: gw2, auth: cert, ca: @/gw.pem", "remote.ca", "is no authority"),
        ("id: gw2, auth: cert, ca: [@/ca.pem, @/none.pem]", "remote.ca[1]", "no certificate in it"),
        ("id: gw2, auth: cert, ca: @/ca.pem, crl: @/ca.pem", "remote.crl", "no revocation list in it"),
        ("id: 'keyid:00', auth: cert, ca: @/ca.pem", "remote.id", "no key id"),
    ] {
        files.refused(LOCAL, remote, at, message);
    }
}

#[test]
fn what_has_expired_is_a_warning() {
    let files = Files::new();
    files.issue("old", &KeyPair::generate().unwrap(), |params| {
        params.not_after = date_time_ymd(1970, 1, 1) + (now() - DAY / 2);
    });
    files.write("old.crl", &files.revocation_list(now() - DAY));
    let (_, warnings) = files.accepted(
        "id: gw1.example.net, auth: cert, certificate: @/old.pem, key: @/old.key",
        &format!("{REMOTE}, crl: @/old.crl"),
    );
    let messages: Vec<_> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert!(messages[0].contains("has expired") && messages[1].contains("out of date"), "{messages:?}");
}

#[test]
fn the_id_may_be_the_subject_of_the_certificate() {
    let files = Files::new();
    let local = |id: &str| format!("id: '{id}', auth: cert, certificate: @/gw.pem, key: @/gw.key");
    let (config, _) =
        files.accepted(&local("dn:CN=GW1,O=example"), "id: 'dn:CN=gw2', auth: cert, ca: @/ca.pem");
    let Identity::Name(name) = &config.connections[0].ike.local_id else { panic!() };
    assert_eq!(name.to_string(), "CN=gw1,O=Example", "as the certificate has it");
    files.refused(&local("dn:CN=gw2"), REMOTE, "local.certificate", "does not have the id CN=gw2");
}

/// Keys as OpenSSL and others write them; secrets are in no message.
#[test]
fn keys_in_every_usual_form_are_read_and_never_printed() {
    let files = Files::new();
    for key in [
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ML_DSA_87).unwrap(),
    ] {
        files.issue("gw", &key, |_| {});
        let (config, _) = files.accepted(LOCAL, REMOTE);
        let secret = key.serialize_pem().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{config:?}").contains(&secret));
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1) + (now() - DAY);
    params.not_after = date_time_ymd(1970, 1, 1) + (now() + 2 * DAY);
    params
}
