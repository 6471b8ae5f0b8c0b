//! The `keys` array: wrapped key material, one cache line for each slot of either direction.
//!
//! Support tools dump every BPF map. What they find here is, for each slot, the number of its wrapping, 40
//! octets of ciphertext (KEYMAT, algorithm, zeros) and an ICV that ties it to direction, slot and SPI.

use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_common::Spi;
use portcullis_common::maps::KEY_RECORD_LEN;
use portcullis_esp::{Algorithm, KeyMaterial};
use zeroize::Zeroizing;

use super::key_wrap::{ICV_LEN, KeyWrap};
use super::memory::SharedArray;

/// Words of one slot: number, text, ICV.
pub(super) const WORDS: usize = KEY_RECORD_LEN / 8;
const TEXT_LEN: usize = 40;
const ALGORITHM_AT: usize = Algorithm::MAX_KEYMAT_LEN;

/// Which half of the array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Direction {
    Inbound = 0,
    Outbound = 1,
}

/// The array with its secret.
pub(super) struct Keys {
    words: SharedArray<AtomicU64>,
    slots: usize,
    wrap: KeyWrap,
}

impl Keys {
    /// Wipes every slot of `words`: what an earlier process left is under a secret that is gone.
    pub(super) fn new(words: SharedArray<AtomicU64>, wrap: KeyWrap) -> Self {
        for word in words.iter().filter(|word| word.load(Ordering::Relaxed) != 0) {
            word.store(0, Ordering::Relaxed);
        }
        let slots = words.len() / WORDS / 2;
        Self { words, slots, wrap }
    }

    /// Wraps key material into its slot; false if it does not have the length of the algorithm.
    #[must_use]
    pub(super) fn write(&self, direction: Direction, spi: Spi, algorithm: Algorithm, keymat: &[u8]) -> bool {
        if keymat.len() != algorithm.keymat_len() {
            return false;
        }
        let mut text = Zeroizing::new([0; TEXT_LEN]);
        text[..keymat.len()].copy_from_slice(keymat);
        text[ALGORITHM_AT] = algorithm as u8;
        let Some((number, icv)) = self.wrap.wrap(&context(direction, spi), &mut *text) else { return false };

        let bytes = text.iter().chain(&icv).copied().collect::<Vec<u8>>();
        let words = bytes.chunks_exact(8).map(|chunk| chunk.iter().rfold(0, |w, b| w << 8 | u64::from(*b)));
        for (word, value) in self.slot(direction, spi.index()).iter().zip([number].into_iter().chain(words)) {
            word.store(value, Ordering::Relaxed);
        }
        true
    }

    /// Unwraps a slot; `None` if it does not hold the key of this SPI.
    pub(super) fn read(&self, direction: Direction, spi: Spi) -> Option<KeyMaterial> {
        let (number, words) = self.slot(direction, spi.index()).split_first()?;
        let mut text = Zeroizing::new([0; TEXT_LEN + ICV_LEN]);
        for (chunk, word) in text.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let number = number.load(Ordering::Relaxed);
        if !self.wrap.unwrap(number, &context(direction, spi), &mut *text) {
            return None;
        }
        let algorithm = Algorithm::from_number(text[ALGORITHM_AT])?;
        KeyMaterial::from_keymat(algorithm, &text[..algorithm.keymat_len()]).ok()
    }

    /// Zeroes a slot.
    pub(super) fn wipe(&self, direction: Direction, slot: u32) {
        self.slot(direction, slot).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn slot(&self, direction: Direction, slot: u32) -> &[AtomicU64] {
        let start = (direction as usize * self.slots + slot as usize) * WORDS;
        self.words.get(start..start + WORDS).unwrap_or_default()
    }
}

/// What the ICV ties the text to.
fn context(direction: Direction, spi: Spi) -> [u8; 5] {
    let [a, b, c, d] = spi.to_be_bytes();
    [direction as u8, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use portcullis_esp::ExpandedKeymat;

    use super::*;

    const SPI: Spi = Spi(0x0070_0002);

    #[test]
    fn a_key_comes_back_only_for_its_direction_and_spi() {
        let keys = keys();
        for algorithm in Algorithm::ALL {
            let keymat: Vec<u8> = (100..100 + algorithm.keymat_len() as u8).collect();
            assert!(keys.write(Direction::Outbound, SPI, algorithm, &keymat));
            assert!(!keys.write(Direction::Outbound, SPI, algorithm, &keymat[1..]));
            let material = keys.read(Direction::Outbound, SPI).unwrap();
            assert_eq!(material.algorithm(), algorithm);
            assert!(ExpandedKeymat::new(&material).is_ok());
            assert!(keys.read(Direction::Inbound, SPI).is_none());
            assert!(keys.read(Direction::Outbound, Spi(0x0080_0002)).is_none());
        }
    }

    #[test]
    fn the_array_never_holds_a_key_and_nothing_at_all_after_a_wipe() {
        let keys = keys();
        let keymat: Vec<u8> = (1..=36).collect();
        assert!(keys.write(Direction::Inbound, SPI, Algorithm::Aes256Gcm16, &keymat));
        let dump = dump(&keys);
        assert!(dump.iter().filter(|byte| **byte != 0).count() > 40, "it was written");
        for part in keymat.windows(4) {
            assert!(!dump.windows(4).any(|window| window == part));
        }
        keys.wipe(Direction::Inbound, SPI.index());
        assert!(self::dump(&keys).iter().all(|byte| *byte == 0));
        assert!(keys.read(Direction::Inbound, SPI).is_none());
    }

    #[test]
    fn a_start_wipes_what_an_earlier_process_left() {
        let words = SharedArray::<AtomicU64>::anonymous(c"test", 4 * WORDS).unwrap();
        words.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let keys = Keys::new(words, KeyWrap::generate().unwrap());
        assert!(dump(&keys).iter().all(|byte| *byte == 0));
    }

    fn keys() -> Keys {
        Keys::new(SharedArray::anonymous(c"test", 8 * WORDS).unwrap(), KeyWrap::generate().unwrap())
    }

    fn dump(keys: &Keys) -> Vec<u8> {
        keys.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }
}
