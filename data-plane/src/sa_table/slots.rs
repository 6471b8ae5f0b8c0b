//! Slots of one direction: their steer words, the tags of their SPIs, and who may be reused when.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_common::steer::SlotState;
use portcullis_common::{Spi, SteerWord};

use super::epoch::Epochs;
use super::memory::SharedArray;

/// Every slot of the SA table is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the SA table is full ({slots} slots); raise sa_slots or close connections")]
pub struct TableFull {
    /// The capacity of the table.
    pub slots: u32,
}

/// The steer words as workers and XDP read them.
pub(super) type SteerWords = Arc<SharedArray<AtomicU64>>;

/// Allocation of the slots; the control plane's side, under its lock.
pub(super) struct Slots {
    words: SteerWords,
    tags: Tags,
    /// Slots from here on were never used.
    untouched: u32,
    free: VecDeque<u32>,
    /// Dead slots by their owner, in the order of their epochs: if one has to wait, so have those behind it.
    retired: BTreeMap<u8, VecDeque<Retired>>,
}

struct Retired {
    slot: u32,
    epoch: u64,
    /// Another worker that may have had the SA in its hands: it was on its way from one to the other.
    other: Option<u8>,
}

impl Slots {
    /// Every slot free. What `words` held before is wiped.
    pub(super) fn new(words: SteerWords) -> Self {
        for word in words.iter().filter(|word| word.load(Ordering::Relaxed) != SteerWord::FREE.0) {
            word.store(SteerWord::FREE.0, Ordering::Release);
        }
        let (free, retired) = (VecDeque::new(), BTreeMap::new());
        Self { words, tags: Tags(RandomState::new()), untouched: 0, free, retired }
    }

    /// Promises a slot; it names no SA until [`Self::publish`].
    pub(super) fn reserve(&mut self) -> Result<Spi, TableFull> {
        let slots = self.words.len() as u32;
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None if self.untouched < slots => {
                self.untouched += 1;
                self.untouched - 1
            }
            None => return Err(TableFull { slots }),
        };
        let (spi, generation) = self.tags.next_spi(slot, self.load(slot).generation());
        self.store(slot, SteerWord::new(spi, 0, SlotState::Reserved, generation));
        Ok(spi)
    }

    /// Gives back a slot that was only reserved; false if it is not.
    pub(super) fn release(&mut self, spi: Spi) -> bool {
        let is_reserved = self.state(spi) == Some(SlotState::Reserved);
        if is_reserved {
            self.free(spi.index());
        }
        is_reserved
    }

    /// State of the slot, if it is this SPI's.
    pub(super) fn state(&self, spi: Spi) -> Option<SlotState> {
        let word = lookup(&self.words, spi)?;
        (word.spi() == spi && word.state() != SlotState::Free).then(|| word.state())
    }

    /// Makes a reserved slot live: packets go to `owner` from now on.
    pub(super) fn publish(&self, spi: Spi, owner: u8) {
        let generation = self.load(spi.index()).generation();
        self.store(spi.index(), SteerWord::new(spi, owner, SlotState::Live, generation));
    }

    /// Names another owner of a live slot.
    pub(super) fn steer(&self, spi: Spi, owner: u8) {
        self.store(
            spi.index(),
            SteerWord::new(spi, owner, SlotState::Live, self.load(spi.index()).generation()),
        );
    }

    /// Makes a live slot dead and returns its owner; `None` if it is not live.
    pub(super) fn kill(&self, spi: Spi) -> Option<u8> {
        let word = lookup(&self.words, spi).filter(|word| word.is_live(spi))?;
        self.store(spi.index(), SteerWord::new(spi, word.worker(), SlotState::Dead, word.generation()));
        Some(word.worker())
    }

    /// Remembers that a dead slot may be freed once `epoch` has passed, for `owner` and for `other` who may have it as well.
    pub(super) fn retire(&mut self, spi: Spi, owner: u8, other: Option<u8>, epoch: u64) {
        self.retired.entry(owner).or_default().push_back(Retired { slot: spi.index(), epoch, other });
    }

    /// Frees every dead slot whose epoch has passed, each after `wipe` was called for it.
    pub(super) fn reclaim(&mut self, epochs: &Epochs, mut wipe: impl FnMut(u32)) {
        let mut retired = std::mem::take(&mut self.retired);
        for (owner, queue) in &mut retired {
            while let Some(first) = queue.front()
                && epochs.has_passed(first.epoch, *owner)
                && first.other.is_none_or(|other| epochs.has_passed(first.epoch, other))
            {
                wipe(first.slot);
                self.free(first.slot);
                queue.pop_front();
            }
        }
        self.retired = retired;
    }

    /// Slots that are reserved, live or dead.
    pub(super) fn used(&self) -> u32 {
        self.untouched - self.free.len() as u32
    }

    /// Dead slots that wait for an epoch.
    pub(super) fn waiting(&self) -> u32 {
        self.retired.values().map(VecDeque::len).sum::<usize>() as u32
    }

    fn free(&mut self, slot: u32) {
        let generation = self.load(slot).generation().wrapping_add(1);
        self.store(slot, SteerWord::new(Spi(0), 0, SlotState::Free, generation));
        self.free.push_back(slot);
    }

    fn load(&self, slot: u32) -> SteerWord {
        SteerWord(self.words[slot as usize].load(Ordering::Relaxed))
    }

    fn store(&self, slot: u32, word: SteerWord) {
        self.words[slot as usize].store(word.0, Ordering::Release);
    }
}

/// The steer word of the slot that an SPI names, whatever SA it holds.
pub(super) fn lookup(words: &SteerWords, spi: Spi) -> Option<SteerWord> {
    words.get(spi.index() as usize).map(|word| SteerWord(word.load(Ordering::Acquire)))
}

/// The tags above the slot indexes: for each slot its own sequence, unknown outside, all 4095 tags before any
/// comes again.
struct Tags(RandomState);

impl Tags {
    /// The SPI of the use of `slot` that is the first at or after `generation` with a tag other than 0, and
    /// its generation. Tag 0 is left out: it could make an SPI below 256 (RFC 4303 section 2.1).
    fn next_spi(&self, slot: u32, generation: u16) -> (Spi, u16) {
        let mixed = self.0.hash_one(slot);
        let (offset, odd_stride) = (mixed as u16, (mixed >> 16) as u16 | 1);
        let mut generation = generation;
        loop {
            let tag = offset.wrapping_add(generation.wrapping_mul(odd_stride)) & 0xfff;
            match Spi::from_slot(slot, tag) {
                Some(spi) if tag != 0 => return (spi, generation),
                _ => generation = generation.wrapping_add(1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_spi_comes_again_only_after_every_other_tag_of_its_slot() {
        let mut slots = slots(1);
        let mut seen = HashSet::new();
        for _ in 0..4095 {
            let spi = slots.reserve().unwrap();
            assert!(seen.insert(spi) && spi.index() == 0 && spi.tag() != 0);
            assert!(slots.release(spi));
        }
        let mut last = slots.reserve().unwrap();
        assert!(seen.contains(&last), "4095 tags are all there are");
        for _ in 0..70_000 {
            assert!(slots.release(last));
            let next = slots.reserve().unwrap();
            assert_ne!(next, last, "the SPI before is never reused, not even when the generation wraps");
            last = next;
        }
    }

    #[test]
    fn a_full_table_says_how_large_it_is() {
        let mut slots = slots(2);
        let (first, _) = (slots.reserve().unwrap(), slots.reserve().unwrap());
        assert_eq!(slots.reserve(), Err(TableFull { slots: 2 }));
        assert!(slots.release(first) && !slots.release(first));
        assert_eq!(slots.reserve().map(Spi::index), Ok(first.index()));
    }

    #[test]
    fn a_slot_goes_from_reserved_to_live_to_dead_to_free() {
        let (mut slots, epochs) = (slots(4), Epochs::new(1));
        let spi = slots.reserve().unwrap();
        assert_eq!(slots.state(spi), Some(SlotState::Reserved));
        slots.publish(spi, 0);
        assert!(lookup(&slots.words, spi).unwrap().is_live(spi));
        assert!(!slots.release(spi), "a live SA is not released");
        assert_eq!((slots.kill(spi), slots.kill(spi)), (Some(0), None));
        slots.retire(spi, 0, None, epochs.advance());

        let mut wiped = Vec::new();
        slots.reclaim(&epochs, |slot| wiped.push(slot));
        assert_eq!((slots.waiting(), &wiped[..]), (1, &[][..]), "worker 0 has not passed");
        epochs.announce(0, epochs.current());
        slots.reclaim(&epochs, |slot| wiped.push(slot));
        assert_eq!((slots.used(), slots.waiting(), &wiped[..]), (0, 0, &[spi.index()][..]));
        assert_eq!(slots.state(spi), None);
    }

    #[test]
    fn words_of_an_earlier_process_are_wiped() {
        let words = words(2);
        let spi = Spi(0x0050_0001);
        words[1].store(SteerWord::new(spi, 0, SlotState::Live, 3).0, Ordering::Relaxed);
        let slots = Slots::new(Arc::clone(&words));
        assert_eq!((slots.state(spi), words[1].load(Ordering::Relaxed)), (None, 0));
    }

    fn slots(len: usize) -> Slots {
        Slots::new(words(len))
    }

    fn words(len: usize) -> SteerWords {
        Arc::new(SharedArray::anonymous(c"test", len).unwrap())
    }
}
