//! An authority from its files: issues, revokes, and checks what it has issued as a peer would.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use portcullis_ike::config::{Identity, SigningKey};
use portcullis_pki::{Certificate, PublicKey, Trust, WallTime, pem};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::files::Revoked;
use super::{kind, name};
use crate::config;

/// The certificate and the key of an authority.
pub struct Authority {
    certificate: Certificate,
    params: CertificateParams,
    key: Key,
}

impl Authority {
    /// Reads `ca.pem` and `ca.key`.
    pub fn load(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let certificates = pem::certificates(read("ca.pem")?.as_bytes())?;
        let certificate = certificates.into_iter().next().context("ca.pem has no certificate in it")?;
        ensure!(certificate.may_issue(), "ca.pem is the certificate of no authority");
        let der = PrivateKeyDer::from_pem_slice(read("ca.key")?.as_bytes())
            .map_err(|_| anyhow!("ca.key has no private key in PEM in it"))?;
        let key = SigningKey::from_der(der.secret_der()).context("ca.key: this kind of key is not known")?;
        let key = Key { public: key.public().into(), key };
        ensure!(
            certificate.key().is_some_and(|public| *public == key.key.public()),
            "ca.key is not the key of ca.pem"
        );
        let subject = certificate.subject().context("ca.pem has no subject")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name::of_authority(subject.der())?;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if let Some(identifier) = certificate.key_identifier() {
            params.key_identifier_method = KeyIdMethod::PreSpecified(identifier.to_vec());
        }
        Ok(Self { certificate, params, key })
    }

    /// A certificate of this key.
    pub fn certify(&self, params: CertificateParams, key: &impl PublicKeyData) -> Result<rcgen::Certificate> {
        Ok(params.signed_by(key, &self.issuer())?)
    }

    /// A peer that trusts this authority would accept the certificate, now and for each identity.
    pub fn check(&self, issued: &rcgen::Certificate, identities: &[Identity], now: WallTime) -> Result<()> {
        let mut trust = Trust::new();
        trust.add_authority(self.certificate.clone())?;
        for identity in identities {
            trust
                .verify(&[issued.der()], identity.subject(), now)
                .map_err(|refusal| anyhow!("a peer would refuse the certificate of {identity}: {refusal}"))?;
        }
        Ok(())
    }

    /// A revocation list in PEM. Its number is the time, which grows.
    pub fn revocation_list(&self, revoked: &Revoked, now: WallTime, valid: Duration) -> Result<String> {
        let entry = |(serial, at): (&String, &u64)| {
            let serial = config::hexadecimal(serial).context("a serial number is hexadecimal")?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: time(Duration::from_secs(*at)),
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: time(now),
            next_update: time(now + valid),
            crl_number: SerialNumber::from(now.as_secs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect::<Result<_>>()?,
            key_identifier_method: self.params.key_identifier_method.clone(),
        };
        Ok(list.signed_by(&self.issuer())?.pem()?)
    }

    fn issuer(&self) -> Issuer<'_, &Key> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// The key of an authority; `rcgen` reads no ML-DSA keys.
struct Key {
    key: SigningKey,
    public: Public,
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign_certificate(octets).ok_or(rcgen::Error::RingUnspecified)
    }
}

/// A public key, as `rcgen` wants it.
pub struct Public {
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl From<PublicKey> for Public {
    fn from(key: PublicKey) -> Self {
        Self { algorithm: kind::algorithm(key.key_type), bits: key.bits }
    }
}

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// Sixteen random octets, positive (RFC 5280 section 4.1.2.2).
pub fn random_serial() -> Result<SerialNumber> {
    let mut octets = [0; 16];
    getrandom::fill(&mut octets).map_err(|error| anyhow!("no randomness: {error}"))?;
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from(octets.to_vec()))
}

/// Whole seconds, as `rcgen` wants them.
pub fn time(since_1970: Duration) -> OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_secs(since_1970.as_secs())
}
