//! What Prometheus scrapes. docs/metrics.md lists every name; a test compares it with what is here.
//!
//! Two sources: events are counted as they happen ([`Metrics::observe`]), everything else is read from one snapshot at
//! each scrape. No text that a peer chooses becomes a label; the only unbounded one is the name of a configured
//! connection, and `metrics.per_connection` bounds that.

mod connections;
mod control;
mod gateway;
mod live;
mod page;
#[cfg(test)]
mod tests;
mod traffic;

use std::sync::{Arc, Mutex, PoisonError};

use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_ike::event::Event;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::config::{Config, PerConnection};
use crate::snapshot::Snapshot;
use live::Live;
use page::Page;
use traffic::Traffic;

/// Content type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Prefix of every name.
const PREFIX: &str = "portcullis";

/// The `connection` label of connections that have no metrics of their own.
const OTHER: &str = "other";

/// All metrics of a gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    live: Live,
    traffic: Mutex<Traffic>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of a gateway that has just started.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let live = Live::register(&mut registry);
        Self { registry, live, traffic: Mutex::default() }
    }

    /// Counts an event of IKE.
    pub fn observe(&self, config: &Config, event: &Event) {
        self.live.observe(&Shown::of(config), event);
    }

    /// Counts an event of the data plane.
    pub fn observe_data_plane(&self, config: &Config, event: &DataPlaneEvent) {
        self.live.observe_data_plane(&Shown::of(config), event);
    }

    /// The page of a scrape, in the OpenMetrics text format.
    pub fn encode(&self, snapshot: &Snapshot) -> String {
        let shown = Shown::of(&snapshot.config);
        let mut page = Page::default();
        gateway::add(&mut page, snapshot);
        connections::add(&mut page, snapshot, &shown);
        control::add(&mut page, snapshot);
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).add(&mut page, snapshot, &shown);
        let mut scraped = Registry::with_prefix(PREFIX);
        scraped.register_collector(Box::new(page));
        let mut text = String::new();
        // Writing to a string does not fail, and nothing else in it does.
        let _ = text::encode_registry(&mut text, &scraped);
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// Which connections have metrics of their own.
struct Shown<'a> {
    config: &'a Config,
}

impl<'a> Shown<'a> {
    fn of(config: &'a Config) -> Self {
        Self { config }
    }

    /// The value of the `connection` label of events, which know the name alone.
    fn label(&self, connection: &Arc<str>) -> Arc<str> {
        let own = match self.config.metrics.per_connection {
            PerConnection::All => true,
            PerConnection::Listed => self.config.connection(connection).is_some_and(|c| c.metrics),
            PerConnection::Off => false,
        };
        if own { connection.clone() } else { OTHER.into() }
    }

    /// The value of the `connection` label.
    fn label_of(&self, connection: &crate::config::Connection) -> Arc<str> {
        if self.has_own(connection) { connection.ike.name.clone() } else { OTHER.into() }
    }

    fn has_own(&self, connection: &crate::config::Connection) -> bool {
        match self.config.metrics.per_connection {
            PerConnection::All => true,
            PerConnection::Listed => connection.metrics,
            PerConnection::Off => false,
        }
    }
}
