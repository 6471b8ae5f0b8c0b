//! Our own address changes (transport policy rule 11, RFC 9329 section 6.1).
//!
//! ```text
//! SEPARATE_TRANSPORTS, UDP allowed    the IKE SA follows: another stream, ESP verified over UDP from there
//! all in TCP                          another stream, beside it a trial of direct carriers, or else:
//! everything else                     make before break: a new IKE SA beside the old one, which is deleted when traffic
//!                                     comes in on the new
//! ```
//!
//! Only the original initiator can do any of this. A responder whose address is gone says `local_down`, and waits for its
//! peer to find out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Endpoint;
use super::succession::Succession;
use crate::action::IkeSaId;
use crate::config::ConnectionConfig;
use crate::status::Reason;
use crate::time::Time;

/// A trouble whose cause may have been here, and be over. The wait after any other goes on, such as that after the peer's
/// DELETE (rule 9): addresses and links of a host change for many reasons.
fn may_be_local(trouble: Reason) -> bool {
    use Reason::{IkeTcpUnreachable, IkeUdpUnreachable, IkeUnreachable, NoRoute, PeerSilent};
    matches!(trouble, IkeTcpUnreachable | IkeUdpUnreachable | IkeUnreachable | NoRoute | PeerSilent)
}

impl Endpoint {
    /// The addresses of ours that IKE SAs use.
    pub fn local_addresses(&self) -> BTreeSet<IpAddr> {
        self.live.values().map(|live| live.carrier.local()).collect()
    }

    /// [`Fact::LocalAddress`](crate::command::Fact::LocalAddress).
    pub(super) fn local_address(&mut self, now: Time, name: &str, address: Option<IpAddr>) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let was_lacking = core::mem::replace(&mut connection.lacks_address, address.is_none());
        let name = connection.config.name.clone();
        match address {
            None => self.lose_address(&name),
            Some(address) => self.take_address(now, &name, address, was_lacking),
        }
        let ids: Vec<_> = self.connections.get(&name).into_iter().flat_map(|c| c.live.clone()).collect();
        for id in ids {
            self.note_gone(now, id);
        }
        self.refresh(now, &name);
    }

    /// [`Fact::LocalChange`](crate::command::Fact::LocalChange).
    pub(super) fn local_change(&mut self, now: Time, gone: Arc<[IpAddr]>) {
        self.gone = gone;
        let names: Vec<_> = self.connections.keys().cloned().collect();
        for name in names {
            if let Some(connection) = self.connections.get_mut(&name)
                && connection.next_attempt.is_some()
                && connection.trouble.as_ref().is_some_and(|(_, reason, _)| may_be_local(*reason))
            {
                connection.plan_attempt(now);
            }
            self.refresh(now, &name);
        }
        let ids: Vec<_> = self.live.keys().copied().collect();
        for id in ids {
            if let Some(live) = self.live.get_mut(&id) {
                live.redial_now(now);
            }
            self.note_gone(now, id);
        }
    }

    /// Tells an IKE SA whether its address is there.
    fn note_gone(&mut self, now: Time, id: IkeSaId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let leads_nowhere = self.connections.get(&live.config.name).is_some_and(|c| c.lacks_address);
        let is_gone = self.gone.contains(&live.carrier.local()) || live.is_initiator && leads_nowhere;
        live.carrier.local_change(now, is_gone, &mut self.core.rng);
        live.carry_out(&mut self.core, now);
        self.touch(now, id);
    }

    /// Nothing can be set up: the cause is here (rule 5).
    fn lose_address(&mut self, name: &str) {
        self.drop_attempt_of(name);
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.next_attempt = None;
    }

    /// What a connection initiates leaves from this address.
    pub(super) fn take_address(&mut self, now: Time, name: &str, address: IpAddr, was_lacking: bool) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.config.local_address != Some(address) {
            let mut config = ConnectionConfig::clone(&connection.config);
            config.local_address = Some(address);
            connection.config = Arc::new(config);
        }
        let live: Vec<_> = connection.live.iter().chain(&connection.trial).copied().collect();
        let attempt = connection.attempt.into_iter().chain(connection.trial);
        let is_elsewhere = |id: IkeSaId| {
            let local = self.half_open.get(&id).and_then(|half_open| half_open.link.local_ip());
            local.is_some_and(|local| local != address)
        };
        let starts_again = attempt.into_iter().any(is_elsewhere);
        if starts_again {
            self.drop_attempt_of(name);
        }
        let must_move = live.iter().filter(|id| self.move_sa(now, **id, address)).count() > 0;
        let tries = must_move && self.try_from_here(now, name);
        let Some(connection) = self.connections.get_mut(name) else { return };
        if must_move && !tries {
            connection.succession = Some(Succession { reason: Reason::AddressChanged, since: now });
        }
        if connection.should_start() && (was_lacking || starts_again || connection.succession.is_some()) {
            connection.plan_attempt(now);
        }
    }

    /// One IKE SA takes our address. True if another has to take its place.
    fn move_sa(&mut self, now: Time, id: IkeSaId, address: IpAddr) -> bool {
        let Some(live) = self.live.get_mut(&id).filter(|live| live.is_initiator && live.is_open()) else {
            return false;
        };
        let is_there = live.link.local().ip() == address || live.link.local_ip().is_none();
        let can_follow = is_there || live.change_address(&mut self.core, now, address);
        self.touch(now, id);
        !can_follow
    }

    /// ESP in TCP: a trial of direct carriers from the new address is due at once (T section 4.1).
    fn try_from_here(&mut self, now: Time, name: &str) -> bool {
        self.drop_trial(now, name);
        let may_try = self.may_try(name);
        if let Some(connection) = self.connections.get_mut(name).filter(|_| may_try) {
            connection.trial_at = Some(now);
        }
        may_try
    }

    /// What is half-open is dropped: it leaves from an address that is not ours any more.
    fn drop_attempt_of(&mut self, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let attempt = connection.attempt.take();
        let trial = connection.trial.filter(|id| self.half_open.contains_key(id));
        if let Some(id) = attempt {
            self.drop_attempt(id);
        }
        if let Some(id) = trial {
            if let Some(connection) = self.connections.get_mut(name) {
                connection.trial = None;
            }
            self.drop_half_open(id);
        }
    }
}
