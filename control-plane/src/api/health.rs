//! For supervisors and load balancers.

use std::sync::Arc;

use axum::extract::State;

use super::Api;
use super::problem::{Kind, Problem};

/// Every shard answers and every worker runs.
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, body = String), (status = 503, body = Problem)))]
pub async fn alive(State(api): State<Arc<Api>>) -> Result<&'static str, Problem> {
    match api.running.pulse().await {
        Some(_) if api.running.is_forwarding() => Ok("ok\n"),
        Some(_) => Err(Problem::new(Kind::Unavailable, "a worker has ended")),
        None => Err(Problem::stuck()),
    }
}

/// Every shard answers and the guard is whole. Connections may be down all the same.
#[utoipa::path(get, path = "/readyz", tag = "status", responses((status = 200, body = String), (status = 503, body = Problem)))]
pub async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, Problem> {
    match api.running.pulse().await {
        Some(_) if !api.running.is_forwarding() => Err(Problem::new(Kind::Unavailable, "a worker has ended")),
        Some(pulse) if pulse.is_guarded => Ok("ready\n"),
        Some(_) => Err(Problem::new(Kind::Unavailable, "the guard is not installed")),
        None => Err(Problem::stuck()),
    }
}
