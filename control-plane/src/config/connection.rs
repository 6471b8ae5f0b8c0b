//! The `connections:` section.

mod child;
mod esp;
mod ike;

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_ike::config::{ConnectionConfig, Identity, LocalAuth, RemoteAddress, RemoteAuth, Secret};

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
        let local = s.need("local").and_then(|field| field.section(|s| local(s, secrets)));
        let remote = s.need("remote").and_then(|field| field.section(|s| remote(s, secrets)));
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
                local_auth: LocalAuth::Psk(local.secret.clone()),
                remote_address: remote.address,
                remote_id: remote.id,
                remote_auth: RemoteAuth::Psk(remote.secret.unwrap_or(local.secret)),
                ike: ike.policy.into(),
                esp: esp.policy.into(),
                children: configs,
            },
            children: extras,
            metrics,
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
    secret: Secret,
}

struct Remote {
    address: RemoteAddress,
    id: Identity,
    secret: Option<Secret>,
}

fn local(s: &mut Section<'_>, secrets: &Secrets) -> Option<Local> {
    let address = s.get("address").and_then(|field| field.read(unicast));
    let id = s.need("id").and_then(|field| field.read(identity));
    let is_psk = auth(s);
    let secret = secrets.of(s);
    if is_psk.is_some() && secret.is_none() && !s.has("secret_file") && !s.has("credential") {
        s.refuse::<()>("a shared key needs secret_file: PATH or credential: NAME");
    }
    is_psk?;
    Some(Local { address, id: id?, secret: secret? })
}

fn remote(s: &mut Section<'_>, secrets: &Secrets) -> Option<Remote> {
    let address = s.need("address").and_then(|field| {
        field.read(|text| match text {
            "any" => Ok(RemoteAddress::Any),
            text => unicast(text).map(RemoteAddress::Ip),
        })
    });
    let id = s.need("id").and_then(|field| field.read(identity));
    let is_psk = auth(s);
    let secret = secrets.of(s);
    is_psk?;
    if secret.is_none() && (s.has("secret_file") || s.has("credential")) {
        return None;
    }
    Some(Remote { address: address?, id: id?, secret })
}

fn auth(s: &mut Section<'_>) -> Option<()> {
    let field = s.need("auth")?;
    match field.text()? {
        "psk" => Some(()),
        "cert" => field.refuse("cert is not built yet; psk is"),
        other => field.refuse_word(other, &["psk"]),
    }
}

fn unicast(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err(format!("'{text}' is not the IP address of a host")),
    }
}
