//! Certificates, their keys, authorities and revocation lists: files in PEM or DER, each read once and refused with its cause.
//!
//! What has expired is a warning and no error: time alone must not keep a gateway with other connections from starting. The
//! peer refuses it, `portcullis_certificate_expiry_timestamp_seconds` says when, and status and log say why.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_ike::config::{Credential, Identity, SigningKey};
use portcullis_pki::{Certificate, MAX_CHAIN, Refusal, Trust, WallTime, pem};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::field::{Field, Section};
use super::secret::{Secrets, refuse_public};

/// The longest file of certificates or lists that is read, octets.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// The longest key file: an ML-DSA-87 key in its longest form has 7 KiB in PEM.
const MAX_KEY: u64 = 64 * 1024;

/// A file whose content is good until some time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ExpiringFile {
    /// Where it is.
    pub file: Arc<str>,
    /// What it holds.
    pub kind: ExpiringKind,
    /// When the first thing in it stops being good.
    pub until: WallTime,
}

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExpiringKind {
    /// Our certificate and those above it.
    Certificate,
    /// Authorities.
    Authority,
    /// Revocation lists.
    RevocationList,
}

impl ExpiringKind {
    /// The word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Authority => "ca",
            Self::RevocationList => "crl",
        }
    }
}

/// Reads `certificate` and `key` of our side: `None` if something is wrong, or if files are not read.
pub fn credential(
    s: &mut Section<'_>,
    identity: Option<&Identity>,
    secrets: &Secrets,
    files: &mut Vec<ExpiringFile>,
) -> Option<Credential> {
    let certificate = s.need("certificate");
    let key = s.need("key");
    let (certificate, key) = (certificate?, key?);
    if !secrets.are_read() {
        return None;
    }
    let chain = read_file(&certificate, MAX_FILE).and_then(|content| chain_of(&certificate, &content));
    let signing_key = signing_key(&key);
    let (chain, signing_key) = (chain?, signing_key?);
    let own = chain.first()?;
    if own.key() != Some(&signing_key.public()) {
        return key.refuse("this is not the key of the certificate");
    }
    if !own.may_sign() {
        return certificate.refuse(Refusal::Usage);
    }
    if let Some(identity) = identity
        && !is_for(own, identity)
    {
        return certificate.refuse(format!(
            "the certificate does not have the id {identity} in its subjectAltName, or as its subject: peers would refuse it"
        ));
    }
    remember(&certificate, ExpiringKind::Certificate, chain.iter().map(Certificate::not_after), files)?;
    warn_of_validity(&certificate, &chain);
    Some(Credential { key: signing_key, chain })
}

/// Reads `ca` and `crl` of the peer's side. Without reading files, nobody is trusted.
pub fn trust(s: &mut Section<'_>, secrets: &Secrets, files: &mut Vec<ExpiringFile>) -> Option<Trust> {
    let (authorities, lists) = (s.need("ca"), s.get("crl"));
    let mut trust = Trust::new();
    let authorities = authorities?.items("file of authorities", |item| {
        item.text()?;
        Some(if secrets.are_read() {
            (item.clone(), authorities_of(item)?)
        } else {
            (item.clone(), Vec::new())
        })
    });
    for (item, certificates) in authorities {
        if !certificates.is_empty() {
            remember(&item, ExpiringKind::Authority, certificates.iter().map(Certificate::not_after), files)?;
            warn_of_validity(&item, &certificates);
        }
        for certificate in certificates {
            let label = certificate.label();
            if trust.add_authority(certificate).is_err() {
                return item.refuse(format!(
                    "{label} is no authority: basicConstraints has to say CA, keyUsage, if any, keyCertSign"
                ));
            }
        }
    }
    let lists = lists.map(|field| {
        field.items("file of revocation lists", |item| {
            item.text()?;
            Some(if secrets.are_read() {
                (item.clone(), lists_of(item)?)
            } else {
                (item.clone(), Vec::new())
            })
        })
    });
    for (item, lists) in lists.unwrap_or_default() {
        let mut next_updates = Vec::new();
        for list in lists {
            match trust.add_revocation_list(&list) {
                Ok(next_update) => next_updates.push(next_update),
                Err(refusal) => return item.refuse(refusal),
            }
        }
        if let Some(next_update) = next_updates.iter().min() {
            if *next_update < now() {
                item.warn(Refusal::RevocationExpired);
            }
            remember(&item, ExpiringKind::RevocationList, next_updates.iter().copied(), files)?;
        }
    }
    Some(trust)
}

fn chain_of(field: &Field<'_>, content: &[u8]) -> Option<Vec<Certificate>> {
    match pem::certificates(content) {
        Ok(chain) if chain.is_empty() => field.refuse("the file has no certificate in it"),
        Ok(chain) if chain.len() > MAX_CHAIN => field.refuse(format!(
            "the file has more than {MAX_CHAIN} certificates: ours, and those up to the peer's `ca`"
        )),
        Ok(chain) => Some(chain),
        Err(refusal) => field.refuse(refusal),
    }
}

fn authorities_of(field: &Field<'_>) -> Option<Vec<Certificate>> {
    match pem::certificates(&read_file(field, MAX_FILE)?) {
        Ok(certificates) if certificates.is_empty() => field.refuse("the file has no certificate in it"),
        Ok(certificates) => Some(certificates),
        Err(refusal) => field.refuse(refusal),
    }
}

fn lists_of(field: &Field<'_>) -> Option<Vec<Vec<u8>>> {
    match pem::revocation_lists(&read_file(field, MAX_FILE)?) {
        Ok(lists) if lists.is_empty() => field.refuse("the file has no revocation list in it"),
        Ok(lists) => Some(lists),
        Err(refusal) => field.refuse(refusal),
    }
}

fn signing_key(field: &Field<'_>) -> Option<SigningKey> {
    refuse_public(field, Path::new(field.text()?))?;
    let content = read_file(field, MAX_KEY)?;
    let key = match PrivateKeyDer::from_pem_slice(&content) {
        Ok(PrivateKeyDer::Pkcs8(key)) => SigningKey::from_der(key.secret_pkcs8_der()),
        Ok(PrivateKeyDer::Pkcs1(key)) => SigningKey::from_der(key.secret_pkcs1_der()),
        Ok(PrivateKeyDer::Sec1(key)) => SigningKey::from_der(key.secret_sec1_der()),
        _ => SigningKey::from_der(&content),
    };
    if key.is_none() {
        return field.refuse(
            "there is no private key in the file that can be used: RSA of 2048 bits or more, P-256, P-384, Ed25519 or ML-DSA, not encrypted",
        );
    }
    key
}

/// RFC 4945 section 3.1.5: a distinguished name is the subject.
fn is_for(certificate: &Certificate, identity: &Identity) -> bool {
    match identity {
        Identity::Name(name) => certificate.subject() == Some(name),
        identity => certificate.is_for(identity.subject()),
    }
}

fn warn_of_validity(field: &Field<'_>, certificates: &[Certificate]) {
    for certificate in certificates {
        if let Err(refusal) = certificate.is_valid_at(now()) {
            field.warn(format!("{}: {refusal}", certificate.label()));
        }
    }
}

fn remember(
    field: &Field<'_>,
    kind: ExpiringKind,
    until: impl Iterator<Item = WallTime>,
    files: &mut Vec<ExpiringFile>,
) -> Option<()> {
    let file = ExpiringFile { file: Arc::from(field.text()?), kind, until: until.min()? };
    files.push(file);
    Some(())
}

fn read_file(field: &Field<'_>, most: u64) -> Option<Zeroizing<Vec<u8>>> {
    let path = field.text()?;
    let mut content = Zeroizing::new(Vec::new());
    let read = std::fs::File::open(path).and_then(|file| {
        // Room for all of it at once, so that no copy of a key is left behind by growing.
        content.reserve(usize::try_from(file.metadata()?.len().min(most)).unwrap_or_default() + 1);
        file.take(most + 1).read_to_end(&mut content)
    });
    match read {
        Ok(length) if length as u64 > most => field.refuse(format!("{path} has more than {most} octets")),
        Ok(_) => Some(content),
        Err(error) => field.refuse(format!("{path}: {error}")),
    }
}

fn now() -> WallTime {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
