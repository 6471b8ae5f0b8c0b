//! What the service manager is told (sd_notify(3)). Without one, nothing is.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::gateway::Gateway;
use crate::changes::Pulse;

/// How often the status line is renewed and held-back log lines are summarised.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The guard is in, sockets are bound, the control socket answers.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A new configuration is being taken.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    notify(&states);
}

/// The daemon ends.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Keeps the status line current, and the watchdog quiet as long as every shard answers.
pub fn attend(gateway: Arc<Gateway>) {
    tokio::spawn(async move {
        let watchdog = sd_notify::watchdog_enabled();
        let period = watchdog.map_or(STATUS_EVERY, |timeout| (timeout / 3).min(STATUS_EVERY));
        let mut ticks = tokio::time::interval(period);
        loop {
            ticks.tick().await;
            gateway.summarise_log();
            // No answer means no sign of life: the service manager restarts us.
            let Some(Pulse { configured, up, .. }) = gateway.pulse().await else { continue };
            if watchdog.is_some() && gateway.is_forwarding() {
                notify(&[NotifyState::Watchdog]);
            }
            notify(&[NotifyState::Status(&format!("{up} of {configured} connections up"))]);
        }
    });
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
