//! No direct carrier passes ESP of an IKE SA while IKE is alive: rows 16 to 18 and rule 9, carried out.

use core::time::Duration;
use std::sync::Arc;

use super::Endpoint;
use crate::action::IkeSaId;
use crate::codec::NotifyType;
use crate::sa::error::ExchangeError;
use crate::status::{Reason, State};
use crate::time::Time;
use crate::transport::backoff::jitter;
use crate::transport::table::verdict::{self, Step};

/// A re-establishment in TCP starts up to this much later, so that connections that fell together do not return together.
const JITTER: Duration = Duration::from_millis(500);

impl Endpoint {
    /// A verification has failed on every allowed direct carrier, IKE is alive, and moving in place was not possible.
    pub(super) fn esp_unreachable(&mut self, now: Time, id: IkeSaId, is_first_on_tcp: bool) {
        let Some(live) = self.live.get(&id).filter(|live| live.is_open()) else { return };
        let name = live.config.name.clone();
        let Some(connection) = self.connections.get_mut(&name) else { return };
        let row = verdict::decide(verdict::Situation {
            is_initiator: live.is_initiator,
            is_first_on_tcp,
            policy: live.config.esp.on_unreachable,
            can_move_in_place: false,
            peer_refuses_tcp: connection.fallback.peer_refuses_tcp(now),
        });
        connection.last_fall = Some(now);
        let measured = live.carrier.detail();
        let detail = format!("{measured}{}{}", if measured.is_empty() { "" } else { "; " }, fall_detail(row));
        match row.step {
            Step::ReestablishInTcp => self.reestablish_in_tcp(now, id, detail),
            Step::RetrySeparate => self.retry_separate(now, id, detail),
            // A responder has stopped ESP and has given its initiator three budgets; they are over (rule 9).
            Step::Shut | Step::MoveInPlace => {
                self.shut_and_close(now, id);
                if let Some(connection) = self.connections.get_mut(&name) {
                    connection.trouble = Some((State::Blocked, Reason::EspUnreachable, detail));
                }
            }
        }
        self.touch(now, id);
    }

    /// Rows 16 and 17: DELETE, whose answer is waited for a second at most, then a new stream and a new IKE SA.
    fn reestablish_in_tcp(&mut self, now: Time, id: IkeSaId, detail: String) {
        let wait = self.shut_and_close(now, id);
        if let (Some(live), Some(wait)) = (self.live.get_mut(&id), wait) {
            live.close_by(now + wait);
            if let Some(connection) = self.connections.get_mut(&live.config.name) {
                connection.fallback.reestablish_in_tcp();
                connection.trouble = Some((State::Connecting, Reason::EspUnreachable, detail));
            }
        }
    }

    /// Row 18.
    pub(super) fn retry_separate(&mut self, now: Time, id: IkeSaId, detail: String) {
        self.shut_and_close(now, id);
        if let Some(live) = self.live.get(&id)
            && let Some(connection) = self.connections.get_mut(&live.config.name)
        {
            connection.fallback.start_as_configured();
            connection.trouble = Some((State::Blocked, Reason::EspUnreachable, detail));
        }
    }

    /// ESP stops in the data plane before anything is said to the peer. Returns how long the answer is waited for.
    pub(super) fn shut_and_close(&mut self, now: Time, id: IkeSaId) -> Option<Duration> {
        let live = self.live.get_mut(&id)?;
        self.core.refuse_esp(id);
        live.carrier.shut();
        live.carry_out(&mut self.core, now);
        live.close(now, Reason::EspUnreachable);
        live.start_next(&mut self.core, now);
        Some(live.config.esp.fallback.delete_wait)
    }

    /// NO_PROPOSAL_CHOSEN for the child on TCP without SEPARATE_TRANSPORTS (rule 9).
    pub(super) fn refused_in_tcp(&mut self, now: Time, name: &str) -> ExchangeError {
        let reason = self.connections.get_mut(name).map(|connection| {
            let timers = &connection.config.esp.fallback;
            connection.fallback.refused(timers, now)
        });
        match reason {
            Some(Reason::PeerRefusedTcp) => ExchangeError::Policy(Reason::PeerRefusedTcp),
            _ => ExchangeError::Peer(NotifyType::NO_PROPOSAL_CHOSEN),
        }
    }

    /// An IKE SA is gone because ESP could not pass: what comes next, in its turn.
    pub(super) fn after_fall(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if !connection.fallback.next_is_in_tcp() {
            return self.wait_for_next_attempt(now, name);
        }
        if !connection.wanted.is_empty() && connection.can_initiate() {
            connection.plan_attempt(now + jitter(JITTER, &mut self.core.rng));
        }
    }

    /// The next attempt of a connection starts now, or when it is its turn.
    pub(super) fn start_in_turn(&mut self, now: Time, name: &Arc<str>) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if !connection.should_start() || self.is_shutting_down {
            connection.next_attempt = None;
            return;
        }
        let turn = if connection.has_turn { now } else { self.core.pace.turn(now) };
        if turn <= now {
            self.start_attempt(now, name);
        } else {
            connection.plan_attempt(turn);
            connection.has_turn = true;
        }
    }
}

/// What follows, in one sentence, with its row.
fn fall_detail(row: verdict::Row) -> String {
    let what = match row.step {
        Step::ReestablishInTcp | Step::MoveInPlace => {
            "ESP moves into TCP, encrypted and authenticated as before"
        }
        Step::RetrySeparate | Step::Shut => {
            "ESP does not go into TCP: let IP protocol 50 or UDP 4500 through, or set on_unreachable: tcp-fallback on both ends"
        }
    };
    format!("{what} (transport policy, row {})", row.number)
}
