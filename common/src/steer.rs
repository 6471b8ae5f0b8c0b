//! The steer word: the one aligned 8-byte word per SA slot that XDP reads.

use crate::Spi;

/// Life of a slot of the SA table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SlotState {
    /// No SA.
    Free = 0,
    /// The SPI is promised to a negotiation; no keys yet, packets are dropped as unknown.
    Reserved = 1,
    /// Packets go to the worker.
    Live = 2,
    /// Removed; waiting until every worker's epoch has passed. Packets are dropped as unknown.
    Dead = 3,
}

/// SPI, owner worker, state and generation of a slot in one word, so that one load is a consistent read.
///
/// Layout from the low bit: SPI 32, worker 8, state 8, generation 16. Stored in native byte order: the map
/// never leaves the machine.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct SteerWord(pub u64);

impl SteerWord {
    /// A slot without an SA.
    pub const FREE: Self = Self(0);

    /// Packs a word.
    pub const fn new(spi: Spi, worker: u8, state: SlotState, generation: u16) -> Self {
        Self(spi.0 as u64 | (worker as u64) << 32 | (state as u64) << 40 | (generation as u64) << 48)
    }

    /// The full SPI; compare it before use, the index alone is not proof.
    pub const fn spi(self) -> Spi {
        Spi(self.0 as u32)
    }

    /// The worker that owns the SA.
    pub const fn worker(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// True if the slot holds a live SA with exactly this SPI.
    pub const fn is_live(self, spi: Spi) -> bool {
        // One comparison of the SPI and state bits together.
        const SPI_AND_STATE: u64 = 0x0000_ff00_ffff_ffff;
        self.0 & SPI_AND_STATE == (spi.0 as u64 | (SlotState::Live as u64) << 40)
    }

    /// State of the slot.
    pub const fn state(self) -> SlotState {
        match (self.0 >> 40) as u8 {
            1 => SlotState::Reserved,
            2 => SlotState::Live,
            3 => SlotState::Dead,
            _ => SlotState::Free,
        }
    }

    /// Generation of the slot; it changes each time the slot is freed.
    pub const fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

impl core::fmt::Debug for SteerWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "SteerWord({} {:?} worker {} gen {})",
            self.spi(),
            self.state(),
            self.worker(),
            self.generation()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_holds_all_four_fields() {
        let w = SteerWord::new(Spi(0xdead_beef), 7, SlotState::Live, 0xfffe);
        assert_eq!(
            (w.spi(), w.worker(), w.state(), w.generation()),
            (Spi(0xdead_beef), 7, SlotState::Live, 0xfffe)
        );
        assert_eq!(core::mem::size_of::<SteerWord>(), 8);
    }

    #[test]
    fn only_a_live_slot_with_the_full_spi_matches() {
        let spi = Spi(0x0010_0005);
        assert!(SteerWord::new(spi, 3, SlotState::Live, 9).is_live(spi));
        assert!(!SteerWord::new(spi, 3, SlotState::Dead, 9).is_live(spi));
        assert!(!SteerWord::new(spi, 3, SlotState::Reserved, 9).is_live(spi));
        assert!(!SteerWord::new(Spi(0x0020_0005), 3, SlotState::Live, 9).is_live(spi));
        assert!(!SteerWord::FREE.is_live(Spi(0)));
    }
}
