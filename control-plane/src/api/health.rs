//! For supervisors and load balancers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::problem::Problem;
use crate::daemon::Gateway;

/// `GET /healthz`: every shard answers and every worker runs.
pub async fn alive(State(gateway): State<Arc<Gateway>>) -> Result<&'static str, Problem> {
    match gateway.snapshot().await {
        Some(_) if gateway.is_forwarding() => Ok("ok\n"),
        Some(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not alive", "a worker has ended")),
        None => Err(Problem::stuck()),
    }
}

/// `GET /readyz`: every shard answers and the guard is whole. Connections may be down all the same.
pub async fn ready(State(gateway): State<Arc<Gateway>>) -> Result<&'static str, Problem> {
    match gateway.snapshot().await {
        Some(_) if !gateway.is_forwarding() => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready", "a worker has ended"))
        }
        Some(snapshot) if snapshot.data_plane.guard.installed => Ok("ready\n"),
        Some(_) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready", "the guard is not installed"))
        }
        None => Err(Problem::stuck()),
    }
}
