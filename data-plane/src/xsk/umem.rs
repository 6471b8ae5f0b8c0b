//! The frames: one piece of memory cut into equal chunks that sockets and workers pass around.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use super::mapping::Mapping;

/// Bytes that the kernel leaves free before a received packet (XDP_PACKET_HEADROOM): room for outer headers.
pub const HEADROOM: usize = 256;

/// Packet memory shared with the kernel, as large as its frames together.
pub struct Umem {
    mapping: Mapping,
    frame_size: u32,
    count: u32,
    id: u32,
}

/// Ownership of one frame of one [`Umem`], and so of its bytes. Never copied: a frame is with the kernel, in a
/// cache, or being processed, and in one place only.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    index: u32,
    umem: u32,
}

impl Umem {
    /// Allocates `count` frames of `frame_size` bytes (a power of two from 2048 to the page size, as the
    /// kernel demands) and hands all of them out.
    pub fn new(count: u32, frame_size: u32) -> io::Result<(Self, Vec<Frame>)> {
        if !(2048..=4096).contains(&frame_size) || !frame_size.is_power_of_two() || count == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Tells the frames of one UMEM from those of another; wrapping takes 2^32 of them in one process.
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mapping = Mapping::anonymous(count as usize * frame_size as usize)?;
        let frames = (0..count).map(|index| Frame { index, umem: id }).collect();
        Ok((Self { mapping, frame_size, count, id }, frames))
    }

    /// Bytes per frame.
    pub fn frame_size(&self) -> usize {
        self.frame_size as usize
    }

    /// The bytes of a frame.
    ///
    /// # Panics
    /// If the frame belongs to another UMEM, which is a mistake of the caller and not of a packet.
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        // SAFETY: `offset` keeps the frame inside the mapping; a shared borrow of the frame excludes the
        // exclusive one, and frames are unique.
        unsafe {
            std::slice::from_raw_parts(
                self.mapping.base().add(self.offset(frame)).as_ptr(),
                self.frame_size(),
            )
        }
    }

    /// The bytes of a frame, to change.
    ///
    /// # Panics
    /// As [`Umem::bytes`].
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: `offset` keeps the frame inside the mapping; frames are unique, so an exclusive borrow of
        // the frame is an exclusive borrow of its bytes.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.mapping.base().add(self.offset(frame)).as_ptr(),
                self.frame_size(),
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
    /// having surrendered it in between.
    pub(super) fn reclaim(&self, address: u64) -> Option<(Frame, usize)> {
        let index = u32::try_from(address / u64::from(self.frame_size)).ok().filter(|i| *i < self.count)?;
        Some((Frame { index, umem: self.id }, (address % u64::from(self.frame_size)) as usize))
    }

    /// What XDP_UMEM_REG takes.
    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.mapping.base().as_ptr() as u64,
            len: self.mapping.size() as u64,
            chunk_size: self.frame_size,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    fn offset(&self, frame: &Frame) -> usize {
        assert!(frame.umem == self.id && frame.index < self.count, "frame of another UMEM");
        frame.index as usize * self.frame_size as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_disjoint_and_zeroed() {
        let (umem, mut frames) = Umem::new(4, 2048).unwrap();
        for (i, frame) in frames.iter_mut().enumerate() {
            assert!(umem.bytes(frame).iter().all(|b| *b == 0));
            umem.bytes_mut(frame).fill(i as u8 + 1);
        }
        for (i, frame) in frames.iter().enumerate() {
            assert!(umem.bytes(frame).iter().all(|b| *b == i as u8 + 1));
        }
    }

    #[test]
    fn an_address_inside_a_frame_finds_the_frame_and_one_outside_finds_none() {
        let (umem, mut frames) = Umem::new(2, 2048).unwrap();
        let address = umem.surrender(frames.pop().unwrap());
        assert_eq!(umem.reclaim(address + 300), Some((Frame { index: 1, umem: umem.id }, 300)));
        assert_eq!(umem.reclaim(4096), None);
        assert_eq!(umem.reclaim(u64::MAX), None);
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
    }
}
