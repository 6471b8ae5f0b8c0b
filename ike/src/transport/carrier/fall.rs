//! What follows when no direct carrier passes ESP: into TCP in place and back, or the end of the IKE SA (transport policy rules
//! 7 to 9, rows 16 to 18 and 21).

use super::{Arrival, Carrier, Effect, Phase};
use crate::action::EchoRoute;
use crate::config::OnUnreachable;
use crate::crypto::Rng;
use crate::path::{DirectCarrier, EspCarrier, EspTransport, IkeTransport, StreamId};
use crate::status::{Evidence, Reason};
use crate::time::Time;
use crate::transport::probe::{Plan, Run};

/// A responder that has stopped ESP deletes the IKE SA after this many budgets (rule 9).
const BUDGETS_OF_RESPONDER: u32 = 3;

/// ESP has stopped.
#[derive(Debug)]
pub(super) struct Unreachable {
    is_first: bool,
    /// When a responder deletes the IKE SA; `None` when the endpoint has been told.
    act_at: Option<Time>,
    /// A responder asks until then: its initiator may have found a way.
    pub(super) run: Option<Run>,
    asks_at: Option<Time>,
}

impl Unreachable {
    pub(super) fn next_timeout(&self, rtt: core::time::Duration) -> Option<Time> {
        let ask = self.run.as_ref().map(|run| run.next_timeout(rtt)).or(self.asks_at);
        self.act_at.map(|act_at| ask.map_or(act_at, |ask| ask.min(act_at)))
    }
}

impl Carrier {
    /// ESP belongs in the stream of this IKE SA, or may move into it in place.
    pub(crate) fn may_use_tcp(&self) -> bool {
        self.allows_tcp() && (self.basis.separate || self.basis.in_tcp)
    }

    pub(super) fn allows_tcp(&self) -> bool {
        self.policy.on_unreachable == OnUnreachable::TcpFallback
    }

    /// Unreachable was decided: into TCP in place, or the end.
    pub(super) fn fall(&mut self, now: Time, is_first: bool, rng: &mut Rng) {
        // Row 16: the initiator starts anew without S.
        let starts_anew = is_first && self.basis.started_on == IkeTransport::Tcp && self.basis.is_initiator;
        let child = self.watches.first().map(|watch| watch.id);
        if self.allows_tcp()
            && self.basis.separate
            && !starts_anew
            && let (Some(stream), Some(child)) = (self.stream, child)
        {
            let plan = Plan::verification(&self.policy.probe);
            let run = Run::new(now, plan, &[child], &[EchoRoute::Stream(stream)], rng);
            return self.drive_asking_stream(now, run, rng);
        }
        self.unreachable(now, is_first && self.basis.started_on == IkeTransport::Tcp);
    }

    /// ESP stops. The initiator acts at once, a responder after three budgets (rule 9).
    pub(super) fn unreachable(&mut self, now: Time, is_first: bool) {
        self.path.carrier = EspCarrier::Shut;
        self.evidence = Evidence::None;
        self.confirm = None;
        self.dummies = None;
        self.hold_until = None;
        self.last_fall = Some(now);
        self.effects.push(Effect::Fell);
        if self.basis.is_initiator {
            self.effects.push(Effect::Unreachable { first_verification: is_first });
        }
        let patience = self.budget() * BUDGETS_OF_RESPONDER + self.patience_without_echo();
        let act_at = (!self.basis.is_initiator).then(|| now + patience);
        let asks_at = self.basis.echo.then_some(now);
        self.phase = Phase::Unreachable(Unreachable { is_first, act_at, run: None, asks_at });
    }

    pub(super) fn drive_unreachable(&mut self, now: Time, mut unreachable: Unreachable, rng: &mut Rng) {
        let Some(act_at) = unreachable.act_at else {
            self.phase = Phase::Unreachable(unreachable);
            return;
        };
        if act_at <= now {
            unreachable.act_at = None;
            unreachable.run = None;
            self.effects.push(Effect::Unreachable { first_verification: unreachable.is_first });
        } else if self.basis.echo {
            unreachable.asks_at = None;
            let is_open = |run: &Run| !run.is_over(now, self.rtt.budget()) || has_answer(run);
            let run = unreachable.run.take().filter(is_open);
            if let Some(mut run) = run.or_else(|| self.new_run(now, None, 1, rng)) {
                self.send(now, &mut run, rng);
                let answered = self.allowed().into_iter().find(|c| run.is_complete((*c).into()));
                if let Some(carrier) = answered {
                    self.choose(now, carrier);
                    self.evidence = Evidence::Echo;
                    return self.settle(now, carrier, &run, false);
                }
                unreachable.run = Some(run);
            }
        }
        self.phase = Phase::Unreachable(unreachable);
    }

    pub(super) fn drive_asking_stream(&mut self, now: Time, mut run: Run, rng: &mut Rng) {
        self.send(now, &mut run, rng);
        if run.is_complete(EspTransport::Tcp) {
            match self.stream {
                Some(stream) => {
                    self.enter_tcp(now, stream, rng);
                    self.dummies = Some((0, now));
                }
                None => self.unreachable(now, false),
            }
        } else if run.is_over(now, self.rtt.budget()) {
            self.unreachable(now, false);
        } else {
            self.phase = Phase::AskingStream(run);
        }
    }

    fn enter_tcp(&mut self, now: Time, stream: StreamId, rng: &mut Rng) {
        self.path.carrier = EspCarrier::Stream(stream);
        self.phase = Phase::InTcp(None);
        self.evidence = Evidence::Echo;
        self.measured = Reason::EspUnreachable;
        self.confirm = None;
        self.probe_at = None;
        self.hold_until = None;
        self.last_fall = Some(now);
        self.returns.fell(&self.policy.fallback, now, rng);
        self.effects.push(Effect::Fell);
    }

    /// Authenticated ESP came on a stream. On an IKE SA with S that is the peer's fall: followed where the policy allows TCP, else
    /// refused and verified (rule 7).
    pub(super) fn tcp_inbound(&mut self, now: Time, arrival: Arrival, rng: &mut Rng) {
        if arrival.is_echo || !arrival.is_highest || !self.basis.separate {
            if !arrival.is_echo && self.basis.in_tcp {
                self.note_in_tcp();
            }
            return;
        }
        if matches!(self.phase, Phase::InTcp(_)) {
            self.dummies = None;
        } else if !self.allows_tcp() {
            self.refused_in_tcp(now, rng);
        } else if let Some(stream) = self.stream.filter(|_| self.may_follow_into_tcp(now)) {
            self.enter_tcp(now, stream, rng);
            self.evidence = Evidence::Inbound;
            self.dummies = None;
        }
    }

    /// Following the peer into TCP is a fall (rule 5: once per hold time). What the peer still sends there after our return is
    /// none of it.
    fn may_follow_into_tcp(&self, now: Time) -> bool {
        let is_held = self.last_fall.is_some_and(|at| now < at + self.policy.hold_time);
        !is_held && !self.returns.has_just_returned(now, self.budget())
    }

    /// Row 21, in place: the initiator asks the direct carriers from time to time, and goes back when one of them is steady.
    pub(super) fn drive_in_tcp(&mut self, now: Time, trial: Option<Run>, rng: &mut Rng) {
        let is_due = self.basis.is_initiator && self.returns.next_try().is_some_and(|at| at <= now);
        let trial = trial.or_else(|| {
            let child = self.watches.first().filter(|_| is_due && self.basis.echo)?.id;
            let routes = self.direct_routes();
            (!routes.is_empty())
                .then(|| Run::new(now, Plan::of_return(&self.policy.probe), &[child], &routes, rng))
        });
        let Some(mut run) = trial else {
            if is_due {
                self.returns.failed(&self.policy.fallback, now, rng);
            }
            self.phase = Phase::InTcp(None);
            return;
        };
        self.returns.tried();
        self.send(now, &mut run, rng);
        let is_over = run.is_over(now, self.rtt.budget());
        let allowed = self.allowed();
        let answered = allowed.iter().copied().find(|carrier| run.is_complete((*carrier).into()));
        match answered {
            Some(carrier) if is_over || allowed.first() == Some(&carrier) => {
                self.come_back(now, carrier, &run);
            }
            None if is_over => {
                self.measured = Reason::TrialFailed;
                self.returns.failed(&self.policy.fallback, now, rng);
                self.phase = Phase::InTcp(None);
            }
            _ => self.phase = Phase::InTcp(Some(run)),
        }
    }

    fn come_back(&mut self, now: Time, carrier: DirectCarrier, run: &Run) {
        self.choose(now, carrier);
        self.evidence = Evidence::Echo;
        self.returns.returned(now);
        self.ask_path_mtu(now);
        self.watches.iter_mut().for_each(|watch| watch.heard(now));
        self.settle(now, carrier, run, false);
        self.measured = Reason::Returned;
    }
}

fn has_answer(run: &Run) -> bool {
    run.carriers().iter().any(|carrier| run.answers(*carrier) > 0)
}
