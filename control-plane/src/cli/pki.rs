//! `portcullis pki`: an authority, certificates, requests and revocation lists, for a quick start. A site that has an authority
//! uses that one.

mod authority;
mod files;
mod kind;
mod name;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use portcullis_ike::config::Identity;
use portcullis_pki::pem;
use rcgen::{CertificateParams, IsCa, KeyUsagePurpose, SanType};

use authority::{Authority, Public};
use files::Directory;
use kind::Kind;

use crate::config;

const DAY: Duration = Duration::from_secs(86_400);
/// Certificates are valid from so long before now on: the clocks of two gateways differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// Make an authority, certificates and requests for a quick start.
#[derive(Debug, Args)]
pub struct Pki {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an authority: ca.pem and ca.key.
    Ca(Ca),
    /// Make a certificate and its key, or the certificate that a request asks for.
    Issue(Issue),
    /// Make a key and a certification request (PKCS #10) for another authority.
    Request(Request),
    /// Revoke certificates and write the revocation list ca.crl; without certificates, renew it.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Ca {
    /// Its common name.
    #[arg(long, value_name = "NAME", default_value = "Portcullis CA")]
    name: String,
    /// The kind of its key.
    #[arg(long, value_enum, default_value_t = Kind::EcdsaP256)]
    key: Kind,
    /// How long it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..36_500))]
    days: u32,
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Issue {
    /// The directory with ca.pem and ca.key.
    #[arg(long, value_name = "DIR", default_value = ".")]
    ca: PathBuf,
    /// Who it is for, as in `id` of the configuration: a host name, user@host or an address. The first one names the files.
    #[arg(long, value_name = "ID", required = true)]
    id: Vec<String>,
    /// The kind of its key.
    #[arg(long, value_enum, default_value_t = Kind::EcdsaP256)]
    key: Kind,
    /// Certify the key of this request, and make none.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    request: Option<PathBuf>,
    /// How long it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..36_500))]
    days: u32,
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Request {
    /// Who it is for, as in `id` of the configuration. The first one names the files.
    #[arg(long, value_name = "ID", required = true)]
    id: Vec<String>,
    /// The kind of its key.
    #[arg(long, value_enum, default_value_t = Kind::EcdsaP256)]
    key: Kind,
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Revoke {
    /// The directory with ca.pem and ca.key. What is revoked is remembered there in `revoked`.
    #[arg(long, value_name = "DIR", default_value = ".")]
    ca: PathBuf,
    /// How long the list is good.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..3650))]
    days: u32,
    /// Files of the certificates.
    #[arg(value_name = "CERTIFICATE")]
    certificates: Vec<PathBuf>,
}

impl Pki {
    /// Does what the verb says, and prints the files that it wrote.
    ///
    /// # Errors
    /// If a file cannot be read or written, is there already, or does not fit.
    pub fn run(&self) -> Result<()> {
        match &self.verb {
            Verb::Ca(verb) => verb.run(),
            Verb::Issue(verb) => verb.run(),
            Verb::Request(verb) => verb.run(),
            Verb::Revoke(verb) => verb.run(),
        }
    }
}

impl Ca {
    fn run(&self) -> Result<()> {
        let out = Directory::create(&self.out)?;
        let key = self.key.generate()?;
        let mut params = params(&self.name, self.days)?;
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        out.write_new("ca.key", &key.serialize_pem())?;
        out.write_new("ca.pem", &certificate.pem())
    }
}

impl Issue {
    fn run(&self) -> Result<()> {
        let authority = Authority::load(&self.ca)?;
        let identities = identities(&self.id)?;
        let name = file_name(&self.id)?;
        let params = gateway(&self.id, &identities, self.days)?;
        let out = Directory::create(&self.out)?;
        let (certificate, key) = match &self.request {
            Some(file) => {
                let content = std::fs::read(file).with_context(|| file.display().to_string())?;
                let request = pem::request(&content)
                    .and_then(|der| portcullis_pki::Request::from_der(&der))
                    .with_context(|| {
                        format!("{}: no certification request that its key has signed", file.display())
                    })?;
                (authority.certify(params, &Public::from(request.key))?, None)
            }
            None => {
                let key = self.key.generate()?;
                (authority.certify(params, &key)?, Some(key))
            }
        };
        authority.check(&certificate, &identities, now())?;
        if let Some(key) = key {
            out.write_new(&format!("{name}.key"), &key.serialize_pem())?;
        }
        out.write_new(&format!("{name}.pem"), &certificate.pem())
    }
}

impl Request {
    fn run(&self) -> Result<()> {
        let name = file_name(&self.id)?;
        let key = self.key.generate()?;
        // The issuer decides on the validity.
        let mut params = gateway(&self.id, &identities(&self.id)?, 1)?;
        params.serial_number = None;
        params.use_authority_key_identifier_extension = false;
        let request = params.serialize_request(&key)?.pem()?;
        let out = Directory::create(&self.out)?;
        out.write_new(&format!("{name}.key"), &key.serialize_pem())?;
        out.write_new(&format!("{name}.csr"), &request)
    }
}

impl Revoke {
    fn run(&self) -> Result<()> {
        let authority = Authority::load(&self.ca)?;
        let directory = Directory::create(&self.ca)?;
        let mut revoked = directory.revoked()?;
        for file in &self.certificates {
            let content = std::fs::read(file).with_context(|| file.display().to_string())?;
            let certificates = pem::certificates(&content).with_context(|| file.display().to_string())?;
            let certificate =
                certificates.first().with_context(|| format!("{}: no certificate", file.display()))?;
            revoked.entry(certificate.serial()).or_insert(now().as_secs());
        }
        let list = authority.revocation_list(&revoked, now(), DAY * self.days)?;
        directory.remember_revoked(&revoked)?;
        directory.replace("ca.crl", &list)
    }
}

fn gateway(ids: &[String], identities: &[Identity], days: u32) -> Result<CertificateParams> {
    let common_name = ids.first().map(String::as_str).unwrap_or_default();
    let mut params = params(common_name, days)?;
    params.subject_alt_names = identities.iter().map(alternative_name).collect::<Result<_>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn params(common_name: &str, days: u32) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name::common(common_name);
    params.not_before = authority::time(now().saturating_sub(EARLIER));
    params.not_after = authority::time(now() + DAY * days);
    params.serial_number = Some(authority::random_serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn identities(ids: &[String]) -> Result<Vec<Identity>> {
    ids.iter().map(|id| config::identity(id).map_err(anyhow::Error::msg)).collect()
}

fn alternative_name(identity: &Identity) -> Result<SanType> {
    Ok(match identity {
        Identity::Fqdn(name) => SanType::DnsName(name.as_str().try_into()?),
        Identity::Email(name) => SanType::Rfc822Name(name.as_str().try_into()?),
        Identity::Address(address) => SanType::IpAddress(*address),
        Identity::Name(_) | Identity::KeyId(_) => bail!("{identity} cannot be in subjectAltName"),
    })
}

fn file_name(ids: &[String]) -> Result<&str> {
    let name = ids.first().map(String::as_str).unwrap_or_default();
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':');
    ensure!(!name.starts_with('.') && name.chars().all(is_safe), "'{name}' does not name a file");
    Ok(name)
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
