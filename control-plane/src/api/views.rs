//! What can be read.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::problem::Problem;
use crate::daemon::Gateway;
use crate::metrics::CONTENT_TYPE;
use crate::status::{Connection, Status};

/// `GET /v1/status`: everything.
pub async fn status(State(gateway): State<Arc<Gateway>>) -> Result<Json<Status>, Problem> {
    let snapshot = gateway.snapshot().await.ok_or_else(Problem::stuck)?;
    Ok(Json(Status::of(&snapshot)))
}

/// `GET /v1/connections`: every connection.
pub async fn connections(state: State<Arc<Gateway>>) -> Result<Json<Vec<Connection>>, Problem> {
    status(state).await.map(|Json(status)| Json(status.connections))
}

/// `GET /v1/connections/{name}`: one connection.
pub async fn connection(
    state: State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Json<Connection>, Problem> {
    let Json(status) = status(state).await?;
    let found = status.connections.into_iter().find(|connection| connection.name == name);
    found.map(Json).ok_or_else(|| {
        let detail = format!("no connection '{name}' is configured");
        Problem::new(StatusCode::NOT_FOUND, "unknown connection", detail)
    })
}

/// `GET /metrics`.
pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Result<impl IntoResponse, Problem> {
    let snapshot = gateway.snapshot().await.ok_or_else(Problem::stuck)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], gateway.metrics().encode(&snapshot)))
}
