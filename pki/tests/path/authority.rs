//! A small authority of tests.

use core::time::Duration;

use portcullis_pki::{Certificate, Refusal, Subject, Trust, WallTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};

/// The time at which tests verify.
pub const NOW: WallTime = day(1000);

/// Days since 1970.
pub const fn day(days: u64) -> WallTime {
    Duration::from_secs(20_000 * 86_400 + days * 86_400)
}

/// An authority and its key.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub der: Vec<u8>,
}

impl Authority {
    /// A self-signed one.
    pub fn root(name: &str) -> Self {
        Self::root_with(name, &PKCS_ECDSA_P256_SHA256, |_| {})
    }

    pub fn root_with(
        name: &str,
        algorithm: &'static SignatureAlgorithm,
        change: impl Fn(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = authority_params(name);
        change(&mut params);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { params, key, der }
    }

    /// An authority below this one.
    pub fn below(&self, name: &str, change: impl Fn(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate_for(self.key.algorithm()).unwrap();
        let mut params = authority_params(name);
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer()).unwrap().der().to_vec();
        Self { params, key, der }
    }

    /// A certificate of a gateway.
    pub fn gateway(&self, change: impl Fn(&mut CertificateParams)) -> Vec<u8> {
        let mut params = gateway_params();
        change(&mut params);
        let key = KeyPair::generate_for(self.key.algorithm()).unwrap();
        params.signed_by(&key, &self.issuer()).unwrap().der().to_vec()
    }

    /// A revocation list with these serial numbers, out of date after `next_update`.
    pub fn revokes(&self, serials: &[u64], next_update: WallTime) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: at(day(900)),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: at(day(900)),
            next_update: at(next_update),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().der().to_vec()
    }

    /// Trust in it alone.
    pub fn trust(&self) -> Trust {
        let mut trust = Trust::new();
        trust.add_authority(Certificate::from_der(&self.der).unwrap()).unwrap();
        trust
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// What `rcgen` takes for a time.
pub type Moment = time::OffsetDateTime;

/// A time for `rcgen`.
pub fn at(time: WallTime) -> Moment {
    date_time_ymd(1970, 1, 1) + time
}

/// Who gateways of tests are.
pub const GATEWAY: Subject<'static> = Subject::Fqdn("gw1.example.net");

/// Verifies a chain of the gateway.
pub fn verify(trust: &Trust, chain: &[&[u8]]) -> Result<(), Refusal> {
    trust.verify(chain, GATEWAY, NOW).map(drop)
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn gateway_params() -> CertificateParams {
    let mut params = params("gw1");
    params.subject_alt_names = vec![dns("gw1.example.net")];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from(7_u64));
    params
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
    params.not_before = at(day(0));
    params.not_after = at(day(2000));
    params
}
