//! Verifications: which carriers are asked, what the answers mean, and what silence means (transport policy rules 2, 3, 5
//! and 6).

use core::time::Duration;

use super::{Carrier, Effect, Phase};
use crate::action::{ChildId, EchoRoute};
use crate::crypto::Rng;
use crate::path::{DirectCarrier, EspCarrier, EspTransport, IkeTransport};
use crate::status::{Evidence, Reason, Verdict, Verification};
use crate::time::Time;
use crate::transport::probe::{Answer, Plan, Reply, Run};

/// Children that one verification asks at most.
const MOST_ASKED: usize = 8;
/// The path MTU is lowered at most this often for one carrier.
const MOST_LOWERED: u8 = 8;

/// Silence that is being looked into.
#[derive(Debug)]
pub(super) struct Suspect {
    /// The echoes, or none between two rounds.
    pub(super) run: Option<Run>,
    /// When the next round begins.
    pub(super) again_at: Time,
    rounds: u32,
    /// The child that fell silent.
    child: Option<ChildId>,
    /// The peer puts ESP into TCP, which this end refuses: direct data has to come before the round is over (rule 7).
    refused_since: Option<Time>,
    /// Echoes were answered; only that data is still waited for.
    waits_for_data: bool,
}

/// Whether the largest packets pass on the carrier that was proven (rule 3).
#[derive(Debug)]
pub(super) struct PathMtu {
    /// The echoes.
    pub(super) run: Run,
    carrier: DirectCarrier,
    lowered: u8,
}

/// How the carrier is chosen among those that answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Start on TCP: the first that answers (rule 3).
    First,
    /// Start on UDP: the best that answers (rule 2).
    Best,
    /// Mid-life: the one in use while it answers (rule 5).
    Keep,
}

impl Carrier {
    /// attempts × timeout + stagger + 1 RTT (rule 5).
    pub(crate) fn budget(&self) -> Duration {
        let probe = &self.policy.probe;
        probe.timeout.saturating_mul(probe.attempts.into()) + probe.stagger + self.rtt.budget()
    }

    pub(super) fn phase_timeout(&self) -> Option<Time> {
        let rtt = self.rtt.budget();
        match &self.phase {
            Phase::Probing(run) | Phase::AskingStream(run) | Phase::InTcp(Some(run)) => {
                Some(run.next_timeout(rtt))
            }
            Phase::Suspect(suspect) => {
                let next = suspect.run.as_ref().map_or(suspect.again_at, |run| run.next_timeout(rtt));
                let refused = suspect.refused_since.map(|since| since + self.budget());
                Some(match refused {
                    Some(at) if suspect.waits_for_data => at,
                    Some(at) => at.min(next),
                    None => next,
                })
            }
            Phase::InTcp(None) => self.returns.next_try().filter(|_| self.basis.is_initiator),
            Phase::Unreachable(unreachable) => unreachable.next_timeout(rtt),
            Phase::Steady | Phase::LocalDown => None,
        }
    }

    pub(super) fn watch_timeout(&self) -> Option<Time> {
        if !self.is_watched() {
            return None;
        }
        self.watches.iter().map(|watch| watch.next_timeout(&self.policy.probe)).min()
    }

    /// Silence means something: ESP goes directly, and there is echo to ask with.
    fn is_watched(&self) -> bool {
        matches!(self.phase, Phase::Steady) && self.basis.echo && self.is_direct() && self.probe_at.is_none()
    }

    pub(super) fn drive_watches(&mut self, now: Time, rng: &mut Rng) {
        let (true, Some(carrier)) = (self.is_watched(), self.direct()) else { return };
        let route = self.route(carrier);
        let mut silent = None;
        for watch in &mut self.watches {
            let (echoes, is_silent) = watch.timeout(now, &self.policy.probe, route, rng);
            self.effects.extend(echoes.into_iter().map(Effect::Echo));
            if is_silent {
                silent.get_or_insert(watch.id);
            }
        }
        if silent.is_some() {
            self.suspect(now, silent, rng);
        }
    }

    /// A doubt, from nobody in particular: one echo on each child, at most once per `idle_interval`.
    pub(super) fn take_doubt(&mut self, now: Time) {
        let is_too_soon = self.doubted_at.is_some_and(|at| now < at + self.policy.probe.idle_interval);
        if !self.is_watched() || is_too_soon {
            return;
        }
        self.doubted_at = Some(now);
        if let Some(watch) = self.watches.first_mut() {
            watch.doubt(now);
        }
    }

    /// Authenticated data or a dummy came on a direct carrier.
    pub(super) fn note_direct_data(&mut self, now: Time) {
        if let Phase::Suspect(suspect) = &mut self.phase
            && suspect.refused_since.is_some_and(|since| now > since)
        {
            suspect.refused_since = None;
        }
    }

    /// The first verification.
    pub(super) fn start_probing(&mut self, now: Time, rng: &mut Rng) {
        let can_probe = self.is_direct() || self.path.carrier == EspCarrier::Hold;
        let is_free = matches!(self.phase, Phase::Steady) && !self.has_local_failure;
        if self.basis.echo && can_probe && is_free && !self.is_verified {
            self.ike_asked = None;
            self.phase = match self.new_run(now, None, 1, rng) {
                Some(run) => Phase::Probing(run),
                None => Phase::Steady,
            };
        }
    }

    /// Silence: echoes on all allowed carriers, and IKE is asked as well (rule 5).
    pub(super) fn suspect(&mut self, now: Time, child: Option<ChildId>, rng: &mut Rng) {
        let suspect = Suspect {
            run: None,
            again_at: now,
            rounds: 0,
            child,
            refused_since: None,
            waits_for_data: false,
        };
        self.drive_suspect(now, suspect, rng);
    }

    /// Rule 7: the peer uses TCP, which this end refuses.
    pub(super) fn refused_in_tcp(&mut self, now: Time, rng: &mut Rng) {
        if !self.is_watched() {
            return;
        }
        let suspect = Suspect {
            run: None,
            again_at: now,
            rounds: 0,
            child: None,
            refused_since: Some(now),
            waits_for_data: false,
        };
        self.drive_suspect(now, suspect, rng);
    }

    /// What was local is over: whether ESP passes has to be found out again.
    pub(super) fn after_local_down(&mut self, now: Time, rng: &mut Rng) {
        self.phase = Phase::Steady;
        if self.basis.echo {
            self.suspect(now, None, rng);
        }
    }

    pub(super) fn drive_phase(&mut self, now: Time, rng: &mut Rng) {
        match core::mem::replace(&mut self.phase, Phase::Steady) {
            Phase::Steady => {}
            Phase::LocalDown => self.phase = Phase::LocalDown,
            Phase::Probing(run) => self.drive_probing(now, run, rng),
            Phase::Suspect(suspect) => self.drive_suspect(now, suspect, rng),
            Phase::AskingStream(run) => self.drive_asking_stream(now, run, rng),
            Phase::InTcp(trial) => self.drive_in_tcp(now, trial, rng),
            Phase::Unreachable(unreachable) => self.drive_unreachable(now, unreachable, rng),
        }
    }

    /// A reply: whoever asked for it.
    pub(super) fn take_reply(&mut self, now: Time, reply: &Reply, source: std::net::SocketAddr) {
        let answer = self.answer(now, reply);
        let Some(answer) = answer else { return };
        self.rtt.echo(answer.carrier, answer.rtt);
        if answer.carrier == EspTransport::Ip && source.ip() != self.basis.ike_remote {
            self.nat_found_on_ip(now);
        }
    }

    fn answer(&mut self, now: Time, reply: &Reply) -> Option<Answer> {
        for run in self.runs() {
            if let Some(answer) = run.answered(now, reply) {
                return Some(answer);
            }
        }
        self.watches.iter_mut().find_map(|watch| watch.answered(now, reply))
    }

    fn drive_probing(&mut self, now: Time, mut run: Run, rng: &mut Rng) {
        self.send(now, &mut run, rng);
        let is_doubtful = run.carriers().iter().all(|carrier| run.is_doubtful(now, *carrier, 1));
        if is_doubtful && self.ike_asked.is_none() {
            self.ask_ike(now);
        }
        let mode = match self.basis.started_on {
            IkeTransport::Tcp => Mode::First,
            IkeTransport::Udp => Mode::Best,
        };
        let is_over = run.is_over(now, self.rtt.budget());
        match self.choice(now, &run, mode, is_over) {
            Some((carrier, is_final)) if self.may_take(carrier) => {
                self.proven(now, carrier, &run);
                if is_final {
                    return self.settle(now, carrier, &run, true);
                }
            }
            // The peer answers, but not on the carrier that its initiator has chosen: that one has to see it too.
            Some(_) if is_over => return self.suspect_again(now, 0, None, &run),
            None if is_over => return self.failed(now, true, 0, None, &run, rng),
            _ => {}
        }
        self.phase = Phase::Probing(run);
    }

    fn drive_suspect(&mut self, now: Time, mut suspect: Suspect, rng: &mut Rng) {
        if suspect.run.is_none() && suspect.again_at <= now {
            self.ask_ike(now);
            suspect.run = self.new_run(now, suspect.child, MOST_ASKED, rng);
            if suspect.run.is_none() {
                suspect.again_at = now + self.policy.probe.idle_interval;
            }
        }
        let Some(mut run) = suspect.run.take() else {
            self.phase = Phase::Suspect(suspect);
            return;
        };
        self.send(now, &mut run, rng);
        let is_over = run.is_over(now, self.rtt.budget());
        match self.choice(now, &run, Mode::Keep, is_over) {
            Some((carrier, true)) if self.may_take(carrier) => {
                match suspect.refused_since {
                    None => return self.answered_in_mid_life(now, carrier, &run, &suspect, rng),
                    Some(since) if now >= since + self.budget() => {
                        return self.failed(now, false, suspect.rounds, suspect.child, &run, rng);
                    }
                    Some(_) => suspect.waits_for_data = true,
                };
            }
            Some(_) if is_over => return self.suspect_again(now, suspect.rounds, suspect.child, &run),
            None if is_over => {
                return self.failed(now, !self.is_verified, suspect.rounds, suspect.child, &run, rng);
            }
            _ => {}
        }
        suspect.run = Some(run);
        self.phase = Phase::Suspect(suspect);
    }

    /// The carrier answers. Children that do not are rekeyed once, and are the end of the IKE SA after that (rule 6).
    fn answered_in_mid_life(
        &mut self,
        now: Time,
        carrier: DirectCarrier,
        run: &Run,
        suspect: &Suspect,
        rng: &mut Rng,
    ) {
        let is_first = !self.is_verified;
        let mut is_still_dead = false;
        let mut dead = Vec::new();
        for watch in self.watches.iter_mut().filter(|watch| run.children().contains(&watch.id)) {
            if run.is_answered(watch.id, carrier.into()) {
                watch.was_rekeyed = false;
            } else if core::mem::replace(&mut watch.was_rekeyed, true) {
                is_still_dead = true;
            } else {
                dead.push(watch.id);
            }
        }
        if is_still_dead {
            return self.failed(now, false, suspect.rounds, suspect.child, run, rng);
        }
        self.proven(now, carrier, run);
        self.settle(now, carrier, run, is_first);
        self.effects.extend(dead.into_iter().map(Effect::RekeyChild));
        if self.ike_seen <= run.began() {
            let at = (run.began() + self.budget()).max(now);
            self.redial_at = Some((run.began(), at));
        }
    }

    /// A carrier has answered: it is used.
    fn proven(&mut self, now: Time, carrier: DirectCarrier, run: &Run) {
        let has_moved = self.path.local != self.local;
        if self.direct() != Some(carrier) || self.evidence != Evidence::Echo || has_moved {
            self.choose(now, carrier);
            self.evidence = Evidence::Echo;
            self.ask_path_mtu(now);
        }
        self.is_verified = true;
        for watch in &mut self.watches {
            if run.is_answered(watch.id, carrier.into()) {
                watch.heard(now);
            }
        }
    }

    /// The verification is over, and ESP goes on.
    pub(super) fn settle(&mut self, now: Time, carrier: DirectCarrier, run: &Run, is_first: bool) {
        self.phase = Phase::Steady;
        let wants_ip = self.allowed().first() == Some(&DirectCarrier::Ip);
        self.measured = match carrier {
            DirectCarrier::Udp if !run.has_asked(EspTransport::Ip) => self.measured,
            DirectCarrier::Udp if wants_ip && run.answers(EspTransport::Ip) == 0 => Reason::IpUnanswered,
            _ => Reason::None,
        };
        self.conclude(now, is_first, Verdict::Answered(carrier.into()), run);
    }

    /// No carrier has answered within the budget (rule 5): unreachable if IKE answers, and if ESP has not fallen a while ago.
    fn failed(
        &mut self,
        now: Time,
        is_first: bool,
        rounds: u32,
        child: Option<ChildId>,
        run: &Run,
        rng: &mut Rng,
    ) {
        if self.has_local_failure || self.is_address_gone {
            self.phase = Phase::LocalDown;
            return;
        }
        let may_fall = self.last_fall.is_none_or(|at| now >= at + self.policy.hold_time);
        if self.ike_seen <= run.began() || !may_fall {
            return self.suspect_again(now, rounds, child, run);
        }
        if self.ike_came_back(run) {
            self.suspect_again(now, rounds, child, run);
            if let Phase::Suspect(suspect) = &mut self.phase {
                suspect.again_at = now;
            }
            return;
        }
        self.conclude(now, is_first, Verdict::Unreachable, run);
        self.fall(now, is_first, rng);
    }

    /// IKE was silent for as long as echoes were asked, and answered after the last of them: the path was out and is back, and no
    /// echo has met it yet.
    fn ike_came_back(&self, run: &Run) -> bool {
        let Some((asked, Some(answered))) = self.ike_asked else { return false };
        let was_silent = answered > asked + self.policy.probe.timeout + self.rtt.budget();
        was_silent && !run.has_asked_since(answered)
    }

    /// Undecided: the same again, a little later.
    fn suspect_again(&mut self, now: Time, rounds: u32, child: Option<ChildId>, run: &Run) {
        if rounds == 0 {
            self.conclude(now, !self.is_verified, Verdict::Undecided, run);
        }
        let probe = &self.policy.probe;
        let pause = probe.timeout.saturating_mul(1 << rounds.min(8)).min(probe.idle_interval);
        let suspect = Suspect {
            run: None,
            again_at: now + pause,
            rounds: rounds.saturating_add(1),
            child,
            refused_since: None,
            waits_for_data: false,
        };
        self.phase = Phase::Suspect(suspect);
    }

    pub(super) fn conclude(&mut self, now: Time, is_first: bool, verdict: Verdict, run: &Run) {
        let verification = Verification { at: now, took: now.since(run.began()), is_first, verdict };
        self.verification = Some(verification);
        for carrier in run.carriers() {
            self.effects.push(Effect::Probed { carrier, answered: run.answers(carrier) > 0 });
        }
        self.effects.push(Effect::Verified(verification));
    }

    /// The carrier that the answers speak for, and whether that is the last word.
    fn choice(&self, now: Time, run: &Run, mode: Mode, is_over: bool) -> Option<(DirectCarrier, bool)> {
        let allowed = self.allowed();
        let current = self.direct().filter(|carrier| allowed.contains(carrier));
        let is_complete = |carrier: &DirectCarrier| run.is_complete((*carrier).into());
        let best = allowed.iter().copied().find(|carrier| is_complete(carrier));
        if is_over {
            // Of several children some may be dead: the carrier that most of them answer on, the one in use before others.
            let answers = |carrier: &DirectCarrier| run.answers((*carrier).into());
            let kept = current.filter(|carrier| allowed.contains(carrier) && answers(carrier) > 0);
            let kept = kept.filter(|_| mode == Mode::Keep);
            let most = || allowed.iter().copied().rev().filter(|c| answers(c) > 0).max_by_key(|c| answers(c));
            return kept.or(best).or_else(most).map(|carrier| (carrier, true));
        }
        // In mid-life two lost echoes in a row leave a carrier that another one answers on; one is too common.
        let requests = if mode == Mode::Keep { 2 } else { 1 };
        let is_doubtful = current.is_none_or(|carrier| run.is_doubtful(now, carrier.into(), requests));
        match mode {
            Mode::First => best.map(|carrier| (carrier, true)),
            Mode::Best => {
                let best = best?;
                let rank = |carrier| allowed.iter().position(|other| *other == carrier);
                let is_no_worse = current.is_none_or(|current| rank(best) <= rank(current));
                let is_final = allowed.first() == Some(&best);
                (is_no_worse || is_doubtful).then_some((best, is_final))
            }
            Mode::Keep => match current.filter(is_complete) {
                Some(current) => Some((current, true)),
                None => best.filter(|_| is_doubtful).map(|carrier| (carrier, true)),
            },
        }
    }

    /// The initiator chooses; so does a responder that has no carrier (rule 4).
    fn may_take(&self, carrier: DirectCarrier) -> bool {
        self.basis.is_initiator || self.direct().is_none_or(|current| current == carrier)
    }

    fn ask_ike(&mut self, now: Time) {
        self.ike_asked = Some((now, None));
        self.effects.push(Effect::Liveness);
    }

    /// A run on all allowed carriers, the one in use first: `first` and other children, `most` of them.
    pub(super) fn new_run(
        &self,
        now: Time,
        first: Option<ChildId>,
        most: usize,
        rng: &mut Rng,
    ) -> Option<Run> {
        let routes = self.direct_routes();
        let mut children: Vec<_> = self.watches.iter().map(|watch| watch.id).collect();
        children.sort_by_key(|child| Some(*child) != first);
        children.truncate(most);
        if routes.is_empty() || children.is_empty() {
            return None;
        }
        Some(Run::new(now, Plan::verification(&self.policy.probe), &children, &routes, rng))
    }

    /// Routes of all allowed carriers, the one in use first.
    pub(super) fn direct_routes(&self) -> Vec<EchoRoute> {
        let mut carriers = self.allowed();
        carriers.sort_by_key(|carrier| Some(*carrier) != self.direct());
        carriers.into_iter().map(|carrier| self.route(carrier)).collect()
    }

    pub(super) fn send(&mut self, now: Time, run: &mut Run, rng: &mut Rng) {
        self.effects.extend(run.due(now, rng).into_iter().map(Effect::Echo));
    }

    /// After the small echo one as long as the path takes, with DF (rule 3).
    pub(super) fn ask_path_mtu(&mut self, now: Time) {
        self.path_mtu = None;
        self.path_mtu_at = Some(now);
    }

    pub(super) fn drive_path_mtu(&mut self, now: Time, rng: &mut Rng) {
        if self.path_mtu_at.take_if(|at| *at <= now).is_some() {
            self.path_mtu = self.new_path_mtu(now, 0, rng);
        }
        let Some(mut probe) = self.path_mtu.take() else { return };
        if self.direct() != Some(probe.carrier) {
            return;
        }
        self.send(now, &mut probe.run, rng);
        if probe.run.is_complete(probe.carrier.into()) {
            return;
        }
        if !probe.run.is_over(now, self.rtt.budget()) {
            self.path_mtu = Some(probe);
        } else if matches!(self.phase, Phase::Steady) && probe.lowered < MOST_LOWERED {
            self.effects.push(Effect::LowerPathMtu);
            self.path_mtu = self.new_path_mtu(now, probe.lowered + 1, rng);
            if let Some(mut probe) = self.path_mtu.take() {
                self.send(now, &mut probe.run, rng);
                self.path_mtu = Some(probe);
            }
        }
    }

    fn new_path_mtu(&self, now: Time, lowered: u8, rng: &mut Rng) -> Option<Box<PathMtu>> {
        let (carrier, child) = (self.direct()?, self.watches.first()?.id);
        let plan = Plan::path_mtu(&self.policy.probe);
        let run = Run::new(now, plan, &[child], &[self.route(carrier)], rng);
        Some(Box::new(PathMtu { run, carrier, lowered }))
    }
}
