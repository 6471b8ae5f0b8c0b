//! A small authority, and pairs of gateways with its certificates.

use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::config::{Credential, LocalAuth, RemoteAuth, SigningKey, StartTransport};
use portcullis_pki::{Certificate, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use crate::configuration::Pair;
use crate::node::WALL;

/// Every certificate of an authority has this serial number.
pub const SERIAL: u64 = 7;
const DAY: Duration = Duration::from_secs(86_400);

/// An authority and its key.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    algorithm: &'static SignatureAlgorithm,
    certificate: Certificate,
    /// Those above it, without the root.
    above: Vec<Certificate>,
}

impl Authority {
    pub fn root(algorithm: &'static SignatureAlgorithm) -> Self {
        let key = key(algorithm);
        let params = authority_params("root");
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { params, key, algorithm, certificate: Certificate::from_der(&der).unwrap(), above: Vec::new() }
    }

    pub fn below(&self, name: &str) -> Self {
        let key = key(self.algorithm);
        let params = authority_params(name);
        let der = params.signed_by(&key, &self.issuer()).unwrap().der().to_vec();
        let certificate = Certificate::from_der(&der).unwrap();
        let above = [vec![certificate.clone()], self.above.clone()].concat();
        Self { params, key, algorithm: self.algorithm, certificate, above }
    }

    /// A gateway's credential.
    pub fn credential(&self, name: &str, change: impl Fn(&mut CertificateParams)) -> LocalAuth {
        let key = key(self.algorithm);
        let mut params = params(name);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        params.serial_number = Some(SerialNumber::from(SERIAL));
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer()).unwrap().der().to_vec();
        let mut chain = vec![Certificate::from_der(&der).unwrap()];
        chain.extend(self.above.iter().cloned());
        let key = SigningKey::from_der(key.serialized_der()).unwrap();
        assert_eq!(Some(&key.public()), chain[0].key());
        LocalAuth::Certificate(Arc::new(Credential { key, chain }))
    }

    /// Trust in it, with a revocation list if serial numbers are given.
    pub fn trust(&self, revoked: Option<&[u64]>) -> RemoteAuth {
        let mut trust = Trust::new();
        trust.add_authority(self.certificate.clone()).unwrap();
        if let Some(revoked) = revoked {
            trust.add_revocation_list(&self.revocation_list(revoked)).unwrap();
        }
        RemoteAuth::Certificate(Arc::new(trust))
    }

    fn revocation_list(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(1970, 1, 1) + WALL - DAY,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + WALL - DAY,
            next_update: date_time_ymd(1970, 1, 1) + WALL + DAY,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().der().to_vec()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// Both ends have a certificate of the same authority.
pub fn certified(transport: StartTransport, authority: &Authority, trust: &Authority) -> Pair {
    let mut pair = Pair::new(transport);
    pair.a.local_auth = authority.credential("a", |_| {});
    pair.b.local_auth = authority.credential("b", |_| {});
    pair.both(|connection| connection.remote_auth = trust.trust(None))
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1) + WALL - DAY;
    params.not_after = date_time_ymd(1970, 1, 1) + WALL + DAY;
    params
}
