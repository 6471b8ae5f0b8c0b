//! The configuration that holds: the file's, changed by the store.

use portcullis_data_plane::guard::Rule;
use portcullis_ike::config::OnUnreachable;
use serde_json::Value;

use super::{PolicyWord, Stored};
use crate::config::{Config, Connection, PolicySource, Problem, Secrets, read_connection, recheck};

/// The configuration that holds, and what keeps parts of the store from it.
#[derive(Clone, Debug)]
pub struct Effective {
    /// What holds.
    pub config: Config,
    /// Connections of the store that are not valid.
    pub errors: Vec<Problem>,
    /// Overrides that cannot work; their connections are fail-closed.
    pub contradictions: Vec<Problem>,
}

/// What follows from the file's configuration and the store. Without a store that can be read every connection is
/// fail-closed, and `remembered` stays guarded.
pub fn effective(base: &Config, stored: Result<&Stored, &[Rule]>, secrets: &Secrets) -> Effective {
    let mut config = base.clone();
    let entries = match stored {
        Ok(stored) => &stored.entries,
        Err(remembered) => {
            for connection in config.connections.iter_mut() {
                connection.ike.esp.on_unreachable = OnUnreachable::FailClosed;
                connection.policy_source = PolicySource::StoreUnreadable;
            }
            config.guard_rules = remembered.to_vec();
            return Effective { config, errors: Vec::new(), contradictions: Vec::new() };
        }
    };
    let (mut errors, mut contradictions) = (Vec::new(), Vec::new());
    for (name, document) in &entries.connections {
        match read_document(name, document, secrets) {
            Ok(mut connection) => {
                connection.is_from_api = true;
                config.connections.put(connection);
            }
            Err(problems) => {
                errors.extend(problems.into_iter().map(|p| p.below(&format!("connections.{name}"))))
            }
        }
    }
    for connection in config.connections.iter_mut() {
        let (word, source) = match (entries.policies.get(&*connection.ike.name), entries.default_policy) {
            (Some(word), _) => (*word, PolicySource::Api),
            (None, Some(word)) if connection.policy_source == PolicySource::BuiltIn => {
                (word, PolicySource::ApiDefault)
            }
            (None, _) => continue,
        };
        // What a connection says itself, or is built in, has been judged with the rest of it.
        let is_judged = connection.ike.esp.on_unreachable == word.into();
        let problems = if is_judged { Vec::new() } else { check_policy(connection, word) };
        let prefix = format!("connections.{}", connection.ike.name);
        // Shut is the only answer to a policy that cannot work.
        connection.ike.esp.on_unreachable =
            if problems.is_empty() { word.into() } else { OnUnreachable::FailClosed };
        connection.policy_source = source;
        contradictions.extend(problems.into_iter().map(|problem| problem.below(&prefix)));
    }
    if errors.is_empty() && !entries.connections.is_empty() {
        errors = recheck(&config);
    }
    Effective { config, errors, contradictions }
}

/// Reads the document of one connection.
///
/// # Errors
/// Everything that is wrong with it; keys count from the document.
pub fn read_document(name: &str, document: &Value, secrets: &Secrets) -> Result<Connection, Vec<Problem>> {
    read_connection(name, document.to_string().as_bytes(), secrets)
}

/// What is wrong with a policy for a connection, by the rules of the configuration file.
pub fn check_policy(connection: &Connection, word: PolicyWord) -> Vec<Problem> {
    let mut document: Value = serde_json::from_str(&connection.document).unwrap_or_default();
    if !document["esp"].is_object() {
        document["esp"] = Value::Object(serde_json::Map::new());
    }
    document["esp"]["on_unreachable"] = word.label().into();
    read_document(&connection.ike.name, &document, &Secrets::Skip).err().unwrap_or_default()
}
