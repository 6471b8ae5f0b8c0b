//! What changes and the API need of a running gateway.

use std::sync::Arc;

use futures::future::BoxFuture;
use portcullis_data_plane::handle::{Capture, DataPlaneReport};
use portcullis_data_plane::spd::Flow;
use portcullis_data_plane::tap::TapOptions;
use portcullis_ike::command::CommandKind;

use crate::config::Config;
use crate::daemon::CommandError;
use crate::snapshot::Snapshot;
use crate::status::explain::Explained;

/// What supervisors and load balancers ask for every few seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pulse {
    /// Connections.
    pub configured: usize,
    /// Connections with an IKE SA.
    pub up: usize,
    /// The guard is whole.
    pub is_guarded: bool,
}

/// A gateway that runs.
pub trait Running: Send + Sync {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// The section that differs and that only a restart can change.
    fn needs_restart(&self, config: &Config) -> Option<&'static str>;

    /// Takes another configuration by difference: the guard first; untouched SAs stay up.
    fn apply(&self, config: Config) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Whether the gateway lives, at the cost of a message to each shard; `None` if one does not answer.
    fn pulse(&self) -> BoxFuture<'_, Option<Pulse>>;

    /// Everything at this moment; `None` if a shard does not answer.
    fn snapshot(&self) -> BoxFuture<'_, Option<Snapshot>>;

    /// What the data plane counts; asks no shard.
    fn data_plane(&self) -> DataPlaneReport;

    /// What would become of a packet; `interface` is the TUN of a route-based connection that it comes from.
    fn explain(&self, flow: &Flow, interface: Option<&str>) -> Explained;

    /// What the workers see from now on; `None` if somebody looks already.
    fn capture(&self, options: TapOptions) -> Option<Capture>;

    /// Carries out a command and waits for its outcome.
    fn command(&self, name: String, kind: CommandKind) -> BoxFuture<'_, Result<String, CommandError>>;

    /// Every worker of the data plane runs.
    fn is_forwarding(&self) -> bool;

    /// The page of a scrape.
    fn metrics(&self, snapshot: &Snapshot) -> String;
}
