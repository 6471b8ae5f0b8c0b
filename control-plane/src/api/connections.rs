//! All connections.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use super::problem::Problem;
use crate::status::{Connection, Status};

/// Every connection and how its traffic travels now.
#[utoipa::path(get, path = "/v1/connections", tag = "connections", responses((status = 200, body = [Connection])))]
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Connection>>, Problem> {
    let snapshot = api.running.snapshot().await.ok_or_else(Problem::stuck)?;
    Ok(Json(Status::of(&snapshot).connections))
}
