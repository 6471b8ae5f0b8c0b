//! The frames: one piece of memory cut into chunks that sockets and workers pass around.
//!
//! ```text
//! node of slot 0: small small small ... | large       large       ... | node of slot 1: small ...
//!                 1 chunk each          | 4 chunks each               |
//! ```
//!
//! The kernel receives into small frames alone, and knows nothing of large ones: a packet in a large frame leaves in as many
//! descriptors as chunks that it touches.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use portcullis_esp::MAX_TAIL_LEN;

use super::mapping::Mapping;

/// Bytes that the kernel leaves free before a received packet (XDP_PACKET_HEADROOM): room for outer headers.
pub const HEADROOM: usize = 256;
/// Chunks of a large frame, a power of two.
pub(super) const LARGE_CHUNKS: u32 = 4;
/// NUMA nodes that are told apart.
pub const MAX_SLOTS: usize = 8;

/// Room for an Ethernet header with two VLAN tags.
const ETHERNET: usize = 14 + 2 * 4;
/// Bits of a chunk's number in [`Frame`]; above them is the area.
const CHUNK_BITS: u32 = 28;

/// Packet memory shared with the kernel, as large as its frames together.
pub struct Umem {
    mapping: Mapping,
    /// Bytes of a chunk, as a power of two.
    chunk_shift: u32,
    /// Where each area ends, in chunks. The areas of a slot follow one another: small frames, then large ones.
    ends: Vec<u32>,
    id: u32,
}

/// The frames of one NUMA node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The node that the memory is to be taken from; `None`: the kernel's choice.
    pub node: Option<u32>,
    /// Frames of one chunk.
    pub small: u32,
    /// Frames of four chunks, for packets that are longer than a chunk.
    pub large: u32,
}

/// Ownership of one frame of one [`Umem`], and so of its bytes. Never copied: a frame is with the kernel, in a
/// cache, or being processed, and in one place only.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its area and its first chunk.
    place: u32,
    umem: u32,
}

/// Longest IP packet in bytes that is received, sealed and sent in small frames of `frame_size` bytes, or in large ones.
pub const fn max_packet(frame_size: usize, large: bool) -> usize {
    let chunks = if large { LARGE_CHUNKS as usize } else { 1 };
    frame_size * chunks - HEADROOM - ETHERNET
}

impl Frame {
    /// True if it has four chunks.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.place >> CHUNK_BITS & 1 == 1
    }

    /// The slot of its NUMA node, below [`MAX_SLOTS`].
    #[inline]
    pub fn slot(&self) -> usize {
        (self.place >> CHUNK_BITS >> 1) as usize
    }

    fn chunk(&self) -> u32 {
        self.place & ((1 << CHUNK_BITS) - 1)
    }

    fn chunks(&self) -> u32 {
        1 << (u32::from(self.is_large()) * LARGE_CHUNKS.trailing_zeros())
    }

    /// In the first area, that of small frames near the first node.
    #[inline]
    pub(super) fn is_usual(&self) -> bool {
        self.place >> CHUNK_BITS == 0
    }
}

impl Umem {
    /// Allocates `count` frames of `frame_size` bytes (a power of two from 2048 to the page size, as the
    /// kernel demands) and hands all of them out.
    ///
    /// # Errors
    /// InvalidInput for sizes that the kernel would refuse, or no memory.
    pub fn new(count: u32, frame_size: u32) -> io::Result<(Self, Vec<Frame>)> {
        Self::with_shares(&[Share { node: None, small: count, large: 0 }], frame_size)
    }

    /// As [`Umem::new`], with large frames, and frames on several NUMA nodes: the share at index `n` has slot `n`. Memory that a
    /// node does not have comes from another.
    ///
    /// # Errors
    /// As [`Umem::new`]; InvalidInput for more than [`MAX_SLOTS`] shares.
    pub fn with_shares(shares: &[Share], frame_size: u32) -> io::Result<(Self, Vec<Frame>)> {
        let is_chunk_size = (2048..=4096).contains(&frame_size) && frame_size.is_power_of_two();
        let (mut ends, mut chunks) = (Vec::new(), 0u32);
        for share in shares {
            for more in [Some(share.small), share.large.checked_mul(LARGE_CHUNKS)] {
                let more =
                    more.and_then(|more| chunks.checked_add(more)).filter(|end| *end < 1 << CHUNK_BITS);
                chunks = more.ok_or(io::ErrorKind::InvalidInput)?;
                ends.push(chunks);
            }
        }
        if !is_chunk_size || shares.len() > MAX_SLOTS || chunks == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = |chunks: u32| chunks as usize * frame_size as usize;
        let starts = [0].into_iter().chain(ends.iter().skip(1).step_by(2).copied());
        let nodes = shares
            .iter()
            .zip(starts)
            .zip(ends.iter().skip(1).step_by(2))
            .filter_map(|((share, start), end)| Some((bytes(start)..bytes(*end), share.node?)));
        let mapping = Mapping::on_nodes(bytes(chunks), nodes)?;
        // Tells the frames of one UMEM from those of another; wrapping takes 2^32 of them in one process.
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let umem = Self { mapping, chunk_shift: frame_size.trailing_zeros(), ends, id };
        let mut frames = Vec::new();
        let mut chunk = 0;
        while let Some(frame) = umem.frame_of_chunk(chunk) {
            chunk = frame.chunk() + frame.chunks();
            frames.push(frame);
        }
        Ok((umem, frames))
    }

    /// Bytes per small frame.
    pub fn frame_size(&self) -> usize {
        1 << self.chunk_shift
    }

    /// Bytes of a frame.
    #[inline]
    pub fn size_of(&self, frame: &Frame) -> usize {
        (frame.chunks() as usize) << self.chunk_shift
    }

    /// Longest IP packet in bytes that its frames hold.
    pub fn max_packet(&self) -> usize {
        max_packet(self.frame_size(), self.has_large())
    }

    /// True if there are large frames.
    pub fn has_large(&self) -> bool {
        self.large_areas().any(|area| !area.is_empty())
    }

    /// True if a packet of `len` bytes behind [`HEADROOM`] needs a large frame, to be sealed in it.
    pub fn is_large_packet(&self, len: usize) -> bool {
        HEADROOM + len + MAX_TAIL_LEN > self.frame_size()
    }

    /// The bytes of a frame.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM, which is a mistake of the caller and not of a packet.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        // SAFETY: a frame of this UMEM, which `offset` checks, lies inside the mapping; a shared borrow of the frame excludes the
        // exclusive one, and frames are unique and disjoint.
        unsafe {
            std::slice::from_raw_parts(
                self.mapping.base().add(self.offset(frame)).as_ptr(),
                self.size_of(frame),
            )
        }
    }

    /// The bytes of a frame, to change.
    ///
    /// # Panics
    /// As [`Umem::bytes`].
    #[inline]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: a frame of this UMEM, which `offset` checks, lies inside the mapping; frames are unique and disjoint, so an exclusive borrow of
        // the frame is an exclusive borrow of its bytes.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.mapping.base().add(self.offset(frame)).as_ptr(),
                self.size_of(frame),
            )
        }
    }

    /// Writes a packet at `start` of the frame at `address`, as a card does: for whoever plays one at the far end of rings in
    /// memory and has taken the address from the fill ring.
    ///
    /// # Panics
    /// If the packet would leave the frame, or the address is none.
    pub fn write(&self, address: u64, start: usize, bytes: &[u8]) {
        let (mut frame, _) = self.reclaim(address).expect("the address of a frame");
        self.bytes_mut(&mut frame)[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// The packet of `len` octets at `address`, as a card reads it: for whoever plays one and has taken both from the transmit ring.
    ///
    /// # Panics
    /// If the packet would leave the frame, or the address is none.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let (frame, start) = self.reclaim(address).expect("an address in a frame");
        self.bytes(&frame)[start..start + len].to_vec()
    }

    /// Address of the frame as descriptors name it. The frame itself goes to the kernel with its address.
    pub(super) fn surrender(&self, frame: Frame) -> u64 {
        self.offset(&frame) as u64
    }

    /// Takes back the frame that contains `address`, and where in it the address points; `None` if the
    /// address is outside.
    ///
    /// Only for addresses that came out of a ring of this UMEM: the kernel names no frame twice without our
    /// having surrendered it in between. Of a large frame it names each chunk that was sent: see [`Umem::large_number`].
    pub(super) fn reclaim(&self, address: u64) -> Option<(Frame, usize)> {
        let frame = self.frame_of_chunk(u32::try_from(address >> self.chunk_shift).ok()?)?;
        let start = address as usize - self.offset(&frame);
        Some((frame, start))
    }

    /// Large frames of all slots.
    pub(super) fn large_frames(&self) -> usize {
        self.large_areas().map(|area| area.len() / LARGE_CHUNKS as usize).sum()
    }

    /// The number of the large frame that contains `address`, below [`Umem::large_frames`]; `None` if none does.
    pub(super) fn large_number(&self, address: u64) -> Option<usize> {
        let chunk = (address >> self.chunk_shift) as usize;
        let mut before = 0;
        for area in self.large_areas() {
            if area.contains(&chunk) {
                return Some((before + chunk - area.start) / LARGE_CHUNKS as usize);
            }
            before += area.len();
        }
        None
    }

    /// What XDP_UMEM_REG takes.
    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.mapping.base().as_ptr() as u64,
            len: self.mapping.size() as u64,
            chunk_size: 1 << self.chunk_shift,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    /// The chunks of each area of large frames.
    fn large_areas(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.ends.chunks_exact(2).map(|ends| ends[0] as usize..ends[1] as usize)
    }

    #[inline]
    fn frame_of_chunk(&self, chunk: u32) -> Option<Frame> {
        match self.ends.first() {
            Some(end) if chunk < *end => Some(Frame { place: chunk, umem: self.id }),
            _ => self.frame_elsewhere(chunk),
        }
    }

    #[cold]
    fn frame_elsewhere(&self, chunk: u32) -> Option<Frame> {
        let area = self.ends.iter().position(|end| chunk < *end)?;
        let start = area.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let is_large = area & 1 == 1;
        let first = if is_large { chunk - (chunk - start) % LARGE_CHUNKS } else { chunk };
        Some(Frame { place: (area as u32) << CHUNK_BITS | first, umem: self.id })
    }

    #[inline]
    fn offset(&self, frame: &Frame) -> usize {
        // One of this UMEM was made for a place in it.
        assert!(frame.umem == self.id, "frame of another UMEM");
        (frame.chunk() as usize) << self.chunk_shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_NODES: [Share; 2] =
        [Share { node: None, small: 3, large: 2 }, Share { node: None, small: 1, large: 1 }];

    #[test]
    fn frames_are_disjoint_and_zeroed() {
        for shares in [&[Share { node: None, small: 4, large: 0 }][..], &TWO_NODES] {
            let (umem, mut frames) = Umem::with_shares(shares, 2048).unwrap();
            for (i, frame) in frames.iter_mut().enumerate() {
                assert!(umem.bytes(frame).iter().all(|b| *b == 0));
                umem.bytes_mut(frame).fill(i as u8 + 1);
            }
            for (i, frame) in frames.iter().enumerate() {
                assert!(umem.bytes(frame).iter().all(|b| *b == i as u8 + 1));
            }
        }
    }

    #[test]
    fn frames_know_their_size_and_their_node() {
        let (umem, frames) = Umem::with_shares(&TWO_NODES, 2048).unwrap();
        let seen: Vec<_> = frames.iter().map(|f| (umem.size_of(f), f.is_large(), f.slot())).collect();
        let (small, large) = ((2048, false, 0), (8192, true, 0));
        assert_eq!(seen, [small, small, small, large, large, (2048, false, 1), (8192, true, 1)]);
    }

    #[test]
    fn an_address_inside_a_frame_finds_the_frame_and_one_outside_finds_none() {
        let (umem, mut frames) = Umem::new(2, 2048).unwrap();
        let last = frames.pop().unwrap();
        let place = last.place;
        let address = umem.surrender(last);
        assert_eq!(umem.reclaim(address + 300), Some((Frame { place, umem: umem.id }, 300)));
        assert_eq!(umem.reclaim(4096), None);
        assert_eq!(umem.reclaim(u64::MAX), None);
    }

    #[test]
    fn every_chunk_of_a_large_frame_leads_to_it() {
        let (umem, frames) = Umem::with_shares(&TWO_NODES, 2048).unwrap();
        let mut number = 0;
        for frame in frames {
            let (size, is_large) = (umem.size_of(&frame), frame.is_large());
            let address = umem.surrender(frame);
            for inside in (0..size).step_by(2048) {
                let (again, start) = umem.reclaim(address + inside as u64).unwrap();
                assert_eq!((umem.offset(&again) as u64, start), (address, inside));
                assert_eq!(umem.large_number(address + inside as u64), is_large.then_some(number));
            }
            number += usize::from(is_large);
        }
        assert_eq!(umem.large_frames(), number);
        assert_eq!(umem.large_number(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "another UMEM")]
    fn a_frame_of_another_umem_is_refused() {
        let (_a, frames) = Umem::new(1, 2048).unwrap();
        let (b, _) = Umem::new(1, 2048).unwrap();
        b.bytes(&frames[0]);
    }

    #[test]
    fn sizes_the_kernel_would_refuse_are_refused_here() {
        for size in [0, 1024, 3000, 8192] {
            assert!(Umem::new(1, size).is_err());
        }
        assert!(Umem::new(0, 2048).is_err());
        assert!(Umem::new(u32::MAX, 2048).is_err());
        assert!(Umem::with_shares(&[TWO_NODES[0]; MAX_SLOTS + 1], 2048).is_err());
    }
}
