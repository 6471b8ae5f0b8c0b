//! For supervisors and load balancers.

use std::sync::Arc;

use axum::extract::State;

use super::problem::Problem;
use crate::daemon::Gateway;
use axum::http::StatusCode;

/// `GET /healthz`: every shard answers.
pub async fn alive(State(gateway): State<Arc<Gateway>>) -> Result<&'static str, Problem> {
    gateway.snapshot().await.map(|_| "ok\n").ok_or_else(Problem::stuck)
}

/// `GET /readyz`: every shard answers and the guard is whole. Connections may be down all the same.
pub async fn ready(State(gateway): State<Arc<Gateway>>) -> Result<&'static str, Problem> {
    match gateway.snapshot().await {
        Some(snapshot) if snapshot.data_plane.guard.installed => Ok("ready\n"),
        Some(_) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready", "the guard is not installed"))
        }
        None => Err(Problem::stuck()),
    }
}
