//! A change that waits for its confirmation, as it is shown.

use serde::Serialize;
use utoipa::ToSchema;

use crate::changes::Waiting;

/// A change that is undone unless it is confirmed.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct PendingChange {
    /// Its name: `POST /v1/changes/{id}/confirm`.
    pub id: String,
    /// The request that made it.
    pub resource: String,
    /// By whom.
    pub by: String,
    /// When it is undone, RFC 3339.
    pub reverts_at: String,
}

impl From<Waiting> for PendingChange {
    fn from(waiting: Waiting) -> Self {
        Self {
            id: waiting.id,
            resource: waiting.resource,
            by: waiting.who,
            reverts_at: humantime::format_rfc3339_millis(waiting.deadline).to_string(),
        }
    }
}
