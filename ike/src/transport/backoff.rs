//! Waiting longer after each failure, with jitter from the caller's generator.

use core::time::Duration;

use rand_core::Rng;

/// Doubling waits between a shortest and a longest one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of `min`, 2 × `min`, 4 × `min` and so on up to `max`.
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// The wait after one more failure: up to a quarter longer than the plain figure, so that peers that failed together
    /// do not return together.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let plain = self.min.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        plain + jitter(plain / 4, rng)
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A duration from zero up to `most`, even over milliseconds.
pub(crate) fn jitter(most: Duration, rng: &mut impl Rng) -> Duration {
    let span = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_millis(rng.next_u64() % span)
}

/// `wanted` less up to `percent` of it, so that SAs made together are not rekeyed together.
pub(crate) fn earlier(wanted: Duration, percent: u8, rng: &mut impl Rng) -> Duration {
    wanted.saturating_sub(jitter(wanted.saturating_mul(u32::from(percent.min(100))) / 100, rng))
}

/// Up to `percent` of something, in parts of 65536.
pub(crate) fn share(percent: u8, rng: &mut impl Rng) -> u16 {
    let most = u64::from(percent.min(100)) * 0xffff / 100;
    u16::try_from(rng.next_u64() % (most + 1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let mut rng = crate::crypto::Rng::from_seed([0; 32]);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for plain in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = backoff.next(&mut rng);
            assert!(
                wait >= Duration::from_secs(plain) && wait <= Duration::from_millis(1250 * plain),
                "{wait:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) < Duration::from_secs(2));
    }

    #[test]
    fn rekey_times_only_come_earlier() {
        let mut rng = crate::crypto::Rng::from_seed([0; 32]);
        for _ in 0..100 {
            let time = earlier(Duration::from_secs(100), 10, &mut rng);
            assert!(time <= Duration::from_secs(100) && time >= Duration::from_secs(90), "{time:?}");
        }
        assert_eq!(earlier(Duration::from_secs(100), 0, &mut rng), Duration::from_secs(100));
    }
}
