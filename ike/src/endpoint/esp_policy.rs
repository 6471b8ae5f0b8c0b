//! The ESP policy of a connection changes while it runs (transport policy, "Configuration").

use std::sync::Arc;

use super::Endpoint;
use super::half_open::{HalfOpen, Purpose};
use crate::action::IkeSaId;
use crate::config::{ConnectionConfig, OnUnreachable};
use crate::status::{Reason, State};
use crate::time::Time;
use crate::transport::table;

impl Endpoint {
    /// Sets what a connection does when no direct carrier passes ESP, and acts on its SAs at once.
    ///
    /// # Errors
    /// If there is no such connection, or the policy cannot work with the rest of its configuration; nothing has changed
    /// then.
    pub fn set_esp_policy(
        &mut self,
        now: Time,
        name: &str,
        on_unreachable: OnUnreachable,
    ) -> Result<(), String> {
        let Some(connection) = self.connections.get(name) else {
            return Err(format!("there is no connection {name:?}"));
        };
        if let Some(contradiction) = connection.config.ike.contradictions(on_unreachable).next() {
            return Err(contradiction.to_string());
        }
        self.apply_esp_policy(now, name, on_unreachable);
        Ok(())
    }

    /// A stricter policy stops ESP in TCP before anything else happens; a looser one takes effect at the next decision.
    pub(super) fn apply_esp_policy(&mut self, now: Time, name: &str, on_unreachable: OnUnreachable) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.config.esp.on_unreachable == on_unreachable {
            return;
        }
        let mut config = ConnectionConfig::clone(&connection.config);
        config.esp.on_unreachable = on_unreachable;
        let config = Arc::new(config);
        connection.config = config.clone();
        connection.fallback.policy_changed();
        let live: Vec<_> = connection.live.iter().chain(&connection.trial).copied().collect();
        let is_of_it = |half_open: &HalfOpen| half_open.attempt().is_some_and(|a| *a.config.name == *name);
        let attempts: Vec<_> =
            self.half_open.iter().filter(|(_, half_open)| is_of_it(half_open)).map(|(id, _)| *id).collect();
        for id in &live {
            if let Some(live) = self.live.get_mut(id) {
                live.config = config.clone();
            }
        }
        for id in &attempts {
            if let Some(attempt) = self.half_open.get_mut(id).and_then(|half_open| half_open.attempt_mut()) {
                attempt.config = config.clone();
            }
        }
        match on_unreachable {
            OnUnreachable::FailClosed => self.tighten(now, name, &live, &attempts),
            OnUnreachable::TcpFallback => self.loosen(now, name, &live),
        }
        self.refresh(now, name);
    }

    fn tighten(&mut self, now: Time, name: &str, live: &[IkeSaId], attempts: &[IkeSaId]) {
        // ESP stops in the data plane for every IKE SA before the first of them is spoken to.
        live.iter().for_each(|id| self.core.refuse_esp(*id));
        for id in live {
            if let Some(live) = self.live.get_mut(id) {
                live.carrier.set_policy(now, OnUnreachable::FailClosed, &mut self.core.rng);
                live.carry_out(&mut self.core, now);
            }
        }
        self.drop_trial(now, name);
        for id in attempts {
            let Some(half_open) = self.half_open.get(id) else { continue };
            let is_for_tcp = half_open.attempt().is_some_and(|attempt| attempt.purpose == Purpose::Fallback);
            let is_in_tcp = half_open.settled().is_some_and(|settled| {
                table::esp_belongs_in_tcp(half_open.link.transport(), settled.separate)
            });
            // Once IKE_AUTH has left, the peer may hold an IKE SA; its answer is waited for, and a DELETE follows.
            if (is_for_tcp || is_in_tcp) && !half_open.has_sent_auth() {
                self.fail(now, *id, Reason::EspUnreachable, POLICY_CHANGED.into());
            }
        }
        if let Some(connection) = self.connections.get_mut(name)
            && connection.fallback.next_is_in_tcp()
        {
            connection.fallback.start_as_configured();
            connection.trouble = Some((State::Blocked, Reason::EspUnreachable, POLICY_CHANGED.into()));
            if connection.next_attempt.is_some() {
                self.wait_for_next_attempt(now, name);
            }
        }
        for id in live {
            let Some(live) = self.live.get(id).filter(|live| live.carrier.belongs_in_tcp()) else { continue };
            if live.is_initiator {
                self.retry_separate(now, *id, POLICY_CHANGED.into());
            } else {
                self.shut_and_close(now, *id);
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.trouble =
                        Some((State::Blocked, Reason::EspUnreachable, POLICY_CHANGED.into()));
                }
            }
            self.touch(now, *id);
        }
    }

    fn loosen(&mut self, now: Time, name: &str, live: &[IkeSaId]) {
        for id in live {
            let Some(live) = self.live.get_mut(id) else { continue };
            live.carrier.set_policy(now, OnUnreachable::TcpFallback, &mut self.core.rng);
            live.accept_esp(&mut self.core);
            live.carry_out(&mut self.core, now);
            self.touch(now, *id);
        }
        // "Re-decides if blocked `esp_unreachable`": row 16 or 17 in place of 18.
        let Some(connection) = self.connections.get_mut(name) else { return };
        let is_blocked = matches!(connection.trouble, Some((State::Blocked, Reason::EspUnreachable, _)));
        if is_blocked && connection.live.is_empty() && connection.next_attempt.is_some() {
            connection.fallback.reestablish_in_tcp();
            self.after_fall(now, name);
        }
    }
}

const POLICY_CHANGED: &str = "the policy does not allow ESP in TCP any more: direct carriers are tried again, with separate transports";
