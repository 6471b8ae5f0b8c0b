//! The one clock of the endpoints.

use std::time::{Duration, Instant, SystemTime};

use portcullis_ike::time::Time;

use crate::snapshot::Clock as Moment;

/// Counts from the start of the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The endpoints' time.
    pub fn now(&self) -> Time {
        let nanos = self.origin.elapsed().as_nanos();
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The endpoints' time `time` as the runtime wants it.
    pub fn instant(&self, time: Time) -> tokio::time::Instant {
        (self.origin + time.since(Time::ZERO)).into()
    }

    /// Wall time since 1970, by which certificates are judged.
    pub fn wall(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// This moment on both clocks.
    pub fn moment(&self) -> Moment {
        Moment { now: self.now(), wall: SystemTime::now(), uptime: self.origin.elapsed() }
    }
}
