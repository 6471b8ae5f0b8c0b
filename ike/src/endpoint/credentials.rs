//! Renewed certificates, authorities and revocation lists: they hold from the next authentication on, and IKE SAs stay.

use std::sync::Arc;

use super::Endpoint;
use crate::config::{ConnectionConfig, LocalAuth, RemoteAuth};
use crate::time::Time;

impl Endpoint {
    /// Takes new credentials over. What failed for want of them is tried again at once.
    pub(super) fn take_credentials(&mut self, now: Time, new: &ConnectionConfig) {
        let Some(connection) = self.connections.get_mut(&new.name) else { return };
        if connection.config.local_auth == new.local_auth && connection.config.remote_auth == new.remote_auth
        {
            return;
        }
        let mut config = ConnectionConfig::clone(&connection.config);
        (config.local_auth, config.remote_auth) = (new.local_auth.clone(), new.remote_auth.clone());
        connection.config = Arc::new(config);
        if connection.lacks_sa() && connection.next_attempt.is_some() {
            connection.plan_attempt(now);
        }
        self.reschedule_connection(&new.name);
    }
}

/// One may take the place of the other while IKE SAs live.
pub(super) fn may_replace(old: &ConnectionConfig, new: &ConnectionConfig) -> bool {
    let local = match (&old.local_auth, &new.local_auth) {
        (LocalAuth::Certificate(_), LocalAuth::Certificate(_)) => true,
        (old, new) => old == new,
    };
    let remote = match (&old.remote_auth, &new.remote_auth) {
        (RemoteAuth::Certificate(_), RemoteAuth::Certificate(_)) => true,
        (old, new) => old == new,
    };
    local && remote
}
