//! The life of connections and SAs around their exchanges: failures, retries, timers, states.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::connection::Goal;
use super::credentials::may_replace;
use super::half_open::{Attempt, HalfOpen, InitiatorState, Purpose, Role};
use super::peers::Peers;
use super::{Connection, Endpoint, Timer};
use crate::action::IkeSaId;
use crate::config::{ConnectionConfig, RemoteAddress};
use crate::event::Event;
use crate::live::{LiveSa, Outcome, Task};
use crate::status::{Reason, Standing, State};
use crate::time::Time;
use crate::transport::backoff::jitter;
use crate::transport::table;

/// After the peer's DELETE our own start waits this long (rule 9).
const AFTER_PEER_DELETE: core::time::Duration = core::time::Duration::from_secs(30);

impl Endpoint {
    /// Replaces the configuration: connections that are the same stay untouched, those that are gone or changed are taken
    /// down, new ones start.
    pub fn set_connections(&mut self, now: Time, connections: Vec<ConnectionConfig>) {
        let mut wanted: Vec<ConnectionConfig> = connections;
        let by_name: HashMap<&str, &ConnectionConfig> =
            wanted.iter().map(|config| (&*config.name, config)).collect();
        let is_kept =
            |old: &Connection| by_name.get(&*old.config.name).is_some_and(|new| is_same(&old.config, new));
        let gone: Vec<Arc<str>> =
            self.connections.iter().filter(|(_, old)| !is_kept(old)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.forget_connection(now, &name);
        }
        for new in &wanted {
            self.take_credentials(now, new);
            self.apply_esp_policy(now, &new.name, new.esp.on_unreachable);
            let kept = self.connections.get(&new.name).map(|connection| connection.config.local_address);
            if let (Some(before), Some(address)) = (kept, new.local_address)
                && before != Some(address)
            {
                self.take_address(now, &new.name, address, false);
            }
        }
        wanted.retain(|new| !self.connections.contains_key(&new.name));
        let names: Vec<_> = wanted.iter().map(|config| config.name.clone()).collect();
        for config in wanted {
            self.connections.insert(config.name.clone(), Connection::new(config));
        }
        self.peers = Peers::of(self.connections.values().map(|connection| &*connection.config));
        for name in names {
            self.consider(now, &name);
        }
    }

    /// Deletes every IKE SA and starts nothing any more. [`Endpoint::is_drained`] tells when the peers have answered, or
    /// were given up.
    pub fn shutdown(&mut self, now: Time) {
        self.is_shutting_down = true;
        let names: Vec<_> = self.connections.keys().cloned().collect();
        for name in names {
            self.take_down(now, &name, Reason::OperatorDown);
        }
        let responders: Vec<_> = self.half_open.keys().copied().collect();
        for id in responders {
            self.drop_half_open(id);
        }
    }

    /// Nothing is left after [`Endpoint::shutdown`].
    pub fn is_drained(&self) -> bool {
        self.live.is_empty() && self.half_open.is_empty()
    }

    /// Starts what should be up and is not.
    pub(super) fn consider(&mut self, now: Time, name: &str) {
        let is_refused = self.is_shutting_down || self.core.config.guard_missing.is_some();
        if !is_refused && self.connections.get(name).is_some_and(Connection::should_start) {
            self.start_attempt(now, name);
        }
        self.refresh(now, name);
    }

    /// Takes a connection down: no attempt, no IKE SA, nothing wanted.
    pub(super) fn take_down(&mut self, now: Time, name: &str, reason: Reason) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.wanted.clear();
        self.core.packets.retain(|(other, _), _| **other != *name);
        connection.fallback.start_as_configured();
        connection.next_attempt = None;
        connection.redirected = None;
        (connection.succession, connection.successor) = (None, None);
        connection.children_at = None;
        connection.trouble = None;
        connection.child_trouble.clear();
        let attempt = connection.attempt.take();
        let live: Vec<_> = connection.live.iter().copied().collect();
        self.drop_trial(now, name);
        if let Some(id) = attempt {
            self.drop_attempt(id);
        }
        for id in live {
            if let Some(live) = self.live.get_mut(&id) {
                live.close(now, reason);
                live.start_next(&mut self.core, now);
            }
            self.touch(now, id);
        }
        self.refresh(now, name);
    }

    /// A set-up of ours has failed.
    pub(super) fn fail(&mut self, now: Time, id: IkeSaId, reason: Reason, detail: String) {
        if self.survives(id, now, reason, &detail) {
            return self.reschedule(id);
        }
        let Some(half_open) = self.take_half_open(id) else { return };
        self.close_streams_of(id);
        if let Role::Initiator(initiator) = half_open.role {
            self.core.event(Event::IkeFailed {
                connection: Some(initiator.attempt.config.name.clone()),
                is_initiator: true,
                remote: half_open.link.remote(),
                reason,
                detail: detail.clone(),
            });
            self.attempt_failed(now, &initiator.attempt, reason, detail);
        }
    }

    /// An attempt is over: the next one waits.
    pub(super) fn attempt_failed(&mut self, now: Time, attempt: &Attempt, reason: Reason, detail: String) {
        let name = attempt.config.name.clone();
        if attempt.purpose == Purpose::Trial {
            return self.trial_failed(now, &name);
        }
        self.note_trouble(&name, reason, &detail);
        if let Some(connection) = self.connections.get_mut(&name) {
            connection.attempt = None;
            connection.redirected = None;
            self.wait_for_next_attempt(now, &name);
        }
        self.finish_commands(&name, |_| true, &Err(detail));
        self.refresh(now, &name);
    }

    /// Half-open state is taken out, and what points to it forgotten.
    pub(super) fn take_half_open(&mut self, id: IkeSaId) -> Option<Box<HalfOpen>> {
        let half_open = self.half_open.remove(&id)?;
        let our_spi = half_open.channel.our_spi();
        if self.core.spis.get(&our_spi) == Some(&id) {
            self.core.spis.remove(&our_spi);
            self.races.remove(&our_spi);
        }
        match &half_open.role {
            Role::Responder(responder) => {
                let admitted = half_open.init_path.map_or(half_open.link.remote(), |path| path.remote);
                let key = (half_open.channel.spi_i, admitted);
                if self.by_initiator.get(&key) == Some(&id) {
                    self.by_initiator.remove(&key);
                }
                self.half_open_quota.leave(admitted.ip(), responder.standing);
                self.stranger_bytes -= responder.counted_bytes;
                self.attacked -= usize::from(responder.is_attacked);
            }
            Role::Initiator(initiator) => {
                if let InitiatorState::Auth(_, Some(offer), _) = &initiator.state {
                    self.core.spi_source.release(offer.spi_in);
                }
            }
        }
        Some(half_open)
    }

    /// Half-open state is dropped without a word.
    pub(super) fn drop_half_open(&mut self, id: IkeSaId) {
        if self.take_half_open(id).is_none() {
            return;
        }
        self.unschedule(&Timer::Sa(id));
        for stream in self.core.streams.of(id) {
            if stream.is_accepted() {
                if let Some(stream) = self.core.streams.get_mut(stream) {
                    stream.owner = None;
                }
            } else {
                self.core.close_stream(stream);
            }
        }
    }

    /// Why a connection is not up.
    pub(super) fn note_trouble(&mut self, name: &str, reason: Reason, detail: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.live.is_empty() {
            let state = match reason {
                Reason::PeerSilent => State::PeerDead,
                Reason::NoRoute => State::LocalDown,
                _ => State::Blocked,
            };
            connection.trouble = Some((state, reason, detail.to_string()));
        }
    }

    /// Something has happened to an IKE SA: its outcomes, its end and its timers.
    pub(super) fn touch(&mut self, now: Time, id: IkeSaId) {
        let Some(live) = self.live.get_mut(&id) else { return self.reschedule(id) };
        let name = live.config.name.clone();
        live.start_next(&mut self.core, now);
        let outcomes = core::mem::take(&mut live.outcomes);
        if live.trial.is_none() && !live.carrier.belongs_in_tcp() {
            let returns = live.carrier.returns();
            if let Some(connection) = self.connections.get_mut(&name) {
                connection.fallback.returns = returns;
            }
        }
        for outcome in outcomes {
            self.outcome(now, id, &name, outcome);
        }
        if let Some(reason) = self.live.get(&id).and_then(|live| live.ended) {
            self.remove_live(now, id, reason);
        }
        self.reschedule(id);
        self.refresh(now, &name);
    }

    /// Something is due on an IKE SA.
    pub(super) fn sa_timeout(&mut self, now: Time, id: IkeSaId) {
        if let Some(live) = self.live.get_mut(&id) {
            live.timeout(&mut self.core, now);
            self.trial_timeout(now, id);
        } else if let Some(half_open) = self.half_open.get_mut(&id) {
            if let Some((path, at)) = half_open.keepalive
                && at <= now
            {
                let connection = match &half_open.role {
                    Role::Initiator(initiator) => Some(&initiator.attempt.config.name),
                    Role::Responder(responder) => responder.candidates.first(),
                };
                let interval =
                    connection.and_then(|name| self.connections.get(name)).map(|c| c.config.esp.keepalive);
                half_open.keepalive = interval.map(|interval| (path, now + interval));
                self.core.send_keepalive(path);
            }
            match half_open.role {
                Role::Initiator(_) => self.initiator_timeout(now, id),
                Role::Responder(_) if half_open.deadline <= now => {
                    self.core.reject("half_open_timeout");
                    self.drop_half_open(id);
                }
                Role::Responder(_) => {}
            }
        }
        self.touch(now, id);
    }

    /// Something is due on a connection.
    pub(super) fn connection_timeout(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let name = &connection.config.name.clone();
        if connection.next_attempt.is_some_and(|at| at <= now) {
            self.start_in_turn(now, name);
            self.refresh(now, name);
        }
        self.trial_due(now, name);
        self.succession_due(now, name);
        let Some(connection) = self.connections.get_mut(name) else { return };
        if connection.children_at.is_some_and(|at| at <= now) {
            connection.children_at = None;
            if let Some(id) = self.main_sa(name)
                && let Some(mut live) = self.live.remove(&id)
            {
                if live.is_open() {
                    self.want_missing(&mut live);
                }
                self.live.insert(id, live);
                self.touch(now, id);
            }
        }
        self.reschedule_connection(name);
    }

    /// A connection as it stands now; a change is an event.
    pub(super) fn refresh(&mut self, now: Time, name: &str) {
        let Some((standing, detail)) = self.describe(name) else { return };
        let Some(connection) = self.connections.get_mut(name) else { return };
        let from = connection.reported.state;
        if connection.reported != standing {
            connection.reported = standing;
            let connection = connection.config.name.clone();
            let Standing { state: to, reason, evidence, esp_transport } = standing;
            self.core.event(Event::StateChanged {
                connection,
                from,
                to,
                reason,
                evidence,
                esp_transport,
                detail,
            });
        }
        self.settle_commands(now, name);
        self.reschedule_connection(name);
    }

    /// How a connection stands, in the words of the transport policy.
    pub(super) fn describe(&self, name: &str) -> Option<(Standing, String)> {
        let connection = self.connections.get(name)?;
        if let Some(cause) = &self.core.config.guard_missing {
            let standing = Standing::without_esp(State::Blocked, Reason::GuardMissing);
            return Some((standing, cause.to_string()));
        }
        let newest = self.speaking_sa(connection).filter(|live| live.is_open());
        if let Some(live) = newest
            && live.children.iter().any(|child| child.exists())
        {
            let (state, reason, evidence) = live.carrier.state();
            let (state, reason) = match (state, connection.trial) {
                (State::Tcp, Some(_)) => (State::Trial, reason),
                (State::Tcp, None)
                    if live.carrier.belongs_in_tcp() && connection.fallback.returns.has_failed() =>
                {
                    (state, table::life::TRIAL_FAILED.reason)
                }
                _ => (state, reason),
            };
            let details = [live.carrier.detail(), connection.child_troubles()];
            let details: Vec<_> = details.into_iter().filter(|detail| !detail.is_empty()).collect();
            let esp_transport = live.carrier.path().carrier.transport();
            return Some((Standing { state, reason, evidence, esp_transport }, details.join("; ")));
        }
        if let Some(id) = connection.attempt {
            let reason = self
                .half_open
                .get(&id)
                .and_then(|half_open| half_open.attempt())
                .map_or(Reason::None, |a| a.reason);
            return Some((Standing::without_esp(State::Connecting, reason), String::new()));
        }
        if connection.lacks_address && connection.can_initiate() && !connection.wanted.is_empty() {
            let detail = "this host has no address, or no route, for packets to the peer";
            return Some((Standing::without_esp(State::LocalDown, Reason::NoRoute), detail.into()));
        }
        if let Some((state, reason, detail)) = &connection.trouble {
            return Some((Standing::without_esp(*state, *reason), detail.clone()));
        }
        let state = if newest.is_some() { State::Connecting } else { State::Idle };
        Some((Standing::without_esp(state, Reason::None), String::new()))
    }

    /// The IKE SA that says how a connection stands: its main one, or, while that has no child yet, the one before.
    fn speaking_sa(&self, connection: &Connection) -> Option<&LiveSa> {
        let has_child = |live: &&LiveSa| live.is_open() && live.children.iter().any(|child| child.exists());
        let main =
            self.main_sa(&connection.config.name).and_then(|id| self.live.get(&id)).map(|live| &**live);
        let others = connection.live.iter().rev().filter_map(|id| self.live.get(id)).map(|live| &**live);
        main.filter(has_child).or(others.filter(|live| live.trial.is_none()).find(has_child)).or(main)
    }

    /// Plans the next call for an IKE SA.
    pub(super) fn reschedule(&mut self, id: IkeSaId) {
        let at = match (self.live.get(&id), self.half_open.get(&id)) {
            (Some(live), _) => live.next_timeout(),
            (None, Some(half_open)) => half_open.next_timeout(),
            (None, None) => None,
        };
        self.schedule(Timer::Sa(id), at);
    }

    pub(super) fn reschedule_streams(&mut self) {
        let at = self.core.streams.next_timeout();
        self.schedule(Timer::Streams, at);
    }

    pub(super) fn close_streams_of(&mut self, id: IkeSaId) {
        for stream in self.core.streams.of(id) {
            self.core.close_stream(stream);
        }
    }

    pub(super) fn reschedule_connection(&mut self, name: &str) {
        let Some(connection) = self.connections.get(name) else { return };
        let successor = connection.successor.map(|successor| successor.at);
        let times = [connection.next_attempt, connection.children_at, connection.trial_at, successor];
        let at = times.into_iter().flatten().min();
        let timer = Timer::Connection(connection.config.name.clone());
        self.schedule(timer, at);
    }

    fn schedule(&mut self, timer: Timer, at: Option<Time>) {
        if self.due.get(&timer).copied() == at {
            return;
        }
        self.unschedule(&timer);
        if let Some(at) = at {
            self.timers.insert((at, timer.clone()));
            self.due.insert(timer, at);
        }
    }

    fn unschedule(&mut self, timer: &Timer) {
        if let Some(at) = self.due.remove(timer) {
            self.timers.remove(&(at, timer.clone()));
        }
    }

    pub(super) fn wait_for_next_attempt(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        if !connection.wanted.is_empty() && connection.can_initiate() && connection.lacks_sa() {
            let wait = connection.backoff.next(&mut self.core.rng);
            connection.plan_attempt(now + wait);
        }
    }

    fn outcome(&mut self, now: Time, id: IkeSaId, name: &Arc<str>, outcome: Outcome) {
        let is_our_trial = self.live.get(&id).is_some_and(|live| live.is_our_trial());
        match outcome {
            Outcome::ChildUp { .. } if is_our_trial => self.trial_child_up(now, id),
            Outcome::ChildFailed { .. } | Outcome::ChildLost { .. } | Outcome::EspUnreachable { .. }
                if is_our_trial =>
            {
                self.end_trial(now, id);
            }
            Outcome::EspUnreachable { first_verification } => {
                self.esp_unreachable(now, id, first_verification)
            }
            Outcome::ChildUp { name: child, rekeyed } => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.trouble = None;
                    connection.child_trouble.remove(&child);
                    if self.live.get(&id).is_some_and(|live| live.separate) {
                        connection.fallback.separate_child_made();
                    }
                    if rekeyed {
                        child_done(&mut connection.pending, &child);
                    }
                }
                self.want_resources(now, id, name, &child);
            }
            Outcome::ChildFailed { name: child, reason, detail } => {
                let about_it = |goal: &Goal| match goal {
                    Goal::Up(children) | Goal::RekeyChildren(children) => children.contains(&child),
                    _ => false,
                };
                self.finish_commands(name, about_it, &Err(detail.clone()));
                if let Some(connection) = self.connections.get_mut(name)
                    && connection.wanted.contains(&child)
                {
                    connection.child_trouble.insert(child, detail.clone());
                }
                self.child_missing(now, id, name, Some((reason, detail)));
            }
            Outcome::EspAnswers => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.backoff.reset();
                }
            }
            Outcome::EspFell => {
                if let Some(connection) = self.connections.get_mut(name) {
                    connection.last_fall = Some(now);
                }
            }
            Outcome::ChildLost { .. } => self.child_missing(now, id, name, None),
            Outcome::Redirected(gateway) => self.redirected_in_life(now, name, &gateway),
            Outcome::Leaves(reason) => self.succeed(now, name, reason),
            Outcome::IkeRekeyed => {
                if let Some(live) = self.live.get(&id) {
                    for spi in live.our_spis() {
                        self.core.spis.insert(spi, id);
                    }
                }
                self.finish_commands(name, |goal| *goal == Goal::RekeyIke, &Ok("rekeyed".into()));
            }
            Outcome::IkeRekeyFailed { detail } => {
                if let Some(live) = self.live.get_mut(&id)
                    && live.lacks_key_exchanges()
                {
                    // No child can be made on it.
                    live.queue.retain(|task| !matches!(task, Task::CreateChild(_)));
                    let failure = (Reason::NoProposalChosen, detail.clone());
                    self.child_missing(now, id, name, Some(failure));
                }
                self.finish_commands(name, |goal| *goal == Goal::RekeyIke, &Err(detail));
            }
        }
    }

    /// The first Child SA of a child that is wanted is there: those for further resources are asked for (RFC 9611).
    fn want_resources(&mut self, now: Time, id: IkeSaId, name: &Arc<str>, child: &Arc<str>) {
        let is_wanted =
            self.connections.get(name).is_some_and(|connection| connection.wanted.contains(child));
        let Some(live) = self.live.get_mut(&id).filter(|live| is_wanted && live.is_open()) else { return };
        for name in live.with_resources(&BTreeSet::from([child.clone()])) {
            if live.children.live(&name).is_none() {
                live.want(Task::CreateChild(name));
            }
        }
        live.start_next(&mut self.core, now);
    }

    /// A child that may be wanted is not there. An IKE SA that is left without any is closed, so that the failure shows and
    /// is tried again from the start.
    fn child_missing(&mut self, now: Time, id: IkeSaId, name: &Arc<str>, failure: Option<(Reason, String)>) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.children_at = Some(now + connection.backoff.next(&mut self.core.rng));
        let Some(live) = self.live.get_mut(&id) else { return };
        let has_children = live.children.iter().any(|child| child.exists());
        let is_trying = live.queue.iter().any(|task| matches!(task, Task::CreateChild(_)));
        if let Some((reason, detail)) = failure
            && !has_children
            && !is_trying
            && live.is_initiator
        {
            connection.trouble = Some((State::Blocked, reason, detail));
            live.close(now, reason);
            live.start_next(&mut self.core, now);
        }
    }

    fn remove_live(&mut self, now: Time, id: IkeSaId, reason: Reason) {
        let Some(mut live) = self.live.remove(&id) else { return };
        let name = live.config.name.clone();
        live.release_all(&mut self.core);
        live.remove_everything(&mut self.core);
        for spi in live.our_spis() {
            self.core.spis.remove(&spi);
        }
        self.close_streams_of(id);
        // What this end had decided before the peer's DELETE came holds.
        let reason = live.closing.map_or(reason, |(reason, _)| reason);
        self.core.event(Event::IkeRemoved { connection: name.clone(), ike_sa: id, reason });
        let Some(connection) = self.connections.get_mut(&name) else { return };
        if connection.trial == Some(id) {
            connection.trial = None;
            return self.trial_failed(now, &name);
        }
        connection.live.remove(&id);
        self.reconsider_succession(now, &name, id);
        let Some(connection) = self.connections.get_mut(&name) else { return };
        if !connection.live.is_empty() {
            if reason == Reason::Redirected && connection.should_start() {
                // The next gateway in a row; the IKE SA that is to be replaced works meanwhile.
                connection.plan_attempt(now);
            }
            self.use_what_is_left(now, &name);
            return;
        }
        self.drop_trial(now, &name);
        if !matches!(reason, Reason::EspUnreachable | Reason::Redirected) {
            self.forget_redirect(&name);
        }
        let Some(connection) = self.connections.get_mut(&name) else { return };
        match reason {
            Reason::PeerSilent if live.carrier.lacks_address() => {
                connection.trouble = Some((State::LocalDown, Reason::NoRoute, live.carrier.detail()));
            }
            Reason::PeerSilent => {
                let row = table::life::PEER_DEAD;
                let detail = format!(
                    "the peer answered nothing for ike.dead_after: is it running and reachable? (transport policy, row {})",
                    row.number
                );
                connection.trouble = Some((State::PeerDead, row.reason, detail));
            }
            Reason::PeerDeleted | Reason::AuthenticationFailed => {
                let detail = format!("the peer ended the IKE SA ({reason})");
                connection.trouble.get_or_insert((State::Blocked, reason, detail));
            }
            Reason::None | Reason::OperatorDown | Reason::Redirected => {}
            reason => {
                connection.trouble.get_or_insert((State::Blocked, reason, String::new()));
            }
        }
        if connection.wanted.is_empty() || !connection.can_initiate() || self.is_shutting_down {
            if let Some((state, Reason::PeerDeleted, _)) = &mut connection.trouble {
                // Nothing here wants it back, so nothing is stopped.
                *state = State::Idle;
            }
            if reason == Reason::OperatorDown || reason == Reason::None {
                connection.trouble = None;
            }
        } else if matches!(reason, Reason::None | Reason::Redirected) && connection.attempt.is_none() {
            // Its hard lifetime: nothing is wrong, so the next one starts at once.
            self.start_in_turn(now, &name);
        } else if reason == Reason::EspUnreachable {
            self.after_fall(now, &name);
        } else if reason == Reason::PeerDeleted {
            let wait = AFTER_PEER_DELETE + jitter(AFTER_PEER_DELETE / 4, &mut self.core.rng);
            connection.plan_attempt(now + wait);
        } else {
            self.wait_for_next_attempt(now, &name);
        }
    }

    /// One of two IKE SAs of a connection is gone: traffic takes the other's children.
    fn use_what_is_left(&mut self, now: Time, name: &str) {
        let Some(id) = self.main_sa(name) else { return };
        if let Some(live) = self.live.get_mut(&id) {
            if live.trial.take().is_some() {
                live.use_all(&mut self.core, now);
            }
            live.use_all_again(&mut self.core, now);
        }
        // Its ESP may be in TCP, where that of the one that is gone was not.
        self.plan_trial(now, name);
    }

    fn forget_connection(&mut self, now: Time, name: &str) {
        self.take_down(now, name, Reason::OperatorDown);
        self.finish_commands(
            name,
            |_| true,
            &Err("the connection was removed from the configuration".into()),
        );
        self.unschedule(&Timer::Connection(name.into()));
        self.connections.remove(name);
    }
}

fn child_done(pending: &mut [super::connection::Pending], child: &Arc<str>) {
    for pending in pending {
        if let Goal::RekeyChildren(children) = &mut pending.goal {
            children.remove(child);
        }
    }
}

/// Nothing has changed that an SA depends on. Secrets are compared as well.
fn is_same(old: &ConnectionConfig, new: &ConnectionConfig) -> bool {
    let may_replace = may_replace(old, new);
    // What happens when ESP does not pass may change while SAs live.
    let mut new = new.clone();
    (new.local_auth, new.remote_auth) = (old.local_auth.clone(), old.remote_auth.clone());
    new.esp.on_unreachable = old.esp.on_unreachable;
    // So may our address, which what we initiate follows.
    if new.remote_address != RemoteAddress::Any {
        new.local_address = old.local_address;
    }
    may_replace && old.ppk == new.ppk && format!("{old:?}") == format!("{new:?}")
}
