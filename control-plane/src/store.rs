//! The policy store: what the API has changed, kept in the state directory, and the configuration that follows from it.
//!
//! The file is written whole beside the old one, synced and renamed before a change acts, so that a crash at any moment
//! leaves the old or the new policy and never half of one. A store that is there and cannot be understood is never taken
//! for an empty one: every connection is fail-closed until somebody has looked.

mod effective;
mod file;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_ike::config::OnUnreachable;
use serde::{Deserialize, Serialize};

pub use effective::{Effective, check_policy, effective, read_document};
pub use file::StoreFile;

/// What happens when no direct carrier passes ESP, as a word of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyWord {
    /// ESP stops.
    FailClosed,
    /// ESP moves into TCP.
    TcpFallback,
}

/// What the store remembers.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// What the API has changed.
    pub entries: Entries,
    /// A change that is undone unless somebody confirms it.
    #[serde(default)]
    pub pending: Option<Pending>,
}

/// What the API has changed.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    /// For connections that say nothing themselves.
    #[serde(default)]
    pub default_policy: Option<PolicyWord>,
    /// By connection.
    #[serde(default)]
    pub policies: BTreeMap<String, PolicyWord>,
    /// Whole connections, as documents that name secrets and do not tell them.
    #[serde(default)]
    pub connections: BTreeMap<String, serde_json::Value>,
}

/// A change that is undone unless somebody confirms it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Its name for whoever confirms it.
    pub id: String,
    /// What was changed.
    pub resource: String,
    /// By whom.
    pub who: String,
    /// When it is undone, milliseconds of Unix time.
    pub deadline_ms: u64,
    /// How long it was given, milliseconds.
    pub within_ms: u64,
    /// What holds again then.
    pub before: Entries,
}

impl PolicyWord {
    /// The word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::FailClosed => "fail-closed",
            Self::TcpFallback => "tcp-fallback",
        }
    }
}

impl From<PolicyWord> for OnUnreachable {
    fn from(word: PolicyWord) -> Self {
        match word {
            PolicyWord::FailClosed => Self::FailClosed,
            PolicyWord::TcpFallback => Self::TcpFallback,
        }
    }
}

impl From<OnUnreachable> for PolicyWord {
    fn from(policy: OnUnreachable) -> Self {
        match policy {
            OnUnreachable::FailClosed => Self::FailClosed,
            OnUnreachable::TcpFallback => Self::TcpFallback,
        }
    }
}

impl Entries {
    /// Forgets a connection and what was said about it.
    pub fn remove_connection(&mut self, name: &str) -> bool {
        let was_there = self.connections.remove(name).is_some();
        if was_there {
            self.policies.remove(name);
        }
        was_there
    }
}

impl Pending {
    /// A change made now that waits for `within`.
    pub fn new(id: String, resource: String, who: String, within: Duration, before: Entries) -> Self {
        let within_ms = millis(within);
        let deadline_ms = now_ms().saturating_add(within_ms);
        Self { id, resource, who, deadline_ms, within_ms, before }
    }

    /// How long it still waits. A clock that was set back gives it no more than it had.
    pub fn remaining(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.saturating_sub(now_ms()).min(self.within_ms))
    }

    /// When it is undone.
    pub fn deadline(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.deadline_ms)
    }
}

fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
