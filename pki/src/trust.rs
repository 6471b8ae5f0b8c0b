//! The authorities and revocation lists that a peer's chain is verified against.

use core::fmt;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::aws_lc_rs as algorithm;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId,
    KeyPurposeIdIter, OwnedCertRevocationList, RevocationOptionsBuilder,
};

use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use crate::{Certificate, PublicKey, Refusal, Subject, WallTime};

/// Most certificates that a peer may send: its own and three authorities between it and the configured one.
pub const MAX_CHAIN: usize = 4;

/// What certificates may be signed with: no SHA-1, no RSA below 2048 bits.
pub(crate) const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithm::ECDSA_P256_SHA256,
    algorithm::ECDSA_P256_SHA384,
    algorithm::ECDSA_P256_SHA512,
    algorithm::ECDSA_P384_SHA256,
    algorithm::ECDSA_P384_SHA384,
    algorithm::ECDSA_P384_SHA512,
    algorithm::ED25519,
    algorithm::RSA_PKCS1_2048_8192_SHA256,
    algorithm::RSA_PKCS1_2048_8192_SHA384,
    algorithm::RSA_PKCS1_2048_8192_SHA512,
    algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    algorithm::ML_DSA_44,
    algorithm::ML_DSA_65,
    algorithm::ML_DSA_87,
];

/// Configured authorities, and the revocation lists of their issuers. With lists, every certificate of a chain needs one that
/// is of its issuer and not out of date; without, revocation is not checked.
#[derive(Default)]
pub struct Trust {
    authorities: Vec<Certificate>,
    anchors: Vec<TrustAnchor<'static>>,
    revocation_lists: Vec<CertRevocationList<'static>>,
    /// The same in DER, to tell whether they have changed.
    revocation_ders: Vec<Vec<u8>>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities && self.revocation_ders == other.revocation_ders
    }
}

impl Eq for Trust {}

impl Trust {
    /// Nobody is trusted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an authority.
    ///
    /// # Errors
    /// [`Refusal::Constraint`] if it is none; [`Refusal::Malformed`].
    pub fn add_authority(&mut self, authority: Certificate) -> Result<(), Refusal> {
        if !authority.may_issue() {
            return Err(Refusal::Constraint);
        }
        let anchor = webpki::anchor_from_trusted_cert(authority.as_der())?.to_owned();
        self.anchors.push(anchor);
        self.authorities.push(authority);
        Ok(())
    }

    /// Adds a revocation list in DER, and says until when it is good.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], which one without next update is as well (RFC 5280 section 5.1.2.5).
    pub fn add_revocation_list(&mut self, der: &[u8]) -> Result<WallTime, Refusal> {
        let parsed = CertificateList::<Rfc5280>::from_der(der).map_err(|_| Refusal::Malformed)?;
        let next_update = parsed.tbs_cert_list.next_update.ok_or(Refusal::Malformed)?.to_unix_duration();
        let list = OwnedCertRevocationList::from_der(der).map_err(|_| Refusal::Malformed)?;
        self.revocation_lists.push(list.into());
        self.revocation_ders.push(der.to_vec());
        Ok(next_update)
    }

    /// The authorities.
    pub fn authorities(&self) -> &[Certificate] {
        &self.authorities
    }

    /// Verifies a chain as a peer sends it, its own certificate first (RFC 7296 section 3.6, RFC 4945 section 5, RFC 5280
    /// section 6), and returns the key that has to have signed AUTH.
    ///
    /// # Errors
    /// Why it is not accepted. When several things are wrong, one of them.
    pub fn verify(&self, chain: &[&[u8]], subject: Subject<'_>, now: WallTime) -> Result<PublicKey, Refusal> {
        let (first, others) = chain.split_first().ok_or(Refusal::Missing)?;
        if chain.len() > MAX_CHAIN {
            return Err(Refusal::TooMany);
        }
        let certificate = Certificate::from_der(first)?;
        let intermediates: Vec<CertificateDer<'_>> =
            others.iter().map(|der| CertificateDer::from(*der)).collect();
        self.verify_path(&certificate, &intermediates, now)?;
        if !certificate.may_sign() {
            return Err(Refusal::Usage);
        }
        if !certificate.is_for(subject) {
            return Err(Refusal::Subject);
        }
        certificate.key().cloned().ok_or(Refusal::Algorithm)
    }

    fn verify_path(
        &self,
        certificate: &Certificate,
        intermediates: &[CertificateDer<'_>],
        now: WallTime,
    ) -> Result<(), Refusal> {
        let end_entity = EndEntityCert::try_from(certificate.as_der())?;
        let lists: Vec<&CertRevocationList<'_>> = self.revocation_lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build());
        let time = UnixTime::since_unix_epoch(now);
        let path = end_entity.verify_for_usage(
            ALGORITHMS,
            &self.anchors,
            intermediates,
            time,
            ForIke,
            revocation,
            None,
        )?;
        for issuer in path.intermediate_certificates() {
            // RFC 5280 section 4.2.1.3: an authority whose key usage does not say keyCertSign issues nothing.
            if !Certificate::from_der(&issuer.der())?.may_issue() {
                return Err(Refusal::Constraint);
            }
        }
        let used = |anchor: &TrustAnchor<'_>| anchor == path.anchor();
        let authorities = self.anchors.iter().zip(&self.authorities).filter(|(anchor, _)| used(anchor));
        // The same authority may be configured twice, with an old and a renewed certificate.
        let validity = authorities.map(|(_, authority)| authority.is_valid_at(now));
        validity.reduce(Result::or).unwrap_or(Ok(()))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities: Vec<String> = self.authorities.iter().map(Certificate::label).collect();
        write!(f, "Trust({authorities:?}, {} revocation lists)", self.revocation_lists.len())
    }
}

/// RFC 4945 section 5.1.3.12: no extended key usage, or one of id-kp-ipsecIKE and anyExtendedKeyUsage.
struct ForIke;

const IPSEC_IKE: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 17]);
const ANY: KeyPurposeId<'static> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]);

impl ExtendedKeyUsageValidator for ForIke {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut is_absent = true;
        for purpose in purposes {
            is_absent = false;
            let purpose = purpose?;
            if purpose == IPSEC_IKE || purpose == ANY {
                return Ok(());
            }
        }
        if is_absent { Ok(()) } else { Err(webpki::Error::EmptyEkuExtension) }
    }
}
