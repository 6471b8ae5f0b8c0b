//! Who hears of events: metrics, the log, the key log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_ike::event::Event;

use super::log_limit::{Admission, LogLimit};
use super::words::{self, Line};
use crate::config::Config;
use crate::events::{EventView, Events};
use crate::keylog::KeyLog;
use crate::metrics::Metrics;

/// Hears everything once.
#[derive(Debug)]
pub struct Observer {
    config: ArcSwap<Config>,
    peers: ArcSwap<HashMap<IpAddr, usize>>,
    metrics: Metrics,
    limit: Mutex<LogLimit>,
    key_log: Option<Mutex<KeyLog>>,
    events: Arc<Events>,
}

impl Observer {
    /// Keys are written only with a key log.
    pub fn new(config: Arc<Config>, key_log: Option<KeyLog>) -> Self {
        Self {
            peers: ArcSwap::from_pointee(config.peer_addresses()),
            config: ArcSwap::new(config),
            metrics: Metrics::new(),
            limit: Mutex::default(),
            key_log: key_log.map(Mutex::new),
            events: Arc::new(Events::new()),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Another configuration holds.
    pub fn configure(&self, config: Arc<Config>) {
        self.peers.store(Arc::new(config.peer_addresses()));
        self.config.store(config);
    }

    /// How many connections name this address as their peer's.
    pub fn connections_to(&self, address: IpAddr) -> usize {
        self.peers.load().get(&address.to_canonical()).copied().unwrap_or_default()
    }

    /// The events stream.
    pub fn events(&self) -> Arc<Events> {
        Arc::clone(&self.events)
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// An endpoint tells something.
    pub fn hear(&self, event: Event) {
        self.metrics.observe(&self.config.load(), &event);
        if let Event::Keys(keys) = &event {
            self.record(keys);
        }
        if let Some(view) = EventView::of(&event) {
            self.events.publish(&view);
        }
        if let Some(line) = words::of_event(&event) {
            self.log(line);
        }
    }

    /// The data plane tells something.
    pub fn hear_data_plane(&self, event: &DataPlaneEvent) {
        self.metrics.observe_data_plane(&self.config.load(), event);
        if let Some(view) = EventView::of_data_plane(event) {
            self.events.publish(&view);
        }
        if let Some(line) = words::of_data_plane_event(event) {
            self.log(line);
        }
    }

    /// Tells how often lines were held back whose time is over.
    pub fn summarise(&self) {
        let summaries = self.limit.lock().unwrap_or_else(PoisonError::into_inner).expire(Instant::now());
        for (line, count) in summaries {
            line.write(Some(count));
        }
    }

    fn log(&self, line: Line) {
        let admission = match &line.limit {
            None => Admission::Write,
            Some(limit) => {
                let mut written = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
                written.admit(limit.clone(), &line, Instant::now())
            }
        };
        match admission {
            Admission::Write => line.write(None),
            Admission::HoldBack => {}
        }
    }

    fn record(&self, keys: &portcullis_ike::event::KeyEvent) {
        if let Some(log) = &self.key_log
            && let Err(error) = log.lock().unwrap_or_else(PoisonError::into_inner).record(keys)
        {
            tracing::error!(%error, "the key log cannot be written");
        }
    }
}
