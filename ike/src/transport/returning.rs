//! When ESP in TCP tries to come back to a direct carrier (transport policy rule 8): 30 s after the fall, doubling to 15 min;
//! after a relapse within 10 min of a return the first try waits out a hold-down of 1 min, doubling to 1 h.

use core::time::Duration;

use rand_core::Rng;

use super::backoff::jitter;
use crate::config::FallbackTimers;
use crate::time::Time;

/// Tries come up to this much earlier or later.
const JITTER_PERCENT: u32 = 20;

/// What has to outlive a fall: its tries, and the returns before it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Returns {
    next: Option<Time>,
    tries: u32,
    relapses: u32,
    returned_at: Option<Time>,
}

impl Returns {
    /// ESP has moved into TCP.
    pub(crate) fn fell(&mut self, timers: &FallbackTimers, now: Time, rng: &mut impl Rng) {
        let is_relapse = self.returned_at.is_some_and(|at| now < at + timers.relapse_within);
        self.relapses = if is_relapse { self.relapses.saturating_add(1) } else { 0 };
        let wait = match self.relapses {
            0 => timers.trial_first,
            n => doubled(timers.hold_down, n - 1, timers.hold_down_longest),
        };
        self.tries = 0;
        self.next = Some(now + jittered(wait, rng));
    }

    /// A try has failed.
    pub(crate) fn failed(&mut self, timers: &FallbackTimers, now: Time, rng: &mut impl Rng) {
        self.tries = self.tries.saturating_add(1);
        self.next = Some(now + jittered(doubled(timers.trial_first, self.tries, timers.trial_longest), rng));
    }

    /// ESP is back on a direct carrier.
    pub(crate) fn returned(&mut self, now: Time) {
        self.returned_at = Some(now);
        (self.next, self.tries) = (None, 0);
    }

    /// A try begins.
    pub(crate) fn tried(&mut self) {
        self.next = None;
    }

    /// ESP has come back within this time.
    pub(crate) fn has_just_returned(&self, now: Time, within: Duration) -> bool {
        self.returned_at.is_some_and(|at| now < at + within)
    }

    /// The last try has failed, and none has succeeded since.
    pub(crate) fn has_failed(&self) -> bool {
        self.tries > 0
    }

    /// The next try is due at that time, whatever the schedule says.
    pub(crate) fn try_at(&mut self, at: Time) {
        self.next = Some(at);
    }

    /// When the next try is due.
    pub(crate) fn next_try(&self) -> Option<Time> {
        self.next
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(most)
}

fn jittered(wait: Duration, rng: &mut impl Rng) -> Duration {
    let share = wait * JITTER_PERCENT / 100;
    wait - share + jitter(share * 2, rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng as _;

    /// Rule 8: trials at 30 s, doubling to 15 min, jitter 20 %.
    #[test]
    fn tries_double_from_30_s_to_15_min() {
        let mut rng = crate::crypto::Rng::from_seed([1; 32]);
        let mut returns = Returns::default();
        returns.fell(&FallbackTimers::DEFAULT, Time::ZERO, &mut rng);
        let mut now = Time::ZERO;
        for plain in [30, 60, 120, 240, 480, 900, 900, 900] {
            let next = returns.next_try().unwrap();
            within(next.since(now), plain);
            now = next;
            returns.tried();
            assert_eq!(returns.next_try(), None);
            returns.failed(&FallbackTimers::DEFAULT, now, &mut rng);
        }
    }

    /// Rule 8: after a relapse within 10 min the first waits the hold-down, 1 min doubling to 1 h.
    #[test]
    fn a_relapse_waits_out_a_hold_down_that_doubles() {
        let mut rng = crate::crypto::Rng::from_seed([1; 32]);
        let mut returns = Returns::default();
        let mut now = Time::ZERO;
        returns.fell(&FallbackTimers::DEFAULT, now, &mut rng);
        for plain in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            returns.returned(now);
            assert_eq!(returns.next_try(), None);
            now = now + (FallbackTimers::DEFAULT.relapse_within - Duration::from_secs(1));
            returns.fell(&FallbackTimers::DEFAULT, now, &mut rng);
            within(returns.next_try().unwrap().since(now), plain);
        }
        returns.returned(now);
        now = now + FallbackTimers::DEFAULT.relapse_within;
        returns.fell(&FallbackTimers::DEFAULT, now, &mut rng);
        within(returns.next_try().unwrap().since(now), 30);
    }

    fn within(wait: Duration, plain: u64) {
        let plain = Duration::from_secs(plain);
        assert!(wait >= plain * 4 / 5 && wait <= plain * 6 / 5, "{wait:?} for {plain:?}");
    }
}
