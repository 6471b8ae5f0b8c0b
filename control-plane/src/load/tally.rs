//! What came of the tunnels: counts, latencies, and how they are printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Columns of the longest bar.
const BAR: usize = 40;

/// So far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Tunnels that have started.
    pub started: usize,
    /// Times from the start of a tunnel to its Child SA, in order of arrival.
    pub up: Vec<Duration>,
    /// Tunnels that came to nothing, by cause.
    pub failed: BTreeMap<String, usize>,
    /// Requests that were sent again over UDP.
    pub retransmissions: u64,
    /// From the first start to the last outcome.
    pub took: Duration,
}

impl Tally {
    /// Tunnels without an outcome.
    pub fn in_flight(&self) -> usize {
        self.started - self.settled()
    }

    /// Tunnels with an outcome.
    pub fn settled(&self) -> usize {
        self.up.len() + self.failures()
    }

    /// Tunnels that came to nothing.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// Tunnels that came up in a second.
    pub fn per_second(&self) -> f64 {
        self.up.len() as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency that this share of the tunnels did not exceed; `None` without any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.up.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1).min(sorted.len().checked_sub(1)?)).copied()
    }

    /// One line while it goes on.
    pub fn progress(&self) -> String {
        format!(
            "{:6.1} s  {:7} up  {:5} in flight  {:5} failed  {:7.0}/s",
            self.took.as_secs_f64(),
            self.up.len(),
            self.in_flight(),
            self.failures(),
            self.per_second()
        )
    }

    /// As one JSON object; times are in seconds.
    pub fn to_json(&self) -> serde_json::Value {
        let seconds = |share| self.quantile(share).map(|latency| latency.as_secs_f64());
        serde_json::json!({
            "started": self.started,
            "up": self.up.len(),
            "failed": self.failed,
            "retransmissions": self.retransmissions,
            "took": self.took.as_secs_f64(),
            "per_second": self.per_second(),
            "latency": { "p50": seconds(0.5), "p90": seconds(0.9), "p99": seconds(0.99), "max": seconds(1.0) },
        })
    }

    /// How many latencies lie below each power of two of a millisecond, and above the one before.
    fn histogram(&self) -> BTreeMap<u32, usize> {
        let mut buckets = BTreeMap::new();
        for latency in &self.up {
            let millis = u32::try_from(latency.as_millis()).unwrap_or(u32::MAX);
            *buckets.entry(u32::BITS - millis.leading_zeros()).or_default() += 1;
        }
        buckets
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} of {} tunnels up in {:.2} s: {:.0} in a second, {} requests sent again",
            self.up.len(),
            self.started,
            self.took.as_secs_f64(),
            self.per_second(),
            self.retransmissions
        )?;
        for (cause, count) in &self.failed {
            writeln!(f, "  failed {count}: {cause}")?;
        }
        let quantiles = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max")];
        let shown = quantiles.into_iter().filter_map(|(share, name)| Some((name, self.quantile(share)?)));
        for (name, latency) in shown {
            write!(f, "  {name} {:.1} ms", latency.as_secs_f64() * 1e3)?;
        }
        writeln!(f)?;
        let histogram = self.histogram();
        let most = histogram.values().max().copied().unwrap_or_default().max(1);
        for (bucket, count) in histogram {
            let below = 1_u64 << bucket;
            writeln!(f, "  below {below:6} ms {count:8} {}", "#".repeat((count * BAR).div_ceil(most)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_were_measured() {
        let up = (1..=100).rev().map(Duration::from_millis).collect();
        let tally = Tally { started: 101, up, failed: [("no".to_owned(), 1)].into(), ..Tally::default() };
        let millis = [0.5, 0.9, 0.99, 1.0].map(|share| tally.quantile(share).unwrap().as_millis());
        assert_eq!(millis, [50, 90, 99, 100]);
        assert_eq!((tally.in_flight(), tally.settled()), (0, 101));
        assert_eq!(Tally::default().quantile(0.5), None);
    }

    #[test]
    fn the_histogram_counts_each_latency_once() {
        let up = [0, 1, 2, 3, 4, 700].map(Duration::from_millis).to_vec();
        let tally = Tally { started: 6, up, took: Duration::from_secs(2), ..Tally::default() };
        assert_eq!(tally.histogram(), [(0, 1), (1, 1), (2, 2), (3, 1), (10, 1)].into());
        let text = tally.to_string();
        assert!(text.starts_with("6 of 6 tunnels up in 2.00 s: 3 in a second"), "{text}");
        assert!(text.contains("below   1024 ms        1 ####"), "{text}");
    }
}
