//! Everything at once: for people and for Prometheus.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;
use super::problem::Problem;
use crate::metrics::CONTENT_TYPE;
use crate::status::{DataPlane, Status};

/// Every connection, the data plane, the guard.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, body = Status)))]
pub async fn status(State(api): State<Arc<Api>>) -> Result<Json<Status>, Problem> {
    let snapshot = api.running.snapshot().await.ok_or_else(Problem::stuck)?;
    let mut status = Status::of(&snapshot);
    status.policy_store_problem = api.changes.unreadable();
    Ok(Json(status))
}

/// What the data plane counts: workers, interfaces, drops. It asks no shard, whatever the number of connections.
#[utoipa::path(get, path = "/v1/data-plane", tag = "status", responses((status = 200, body = DataPlane)))]
pub async fn data_plane(State(api): State<Arc<Api>>) -> Json<DataPlane> {
    Json(DataPlane::of(&api.running.data_plane()))
}

/// `GET /metrics`.
pub async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, Problem> {
    let snapshot = api.running.snapshot().await.ok_or_else(Problem::stuck)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], api.running.metrics(&snapshot)))
}
