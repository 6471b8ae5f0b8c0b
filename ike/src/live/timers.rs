//! What is due when on a live IKE SA.

use std::net::IpAddr;

use super::dispatch::Which;
use super::{Active, LiveSa, Outcome, Task, TrialSa};
use crate::action::Action;
use crate::endpoint::core::Core;
use crate::event::Event;
use crate::path::{DirectCarrier, EspCarrier, EspPath, UdpPath};
use crate::sa::children::{Child, Outbound, Stage};
use crate::status::{Reason, Verdict};
use crate::time::Time;
use crate::transport::carrier::Effect;
use crate::transport::link::Link;
use crate::transport::probe::transport_of;

impl LiveSa {
    /// When [`LiveSa::timeout`] has to be called.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let generations = self.previous.iter().chain([&self.current]);
        let retransmit = generations.filter_map(|generation| generation.channel.window.next_timeout()).min();
        let generations = self.previous.iter().chain([&self.current]);
        let incomplete = generations.filter_map(|generation| generation.channel.next_timeout()).min();
        let previous = self.previous.iter().map(|generation| generation.renew_at).min();
        let rekey = (!self.is_under_way_or_queued(&Task::RekeyIke) && self.is_open())
            .then_some(self.current.renew_at);
        let pause = self.pause_until.filter(|_| !self.queue.is_empty());
        [
            retransmit,
            incomplete,
            previous,
            rekey,
            pause,
            // It is closed once, and then until the answer comes.
            self.is_open().then_some(self.expires_at),
            self.dead_at(),
            self.liveness_at(),
            self.closing.map(|(_, until)| until),
            self.trial_timeout(),
            self.leaving_timeout(),
            self.children.next_timeout(),
            self.next_series_timeout(),
            self.carrier.next_timeout(),
            self.link.tcp().and_then(|link| link.next_timeout()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has passed.
    pub(crate) fn timeout(&mut self, core: &mut Core, now: Time) {
        self.sweep(core, now);
        self.expire_series(core, now);
        for generation in self.previous.iter_mut().chain([&mut self.current]) {
            generation.channel.forget_incomplete(now);
        }
        if self.dead_at().is_some_and(|at| at <= now) {
            return self.end(self.closing.map_or(Reason::PeerSilent, |(reason, _)| reason));
        }
        if let Some((reason, until)) = self.closing
            && until <= now
        {
            return self.end(reason);
        }
        if self.expires_at <= now {
            self.close(now, Reason::None);
        }
        self.leave(core, now);
        self.renew_children(now);
        if self.current.renew_at <= now {
            self.current.renew_at = now + self.config.ike.retry_max;
            self.want(Task::RekeyIke);
        }
        self.drop_previous(core, now);
        if self.liveness_at().is_some_and(|at| at <= now) {
            self.want(Task::Liveness);
        }
        self.carrier.timeout(now, &mut core.rng);
        self.carry_out(core, now);
        self.dial(core, now);
        self.retransmit(core, now);
        self.start_next(core, now);
    }

    fn trial_timeout(&self) -> Option<Time> {
        match &self.trial {
            Some(TrialSa::Ours(trial)) if self.is_open() => {
                Some(trial.next_timeout(self.carrier.round_trip()))
            }
            _ => None,
        }
    }

    /// Carries out what the carrier asks for.
    pub(crate) fn carry_out(&mut self, core: &mut Core, now: Time) {
        for effect in self.carrier.take_effects() {
            match effect {
                Effect::Path(path) => {
                    self.follow_esp(core, path);
                    if self.children.iter().next().is_some() {
                        core.actions.push_back(Action::UpdatePath { ike_sa: self.id, path });
                    }
                }
                Effect::Dummy => {
                    let in_use = |child: &&Child| child.outbound == Outbound::InUse;
                    if let Some(child) = self.children.iter().find(in_use) {
                        core.actions.push_back(Action::SendDummy { child: child.id });
                    }
                }
                Effect::Keepalive => {
                    let path = self.carrier.path();
                    core.send_keepalive(UdpPath {
                        local: (path.local, path.local_port).into(),
                        remote: (path.remote, path.remote_port).into(),
                    });
                }
                Effect::Echo(echo) => {
                    core.counters.echo_requests[transport_of(&echo.route)] += 1;
                    core.actions.push_back(Action::SendEcho(echo));
                }
                Effect::LowerPathMtu => core.actions.push_back(Action::LowerPathMtu { ike_sa: self.id }),
                Effect::Liveness => self.ask_at_once(),
                Effect::Redial => self.redial(core, now),
                Effect::RekeyChild(child) => self.want(Task::RekeyChild(child)),
                Effect::Probed { carrier, answered } => {
                    let connection = self.config.name.clone();
                    core.event(Event::EspProbed { connection, ike_sa: self.id, carrier, answered });
                }
                Effect::Verified(verification) => {
                    *core.counters.verifications.entry(verification.verdict.label()).or_default() += 1;
                    let connection = self.config.name.clone();
                    core.event(Event::EspVerified { connection, ike_sa: self.id, verification });
                    if let Verdict::Answered(_) = verification.verdict {
                        self.outcomes.push(Outcome::EspAnswers);
                    }
                }
                Effect::Fell => {
                    core.counters.esp_falls += 1;
                    self.outcomes.push(Outcome::EspFell);
                }
                Effect::Unreachable { first_verification } => {
                    self.outcomes.push(Outcome::EspUnreachable { first_verification });
                }
            }
        }
    }

    /// A liveness exchange before everything that waits; any exchange under way asks as well.
    fn ask_at_once(&mut self) {
        let is_asking = self.current.active.is_some() || self.queue.front() == Some(&Task::Liveness);
        if self.is_open() && !is_asking {
            self.queue.retain(|task| *task != Task::Liveness);
            self.queue.push_front(Task::Liveness);
        }
    }

    /// The stream does not answer while ESP does (rule 5): its originator opens another one.
    fn redial(&mut self, core: &mut Core, now: Time) {
        let Some(link) = self.link.tcp_mut().filter(|link| link.is_originator) else { return };
        if let Some(stream) = link.current {
            core.close_stream(stream);
            self.stream_down(core, now, stream);
        }
    }

    /// IKE over UDP shares port and NAT mapping with ESP in UDP: it goes to where fresh ESP came from (RFC 7296 section 2.23).
    fn follow_esp(&mut self, core: &Core, esp: EspPath) {
        let we_are_behind_nat = self.carrier.nat().0;
        if let Link::Udp(path) = &mut self.link
            && path.local.port() == core.config.nat_port
            && esp.carrier == EspCarrier::Direct(DirectCarrier::Udp)
            && !we_are_behind_nat
        {
            path.remote = (esp.remote, esp.remote_port).into();
        }
    }

    /// A request has gone unanswered for `dead_after`. Without a stream the clock stands still while ESP comes in
    /// (transport policy, "IKE over TCP").
    fn dead_at(&self) -> Option<Time> {
        let generations = self.previous.iter().chain([&self.current]);
        let vital = generations.filter(|generation| !is_only_clearing_up(generation, self));
        let since = vital.filter_map(|g| g.channel.window.outstanding()).map(|o| o.since).min()?;
        let since = match &self.link {
            Link::Tcp(link) if link.current.is_none() => since.max(self.esp_seen.unwrap_or(Time::ZERO)),
            _ => since,
        };
        // A peer that sends fresh requests of its own is alive.
        Some(since.max(self.ike_seen) + self.config.ike.dead_after)
    }

    /// Nothing has been heard for a while (RFC 7296 section 2.4). Over TCP only IKE counts: liveness runs while ESP flows
    /// (rule 5).
    fn liveness_at(&self) -> Option<Time> {
        if !self.is_open() || self.is_under_way_or_queued(&Task::Liveness) || self.current.active.is_some() {
            return None;
        }
        let seen = match &self.link {
            Link::Tcp(_) => self.ike_seen,
            Link::Udp(_) => self.ike_seen.max(self.esp_seen.unwrap_or(Time::ZERO)),
        };
        Some(seen + self.config.ike.liveness_after)
    }

    fn is_under_way_or_queued(&self, task: &Task) -> bool {
        self.queue.contains(task) || self.is_under_way(task)
    }

    fn renew_children(&mut self, now: Time) {
        let retry = self.config.ike.retry_max;
        let mut tasks = Vec::new();
        for child in self.children.iter_mut() {
            if child.exists() && child.expires_at <= now {
                // Asked again, should the DELETE not come through.
                child.expires_at = now + retry;
                tasks.push(Task::DeleteChild(child.id));
            } else if child.stage == Stage::Live && child.rekey_at <= now {
                child.rekey_at = now + retry;
                tasks.push(Task::RekeyChild(child.id));
            }
        }
        for task in tasks {
            self.want(task);
        }
    }

    /// Old generations: those that are deleted are forgotten, the others are deleted by us now.
    fn drop_previous(&mut self, core: &mut Core, now: Time) {
        let mut index = 0;
        while let Some(generation) = self.previous.get_mut(index) {
            if generation.renew_at > now {
                index += 1;
                continue;
            }
            let is_asked = matches!(generation.active, Some(Active::DeleteIke));
            let since = generation.channel.window.outstanding().map(|outstanding| outstanding.since);
            let is_forgotten = self.current.is_confirmed
                && since.is_some_and(|since| since + self.config.ike.dead_after <= now);
            if generation.is_deleted || is_asked || is_forgotten {
                let generation = self.previous.remove(index);
                core.spis.remove(&generation.channel.our_spi());
                if let Some(active) = generation.active {
                    self.ask_again(core, active);
                }
                continue;
            }
            if !self.current.is_confirmed {
                // The peer may not know of the new keys yet.
                generation.renew_at = now + self.config.ike.retransmit_after;
                index += 1;
                continue;
            }
            generation.renew_at = now + self.config.ike.dead_after;
            self.delete_generation(core, now, Which::Previous(index));
            index += 1;
        }
    }

    /// Our addresses or links have changed: a missing stream is dialled again at once.
    pub(crate) fn redial_now(&mut self, now: Time) {
        if let Some(link) = self.link.tcp_mut()
            && link.redial_at.is_some()
        {
            link.redial_at = Some(now);
        }
    }

    /// Our address is another one from now on (transport policy rule 11): the originator dials again from there, and ESP is
    /// verified from there, if this IKE SA can follow. False if another has to take its place.
    pub(crate) fn change_address(&mut self, core: &mut Core, now: Time, address: IpAddr) -> bool {
        let can_follow = self.separate && self.carrier.allows_udp();
        if can_follow || self.carrier.belongs_in_tcp() {
            self.send_from(core, now, address);
            self.carrier.change_address(now, address, &mut core.rng);
            self.carry_out(core, now);
        }
        can_follow
    }

    /// IKE leaves from this address from now on, and over TCP on another stream.
    pub(crate) fn send_from(&mut self, core: &mut Core, now: Time, address: IpAddr) {
        let link = match &mut self.link {
            Link::Udp(path) => return path.local.set_ip(address),
            Link::Tcp(link) if link.is_originator && link.local.ip() != address => link,
            Link::Tcp(_) => return,
        };
        let (current, dialling) = link.change_address(address, now);
        current.into_iter().chain(dialling).for_each(|stream| core.close_stream(stream));
        if current.is_some() {
            self.carrier.stream_is(None);
            self.stream_event(core, false);
        }
    }

    fn dial(&mut self, core: &mut Core, now: Time) {
        let id = self.id;
        let timeout = self.config.ike.tcp_timeout;
        let local = self.link.local_ip();
        let Some(link) = self.link.tcp_mut() else { return };
        if let Some((stream, give_up)) = link.dialling
            && give_up <= now
        {
            core.close_stream(stream);
            link.down(stream, now, &mut core.rng);
        }
        if link.redial_at.is_some_and(|at| at <= now) {
            let stream = core.dial(now, id, local, link.remote);
            link.dialled(stream, now + timeout);
        }
    }
}

/// What an old generation asks may go unanswered without any harm to the IKE SA, once the peer has the new keys: it may have
/// forgotten the old ones.
fn is_only_clearing_up(generation: &super::Generation, sa: &LiveSa) -> bool {
    let is_delete = matches!(generation.active, Some(Active::DeleteIke));
    (is_delete || sa.current.is_confirmed) && !core::ptr::eq(generation, &sa.current)
}
