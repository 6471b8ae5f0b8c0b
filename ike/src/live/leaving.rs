//! When an IKE SA has to make room for another one: authentication has a lifetime (RFC 4478), or another gateway takes over
//! (RFC 5685).

use core::time::Duration;

use super::{LiveSa, Outcome, TrialSa};
use crate::codec::{NotifyType, decode_redirect};
use crate::config::IkePolicy;
use crate::crypto::Rng;
use crate::endpoint::core::Core;
use crate::sa::payloads::{self, Payload, Received};
use crate::status::Reason;
use crate::time::Time;
use crate::transport::backoff::earlier;

/// An IKE SA is not replaced sooner than this after it was made, whatever the peer says (RFC 4478 section 5).
const SHORTEST_LIFE: Duration = Duration::from_secs(10);
/// A responder that has asked for authentication anew waits at least so much longer for it.
const SHORTEST_GRACE: Duration = Duration::from_secs(30);

/// When an IKE SA that is made now has to make room, by its own policy. A responder gives its peer a tenth more.
pub(crate) fn leaves_by_policy(
    ike: &IkePolicy,
    is_initiator: bool,
    now: Time,
    rng: &mut Rng,
) -> Option<(Time, Reason)> {
    let after = ike.reauth_after?;
    let wait = match is_initiator {
        true => earlier(after, ike.rekey_jitter_percent, rng),
        false => after + SHORTEST_GRACE.max(after / 10),
    };
    Some((now + wait, Reason::Reauthentication))
}

/// AUTH_LIFETIME of a responder (RFC 4478 section 3).
pub(crate) fn auth_lifetime(ike: &IkePolicy) -> Option<Payload> {
    let seconds = u32::try_from(ike.reauth_after?.as_secs()).unwrap_or(u32::MAX);
    Some(payloads::notify_with(NotifyType::AUTH_LIFETIME, seconds.to_be_bytes().to_vec()))
}

impl LiveSa {
    /// AUTH_LIFETIME of the peer, if it is there: the initiator authenticates anew within that time (RFC 4478 section 2).
    pub(crate) fn note_auth_lifetime(&mut self, now: Time, received: &Received, rng: &mut Rng) {
        let lifetime = received.first(NotifyType::AUTH_LIFETIME).filter(|_| self.is_initiator);
        let seconds = lifetime.and_then(|notify| <[u8; 4]>::try_from(notify.data.as_slice()).ok());
        let Some(seconds) = seconds.map(u32::from_be_bytes) else { return };
        let most = Duration::from_secs(seconds.into()) * 9 / 10;
        let at = now + earlier(most, self.config.ike.rekey_jitter_percent, rng);
        let at = at.max(self.established + SHORTEST_LIFE);
        self.leaves = match self.leaves {
            Some((earlier, reason)) if earlier <= at => Some((earlier, reason)),
            _ => Some((at, Reason::Reauthentication)),
        };
    }

    /// REDIRECT of the responder, which we have said we know, and which has no nonce here (RFC 5685 sections 5 and 9.2).
    pub(crate) fn note_redirect(&mut self, received: &Received) {
        let redirect = received.first(NotifyType::REDIRECT).filter(|_| self.is_initiator && self.redirect);
        let gateway = redirect.and_then(|notify| decode_redirect(&notify.data));
        if let Some((gateway, [])) = gateway {
            self.outcomes.push(Outcome::Redirected(gateway));
        }
    }

    /// When [`LiveSa::leave`] has something to do.
    pub(super) fn leaving_timeout(&self) -> Option<Time> {
        let successor = match self.trial {
            Some(TrialSa::Successor(at)) => Some(at),
            _ => None,
        };
        let leaves = self.leaves.filter(|_| self.is_open()).map(|(at, _)| at);
        [leaves, successor].into_iter().flatten().min()
    }

    /// It has to make room; or it has taken another one's place for long enough to carry its traffic.
    pub(super) fn leave(&mut self, core: &mut Core, now: Time) {
        if let Some((_, reason)) = self.leaves.take_if(|(at, _)| *at <= now) {
            match self.is_initiator {
                true => self.outcomes.push(Outcome::Leaves(reason)),
                false => self.close(now, reason),
            }
        }
        if matches!(self.trial, Some(TrialSa::Successor(at)) if at <= now) {
            self.take_over(core, now);
        }
    }

    /// The traffic of the IKE SA whose place it takes comes here.
    pub(crate) fn take_over(&mut self, core: &mut Core, now: Time) {
        self.trial = None;
        self.use_all(core, now);
        self.carrier.moved_to_trial(now, &mut core.rng);
        self.carry_out(core, now);
    }
}
