//! What an endpoint keeps for its peers, by number: the way to see that nothing is left behind.

use super::{Endpoint, Timer};

/// Numbers of things that an endpoint keeps. All are zero when no IKE SA is there or under way and the deadlines of strangers
/// have passed; what the configuration asks for is not counted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// IKE SAs that are being set up, initiator and responder.
    pub half_open: usize,
    /// Initiators' SPIs and addresses, by which a repeated IKE_SA_INIT is known.
    pub initiators: usize,
    /// Requests whose several responses are followed (RFC 7296 section 2.4).
    pub races: usize,
    /// IKE SAs.
    pub live: usize,
    /// IKE SPIs of ours.
    pub ike_spis: usize,
    /// Pairs of Child SAs, lingering ones included.
    pub children: usize,
    /// TCP connections.
    pub streams: usize,
    /// Places of the quotas: half-open SAs and streams of strangers.
    pub places: usize,
    /// Octets that half-open SAs of strangers make us keep.
    pub stranger_bytes: usize,
    /// Half-open SAs that got a message which does not authenticate.
    pub attacked: usize,
    /// Timers of IKE SAs and of strangers' streams.
    pub timers: usize,
    /// Actions that were not polled.
    pub actions: usize,
}

impl Endpoint {
    /// What it keeps now. Takes time in proportion to it.
    pub fn held(&self) -> Held {
        let is_held = |timer: &&Timer| !matches!(timer, Timer::Connection(_));
        Held {
            half_open: self.half_open.len(),
            initiators: self.by_initiator.len(),
            races: self.races.len(),
            live: self.live.len(),
            ike_spis: self.core.spis.len(),
            children: self.core.children.len(),
            streams: self.core.streams.len(),
            places: self.half_open_quota.held() + self.core.streams.strangers(),
            stranger_bytes: self.stranger_bytes,
            attacked: self.attacked,
            timers: self.due.keys().filter(is_held).count(),
            actions: self.core.actions.len(),
        }
    }
}
