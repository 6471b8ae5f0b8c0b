//! Builds the IPv4 array and the blocks of the /24s with more than one class.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::vec;
use std::vec::Vec;

use super::{CLASSES_PER_WORD, IPV4_WORDS, MixedBlock, PrefixClass, ipv4_place, mixed_place};

/// The classes of all IPv4 addresses.
pub struct Ipv4Classes {
    words: Vec<u64>,
    mixed: BTreeMap<u32, MixedBlock>,
}

impl Ipv4Classes {
    /// The classes that an ordered list of prefixes gives: the first that covers an address decides.
    ///
    /// A length above 32 counts as 32; [`PrefixClass::Mixed`] counts as [`PrefixClass::Worker`].
    pub fn new(ordered: &[(Ipv4Addr, u8, PrefixClass)]) -> Self {
        let mut classes = Self { words: vec![0; IPV4_WORDS as usize], mixed: BTreeMap::new() };
        for (address, length, class) in ordered.iter().rev() {
            let class = if *class == PrefixClass::Mixed { PrefixClass::Worker } else { *class };
            classes.paint(u32::from(*address), (*length).min(32), class);
        }
        classes
    }

    /// The array, [`IPV4_WORDS`] long.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The /24s with more than one class: the upper 24 bits of the address, and the block.
    pub fn mixed(&self) -> &BTreeMap<u32, MixedBlock> {
        &self.mixed
    }

    /// The class of an address, as the program looks it up.
    pub fn class(&self, address: Ipv4Addr) -> PrefixClass {
        let octets = address.octets();
        match self.slash_24(u32::from(address) >> 8) {
            PrefixClass::Mixed => {
                let (word, shift) = mixed_place(octets);
                let block = self.mixed.get(&(u32::from(address) >> 8));
                block
                    .and_then(|b| b.get(word))
                    .map_or(PrefixClass::Worker, |w| PrefixClass::from_bits(w >> shift))
            }
            class => class,
        }
    }

    fn paint(&mut self, address: u32, length: u8, class: PrefixClass) {
        if length > 24 {
            return self.paint_hosts(address, length, class);
        }
        let count = 1u32 << (24 - length);
        let first = (address >> 8) & !(count - 1);
        let last = first + (count - 1);
        let inside: Vec<_> = self.mixed.range(first..=last).map(|(prefix, _)| *prefix).collect();
        for prefix in inside {
            self.mixed.remove(&prefix);
        }
        if count < CLASSES_PER_WORD {
            (first..=last).for_each(|prefix| self.set_slash_24(prefix, class));
        } else {
            let words = (first / CLASSES_PER_WORD) as usize..=(last / CLASSES_PER_WORD) as usize;
            if let Some(words) = self.words.get_mut(words) {
                words.fill(uniform(class));
            }
        }
    }

    fn paint_hosts(&mut self, address: u32, length: u8, class: PrefixClass) {
        let prefix = address >> 8;
        let old = self.slash_24(prefix);
        let block = self.mixed.entry(prefix).or_insert([uniform(old); 8]);
        let count = 1u32 << (32 - length);
        let first = address & 0xff & !(count - 1);
        for host in first..first + count {
            let (word, shift) = mixed_place(host.to_be_bytes());
            if let Some(word) = block.get_mut(word) {
                *word = *word & !(3 << shift) | (class as u64) << shift;
            }
        }
        let class = if *block == [uniform(class); 8] {
            self.mixed.remove(&prefix);
            class
        } else {
            PrefixClass::Mixed
        };
        self.set_slash_24(prefix, class);
    }

    fn slash_24(&self, prefix: u32) -> PrefixClass {
        let (word, shift) = ipv4_place((prefix << 8).to_be_bytes());
        self.words.get(word as usize).map_or(PrefixClass::None, |w| PrefixClass::from_bits(w >> shift))
    }

    fn set_slash_24(&mut self, prefix: u32, class: PrefixClass) {
        let (word, shift) = ipv4_place((prefix << 8).to_be_bytes());
        if let Some(word) = self.words.get_mut(word as usize) {
            *word = *word & !(3 << shift) | (class as u64) << shift;
        }
    }
}

/// A word in which every class is this one.
fn uniform(class: PrefixClass) -> u64 {
    u64::MAX / 3 * class as u64
}
