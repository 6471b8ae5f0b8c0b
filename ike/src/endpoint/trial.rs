//! The way back from TCP: trial IKE SAs (rule 8), started, followed and ended.
//!
//! ```text
//! ESP in TCP ── 30 s .. 15 min ──> trial: own stream, SEPARATE_TRANSPORTS, children in standby
//!      ^                              │ echo answered 5 times in 10 s: outbound moves, dummy
//!      └──── not: trial deleted ──────┤
//!                                     └─ inbound on it: the old IKE SA is deleted
//! ```

use std::sync::Arc;

use super::Endpoint;
use super::connection::Connection;
use super::half_open::Purpose;
use crate::action::{Action, ChildId, IkeSaId};
use crate::config::OnUnreachable;
use crate::live::{LiveSa, TrialSa};
use crate::status::Reason;
use crate::time::Time;
use crate::transport::probe::{Reply, transport_of};
use crate::transport::table;
use crate::transport::trial::{Due, Trial};

impl Endpoint {
    /// The IKE SA that carries a connection's traffic: the newest that is no trial.
    pub(super) fn main_sa(&self, name: &str) -> Option<IkeSaId> {
        let connection = self.connections.get(name)?;
        let is_main = |id: &&IkeSaId| self.live.get(id).is_some_and(|live| live.trial.is_none());
        connection.live.iter().rev().find(is_main).or_else(|| connection.live.last()).copied()
    }

    /// ESP is in TCP: direct carriers are tried again after the wait that is due.
    pub(super) fn plan_trial(&mut self, now: Time, name: &str) {
        if !self.may_try(name) {
            return;
        }
        let Some(connection) = self.connections.get_mut(name) else { return };
        let returns = &mut connection.fallback.returns;
        if returns.next_try().is_none_or(|at| at < now) {
            returns.fell(&connection.config.esp.fallback, now, &mut self.core.rng);
        }
        connection.trial_at = returns.next_try();
    }

    /// The trial that is due starts, when it is its turn.
    pub(super) fn trial_due(&mut self, now: Time, name: &Arc<str>) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.trial_at.is_none_or(|at| at > now) {
            return;
        }
        connection.trial_at = None;
        let has_turn = core::mem::take(&mut connection.trial_has_turn);
        if !self.may_try(name) {
            return;
        }
        let turn = if has_turn { now } else { self.core.pace.turn(now) };
        let Some(connection) = self.connections.get_mut(name) else { return };
        if turn > now {
            (connection.trial_at, connection.trial_has_turn) = (Some(turn), true);
            return;
        }
        connection.fallback.returns.tried();
        let config = connection.config.clone();
        self.attempt(now, config, Purpose::Trial);
    }

    /// `CommandKind::Probe`.
    pub(super) fn probe(&mut self, now: Time, name: &str) -> Result<String, String> {
        let Some(id) = self.main_sa(name) else { return Err(format!("connection {name:?} is not up")) };
        let Some(live) = self.live.get_mut(&id) else { return Err(format!("connection {name:?} is not up")) };
        if !live.carrier.belongs_in_tcp() {
            let asks = live.carrier.verify(now, &mut self.core.rng);
            live.carry_out(&mut self.core, now);
            self.touch(now, id);
            return match asks {
                true => Ok("direct carriers are being verified".into()),
                false => {
                    Ok("nothing to ask now: the peer has no ESP echo, or a verification is under way".into())
                }
            };
        }
        if self.connections.get(name).is_some_and(|connection| connection.trial.is_some()) {
            return Ok("a trial is under way".into());
        }
        if !self.may_try(name) {
            let cause = "ESP of this IKE SA belongs in TCP, and this end cannot try direct carriers: that takes its initiator, separate transports, and a peer that announced ESP echo";
            return Err(cause.into());
        }
        if let Some(connection) = self.connections.get_mut(name) {
            connection.trial_at = Some(now);
            let name = connection.config.name.clone();
            self.trial_due(now, &name);
        }
        Ok("a trial of direct carriers has started".into())
    }

    /// Rule 8: the initiator tries, with SEPARATE_TRANSPORTS and echo, as long as the policy is to fall back.
    pub(super) fn may_try(&self, name: &str) -> bool {
        let Some(connection) = self.connections.get(name) else { return false };
        let main = self.main_sa(name).and_then(|id| self.live.get(&id));
        connection.trial.is_none()
            && !self.is_shutting_down
            && connection.can_initiate()
            && table::offers_separate(&connection.config.ike)
            && connection.config.esp.on_unreachable == OnUnreachable::TcpFallback
            && main.is_some_and(|live| {
                live.is_open()
                    && live.is_initiator
                    && live.carrier.belongs_in_tcp()
                    && live.carrier.peer_echoes()
                    && !live.carrier.candidates().is_empty()
            })
    }

    /// A trial of ours is authenticated; its children follow, in standby.
    pub(super) fn trial_established(&mut self, now: Time, mut live: Box<LiveSa>) {
        let trial = Trial::new(now, live.carrier.candidates());
        live.trial = Some(TrialSa::Ours(Box::new(trial)));
        let id = live.id;
        for spi in live.our_spis() {
            self.core.spis.insert(spi, id);
        }
        for name in self.children_in_use(&live.config.name) {
            if live.children.live(&name).is_none() {
                live.want(crate::live::Task::CreateChild(name));
            }
        }
        live.start_next(&mut self.core, now);
        self.live.insert(id, live);
        self.trial_child_up(now, id);
        self.touch(now, id);
    }

    /// One more child of a trial is there: when every one is that traffic needs, echoes leave.
    pub(super) fn trial_child_up(&mut self, now: Time, id: IkeSaId) {
        let Some(name) = self.live.get(&id).map(|live| live.config.name.clone()) else { return };
        let needed = self.children_in_use(&name);
        let Some(live) = self.live.get_mut(&id) else { return };
        let is_whole = !needed.is_empty() && needed.iter().all(|name| live.children.live(name).is_some());
        let child = live.children.iter().find(|child| child.is_live()).map(|child| child.id);
        if let (true, Some(child), Some(TrialSa::Ours(trial))) = (is_whole, child, &mut live.trial)
            && trial.is_preparing()
        {
            trial.ask(live.carrier.trial_run(now, child, &mut self.core.rng));
        }
    }

    /// Something is due on a trial of ours.
    pub(super) fn trial_timeout(&mut self, now: Time, id: IkeSaId) {
        let Some(live) = self.live.get_mut(&id).filter(|live| live.is_open()) else { return };
        let rtt = live.carrier.round_trip();
        let Some(TrialSa::Ours(trial)) = &mut live.trial else { return };
        match trial.due(now, rtt, &mut self.core.rng) {
            Due::Failed => self.end_trial(now, id),
            Due::Echo(echoes) => {
                for echo in echoes {
                    self.core.counters.echo_requests[transport_of(&echo.route)] += 1;
                    self.core.actions.push_back(Action::SendEcho(echo));
                }
            }
            Due::Move(carrier) => {
                live.carrier.proven_by_trial(now, carrier);
                live.carry_out(&mut self.core, now);
                live.use_all(&mut self.core, now);
            }
        }
    }

    /// An echo reply came: after the fifth on one carrier, outbound traffic moves.
    pub(super) fn trial_answered(&mut self, now: Time, id: IkeSaId, reply: &Reply) {
        if let Some(TrialSa::Ours(trial)) = self.live.get_mut(&id).and_then(|live| live.trial.as_mut()) {
            trial.answered(now, reply);
            self.trial_timeout(now, id);
        }
    }

    /// Data or a dummy came on a child of a trial: the peer uses it.
    pub(super) fn trial_inbound(&mut self, now: Time, id: IkeSaId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        match &live.trial {
            None => {}
            Some(TrialSa::Peers | TrialSa::Successor(_)) => live.take_over(&mut self.core, now),
            Some(TrialSa::Ours(trial)) if trial.has_moved() => {
                live.trial = None;
                let name = live.config.name.clone();
                self.core.counters.returns += 1;
                let Some(connection) = self.connections.get_mut(&name) else { return };
                connection.trial = None;
                connection.fallback.returns.returned(now);
                connection.fallback.separate_child_made();
                live.carrier.set_returns(connection.fallback.returns);
                let old: Vec<_> = core::mem::take(&mut connection.live).into_iter().collect();
                connection.live = old.iter().copied().chain([id]).collect();
                for old in old {
                    if let Some(live) = self.live.get_mut(&old) {
                        live.close(now, Reason::Returned);
                        live.start_next(&mut self.core, now);
                    }
                    self.touch(now, old);
                }
                if let Some(mut live) = self.live.remove(&id) {
                    self.want_missing(&mut live);
                    self.live.insert(id, live);
                }
            }
            // Nothing of ours is there yet that could have moved the peer.
            Some(TrialSa::Ours(_)) => {}
        }
    }

    /// A trial of ours has failed: it is deleted, and traffic stays where it was, or goes back there.
    pub(super) fn end_trial(&mut self, now: Time, id: IkeSaId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if live.closing.is_some() {
            return;
        }
        let has_moved = matches!(&live.trial, Some(TrialSa::Ours(trial)) if trial.has_moved());
        let name = live.config.name.clone();
        if has_moved && let Some(main) = self.main_sa(&name).and_then(|id| self.live.get_mut(&id)) {
            main.use_all_again(&mut self.core, now);
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.close(now, Reason::TrialFailed);
            live.start_next(&mut self.core, now);
        }
        self.touch(now, id);
    }

    /// A trial is over and has not succeeded; the next one comes later.
    pub(super) fn trial_failed(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.trial = None;
        connection.fallback.returns.failed(&connection.config.esp.fallback, now, &mut self.core.rng);
        self.core.counters.trials_failed += 1;
        self.plan_trial(now, name);
        self.refresh(now, name);
    }

    /// The traffic that a trial was for is gone, or may not be in TCP any more: so is the trial.
    pub(super) fn drop_trial(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        (connection.trial_at, connection.trial_has_turn) = (None, false);
        let Some(id) = connection.trial else { return };
        if self.half_open.contains_key(&id) {
            if let Some(connection) = self.connections.get_mut(name) {
                connection.trial = None;
            }
            self.drop_half_open(id);
        } else if let Some(live) = self.live.get_mut(&id) {
            live.close(now, Reason::TrialFailed);
            live.start_next(&mut self.core, now);
            self.touch(now, id);
        }
    }

    /// The children that traffic of a connection uses now.
    fn children_in_use(&self, name: &str) -> Vec<Arc<str>> {
        let Some(main) = self.main_sa(name).and_then(|id| self.live.get(&id)) else { return Vec::new() };
        let is_configured =
            |name: &Arc<str>| main.child_config(name).is_some_and(|config| config.resource == 0);
        let live = main.children.iter().filter(|child| child.is_live()).map(|child| child.name.clone());
        live.filter(is_configured).collect()
    }

    /// The peer tries direct carriers: a second IKE SA of the same peer, with SEPARATE_TRANSPORTS and without INITIAL_CONTACT,
    /// beside one whose ESP is in TCP.
    pub(super) fn is_peers_trial(&self, new: &LiveSa, has_initial_contact: bool) -> bool {
        let Some(connection) = self.connections.get(&new.config.name) else { return false };
        let fallen = |connection: &Connection| {
            let mut others = connection.live.iter().filter_map(|id| self.live.get(id));
            others.any(|other| {
                other.is_open()
                    && !other.is_initiator
                    && other.carrier.belongs_in_tcp()
                    && super::establish::is_same_peer(other, new)
            })
        };
        new.separate && !has_initial_contact && fallen(connection)
    }
}

impl LiveSa {
    /// It is a trial that this end runs.
    pub(crate) fn is_our_trial(&self) -> bool {
        matches!(self.trial, Some(TrialSa::Ours(_)))
    }

    /// Outbound traffic of every child takes this IKE SA.
    pub(crate) fn use_all(&mut self, core: &mut super::core::Core, now: Time) {
        let live: Vec<ChildId> =
            self.children.iter().filter(|child| child.is_live()).map(|child| child.id).collect();
        for id in live {
            self.use_outbound(core, now, id);
        }
    }
}
