//! One rate limit for all re-establishments of an endpoint, so that an outage shared by many connections ends without a storm
//! (rule 5).

use core::time::Duration;

use crate::time::Time;

/// Gives out turns, evenly spaced.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    next: Time,
}

impl Pace {
    /// At most this many turns in a second; 0 is taken as 1.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), next: Time::ZERO }
    }

    /// The next free turn at or after `earliest`. It is taken.
    pub(crate) fn turn(&mut self, earliest: Time) -> Time {
        let turn = earliest.max(self.next);
        self.next = turn + self.interval;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_are_spread_and_one_alone_does_not_wait() {
        let mut pace = Pace::new(50);
        let now = Time::ZERO + Duration::from_secs(10);
        let turns: Vec<_> = (0..200).map(|_| pace.turn(now)).collect();
        assert_eq!(turns[0], now);
        assert!(turns.windows(50).all(|turns| turns[49].since(turns[0]) >= Duration::from_millis(980)));
        assert_eq!(turns[199], now + Duration::from_millis(199 * 20));
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.turn(later), later);
    }
}
