//! The IPv4 classes, in memory that the LAN program reads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_common::prefix_class::IPV4_WORDS;

use crate::xsk::Mapping;

/// The words of the map.
pub(super) struct ClassArray {
    mapping: Mapping,
}

impl ClassArray {
    /// Maps the array behind a descriptor.
    pub(super) fn map(fd: OwnedFd) -> io::Result<Self> {
        let len = IPV4_WORDS as usize * size_of::<u64>();
        Ok(Self { mapping: Mapping::shared(fd.as_fd(), len, 0)? })
    }

    /// Makes these its words, each in one store: a packet sees the old class of its destination or the new one.
    pub(super) fn store(&self, words: &[u64]) {
        for (place, word) in self.words().iter().zip(words) {
            if place.load(Ordering::Relaxed) != *word {
                place.store(*word, Ordering::Release);
            }
        }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page aligned, `IPV4_WORDS` words long, and lives as long as `self`. Everybody
        // who writes it uses atomics, and the program only reads.
        unsafe { std::slice::from_raw_parts(self.mapping.base().as_ptr().cast(), IPV4_WORDS as usize) }
    }
}
