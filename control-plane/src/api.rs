//! HTTP: the control API on a Unix socket and, where configured, on TCP with TLS; metrics and health on a listener of their
//! own.
//!
//! A request passes [`access`] (who is it, may it), [`body`] (is it small and quick enough) and then one thin handler: one
//! resource a file. What a handler changes goes through [`Changes`]; what it shows comes from [`Running`].

mod access;
mod body;
mod capture;
mod change_view;
mod changes;
mod commands;
mod connection;
mod connections;
mod counters;
mod default_policy;
mod etag;
mod events;
mod explain;
mod extract;
mod health;
mod openapi;
mod policy;
mod problem;
mod reload;
mod routes;
mod sas;
mod serve;
mod socket;
#[cfg(test)]
mod tests;
mod views;

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, UnixListener};

use crate::audit::AuditLog;
use crate::changes::{Changes, Running};
use crate::events::Events;
pub use counters::{ApiCounters, ApiCounts, DENIALS, STATUS_CLASSES};
pub use socket::SocketFile;

/// What handlers work with.
pub struct Api {
    /// What runs.
    pub running: Arc<dyn Running>,
    /// The way to change what is configured.
    pub changes: Arc<Changes>,
    /// Who did what.
    pub audit: Arc<AuditLog>,
    /// What happened lately.
    pub events: Arc<Events>,
    /// What is counted.
    pub counters: Arc<ApiCounters>,
}

/// Where HTTP is served: bound before anything else is touched, so that a second daemon disturbs nothing.
#[derive(Debug)]
pub struct ApiListeners {
    control: (SocketFile, StdUnixListener),
    tls: Option<StdTcpListener>,
    metrics: Option<StdTcpListener>,
}

impl ApiListeners {
    /// Makes the control socket and binds the TCP listeners.
    ///
    /// # Errors
    /// If another daemon answers on the socket, or something cannot be bound.
    pub fn bind(control: &Path, tls: Option<SocketAddr>, metrics: Option<SocketAddr>) -> Result<Self> {
        let control = SocketFile::bind(control)?;
        let tls = tls.map(|address| bind_tcp("api.listen", address)).transpose()?;
        let metrics = metrics.map(|address| bind_tcp("metrics.listen", address)).transpose()?;
        Ok(Self { control, tls, metrics })
    }

    /// Serves on them until the process ends. The socket's file goes when the result is dropped.
    ///
    /// # Errors
    /// If the runtime cannot take them.
    pub fn serve(self, api: &Arc<Api>) -> Result<SocketFile> {
        let (file, listener) = self.control;
        let control = routes::control(Arc::clone(api));
        let counters = &api.counters;
        let listener = UnixListener::from_std(listener).context("control.socket")?;
        serve::unix(listener, control.clone(), Arc::clone(counters));
        if let Some(listener) = self.tls {
            let listener = TcpListener::from_std(listener).context("api.listen")?;
            serve::tls(listener, control, Arc::clone(&api.running), Arc::clone(counters));
        }
        if let Some(listener) = self.metrics {
            let listener = TcpListener::from_std(listener).context("metrics.listen")?;
            serve::plain(listener, routes::metrics(Arc::clone(api)), Arc::clone(counters));
        }
        Ok(file)
    }
}

fn bind_tcp(key: &str, address: SocketAddr) -> Result<StdTcpListener> {
    let listener = StdTcpListener::bind(address)
        .with_context(|| format!("{key}: cannot bind TCP {address}: choose another address or port"))?;
    listener.set_nonblocking(true).with_context(|| key.to_owned())?;
    Ok(listener)
}
