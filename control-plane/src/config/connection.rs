//! The `connections:` section.

mod child;
mod esp;
mod ike;
mod ppk;
mod redirect;

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_ike::config::{ConnectionConfig, Identity, LocalAuth, RemoteAddress, RemoteAuth, Secret};

use super::certificate::{self, ExpiringFile};
use super::field::{Field, Place, Section};
use super::identity::identity;
use super::scalar::name;
use super::secret::Secrets;

pub use child::{Child, Limits};
pub use esp::ON_UNREACHABLE;

/// One connection as configured.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What the IKE endpoint has to know.
    pub ike: ConnectionConfig,
    /// What else is configured about its children, in the same order.
    pub children: Vec<Child>,
    /// It has metrics of its own with `per_connection: listed`.
    pub metrics: bool,
    /// Its files that are good until some time.
    pub expiring: Vec<ExpiringFile>,
    /// Where it is in the file.
    pub place: Place,
    /// As it was written: compact JSON, secrets named and not told.
    pub document: Arc<str>,
    /// Who says what happens when no direct carrier passes ESP.
    pub policy_source: PolicySource,
    /// The API has made it, not the file.
    pub is_from_api: bool,
}

/// Who says what happens when no direct carrier passes ESP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicySource {
    /// An override by the API.
    Api,
    /// `esp.on_unreachable` of the connection.
    Configuration,
    /// The default that the API has set.
    ApiDefault,
    /// The default that is built in.
    BuiltIn,
    /// The policy store cannot be read: fail-closed.
    StoreUnreadable,
}

impl PolicySource {
    /// The word for status and API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Configuration => "configuration",
            Self::ApiDefault => "api-default",
            Self::BuiltIn => "built-in",
            Self::StoreUnreadable => "store-unreadable",
        }
    }
}

/// Reads the section. Connections that are refused are left out.
pub fn connections(field: Option<Field<'_>>, secrets: &Secrets) -> Vec<Connection> {
    let entries = field.map(|field| field.entries()).unwrap_or_default();
    entries.into_iter().filter_map(|(key, entry)| connection(key, &entry, secrets)).collect()
}

/// Reads one connection.
pub fn connection(key: &str, entry: &Field<'_>, secrets: &Secrets) -> Option<Connection> {
    if let Err(message) = name(key) {
        return entry.refuse(message);
    }
    entry.section(|s| {
        let mut expiring = Vec::new();
        let local = s.need("local").and_then(|field| field.section(|s| local(s, secrets, &mut expiring)));
        let psk = match &local {
            Some(Local { auth: LocalAuth::Psk(secret), .. }) => Some(secret.clone()),
            _ => None,
        };
        let remote =
            s.need("remote").and_then(|field| field.section(|s| remote(s, secrets, psk, &mut expiring)));
        let ppk = s.get("ppk");
        let ppk = match &ppk {
            None => Some(None),
            Some(field) => ppk::read(field, secrets).map(Some),
        };
        let redirect = redirect::read(s.get("redirect"));
        let ike_section = ike::read(s.get("ike"));
        let esp_section = esp::read(s.get("esp"));
        let metrics = s.or("metrics", false, Field::flag);
        let children = s.need("children").map(|field| child::read(&field));
        let (local, remote) = (local?, remote?);
        let ike = ike_section?;
        let esp = esp_section?;
        let children = children?;
        let remote_is_any = remote.address == RemoteAddress::Any;
        let policy_source = match esp.place.on_unreachable {
            Some(_) => PolicySource::Configuration,
            None => PolicySource::BuiltIn,
        };
        ike::refuse_contradictions(&ike, &esp.policy, &esp.place);
        child::refuse_contradictions(&children, remote_is_any, s.problems());
        let (configs, extras) = children.into_iter().map(|child| (child.ike.clone(), child)).unzip();
        Some(Connection {
            ike: ConnectionConfig {
                name: Arc::from(key),
                local_address: local.address,
                local_id: local.id,
                local_auth: local.auth,
                remote_address: remote.address,
                remote_id: remote.id,
                remote_auth: remote.auth,
                ppk: ppk?,
                redirect: redirect?.into(),
                ike: ike.policy.into(),
                esp: esp.policy.into(),
                children: configs,
            },
            children: extras,
            metrics,
            expiring,
            place: s.place(),
            document: entry.document().to_string().into(),
            policy_source,
            is_from_api: false,
        })
    })
}

struct Local {
    address: Option<IpAddr>,
    id: Identity,
    auth: LocalAuth,
}

struct Remote {
    address: RemoteAddress,
    id: Identity,
    auth: RemoteAuth,
}

/// How one side proves who it is.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    Psk,
    Cert,
}

const METHODS: [(&str, Method); 2] = [("psk", Method::Psk), ("cert", Method::Cert)];

fn local(s: &mut Section<'_>, secrets: &Secrets, expiring: &mut Vec<ExpiringFile>) -> Option<Local> {
    let address = s.get("address").and_then(|field| field.read(unicast));
    let id = s.need("id").and_then(|field| field.read(identity));
    let auth = match method(s, &["certificate", "key"])? {
        Method::Psk => {
            let secret = secrets.of(s);
            if secret.is_none() && !s.has("secret_file") && !s.has("credential") {
                s.refuse::<()>("a shared key needs secret_file: PATH or credential: NAME");
            }
            secret.map(LocalAuth::Psk)
        }
        Method::Cert => {
            let credential = certificate::credential(s, id.as_ref(), secrets, expiring);
            match credential {
                Some(credential) => Some(LocalAuth::Certificate(Arc::new(credential))),
                // Of another host: that a certificate is configured is all that is known of it.
                None if !secrets.are_read() => Some(LocalAuth::Psk(Secret::new(Vec::new()))),
                None => None,
            }
        }
    };
    let (id, auth) = (id?, auth?);
    Some(Local { address, id: as_in_certificate(id, &auth), auth })
}

fn remote(
    s: &mut Section<'_>,
    secrets: &Secrets,
    psk: Option<Secret>,
    expiring: &mut Vec<ExpiringFile>,
) -> Option<Remote> {
    let address = s.need("address").and_then(|field| {
        field.read(|text| match text {
            "any" => Ok(RemoteAddress::Any),
            text => unicast(text).map(RemoteAddress::Ip),
        })
    });
    let id_field = s.need("id");
    let id = id_field.as_ref().and_then(|field| field.read(identity));
    let auth = match method(s, &["ca", "crl"])? {
        Method::Psk => {
            let secret = secrets.of(s);
            let is_named = s.has("secret_file") || s.has("credential");
            if !is_named && psk.is_none() {
                return s.refuse(
                    "a shared key needs secret_file: PATH or credential: NAME, where our side has none",
                );
            }
            secret.or(psk.filter(|_| !is_named)).map(RemoteAuth::Psk)
        }
        Method::Cert => {
            if let (Some(field), Some(Identity::KeyId(_))) = (&id_field, &id) {
                field.refuse::<()>("a certificate has no key id in it (RFC 4945 section 3.1.8)");
            }
            certificate::trust(s, secrets, expiring).map(|trust| RemoteAuth::Certificate(Arc::new(trust)))
        }
    };
    Some(Remote { address: address?, id: id?, auth: auth? })
}

/// The method of a side; keys of the other method are refused. `of_cert` are those of `cert`.
fn method(s: &mut Section<'_>, of_cert: &[&'static str]) -> Option<Method> {
    const OF_PSK: [&str; 2] = ["secret_file", "credential"];
    let (of_psk, of_cert) =
        (OF_PSK.map(|key| s.get(key)), of_cert.iter().map(|key| s.get(key)).collect::<Vec<_>>());
    let method = s.need("auth")?.word(&METHODS)?;
    let (word, others) = match method {
        Method::Psk => ("cert", of_cert),
        Method::Cert => ("psk", of_psk.into()),
    };
    for field in others.into_iter().flatten() {
        field.refuse::<()>(format!("this belongs to auth: {word}"));
    }
    Some(method)
}

/// A distinguished name is sent octet by octet as the certificate has it (RFC 4945 section 3.1.5).
fn as_in_certificate(id: Identity, auth: &LocalAuth) -> Identity {
    match (&id, auth) {
        (Identity::Name(name), LocalAuth::Certificate(credential)) => credential
            .chain
            .first()
            .and_then(|certificate| certificate.subject())
            .filter(|subject| *subject == name)
            .map_or(id.clone(), |subject| Identity::Name(subject.clone())),
        _ => id,
    }
}

fn unicast(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err(format!("'{text}' is not the IP address of a host")),
    }
}
