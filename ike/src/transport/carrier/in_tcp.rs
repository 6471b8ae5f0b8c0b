//! ESP that belongs in TCP, a policy that changes, and trials: what the endpoint tells the machine (transport policy,
//! "Configuration", rules 7 and 8).

use core::time::Duration;

use super::{Carrier, Phase};
use crate::config::OnUnreachable;
use crate::crypto::Rng;
use crate::path::{DirectCarrier, EspCarrier, IkeTransport};
use crate::status::{Evidence, Reason};
use crate::time::Time;
use crate::transport::probe::{Plan, Run};
use crate::transport::returning::Returns;

impl Carrier {
    /// ESP belongs in TCP (RFC 9329 section 5), whatever direct carriers would do.
    pub(crate) fn belongs_in_tcp(&self) -> bool {
        self.basis.in_tcp
    }

    /// What carried the first message.
    pub(crate) fn started_on(&self) -> IkeTransport {
        self.basis.started_on
    }

    /// Both ends have announced ESP echo.
    pub(crate) fn peer_echoes(&self) -> bool {
        self.basis.echo
    }

    /// Direct carriers that may be sent on, best first.
    pub(crate) fn candidates(&self) -> Vec<DirectCarrier> {
        self.allowed()
    }

    /// What has to outlive this IKE SA of its falls and returns.
    pub(crate) fn returns(&self) -> Returns {
        self.returns
    }

    /// The connection has come back from TCP by this IKE SA.
    pub(crate) fn set_returns(&mut self, returns: Returns) {
        self.returns = returns;
    }

    /// How long an answer may take.
    pub(crate) fn round_trip(&self) -> Duration {
        self.rtt.budget()
    }

    /// ESP stops; the IKE SA goes.
    pub(crate) fn shut(&mut self) {
        self.path.carrier = EspCarrier::Shut;
        self.measured = Reason::EspUnreachable;
        self.phase = Phase::Steady;
        self.evidence = Evidence::None;
        (self.confirm, self.dummies, self.hold_until, self.probe_at) = (None, None, None, None);
    }

    /// The echoes of a trial on this child: 5 answers in 10 s (rule 8).
    pub(crate) fn trial_run(&self, now: Time, child: crate::action::ChildId, rng: &mut Rng) -> Run {
        Run::new(now, Plan::of_return(&self.policy.probe), &[child], &self.direct_routes(), rng)
    }

    /// A trial has proven this carrier: ESP takes it, and a dummy shows it to the peer.
    pub(crate) fn proven_by_trial(&mut self, now: Time, carrier: DirectCarrier) {
        self.hold_until = None;
        self.set_carrier(carrier);
        self.evidence = Evidence::Echo;
        self.is_verified = true;
        self.dummies = Some((0, now));
    }

    /// Traffic has followed the peer to its trial. A dummy says so: on an idle connection nothing else would, and the peer,
    /// which waits for something inbound, would give its trial up. A responder that follows echoes once (rule 4).
    pub(crate) fn moved_to_trial(&mut self, now: Time, rng: &mut Rng) {
        self.dummies = Some((0, now));
        self.confirm_path(now, rng);
        self.drive(now, rng);
    }

    /// The operator wants to know now. False if there is nothing to ask with, or it is being asked.
    pub(crate) fn verify(&mut self, now: Time, rng: &mut Rng) -> bool {
        let asks = match self.phase {
            Phase::Steady if self.basis.echo && self.is_direct() => {
                self.suspect(now, None, rng);
                true
            }
            Phase::InTcp(None) if self.basis.echo && self.basis.is_initiator => {
                self.returns.try_at(now);
                true
            }
            _ => false,
        };
        self.drive(now, rng);
        asks
    }

    /// The policy has changed. A stricter one takes ESP out of TCP at once and has direct carriers verified; a looser one
    /// counts from the next decision on, and a responder that has stopped ESP decides again.
    pub(crate) fn set_policy(&mut self, now: Time, on_unreachable: OnUnreachable, rng: &mut Rng) {
        self.policy.on_unreachable = on_unreachable;
        self.path.echo.stream = self.basis.echo && self.allows_tcp();
        self.path.takes_tcp = self.may_use_tcp();
        match (on_unreachable, &self.phase) {
            (OnUnreachable::FailClosed, _) if self.basis.in_tcp => self.shut(),
            (OnUnreachable::FailClosed, Phase::InTcp(_)) => self.leave_tcp(now, rng),
            (OnUnreachable::FailClosed, Phase::AskingStream(_)) => self.unreachable(now, false),
            (OnUnreachable::TcpFallback, Phase::Unreachable(_)) if !self.basis.is_initiator => {
                self.fall(now, false, rng);
            }
            _ => {}
        }
        self.drive(now, rng);
    }

    /// Out of TCP, on the best direct carrier, which the verification that begins has to prove.
    fn leave_tcp(&mut self, now: Time, rng: &mut Rng) {
        let Some(carrier) = self.allowed().first().copied() else { return self.unreachable(now, false) };
        self.choose(now, carrier);
        self.measured = Reason::None;
        self.phase = Phase::Steady;
        self.suspect(now, None, rng);
    }

    /// ESP that belongs in TCP came there.
    pub(super) fn note_in_tcp(&mut self) {
        self.evidence = self.evidence.max(Evidence::Inbound);
    }
}
