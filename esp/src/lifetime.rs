//! Lifetimes of an SA by octets, packets and time, soft and hard (RFC 4301 section 4.4.2.1).

/// One set of limits; `u64::MAX` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Octets of payload data.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// The instant on the caller's monotonic clock, in nanoseconds.
    pub until_ns: u64,
}

impl Limits {
    /// No limit at all.
    pub const NONE: Self = Self { bytes: u64::MAX, packets: u64::MAX, until_ns: u64::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// The limits of an SA.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lifetime {
    /// Reaching one of them asks for a rekey.
    pub soft: Limits,
    /// The SA passes exactly that much and nothing more.
    pub hard: Limits,
}

/// A limit that a packet reached. Each is reported once in the life of an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LifetimeEvent {
    /// A soft limit: time to rekey.
    Soft,
    /// A hard limit: the SA passes nothing more.
    Hard,
}

/// Where an SA stands in its lifetime; the owner's alone.
#[derive(Debug)]
pub(crate) struct LifetimeState {
    limits: Lifetime,
    soft_reported: bool,
    hard_reported: bool,
}

/// A hard limit keeps a packet from passing; `first` as in [`crate::SealError::LifetimeExpired`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expired {
    pub(crate) first: bool,
}

impl LifetimeState {
    pub(crate) fn new(limits: Lifetime) -> Self {
        Self { limits, soft_reported: false, hard_reported: false }
    }

    /// The hard limits.
    pub(crate) fn hard(&self) -> Limits {
        self.limits.hard
    }

    /// Whether one more packet of `len` octets may pass after `packets` packets and `bytes` octets.
    #[inline]
    pub(crate) fn admit(&mut self, packets: u64, bytes: u64, len: u64, now_ns: u64) -> Result<(), Expired> {
        let hard = &self.limits.hard;
        let within = packets < hard.packets
            && bytes.checked_add(len).is_some_and(|after| after <= hard.bytes)
            && now_ns < hard.until_ns;
        if within && !self.hard_reported { Ok(()) } else { Err(self.expire()) }
    }

    /// What a packet that passed reached, with the totals that include it.
    #[inline]
    pub(crate) fn reached(&mut self, packets: u64, bytes: u64, now_ns: u64) -> Option<LifetimeEvent> {
        let Lifetime { soft, hard } = &self.limits;
        if packets >= hard.packets || bytes >= hard.bytes {
            self.hard_reported = true;
            self.soft_reported = true;
            return Some(LifetimeEvent::Hard);
        }
        let soft_reached = packets >= soft.packets || bytes >= soft.bytes || now_ns >= soft.until_ns;
        if !soft_reached || self.soft_reported {
            return None;
        }
        self.soft_reported = true;
        Some(LifetimeEvent::Soft)
    }

    /// Ends the SA; nothing is admitted from now on.
    #[cold]
    pub(crate) fn expire(&mut self) -> Expired {
        let first = !self.hard_reported;
        self.hard_reported = true;
        self.soft_reported = true;
        Expired { first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_hard_number_of_packets_passes_and_each_event_comes_once() {
        let mut state = LifetimeState::new(Lifetime {
            soft: Limits { packets: 3, ..Limits::NONE },
            hard: Limits { packets: 5, ..Limits::NONE },
        });
        let mut events = Vec::new();
        for packets in 0..5 {
            assert_eq!(state.admit(packets, 0, 100, 0), Ok(()));
            events.push(state.reached(packets + 1, 0, 0));
        }
        assert_eq!(events, [None, None, Some(LifetimeEvent::Soft), None, Some(LifetimeEvent::Hard)]);
        assert_eq!(state.admit(5, 0, 1, 0), Err(Expired { first: false }));
    }

    #[test]
    fn a_packet_that_would_pass_the_hard_limit_of_octets_ends_the_sa() {
        let limits = Lifetime { soft: Limits::NONE, hard: Limits { bytes: 1000, ..Limits::NONE } };
        let mut state = LifetimeState::new(limits);
        assert_eq!(state.admit(1, 900, 101, 0), Err(Expired { first: true }));
        assert_eq!(state.admit(1, 900, 100, 0), Err(Expired { first: false }));
        let mut state = LifetimeState::new(limits);
        assert_eq!(state.admit(1, 900, 100, 0), Ok(()));
        assert_eq!(state.reached(2, 1000, 0), Some(LifetimeEvent::Hard));
    }

    #[test]
    fn time_ends_the_sa_at_the_instant() {
        let mut state = LifetimeState::new(Lifetime {
            soft: Limits { until_ns: 50, ..Limits::NONE },
            hard: Limits { until_ns: 100, ..Limits::NONE },
        });
        assert_eq!(state.reached(1, 1, 49), None);
        assert_eq!(state.reached(2, 1, 50), Some(LifetimeEvent::Soft));
        assert_eq!(state.reached(3, 1, 51), None);
        assert_eq!(state.admit(3, 1, 1, 99), Ok(()));
        assert_eq!(state.admit(3, 1, 1, 100), Err(Expired { first: true }));
        assert_eq!(state.admit(3, 1, 1, 99), Err(Expired { first: false }));
    }

    #[test]
    fn counters_at_their_end_refuse_instead_of_wrapping() {
        let mut state = LifetimeState::new(Lifetime::default());
        assert_eq!(state.admit(0, u64::MAX, 1, 0), Err(Expired { first: true }));
    }
}
