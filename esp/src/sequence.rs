//! The high-order bits of extended sequence numbers (RFC 4303 appendix A).

/// The 64-bit sequence number that a packet with the low half `low` must have: the only one that lies within
/// 2^32 numbers from the bottom of a window of `window` numbers whose top is `highest`. `None` if that would
/// be below zero or above 2^64.
///
/// This is RFC 4303 appendix A2.2, both of its cases in one: the sequence number subspace follows from the
/// distance between `low` and the bottom of the window.
#[inline]
pub(crate) fn infer(low: u32, highest: u64, window: u64) -> Option<u64> {
    let reach = window.wrapping_sub(1);
    let bottom = highest.wrapping_sub(reach);
    let above_bottom = u64::from(low.wrapping_sub(bottom as u32));
    if highest >= reach {
        bottom.checked_add(above_bottom)
    } else {
        (above_bottom >= reach.wrapping_sub(highest)).then(|| bottom.wrapping_add(above_bottom))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = 4096;

    #[test]
    fn numbers_at_the_edges_of_the_window_and_of_the_subspace() {
        let top = (1 << 32) + 10;
        assert_eq!(infer(11, top, WINDOW), Some((1 << 32) + 11));
        assert_eq!(infer(u32::MAX, top, WINDOW), Some(u64::from(u32::MAX)));
        assert_eq!(infer((top - 4095) as u32, top, WINDOW), Some(top - 4095));
        assert_eq!(infer((top - 4096) as u32, top, WINDOW), Some(top - 4096 + (1 << 32)));
        assert_eq!(infer(0, u64::from(u32::MAX), WINDOW), Some(1 << 32));
    }

    #[test]
    fn nothing_lies_below_zero_or_above_the_last_number() {
        assert_eq!(infer(u32::MAX, 0, WINDOW), None);
        assert_eq!(infer(u32::MAX - 4094, 0, WINDOW), None);
        assert_eq!(infer(u32::MAX - 4095, 0, WINDOW), Some(u64::from(u32::MAX) - 4095));
        assert_eq!(infer(0, 0, WINDOW), Some(0));
        assert_eq!(infer(5, u64::MAX, WINDOW), None);
        assert_eq!(infer(u32::MAX, u64::MAX, WINDOW), Some(u64::MAX));
    }

    proptest! {
        /// RFC 4303 appendix A2.2, transcribed case by case.
        #[test]
        fn agrees_with_the_two_cases_of_the_rfc(
            low: u32,
            th in 0u32..4,
            tl in prop_oneof![any::<u32>(), 0u32..8192, (u32::MAX - 8192)..=u32::MAX],
            window in prop_oneof![Just(64u32), Just(4096), Just(65536), Just(1 << 31)],
        ) {
            let bottom = tl.wrapping_sub(window).wrapping_add(1);
            let seqh = if tl >= window - 1 {
                if low >= bottom { Some(th) } else { th.checked_add(1) }
            } else if low >= bottom {
                th.checked_sub(1)
            } else {
                Some(th)
            };
            let expected = seqh.map(|h| u64::from(h) << 32 | u64::from(low));
            let highest = u64::from(th) << 32 | u64::from(tl);
            prop_assert_eq!(infer(low, highest, u64::from(window)), expected);
        }
    }
}
