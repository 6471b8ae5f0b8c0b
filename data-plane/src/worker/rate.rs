//! A token bucket on the workers' clock.

use std::time::Duration;

/// Lets `burst` through at once and `per_second` on average.
#[derive(Debug)]
pub struct TokenBucket {
    tokens: u32,
    burst: u32,
    interval: Duration,
    refilled: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { tokens: burst, burst, interval, refilled: Duration::ZERO }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.refilled).as_nanos() / self.interval.as_nanos().max(1);
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(self.burst);
            self.refilled = now;
        }
        let available = self.tokens > 0;
        self.tokens -= u32::from(available);
        available
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = TokenBucket::new(100, 10);
        let at = Duration::from_millis;
        assert_eq!((0..20).filter(|_| bucket.take(at(0))).count(), 10);
        assert!(!bucket.take(at(9)));
        assert!(bucket.take(at(10)) && !bucket.take(at(10)));
        assert_eq!((0..50).filter(|_| bucket.take(at(100_000))).count(), 10);
    }
}
