//! The `api:` section: HTTP over TCP, who may use it, and as what.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::field::{Field, Section};
use super::scalar::name;
use super::secret::{Secrets, refuse_public};
use crate::digest::{Digest, sha256};

/// The shortest token that is taken: what base64 makes of 24 random octets.
const MIN_TOKEN: usize = 32;

/// What a caller may do. Each role may do what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ApiRole {
    /// Look.
    ReadOnly,
    /// Carry out what is configured: up, down, rekey, probe.
    Operator,
    /// Change what is configured.
    Admin,
}

/// The words of roles.
pub const ROLES: [(&str, ApiRole); 3] =
    [("read-only", ApiRole::ReadOnly), ("operator", ApiRole::Operator), ("admin", ApiRole::Admin)];

/// The `api:` section.
#[derive(Clone, Debug, Default)]
pub struct ApiConfig {
    /// Where it is served over TLS; none without the key.
    pub listen: Option<SocketAddr>,
    /// Certificate, key, and whose client certificates are believed; none where files are not read.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Bearer tokens.
    pub tokens: Vec<Token>,
    /// Client certificates.
    pub clients: Vec<Client>,
}

/// A bearer token (RFC 6750): only its hash is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// What the audit log calls it.
    pub name: Arc<str>,
    /// What it may do.
    pub role: ApiRole,
    /// SHA-256 of it.
    pub digest: Digest,
}

/// The owner of a client certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// Its subject as RFC 4514 writes it.
    pub subject: Arc<str>,
    /// What it may do.
    pub role: ApiRole,
}

impl ApiRole {
    /// The word for it.
    pub fn label(self) -> &'static str {
        ROLES.iter().find(|(_, role)| *role == self).map_or("none", |(word, _)| word)
    }
}

impl fmt::Display for ApiRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Reads the section.
pub fn api(field: Option<Field<'_>>, secrets: &Secrets) -> ApiConfig {
    field.and_then(|field| field.section(|s| section(s, secrets))).unwrap_or_default()
}

fn section(s: &mut Section<'_>, secrets: &Secrets) -> Option<ApiConfig> {
    let listen = s.get("listen").and_then(|field| {
        field.read(|text| {
            text.parse::<SocketAddr>()
                .map_err(|_| format!("'{text}' is not an address with a port such as 192.0.2.1:8443"))
        })
    });
    let tls = s.get("tls");
    let trusts_clients = tls.as_ref().is_some_and(|field| field.has("client_ca"));
    let is_given = tls.is_some();
    let tls = tls.and_then(|field| field.section(|s| tls_section(s, secrets))).flatten();
    let tokens = s.get("tokens").map(|field| field.list(|item| item.section(|s| token(s, secrets))));
    let tokens = tokens.unwrap_or_default();
    let clients = s.get("clients");
    if let Some(field) = &clients
        && !trusts_clients
    {
        field.refuse::<()>("client certificates need tls.client_ca: whose are to be believed?");
    }
    let clients = clients.map(|field| field.list(|item| item.section(client))).unwrap_or_default();
    if listen.is_some() && !is_given {
        return s.refuse("listen needs tls: tokens and changes never cross a network in clear");
    }
    if listen.is_some() && tokens.is_empty() && clients.is_empty() && secrets.are_read() {
        return s.refuse("listen needs tokens or clients: nobody could use it");
    }
    for (index, token) in tokens.iter().enumerate() {
        if tokens.iter().take(index).any(|other| other.name == token.name) {
            return s.refuse(format!("two tokens are named {}", token.name));
        }
    }
    Some(ApiConfig { listen, tls, tokens, clients })
}

fn token(s: &mut Section<'_>, secrets: &Secrets) -> Option<Token> {
    let name = s.need("name").and_then(|field| field.read(|text| name(text).map(Arc::from)));
    let role = s.need("role").and_then(|field| field.word(&ROLES));
    let secret = secrets.named(s, "file");
    if secret.is_none() && !s.has("file") && !s.has("credential") {
        s.refuse::<()>("a token needs file: PATH or credential: NAME");
    }
    let secret = secret?;
    let octets = secret.expose();
    if secrets.are_read() && (octets.len() < MIN_TOKEN || !octets.iter().all(u8::is_ascii_graphic)) {
        return s.refuse(format!(
            "a token is one line of at least {MIN_TOKEN} visible ASCII characters (openssl rand -base64 32)"
        ));
    }
    Some(Token { name: name?, role: role?, digest: sha256(octets) })
}

fn client(s: &mut Section<'_>) -> Option<Client> {
    let subject = s.need("subject").and_then(|field| field.text().map(Arc::from));
    let role = s.need("role").and_then(|field| field.word(&ROLES));
    Some(Client { subject: subject?, role: role? })
}

fn tls_section(s: &mut Section<'_>, secrets: &Secrets) -> Option<Option<Arc<rustls::ServerConfig>>> {
    let certificate = s.need("certificate");
    let key = s.need("key");
    let client_ca = s.get("client_ca");
    let (certificate, key) = (certificate?, key?);
    if !secrets.are_read() {
        return Some(None);
    }
    refuse_public(&key, Path::new(key.text()?))?;
    let chain = certificate.read(|path| certificates(Path::new(path)));
    let key_der = key.read(|path| {
        PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{path}: no private key in PEM: {error}"))
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &client_ca {
        Some(field) => Some(field.read(|path| {
            let mut roots = RootCertStore::empty();
            for root in certificates(Path::new(path))? {
                roots.add(root).map_err(|error| format!("{path}: {error}"))?;
            }
            // A token may be shown instead of a certificate.
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("{path}: {error}"))
        })?),
        None => None,
    };
    let (chain, key_der) = (chain?, key_der?);
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| certificate.refuse::<()>(error))
        .ok()?;
    let builder = match roots {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    match builder.with_single_cert(chain, key_der) {
        Ok(mut config) => {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Some(Some(Arc::new(config)))
        }
        Err(error) => key.refuse(format!("certificate and key do not fit together: {error}")),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let explain = |error: &dyn fmt::Display| format!("{}: no certificate in PEM: {error}", path.display());
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| explain(&error))?.collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(explain(&"the file holds none")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(explain(&error)),
    }
}
