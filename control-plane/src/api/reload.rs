//! Reading the configuration file again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Change, query};
use super::problem::{Invalid, Problem};
use crate::changes::Difference;

/// How to reload.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReloadQuery {
    /// Show the difference and change nothing.
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
}

/// What a reload did, or would do.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct ReloadView {
    /// Nothing was changed.
    pub dry_run: bool,
    /// The difference between what was in force and what the file says.
    pub difference: Difference,
    /// What the author of the file should know.
    pub warnings: Vec<Invalid>,
}

/// Reads the configuration file again. Connections that are the same stay up.
#[utoipa::path(post, path = "/v1/reload", tag = "changes", params(ReloadQuery),
    responses((status = 200, body = ReloadView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn reload(
    State(api): State<Arc<Api>>,
    change: Change,
    uri: Uri,
) -> Result<Json<ReloadView>, Problem> {
    let ReloadQuery { dry_run } = query(&uri)?;
    let request = change.request(if dry_run { "dry run" } else { "" });
    let changes = Arc::clone(&api.changes);
    // Carried through even if the caller goes away.
    let reloaded = tokio::spawn(async move { changes.reload(&request, dry_run).await });
    let reloaded = reloaded.await.map_err(|_| Problem::stuck())??;
    let warnings = reloaded.warnings.into_iter().map(Invalid::from).collect();
    Ok(Json(ReloadView { dry_run, difference: reloaded.difference, warnings }))
}
