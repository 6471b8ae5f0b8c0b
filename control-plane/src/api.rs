//! HTTP: the control API on a Unix socket, metrics and health on a TCP listener.

mod commands;
mod health;
mod problem;
mod socket;
mod views;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::daemon::Gateway;

pub use socket::SocketFile;

/// Serves the control API on a Unix socket that only its owner and group can use.
///
/// # Errors
/// If another daemon serves it, or it cannot be made.
pub fn serve_control(path: &Path, gateway: Arc<Gateway>) -> Result<SocketFile> {
    let (file, listener) = SocketFile::bind(path)?;
    let router = Router::new()
        .route("/v1/status", get(views::status))
        .route("/v1/connections", get(views::connections))
        .route("/v1/connections/{name}", get(views::connection))
        .route("/v1/connections/{name}/up", post(commands::up))
        .route("/v1/connections/{name}/down", post(commands::down))
        .route("/v1/connections/{name}/rekey", post(commands::rekey))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(problem::not_found)
        .with_state(gateway);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the control socket has failed");
        }
    });
    Ok(file)
}

/// Serves `/metrics`, `/healthz` and `/readyz` over TCP, and nothing that changes anything.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve_metrics(listen: SocketAddr, gateway: Arc<Gateway>) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("metrics.listen: cannot bind TCP {listen}: choose another address or port")
    })?;
    let router = Router::new()
        .route("/metrics", get(views::metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(problem::not_found)
        .with_state(gateway);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics listener has failed");
        }
    });
    Ok(())
}
