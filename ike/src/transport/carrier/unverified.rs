//! Without ESP echo: inbound ESP is all the evidence there is (transport policy rule 1, rows 4, 5 and 13).

use core::time::Duration;

use super::{Carrier, Effect};
use crate::config::UnverifiedTimeout;
use crate::path::{DirectCarrier, IkeTransport};
use crate::time::Time;

/// Silence while IKE answers means something after this time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Outbound traffic without an answer, and the carriers that had their chance.
#[derive(Default, Debug)]
pub(super) struct Unverified {
    unanswered_since: Option<Time>,
    /// The timeout has passed, and IKE has been asked then.
    asked_at: Option<Time>,
    tried: Vec<DirectCarrier>,
}

impl Unverified {
    /// Data or a dummy came.
    pub(super) fn heard(&mut self) {
        self.unanswered_since = None;
        self.asked_at = None;
        self.tried.clear();
    }

    /// Data has left.
    pub(super) fn outbound(&mut self, now: Time) {
        self.unanswered_since.get_or_insert(now);
    }

    /// The timeout has passed.
    pub(super) fn has_timed_out(&self) -> bool {
        self.asked_at.is_some()
    }
}

impl Carrier {
    pub(super) fn unverified_at(&self) -> Option<Time> {
        if self.basis.echo || !self.is_direct() || self.unverified.asked_at.is_some() {
            return None;
        }
        Some(self.unverified.unanswered_since? + self.unverified_timeout()?)
    }

    /// How long the initiator may need for every carrier it has, if it goes by silence alone.
    pub(super) fn patience_without_echo(&self) -> Duration {
        match self.unverified_timeout() {
            Some(timeout) if !self.basis.echo => timeout.saturating_mul(self.allowed().len() as u32),
            Some(_) | None => Duration::ZERO,
        }
    }

    pub(super) fn unverified_timeout(&self) -> Option<Duration> {
        let is_row_5 = !self.basis.separate && self.basis.started_on == IkeTransport::Udp;
        match self.policy.unverified_timeout {
            UnverifiedTimeout::ByRow => (!is_row_5).then_some(TIMEOUT),
            UnverifiedTimeout::After(timeout) => Some(timeout),
            UnverifiedTimeout::Never => None,
        }
    }

    /// Traffic without an answer for the whole timeout while IKE answers: the next allowed carrier that was not tried yet, then
    /// unreachable. Only the initiator chooses carriers.
    pub(super) fn drive_unverified(&mut self, now: Time) {
        if self.unverified_at().is_some_and(|at| at <= now) {
            self.unverified.asked_at = Some(now);
            self.effects.push(Effect::Liveness);
        }
        let (Some(asked_at), Some(current)) = (self.unverified.asked_at, self.direct()) else { return };
        if self.ike_seen <= asked_at || self.basis.echo {
            return;
        }
        self.unverified.asked_at = None;
        self.unverified.unanswered_since = None;
        if !self.unverified.tried.contains(&current) {
            self.unverified.tried.push(current);
        }
        let is_left = |carrier: &DirectCarrier| !self.unverified.tried.contains(carrier);
        let next = self.allowed().into_iter().find(is_left).filter(|_| self.basis.is_initiator);
        match next {
            Some(next) => self.choose(now, next),
            None if self.last_fall.is_none_or(|at| now >= at + self.policy.hold_time) => {
                let is_first = !self.is_verified && self.basis.started_on == IkeTransport::Tcp;
                self.unreachable(now, is_first);
            }
            None => self.unverified.unanswered_since = Some(now),
        }
    }
}
