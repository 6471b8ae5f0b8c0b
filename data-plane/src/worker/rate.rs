//! A token bucket on the workers' clock.

use std::time::Duration;

/// Lets `BURST` through at once and `PER_SECOND` on average. The rate is part of the type: every SA has two of them.
#[derive(Debug)]
pub struct TokenBucket<const PER_SECOND: u32, const BURST: u32> {
    tokens: u32,
    refilled: Duration,
}

impl<const PER_SECOND: u32, const BURST: u32> TokenBucket<PER_SECOND, BURST> {
    const INTERVAL: Duration = Duration::from_secs(1).checked_div(PER_SECOND).expect("a rate is not zero");

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.refilled).as_nanos() / Self::INTERVAL.as_nanos();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.refilled = now;
        }
        let available = self.tokens > 0;
        self.tokens -= u32::from(available);
        available
    }
}

/// Full.
impl<const PER_SECOND: u32, const BURST: u32> Default for TokenBucket<PER_SECOND, BURST> {
    fn default() -> Self {
        Self { tokens: BURST, refilled: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = TokenBucket::<100, 10>::default();
        let at = Duration::from_millis;
        assert_eq!((0..20).filter(|_| bucket.take(at(0))).count(), 10);
        assert!(!bucket.take(at(9)));
        assert!(bucket.take(at(10)) && !bucket.take(at(10)));
        assert_eq!((0..50).filter(|_| bucket.take(at(100_000))).count(), 10);
    }
}
