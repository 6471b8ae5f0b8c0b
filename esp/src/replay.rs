//! The replay window: a ring of bits indexed by sequence number, nothing ever shifted (RFC 6479).
//!
//! Unlike RFC 6479, which clears whole words ahead and so gives up one of them, the bits between the old and
//! the new top are cleared exactly. W bits are a window of W packets.

use core::fmt;
use std::sync::atomic::AtomicU64;

use crate::live::{read, write};

/// Size of a replay window in packets: a power of two from 64 to 65536.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WindowSize(u32);

/// A window size outside 64 to 65536, or memory of another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidWindow;

impl WindowSize {
    /// Smallest window; RFC 4303 section 3.4.3 asks for 32 and prefers 64.
    pub const MIN: Self = Self(64);
    /// Largest window.
    pub const MAX: Self = Self(65536);
    /// The window unless configured otherwise: 512 octets for each inbound SA.
    pub const DEFAULT: Self = Self(4096);

    /// The smallest window that holds `packets`.
    ///
    /// # Errors
    /// [`InvalidWindow`] unless `packets` is from 64 to 65536.
    pub fn new(packets: u32) -> Result<Self, InvalidWindow> {
        if (Self::MIN.0..=Self::MAX.0).contains(&packets) {
            Ok(Self(packets.next_power_of_two()))
        } else {
            Err(InvalidWindow)
        }
    }

    /// The size in packets.
    pub fn packets(self) -> u32 {
        self.0
    }

    /// Words of 64 bits that the window needs.
    pub fn words(self) -> usize {
        self.0 as usize / 64
    }
}

impl Default for WindowSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for InvalidWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a replay window has 64 to 65536 packets")
    }
}

impl core::error::Error for InvalidWindow {}

/// The window below the top `highest`, over the caller's bits.
#[derive(Clone, Copy)]
pub(crate) struct ReplayWindow<'a> {
    bits: &'a [AtomicU64],
    highest: u64,
}

impl<'a> ReplayWindow<'a> {
    /// `bits` must be a power of two of words.
    #[inline]
    pub(crate) fn new(bits: &'a [AtomicU64], highest: u64) -> Self {
        Self { bits, highest }
    }

    /// Whether a packet with this number may still be new. Number 0 is never sent (RFC 4303 section 3.3.3).
    #[inline]
    pub(crate) fn admits(&self, sequence: u64) -> bool {
        if sequence > self.highest {
            return true;
        }
        let size = self.bits.len() as u64 * 64;
        sequence != 0
            && self.highest.wrapping_sub(sequence) < size
            && self.word(sequence >> 6).is_some_and(|word| read(word) & bit(sequence) == 0)
    }

    /// Marks an admitted number as seen. If it is above the top, the caller makes it the top afterwards.
    #[inline]
    pub(crate) fn mark(&self, sequence: u64) {
        if sequence > self.highest {
            self.clear_up_to(sequence);
        }
        if let Some(word) = self.word(sequence >> 6) {
            write(word, read(word) | bit(sequence));
        }
    }

    #[inline]
    fn clear_up_to(&self, sequence: u64) {
        if sequence - self.highest >= self.bits.len() as u64 * 64 {
            self.bits.iter().for_each(|word| write(word, 0));
            return;
        }
        let first = self.highest + 1;
        for index in first >> 6..=sequence >> 6 {
            let from = if index == first >> 6 { u64::MAX << (first & 63) } else { u64::MAX };
            let to = if index == sequence >> 6 { u64::MAX >> (63 - (sequence & 63)) } else { u64::MAX };
            if let Some(word) = self.word(index) {
                write(word, read(word) & !(from & to));
            }
        }
    }

    #[inline]
    fn word(&self, index: u64) -> Option<&AtomicU64> {
        self.bits.get(index as usize & self.bits.len().wrapping_sub(1))
    }
}

#[inline]
fn bit(sequence: u64) -> u64 {
    1 << (sequence & 63)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_rounded_up_and_bounded() {
        assert_eq!(WindowSize::new(63), Err(InvalidWindow));
        assert_eq!(WindowSize::new(65537), Err(InvalidWindow));
        assert_eq!(WindowSize::new(64), Ok(WindowSize::MIN));
        assert_eq!(WindowSize::new(65), Ok(WindowSize(128)));
        assert_eq!(WindowSize::new(65536), Ok(WindowSize::MAX));
        assert_eq!(WindowSize::DEFAULT.words() * 8, 512);
    }

    /// RFC 4303 section 3.4.3: reject what is below the window or was received before, take the rest.
    #[test]
    fn every_order_of_six_numbers_around_the_window_agrees_with_a_plain_set() {
        // Numbers that are neighbours, a word apart, at the bottom of a window of 64, and beyond it.
        const NUMBERS: [u64; 6] = [1, 2, 64, 65, 66, 130];
        let sequences = NUMBERS.len().pow(6);
        for code in 0..sequences {
            let order = (0..6).map(|i| NUMBERS[code / NUMBERS.len().pow(i) % NUMBERS.len()]);
            assert_agrees(1, 0, order);
        }
    }

    proptest! {
        #[test]
        fn random_walks_agree_with_a_plain_set(
            words_log2 in 0u32..7,
            start in prop_oneof![Just(0u64), Just((1 << 32) - 100), any::<u32>().prop_map(u64::from)],
            steps in prop::collection::vec(prop_oneof![
                8 => -200i64..200,
                2 => -5000i64..5000,
                1 => -70_000i64..70_000,
            ], 1..400),
        ) {
            let mut at = start as i64;
            let numbers: Vec<u64> = steps
                .into_iter()
                .map(|step| {
                    at = (at + step).max(0);
                    at as u64
                })
                .collect();
            assert_agrees(1 << words_log2, start, numbers.into_iter());
        }
    }

    #[test]
    fn the_window_works_up_to_the_last_number() {
        assert_agrees(1, u64::MAX - 3, [u64::MAX, u64::MAX - 63, u64::MAX - 64, u64::MAX].into_iter());
    }

    /// Feeds both the ring and a model that remembers every number.
    fn assert_agrees(words: usize, start: u64, numbers: impl Iterator<Item = u64>) {
        let bits: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        let (mut highest, mut seen) = (start, BTreeSet::new());
        for number in numbers {
            let in_window = number > highest || highest - number < words as u64 * 64;
            let expected = number != 0 && in_window && !seen.contains(&number);
            let window = ReplayWindow::new(&bits, highest);
            assert_eq!(window.admits(number), expected, "{number} below {highest}, {words} words");
            if expected {
                window.mark(number);
                seen.insert(number);
                highest = highest.max(number);
            }
        }
    }
}
