//! How many openings pass from one source prefix: token buckets in an array, chosen by a keyed hash of the prefix.
//!
//! A bucket is one word, the time at which it would be full again if nothing more came; nothing is divided, nothing locked.
//! Two processors that take from one bucket in the same moment may both have what was left for one, or one may forget what the
//! other took: a bucket passes too much then, never too little.

use crate::ip::Source;
use crate::opening::{IkePorts, Opening};

/// Buckets for each kind of opening.
pub const BUCKETS: u32 = 4096;
/// Longest prefix of IPv6 addresses that has a bucket of its own.
pub const LONGEST_IPV6_PREFIX: u8 = 64;

const NANOSECONDS: u64 = 1_000_000_000;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds for each packet. 0: no limit.
    interval_ns: u64,
    /// What all packets but one that the bucket holds are worth.
    depth_ns: u64,
}

impl Rate {
    /// Everything passes.
    pub const NONE: Self = Self { interval_ns: 0, depth_ns: 0 };

    /// So many packets a second in the long run (0: no limit), and this many at once, at least one.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        if per_second == 0 {
            return Self::NONE;
        }
        Self::every(NANOSECONDS / per_second as u64, burst)
    }

    /// One packet in so many nanoseconds in the long run, and this many at once, at least one.
    pub const fn every(interval_ns: u64, burst: u32) -> Self {
        Self { interval_ns, depth_ns: interval_ns.saturating_mul(burst.saturating_sub(1) as u64) }
    }
}

/// The bucket after one packet, or `None` if that is too many. `level_ns` and `now_ns` are nanoseconds of one monotonic clock.
#[inline(always)]
pub const fn take(level_ns: u64, now_ns: u64, rate: Rate) -> Option<u64> {
    let level_ns = if level_ns > now_ns { level_ns } else { now_ns };
    if level_ns - now_ns > rate.depth_ns { None } else { Some(level_ns.wrapping_add(rate.interval_ns)) }
}

/// The buckets of the prefixes that the hash maps to one place, in half a cache line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Buckets {
    /// By [`Opening`], as [`take`] gives them. The XDP programs write them.
    pub levels_ns: [u64; 3],
    /// Addresses here that have no limit. User space writes it: when it is 0 nobody has to be looked up.
    pub exempt: u64,
}

/// What the XDP programs know of limits; it does not change while they run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Limits {
    /// By [`Opening`].
    pub rates: [Rate; 3],
    /// Secret of the hash.
    pub key: [u64; 2],
    /// The bits of an IPv6 address's upper half that are its prefix.
    ipv6_mask: u64,
    /// The bits of an IPv4 address that are its prefix.
    ipv4_mask: u32,
    /// Where IKE listens.
    udp_port: u16,
    tcp_port: u16,
}

impl Limits {
    /// Everything passes.
    pub const NONE: Self = Self::new([Rate::NONE; 3], [0; 2], 32, LONGEST_IPV6_PREFIX, IkePorts::ASSIGNED);

    /// Limits by kind of opening for each source prefix of these lengths in bits: at most 32, and at most
    /// [`LONGEST_IPV6_PREFIX`].
    pub const fn new(
        rates: [Rate; 3],
        key: [u64; 2],
        ipv4_prefix: u8,
        ipv6_prefix: u8,
        ports: IkePorts,
    ) -> Self {
        let ipv4_mask = ones(ipv4_prefix as u32 + 32) as u32;
        let IkePorts { udp: udp_port, tcp: tcp_port } = ports;
        Self { rates, key, ipv6_mask: ones(ipv6_prefix as u32), ipv4_mask, udp_port, tcp_port }
    }

    /// Where IKE listens.
    #[inline(always)]
    pub const fn ports(&self) -> IkePorts {
        IkePorts { udp: self.udp_port, tcp: self.tcp_port }
    }

    /// How much of a kind passes.
    #[inline(always)]
    pub const fn rate(&self, opening: Opening) -> Rate {
        let [init, with_cookie, syn] = self.rates;
        match opening {
            Opening::Init => init,
            Opening::InitWithCookie => with_cookie,
            Opening::Syn => syn,
        }
    }

    /// Which buckets an address has; below [`BUCKETS`].
    #[inline(always)]
    pub const fn place(&self, source: &Source) -> u32 {
        // In network byte order on both sides, which costs nothing.
        let prefix = if source.is_v4() {
            source.lower & (self.ipv4_mask as u64).to_be()
        } else {
            source.upper & self.ipv6_mask.to_be()
        };
        hash(self.key, prefix) as u32 & (BUCKETS - 1)
    }
}

/// The upper `length` of 64 bits.
const fn ones(length: u32) -> u64 {
    match length {
        0 => 0,
        1..=63 => u64::MAX << (64 - length),
        _ => u64::MAX,
    }
}

/// SipHash-1-3 of one word without the block for the length, which is always the same: who does not know the key cannot find
/// prefixes that share a bucket with another.
#[inline(always)]
const fn hash(key: [u64; 2], word: u64) -> u64 {
    let [k0, k1] = key;
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573 ^ word,
    ];
    state = round(state);
    let [a, b, c, d] = state;
    state = round(round(round([a ^ word, b, c ^ 0xff, d])));
    let [a, b, c, d] = state;
    a ^ b ^ c ^ d
}

#[inline(always)]
const fn round([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
    let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
    let (a, c) = (a.rotate_left(32).wrapping_add(d), c.wrapping_add(b));
    let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_its_rate_in_the_long_run() {
        let rate = Rate::new(100, 5);
        let mut level = 0;
        let mut passes = |now_ns| match take(level, now_ns, rate) {
            Some(after) => {
                level = after;
                true
            }
            None => false,
        };
        let start = 77 * NANOSECONDS;
        assert_eq!((0..20).filter(|_| passes(start)).count(), 5);
        // Ten milliseconds for each.
        assert!(!passes(start + 9_999_999) && passes(start + 10_000_000) && !passes(start + 10_000_001));
        let in_ten_seconds = (1..=10_000u64).filter(|ms| passes(start + 10_000_000 + ms * 1_000_000)).count();
        assert_eq!(in_ten_seconds, 1000);
        // A clock that stands still for a while, as a coarse one does, costs nothing.
        let later = start + 20 * NANOSECONDS;
        assert_eq!((0..20).filter(|_| passes(later)).count(), 5, "never more than the burst");
    }

    #[test]
    fn no_limit_passes_everything() {
        let mut level = 0;
        for _ in 0..1000 {
            level = take(level, 5, Rate::new(0, 1)).unwrap();
        }
        assert_eq!(level, 5);
    }

    #[test]
    fn addresses_of_a_prefix_share_buckets_and_others_seldom_do() {
        let limits = Limits::new([Rate::NONE; 3], [3, 4], 24, 48, IkePorts::ASSIGNED);
        let v4 = |a: [u8; 4]| limits.place(&Source::v4(a));
        assert_eq!(v4([192, 0, 2, 1]), v4([192, 0, 2, 200]));
        let mut v6 = [0x20, 1, 0xd, 0xb8, 0, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        let first = limits.place(&Source::v6(v6));
        v6[6..].fill(9);
        assert_eq!(limits.place(&Source::v6(v6)), first);
        let mut used: Vec<_> = (0..BUCKETS).map(|n| v4((n << 8).to_be_bytes())).collect();
        used.sort_unstable();
        used.dedup();
        // Balls into bins: 63 % of them on average.
        assert!((2400..2800).contains(&used.len()), "{}", used.len());
    }

    #[test]
    fn the_secret_decides_who_shares_a_bucket() {
        let pairs = |key| {
            let limits = Limits::new([Rate::NONE; 3], key, 32, 64, IkePorts::ASSIGNED);
            let places: Vec<_> = (0..512u32).map(|n| limits.place(&Source::v4(n.to_be_bytes()))).collect();
            let all = (0..512).flat_map(|a| (a + 1..512).map(move |b| (a, b)));
            all.filter(|(a, b)| places[*a] == places[*b]).collect::<Vec<_>>()
        };
        let (one, other) = (pairs([1, 2]), pairs([2, 1]));
        assert!(!one.is_empty() && one.iter().all(|pair| !other.contains(pair)), "{one:?} {other:?}");
    }

    /// The maps and the settings have these sizes; a program of another version would not load with them.
    #[test]
    fn the_layouts_are_fixed() {
        assert_eq!((size_of::<Buckets>(), align_of::<Buckets>()), (32, 8));
        assert_eq!((size_of::<Source>(), align_of::<Source>()), (16, 8));
        assert_eq!((size_of::<Limits>(), align_of::<Limits>()), (80, 8));
        assert!(BUCKETS.is_power_of_two());
    }

    proptest! {
        #[test]
        fn every_address_has_a_place(v6 in any::<[u8; 16]>(), v4 in any::<[u8; 4]>(), key in any::<[u64; 2]>(), bits in 0u8..=64) {
            let limits = Limits::new([Rate::NONE; 3], key, bits.min(32), bits, IkePorts::ASSIGNED);
            prop_assert!(limits.place(&Source::v4(v4)) < BUCKETS);
            prop_assert!(limits.place(&Source::v6(v6)) < BUCKETS);
        }

        /// Whatever comes, a bucket never passes more than its burst and what its rate gives in the time.
        #[test]
        fn never_more_than_the_rate(gaps in proptest::collection::vec(0u64..40_000_000, 1..200), per_second in 1u32..2000, burst in 1u32..50) {
            let rate = Rate::new(per_second, burst);
            let (mut level, mut now, mut passed) = (0, NANOSECONDS, 0u64);
            for gap in &gaps {
                now += gap;
                if let Some(after) = take(level, now, rate) {
                    (level, passed) = (after, passed + 1);
                }
            }
            let elapsed: u64 = gaps.iter().sum();
            prop_assert!(passed <= u64::from(burst) + elapsed / (NANOSECONDS / u64::from(per_second)) + 1);
        }
    }
}
