//! HTTP: the control API on a Unix socket, metrics and health on a TCP listener.

mod commands;
mod health;
mod problem;
mod socket;
mod views;

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::{get, post};
use tokio::net::{TcpListener, UnixListener};

use crate::daemon::Gateway;
pub use socket::SocketFile;

/// Where HTTP is served: bound before anything else is touched, so that a second daemon disturbs nothing.
#[derive(Debug)]
pub struct ApiListeners {
    control: (SocketFile, StdUnixListener),
    metrics: Option<StdTcpListener>,
}

impl ApiListeners {
    /// Makes the control socket and binds the metrics listener.
    ///
    /// # Errors
    /// If another daemon answers on the socket, or something cannot be bound.
    pub fn bind(control: &Path, metrics: Option<SocketAddr>) -> Result<Self> {
        let control = SocketFile::bind(control)?;
        let metrics = metrics.map(bind_metrics).transpose()?;
        Ok(Self { control, metrics })
    }

    /// Serves on them until the process ends. The socket's file goes when the result is dropped.
    ///
    /// # Errors
    /// If the runtime cannot take them.
    pub fn serve(self, gateway: &Arc<Gateway>) -> Result<SocketFile> {
        let (file, listener) = self.control;
        serve_control(UnixListener::from_std(listener).context("control.socket")?, Arc::clone(gateway));
        if let Some(metrics) = self.metrics {
            serve_metrics(TcpListener::from_std(metrics).context("metrics.listen")?, Arc::clone(gateway));
        }
        Ok(file)
    }
}

fn bind_metrics(address: SocketAddr) -> Result<StdTcpListener> {
    let listener = StdTcpListener::bind(address).with_context(|| {
        format!("metrics.listen: cannot bind TCP {address}: choose another address or port")
    })?;
    listener.set_nonblocking(true).context("metrics.listen")?;
    Ok(listener)
}

/// The control API; only the owner of the socket and its group can use it.
fn serve_control(listener: UnixListener, gateway: Arc<Gateway>) {
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
}

/// `/metrics`, `/healthz` and `/readyz` over TCP, and nothing that changes anything.
fn serve_metrics(listener: TcpListener, gateway: Arc<Gateway>) {
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
}
