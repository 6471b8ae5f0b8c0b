//! One consistent look at everything that can be shown: what status, metrics and the API are made from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_data_plane::handle::DataPlaneReport;
use portcullis_data_plane::sa::SaUsage;
use portcullis_ike::action::{ChildId, IkeSaId};
use portcullis_ike::event::Counters;
use portcullis_ike::status::ConnectionStatus;
use portcullis_ike::time::Time;

use crate::api::ApiCounts;
use crate::config::Config;
use crate::net::TurnedAway;

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The clock of the endpoints.
    pub clock: Clock,
    /// What each shard says.
    pub shards: Vec<ShardSnapshot>,
    /// What the data plane says.
    pub data_plane: DataPlaneReport,
    /// What was turned away before an endpoint saw it.
    pub turned_away: TurnedAway,
    /// The policy store, the API and its readers.
    pub control: ControlSnapshot,
}

/// The policy store, the API and its readers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlSnapshot {
    /// The store could be read.
    pub store_ok: bool,
    /// Policies that the API has changed.
    pub overrides: u64,
    /// A change waits for its confirmation.
    pub change_pending: bool,
    /// Readers of the events stream.
    pub event_readers: u64,
    /// Readers of the events stream that were too slow.
    pub event_readers_cut_off: u64,
    /// What the API counts.
    pub api: ApiCounts,
}

impl Default for ControlSnapshot {
    fn default() -> Self {
        Self {
            store_ok: true,
            overrides: 0,
            change_pending: false,
            event_readers: 0,
            event_readers_cut_off: 0,
            api: ApiCounts::default(),
        }
    }
}

/// One shard.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    /// Every configured connection, as this shard knows it.
    pub connections: Vec<ConnectionStatus>,
    /// What it counts.
    pub counters: Counters,
    /// How the handshake of each live IKE SA went.
    pub handshakes: HashMap<IkeSaId, Handshake>,
    /// Inbound and outbound use of each live Child SA.
    pub usage: HashMap<ChildId, (SaUsage, SaUsage)>,
}

/// How an IKE SA came to be, and how often it got new keys.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Handshake {
    /// From the first IKE_SA_INIT to authentication.
    pub duration: Duration,
    /// IKE octets over UDP, sent and received.
    pub udp_bytes: (u64, u64),
    /// IKE octets over TCP, sent and received.
    pub tcp_bytes: (u64, u64),
    /// IKE rekeys since.
    pub rekeys: u64,
}

/// Relates the endpoints' clock to the wall.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The endpoints' time now.
    pub now: Time,
    /// The same moment on the wall.
    pub wall: SystemTime,
    /// How long the daemon has run.
    pub uptime: Duration,
}

impl Clock {
    /// A time of an endpoint on the wall, as it stands now.
    pub fn wall_of(&self, time: Time) -> SystemTime {
        if time <= self.now { self.wall - self.now.since(time) } else { self.wall + time.since(self.now) }
    }

    /// Time from now until `time`; zero if it has passed.
    pub fn until(&self, time: Time) -> Duration {
        time.since(self.now)
    }
}
