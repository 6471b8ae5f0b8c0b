//! Our inbound SPIs are table indexes (20 bits) under a per-slot tag (12 bits).

/// Bits of an inbound SPI that are the slot in the SA table. Constant, so that the table can grow.
pub const INDEX_BITS: u32 = 20;
/// Mask of the slot index in an inbound SPI.
pub const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
/// Most slots an SA table can have.
pub const MAX_SLOTS: u32 = 1 << INDEX_BITS;
/// Smallest SPI that an SA may have; 1 to 255 are reserved by IANA (RFC 4303 section 2.1).
pub const MIN_SPI: u32 = 256;

/// A Security Parameter Index (RFC 4303 section 2.1), in host byte order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Spi(pub u32);

impl Spi {
    /// Builds an inbound SPI from its slot and the slot's tag; `None` if it would be reserved (below 256).
    pub const fn from_slot(index: u32, tag: u16) -> Option<Self> {
        let spi = ((tag as u32) << INDEX_BITS) | (index & INDEX_MASK);
        if index > INDEX_MASK || tag >= 1 << 12 || spi < MIN_SPI { None } else { Some(Self(spi)) }
    }

    /// The slot of the SA table that this inbound SPI names.
    pub const fn index(self) -> u32 {
        self.0 & INDEX_MASK
    }

    /// The tag above the slot index.
    pub const fn tag(self) -> u16 {
        (self.0 >> INDEX_BITS) as u16
    }

    /// Network byte order.
    pub const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// From network byte order.
    pub const fn from_be_bytes(b: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(b))
    }
}

impl core::fmt::Display for Spi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl core::fmt::Debug for Spi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Spi({:08x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_and_tag_survive_the_round_trip() {
        let spi = Spi::from_slot(0xabcde, 0xfed).unwrap();
        assert_eq!((spi.index(), spi.tag()), (0xabcde, 0xfed));
        assert_eq!(spi.to_string(), "fedabcde");
    }

    /// RFC 4303 section 2.1: 1 to 255 are reserved, 0 is for local use.
    #[test]
    fn no_reserved_spi_is_ever_built() {
        assert_eq!(Spi::from_slot(255, 0), None);
        assert_eq!(Spi::from_slot(256, 0), Some(Spi(256)));
        assert_eq!(Spi::from_slot(0, 1), Some(Spi(1 << 20)));
        assert_eq!(Spi::from_slot(1 << 20, 1), None);
        assert_eq!(Spi::from_slot(1, 1 << 12), None);
    }
}
