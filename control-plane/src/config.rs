//! The configuration file: YAML in, validated values out.
//!
//! Every error names line, column and key; all of them are found in one run. Unknown keys are errors.

mod api;
mod certificate;
mod connection;
mod connections;
mod consistency;
mod data_plane;
mod document;
mod field;
mod gateway;
mod identity;
mod policy;
mod problem;
mod scalar;
mod secret;
mod selector;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_common::opening::IkePorts;
use portcullis_data_plane::config::DataPlaneConfig;
use portcullis_data_plane::guard::Rule;
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet};
use portcullis_ike::config::{ConnectionConfig, OnUnreachable, RemoteAddress, StartMode};

use field::{Field, Section};
use problem::Problems;

pub use api::{ApiConfig, ApiRole, Token};
#[cfg(test)]
pub use certificate::{ExpiringFile, ExpiringKind};
pub use connection::{Child, Connection, Limits, PolicySource};
pub use connections::Connections;
pub use gateway::{ControlConfig, IkeConfig, LogConfig, LogFormat, MetricsConfig, PerConnection};
pub use identity::{hexadecimal, identity};
pub use problem::{Mark, Problem, Severity};
pub use scalar::{duration, name};
pub use secret::{Secrets, secret_in};
pub use selector::for_data_plane;

/// A whole configuration, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names this gateway's policies, maps and files.
    pub instance: Arc<str>,
    /// Where state that outlives the process is kept.
    pub state_dir: PathBuf,
    /// The control socket.
    pub control: ControlConfig,
    /// The API over TCP.
    pub api: ApiConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
    /// Logs.
    pub log: LogConfig,
    /// The data plane.
    pub data_plane: DataPlaneConfig,
    /// Endpoint-wide IKE.
    pub ike: IkeConfig,
    /// Connections in the order of the file.
    pub connections: Connections,
    /// Bypass and discard policies in the order of the file.
    pub policies: Vec<Policy>,
    /// What stays guarded although no connection here says so: those of a policy store that cannot be read.
    pub guard_rules: Vec<Rule>,
}

/// A configuration with what its author should know about it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Warnings.
    pub warnings: Vec<Problem>,
}

/// A configuration that is refused.
#[derive(Debug)]
pub struct Refused {
    /// The file.
    pub file: PathBuf,
    /// Every error, in the order of the text.
    pub errors: Vec<Problem>,
    /// Warnings.
    pub warnings: Vec<Problem>,
}

/// Reads and validates a file; `instance` replaces the name in it.
///
/// # Errors
/// Every problem with its place.
pub fn load(file: &Path, instance: Option<&str>, secrets: &Secrets) -> Result<Checked, Refused> {
    match std::fs::read_to_string(file) {
        Ok(text) => parse(&text, instance, secrets).map_err(|(errors, warnings)| Refused {
            file: file.to_owned(),
            errors,
            warnings,
        }),
        Err(error) => {
            let problem = Problem {
                severity: Severity::Error,
                mark: Mark { line: 1, column: 1 },
                key: String::new(),
                message: format!("cannot be read: {error}"),
                allowed: Vec::new(),
            };
            Err(Refused { file: file.to_owned(), errors: vec![problem], warnings: Vec::new() })
        }
    }
}

/// Where an instance keeps its state unless configured otherwise.
pub fn default_state_dir(instance: &str) -> PathBuf {
    PathBuf::from("/var/lib/portcullis").join(instance)
}

/// Validates a text.
///
/// # Errors
/// Errors and warnings, each in the order of the text.
pub fn parse(
    text: &str,
    instance: Option<&str>,
    secrets: &Secrets,
) -> Result<Checked, (Vec<Problem>, Vec<Problem>)> {
    let root = document::parse(text).map_err(|problem| (vec![problem], Vec::new()))?;
    let problems = Problems::default();
    let config = Field::root(&root, &problems).section(|s| read(s, instance, secrets));
    if let Some(config) = &config {
        consistency::check(config, &problems);
    }
    match (problems.into_parts(), config) {
        ((errors, warnings), Some(config)) if errors.is_empty() => Ok(Checked { config, warnings }),
        ((errors, warnings), _) => Err((errors, warnings)),
    }
}

/// Validates the document of one connection, JSON with the keys and the meaning of the file.
///
/// # Errors
/// Everything that is wrong with it; keys count from the document.
pub fn read_connection(name: &str, document: &[u8], secrets: &Secrets) -> Result<Connection, Vec<Problem>> {
    let root = document::json::parse(document).map_err(|error| vec![Problem::of_document(&error)])?;
    let problems = Problems::default();
    let connection = connection::connection(name, &Field::root(&root, &problems), secrets);
    match (problems.into_parts(), connection) {
        ((errors, _), Some(connection)) if errors.is_empty() => Ok(connection),
        ((errors, _), _) => Err(errors),
    }
}

/// Reads the document of an ESP policy: `on_unreachable` alone.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_policy(document: &[u8]) -> Result<OnUnreachable, Vec<Problem>> {
    let root = document::json::parse(document).map_err(|error| vec![Problem::of_document(&error)])?;
    let problems = Problems::default();
    let policy = Field::root(&root, &problems)
        .section(|s| s.need("on_unreachable").and_then(|field| field.word(&connection::ON_UNREACHABLE)));
    match (problems.into_parts(), policy) {
        ((errors, _), Some(policy)) if errors.is_empty() => Ok(policy),
        ((errors, _), _) => Err(errors),
    }
}

/// What is wrong with connections that were put together from several documents.
pub fn recheck(config: &Config) -> Vec<Problem> {
    let problems = Problems::default();
    consistency::check(config, &problems);
    problems.into_parts().0
}

impl Config {
    /// What every shard's endpoint is told about connections.
    pub fn ike_connections(&self) -> Vec<ConnectionConfig> {
        self.connections.iter().map(|connection| connection.ike.clone()).collect()
    }

    /// The connection of this name.
    pub fn connection(&self, name: &str) -> Option<&Connection> {
        self.connections.named(name)
    }

    /// Addresses of configured peers, each with the number of connections that name it.
    pub fn peer_addresses(&self) -> HashMap<IpAddr, usize> {
        let mut addresses = HashMap::new();
        for connection in self.connections.iter() {
            if let RemoteAddress::Ip(address) = connection.ike.remote_address {
                *addresses.entry(address.to_canonical()).or_default() += 1;
            }
        }
        addresses
    }

    /// What the guard and the workers are told: configured bypasses and discards first, then the children in
    /// the order of the file (RFC 4301 section 4.4.1: the first match decides).
    pub fn policy_set(&self) -> PolicySet {
        let protect = self.connections.iter().flat_map(|connection| {
            connection.children.iter().map(|child| Policy {
                local: child.ike.local_ts.iter().map(for_data_plane).collect(),
                remote: child.ike.remote_ts.iter().map(for_data_plane).collect(),
                disposition: Disposition::Protect {
                    key: PolicyKey { connection: connection.ike.name.clone(), child: child.ike.name.clone() },
                    acquire: child.ike.start == StartMode::OnTraffic,
                    interface: child.interface.clone(),
                },
            })
        });
        let children = self.connections.iter().flat_map(|connection| &connection.children);
        let mut peers: Vec<_> = self
            .connections
            .iter()
            .map(|connection| match connection.ike.remote_address {
                RemoteAddress::Any => None,
                RemoteAddress::Ip(address) => Some(address),
            })
            .collect();
        peers.sort_unstable();
        peers.dedup();
        PolicySet {
            policies: self.policies.iter().cloned().chain(protect).collect(),
            peers,
            guard_prefixes: children.flat_map(|child| child.guard.iter().copied()).collect(),
            guard_rules: self.guard_rules.clone(),
        }
    }
}

impl Connection {
    /// The child of this name.
    pub fn child(&self, name: &str) -> Option<&Child> {
        self.children.iter().find(|child| &*child.ike.name == name)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.errors.iter().map(|problem| format!("{}:{problem}", self.file.display()));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Refused {}

fn read(s: &mut Section<'_>, instance: Option<&str>, secrets: &Secrets) -> Option<Config> {
    let configured =
        s.get("instance").and_then(|field| field.read(|text| scalar::name(text).map(str::to_owned)));
    let instance = instance.map(str::to_owned).or(configured).unwrap_or_else(|| "default".to_owned());
    let state_dir = s.get("state_dir").and_then(|field| {
        let path = field.text()?;
        if path.starts_with('/') {
            Some(PathBuf::from(path))
        } else {
            field.refuse("an absolute path is expected")
        }
    });
    let state_dir = state_dir.unwrap_or_else(|| default_state_dir(&instance));
    let control = gateway::control(s.get("control"), &instance);
    let api = api::api(s.get("api"), secrets);
    let metrics = gateway::metrics(s.get("metrics"));
    let log = gateway::log(s.get("log"));
    let ike = gateway::ike(s.get("ike"));
    let ports = IkePorts { udp: ike.port, tcp: if ike.tcp { ike.endpoint.nat_port } else { 0 } };
    let data_plane =
        s.need("data_plane").and_then(|f| data_plane::data_plane(f, &instance, &state_dir, ports));
    let connections = s.get("connections");
    if connections.is_none() {
        s.warn("no connection is configured: nothing will pass");
    }
    let connections = connection::connections(connections, secrets).into_iter().collect();
    let policies = policy::policies(s.get("policies"));
    Some(Config {
        instance: Arc::from(instance),
        state_dir,
        control,
        api,
        metrics,
        log,
        data_plane: data_plane?,
        ike,
        connections,
        policies,
        guard_rules: Vec::new(),
    })
}
