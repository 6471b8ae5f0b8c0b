//! Single-producer single-consumer rings shared with the kernel (Documentation/networking/af_xdp.rst).
//!
//! Either side only trusts its own index: the other one is checked against the size of the ring on every
//! reload, in release builds too, so that a corrupted index can stop a ring but not make us leave it.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::mapping::Mapping;

/// What may lie in a ring: plain data for which every bit pattern is valid.
pub trait RingEntry: Copy + private::Sealed {}

/// An entry of the receive and transmit rings.
pub type Descriptor = libc::xdp_desc;

impl RingEntry for u64 {}
impl RingEntry for Descriptor {}

mod private {
    pub trait Sealed {}
    impl Sealed for u64 {}
    impl Sealed for super::Descriptor {}
}

/// Our writing end of a ring (fill, transmit).
pub struct Producer<T> {
    ring: Ring<T>,
    /// Entries written, of which those before the shared index are visible to the other side.
    head: u32,
    /// Last seen index of the other side.
    tail: u32,
}

/// Our reading end of a ring (receive, completion).
pub struct Consumer<T> {
    ring: Ring<T>,
    /// Last seen index of the other side.
    head: u32,
    /// Entries read, of which those before the shared index have been given back.
    tail: u32,
}

impl<T: RingEntry> Producer<T> {
    /// Takes over the producing end of `ring`, which must not be duplicated.
    pub(super) fn new(ring: Ring<T>) -> Self {
        let (head, tail) = (ring.producer().load(Ordering::Relaxed), ring.consumer().load(Ordering::Acquire));
        Self { ring, head, tail }
    }

    /// Room left; asks the other side for its index only if fewer than `wanted` entries are known free.
    pub fn free(&mut self, wanted: u32) -> u32 {
        let free = self.ring.size().saturating_sub(self.head.wrapping_sub(self.tail));
        if free >= wanted {
            return free;
        }
        self.tail = self.ring.consumer().load(Ordering::Acquire);
        self.ring.size().saturating_sub(self.head.wrapping_sub(self.tail))
    }

    /// Writes an entry without publishing it; false if the ring is full.
    pub fn push(&mut self, entry: T) -> bool {
        if self.free(1) == 0 {
            return false;
        }
        self.ring.write(self.head, entry);
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Publishes everything pushed so far.
    pub fn submit(&mut self) {
        self.ring.producer().store(self.head, Ordering::Release);
    }

    /// Entries published or pushed that the other side has not taken yet.
    pub fn pending(&mut self) -> u32 {
        self.tail = self.ring.consumer().load(Ordering::Acquire);
        self.head.wrapping_sub(self.tail).min(self.ring.size())
    }

    /// True if the kernel sleeps on this ring and wants a system call (XDP_USE_NEED_WAKEUP).
    pub fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: RingEntry> Consumer<T> {
    /// Takes over the consuming end of `ring`, which must not be duplicated.
    pub(super) fn new(ring: Ring<T>) -> Self {
        let (head, tail) = (ring.producer().load(Ordering::Acquire), ring.consumer().load(Ordering::Relaxed));
        Self { ring, head, tail }
    }

    /// The next entry, if there is one. Its slot stays ours until [`Consumer::release`].
    pub fn pop(&mut self) -> Option<T> {
        if self.available() == 0 {
            return None;
        }
        let entry = self.ring.read(self.tail);
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of everything popped so far back to the other side.
    pub fn release(&mut self) {
        self.ring.consumer().store(self.tail, Ordering::Release);
    }

    /// Entries ready to be popped; asks the other side only when none is known.
    pub fn available(&mut self) -> u32 {
        if self.head == self.tail {
            self.head = self.ring.producer().load(Ordering::Acquire);
        }
        let ready = self.head.wrapping_sub(self.tail);
        if ready > self.ring.size() { 0 } else { ready }
    }
}

/// Both ends of a ring in memory of our own: a worker under test gets one, the test plays the kernel with the other.
///
/// `size` must be a power of two.
pub fn in_memory_ring<T: RingEntry>(size: u32) -> io::Result<(Producer<T>, Consumer<T>)> {
    const ENTRIES: u64 = 192;
    let len = ENTRIES as usize + size as usize * size_of::<T>();
    let offsets = libc::xdp_ring_offset { producer: 0, consumer: 64, flags: 128, desc: ENTRIES };
    let mapping = Arc::new(Mapping::anonymous(len)?);
    let producer = Producer::new(Ring::new(mapping.clone(), &offsets, size)?);
    Ok((producer, Consumer::new(Ring::new(mapping, &offsets, size)?)))
}

/// The memory of a ring: two indexes, flags and a power of two of entries.
pub(super) struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    /// Keeps the pointers above valid.
    _mapping: Arc<Mapping>,
}

impl<T: RingEntry> Ring<T> {
    /// Lays a ring of `size` entries over `mapping` at the offsets the kernel reports (XDP_MMAP_OFFSETS).
    pub(super) fn new(mapping: Arc<Mapping>, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let inside = |offset: u64, bytes: usize, align: usize| {
            let end = offset.checked_add(bytes as u64)?;
            (end <= mapping.size() as u64 && offset.is_multiple_of(align as u64)).then_some(offset as usize)
        };
        let word = |offset| inside(offset, size_of::<u32>(), align_of::<u32>());
        let entries = inside(offsets.desc, size as usize * size_of::<T>(), align_of::<T>());
        let (Some(producer), Some(consumer), Some(flags), Some(entries), true) = (
            word(offsets.producer),
            word(offsets.consumer),
            word(offsets.flags),
            entries,
            size.is_power_of_two(),
        ) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: each offset was just checked to leave room for its type inside the mapping, at its alignment.
        let at = |offset: usize| unsafe { mapping.base().add(offset) };
        Ok(Self {
            producer: at(producer).cast(),
            consumer: at(consumer).cast(),
            flags: at(flags).cast(),
            entries: at(entries).cast(),
            mask: size - 1,
            _mapping: mapping.clone(),
        })
    }

    /// Length of the mapping that a ring of `size` entries needs.
    pub(super) fn mapping_len(offsets: &libc::xdp_ring_offset, size: u32) -> usize {
        offsets.desc as usize + size as usize * size_of::<T>()
    }

    fn size(&self) -> u32 {
        self.mask + 1
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the mapping and aligned by construction; the kernel accesses it atomically as well.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }
    }

    fn read(&self, index: u32) -> T {
        // SAFETY: the mask keeps the index inside the entries; the slot is the consumer's between the two
        // shared indexes, so nobody writes it; every bit pattern is a valid `RingEntry`.
        unsafe { self.entries.add((index & self.mask) as usize).read_volatile() }
    }

    fn write(&self, index: u32, entry: T) {
        // SAFETY: the mask keeps the index inside the entries; the slot is the producer's until its index is
        // published, so nobody reads it.
        unsafe { self.entries.add((index & self.mask) as usize).write_volatile(entry) }
    }
}

// SAFETY: the pointers lead into the shared mapping that the ring keeps alive; each end is used through `&mut`.
unsafe impl<T: RingEntry> Send for Ring<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_arrive_in_order_and_only_after_submit() {
        let (mut p, mut c) = in_memory_ring::<u64>(8).unwrap();
        assert!(p.push(1) && p.push(2));
        assert_eq!(c.pop(), None);
        p.submit();
        assert_eq!((c.pop(), c.pop(), c.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn a_slot_is_free_again_only_after_release() {
        let (mut p, mut c) = in_memory_ring::<u64>(2).unwrap();
        assert!(p.push(1) && p.push(2) && !p.push(3));
        p.submit();
        assert_eq!(c.pop(), Some(1));
        assert!(!p.push(3));
        c.release();
        assert!(p.push(3) && !p.push(4));
        assert_eq!(p.pending(), 2);
    }

    #[test]
    fn the_indexes_wrap_around_32_bits() {
        let (mut p, mut c) = in_memory_ring::<u64>(4).unwrap();
        p.ring.producer().store(u32::MAX - 1, Ordering::Relaxed);
        p.ring.consumer().store(u32::MAX - 1, Ordering::Relaxed);
        (p.head, p.tail, c.head, c.tail) = (u32::MAX - 1, u32::MAX - 1, u32::MAX - 1, u32::MAX - 1);
        for i in 0..20 {
            assert!(p.push(i));
            p.submit();
            assert_eq!(c.pop(), Some(i));
            c.release();
        }
    }

    #[test]
    fn a_corrupt_foreign_index_stops_the_ring_instead_of_leaving_it() {
        let (mut p, mut c) = in_memory_ring::<u64>(4).unwrap();
        p.ring.producer().store(1000, Ordering::Relaxed);
        assert_eq!((c.available(), c.pop()), (0, None));
        p.ring.consumer().store(77, Ordering::Relaxed);
        p.tail = 77;
        assert_eq!((p.free(1), p.push(1)), (0, false));
    }

    #[test]
    fn offsets_outside_the_mapping_are_refused() {
        let mapping = Arc::new(Mapping::anonymous(4096).unwrap());
        let offsets = |desc| libc::xdp_ring_offset { producer: 0, consumer: 64, flags: 128, desc };
        assert!(Ring::<u64>::new(mapping.clone(), &offsets(192), 64).is_ok());
        assert!(Ring::<u64>::new(mapping.clone(), &offsets(192), 512).is_err());
        assert!(Ring::<u64>::new(mapping.clone(), &offsets(u64::MAX - 8), 1).is_err());
        assert!(Ring::<u64>::new(mapping.clone(), &offsets(194), 8).is_err());
        assert!(Ring::<u64>::new(mapping, &offsets(192), 3).is_err());
    }
}
