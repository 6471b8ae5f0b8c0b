//! What the LAN program knows of the policy: a class for each destination, so coarse that the worker, which
//! knows all of it, is asked whenever in doubt.
//!
//! IPv4: two bits for each /24 in one array; a /24 with more than one class has a block of its own. IPv6: a
//! hash table over the prefixes in use, one look-up for each length in use, the longest first.

#[cfg(any(test, feature = "user"))]
mod ipv4;
#[cfg(any(test, feature = "user"))]
mod ipv6;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "user"))]
pub use ipv4::Ipv4Classes;
#[cfg(any(test, feature = "user"))]
pub use ipv6::Ipv6Classes;

/// Class of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(u8)]
pub enum PrefixClass {
    /// No policy covers it.
    #[default]
    None = 0,
    /// The worker decides.
    Worker = 1,
    /// IPv4 only: the addresses of this /24 differ.
    Mixed = 2,
    /// A BYPASS policy covers every packet to it.
    Pass = 3,
}

impl PrefixClass {
    /// The class in the low two bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Worker,
            2 => Self::Mixed,
            _ => Self::Pass,
        }
    }
}

/// Words of the IPv4 array: two bits for each of 2^24 prefixes.
pub const IPV4_WORDS: u32 = (1 << 24) / CLASSES_PER_WORD;
/// Classes in a word.
pub const CLASSES_PER_WORD: u32 = 32;
/// The two-bit classes of the 256 addresses of a /24.
pub type MixedBlock = [u64; 8];

/// Where the class of an IPv4 /24 is: the word, and how far it is shifted there.
#[inline(always)]
pub const fn ipv4_place(address: [u8; 4]) -> (u32, u32) {
    let prefix = u32::from_be_bytes(address) >> 8;
    (prefix / CLASSES_PER_WORD, prefix % CLASSES_PER_WORD * 2)
}

/// Where the class of an address is in the block of its /24.
#[inline(always)]
pub const fn mixed_place(address: [u8; 4]) -> (usize, u32) {
    let host = address[3] as u32;
    ((host / CLASSES_PER_WORD) as usize, host % CLASSES_PER_WORD * 2)
}

/// Most IPv6 prefix lengths that are looked up; more are rounded to shorter ones, for the worker to tell apart.
pub const MAX_IPV6_LENGTHS: usize = 24;
/// Stands for the end of the list of lengths.
pub const NO_LENGTH: u8 = 0xff;

/// The IPv6 prefix lengths in use, the longest first, then [`NO_LENGTH`].
pub type Ipv6Lengths = [u8; MAX_IPV6_LENGTHS];

/// Key of the IPv6 hash table: a prefix and its length, in a layout without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
#[repr(C)]
pub struct Ipv6Prefix {
    /// Upper 64 bits of the prefix.
    upper: u64,
    /// Lower 64 bits of the prefix.
    lower: u64,
    /// Length in bits.
    length: u64,
}

impl Ipv6Prefix {
    /// The prefix of this length, at most 128, that an address lies in.
    #[inline(always)]
    pub const fn of(address: [u8; 16], length: u8) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        Self {
            upper: u64::from_be_bytes([a, b, c, d, e, f, g, h]) & mask(length as u32),
            lower: u64::from_be_bytes([i, j, k, l, m, n, o, p]) & mask((length as u32).saturating_sub(64)),
            length: length as u64,
        }
    }

    /// Length in bits.
    pub const fn length(&self) -> u8 {
        self.length as u8
    }
}

/// The upper `length` bits of 64; all of them from 64 on.
#[inline(always)]
const fn mask(length: u32) -> u64 {
    if length == 0 {
        0
    } else if length >= 64 {
        u64::MAX
    } else {
        u64::MAX << (64 - length)
    }
}
