//! What would change between two configurations, value by value. Secrets are told apart and not shown.

use std::collections::BTreeMap;

use portcullis_ike::config::{LocalAuth, RemoteAuth};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::config::{Config, Connection};

/// The difference between what is in force and what would be.
#[derive(Clone, PartialEq, Default, Debug, Serialize, ToSchema)]
pub struct Difference {
    /// Connections that are new.
    pub added: Vec<String>,
    /// Connections that go.
    pub removed: Vec<String>,
    /// Connections that change.
    pub changed: BTreeMap<String, Vec<ValueChange>>,
    /// The bypass and discard policies change.
    pub policies: bool,
    /// The section that only a restart can change, if one differs: then nothing is changed at all.
    pub needs_restart: Option<String>,
}

/// One value that changes.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct ValueChange {
    /// Its key within the connection.
    pub field: String,
    /// As it is; absent if it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// As it would be; absent if it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

impl Difference {
    /// Compares.
    pub fn between(before: &Config, after: &Config) -> Self {
        let names = |config: &Config| -> Vec<String> {
            config.connections.iter().map(|c| c.ike.name.to_string()).collect()
        };
        let changed = after.connections.iter().filter_map(|new| {
            let old = before.connection(&new.ike.name)?;
            let changes = connection(old, new);
            (!changes.is_empty()).then(|| (new.ike.name.to_string(), changes))
        });
        Self {
            added: names(after).into_iter().filter(|name| before.connection(name).is_none()).collect(),
            removed: names(before).into_iter().filter(|name| after.connection(name).is_none()).collect(),
            changed: changed.collect(),
            policies: before.policies != after.policies,
            needs_restart: None,
        }
    }
}

fn connection(old: &Connection, new: &Connection) -> Vec<ValueChange> {
    let (before, after) = (values(old), values(new));
    let mut changes: Vec<_> = before
        .iter()
        .filter(|(field, value)| after.get(*field) != Some(value))
        .map(|(field, value)| ValueChange {
            field: field.clone(),
            from: Some(value.clone()),
            to: after.get(field).cloned(),
        })
        .collect();
    let added = after.iter().filter(|(field, _)| !before.contains_key(*field));
    changes.extend(added.map(|(field, value)| ValueChange {
        field: field.clone(),
        from: None,
        to: Some(value.clone()),
    }));
    let (old, new) = (&old.ike, &new.ike);
    let differing = [
        match (&old.local_auth, &new.local_auth) {
            (LocalAuth::Psk(old), LocalAuth::Psk(new)) if old != new => Some("local: the secret"),
            (LocalAuth::Certificate(old), LocalAuth::Certificate(new)) if old != new => {
                Some("local: the certificate")
            }
            _ => None,
        },
        match (&old.remote_auth, &new.remote_auth) {
            (RemoteAuth::Psk(old), RemoteAuth::Psk(new)) if old != new => Some("remote: the secret"),
            (RemoteAuth::Certificate(old), RemoteAuth::Certificate(new)) if old != new => {
                Some("remote: authorities or revocation lists")
            }
            _ => None,
        },
        match (&old.ppk, &new.ppk) {
            (Some(old), Some(new)) if old.secret != new.secret => Some("ppk: the secret"),
            _ => None,
        },
    ];
    changes.extend(differing.into_iter().flatten().map(|field| ValueChange {
        field: field.to_owned(),
        from: None,
        to: None,
    }));
    changes
}

/// Every value by its key, and the policy that holds.
fn values(connection: &Connection) -> BTreeMap<String, Value> {
    let document: Value = serde_json::from_str(&connection.document).unwrap_or_default();
    let mut values = BTreeMap::new();
    flatten(String::new(), &document, &mut values);
    let word = crate::store::PolicyWord::from(connection.ike.esp.on_unreachable);
    values.insert("esp.on_unreachable".to_owned(), word.label().into());
    values
}

fn flatten(key: String, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(key, value, into);
            }
        }
        value => {
            into.insert(key, value.clone());
        }
    }
}
