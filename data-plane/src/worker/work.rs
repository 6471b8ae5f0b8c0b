//! Packets between the steps of a worker, and between workers.

use portcullis_common::Spi;

use super::facts::Arrival;
use crate::packet::{Inner, PacketBuf};
use crate::sa::PathId;
use crate::sa_table::{OutboundIndex, SaName};
use crate::xsk::{Frame, Umem};

/// A packet in a frame. Two words, so that it goes from step to step in registers.
#[derive(Debug)]
pub struct Packet {
    frame: Frame,
    start: u32,
    end: u32,
}

impl Packet {
    /// The packet of `len` bytes at `start` of a frame; gives the frame back if the packet would leave it.
    #[inline]
    pub fn new(umem: &Umem, frame: Frame, start: usize, len: usize) -> Result<Self, Frame> {
        match start.checked_add(len) {
            // Frames have a few thousand bytes.
            Some(end) if end <= umem.size_of(&frame) => {
                Ok(Self { frame, start: start as u32, end: end as u32 })
            }
            _ => Err(frame),
        }
    }

    /// Its bytes.
    #[inline]
    pub fn bytes<'a>(&'a self, umem: &'a Umem) -> &'a [u8] {
        umem.bytes(&self.frame).get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Runs `change` on the packet in its frame and keeps the bounds that it leaves.
    #[inline]
    pub fn edit<R>(&mut self, umem: &Umem, change: impl FnOnce(&mut PacketBuf<'_>) -> R) -> Option<R> {
        let (start, len) = (self.start as usize, self.len());
        let mut buffer = PacketBuf::new(umem.bytes_mut(&mut self.frame), start, len)?;
        let result = change(&mut buffer);
        let range = buffer.range();
        (self.start, self.end) = (range.start as u32, range.end as u32);
        Some(result)
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// True if nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame, its packet's start and length: for the transmit ring.
    pub fn into_parts(self) -> (Frame, usize, usize) {
        let len = self.len();
        (self.frame, self.start as usize, len)
    }

    /// The frame, for reuse.
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// A clear-text IP packet that its policy lets into a tunnel.
#[derive(Debug)]
pub struct Seal {
    /// The packet, from its IP header on, without padding behind it.
    pub packet: Packet,
    /// What its headers say.
    pub inner: Inner,
    /// The outbound SA's index.
    pub outbound: OutboundIndex,
    /// How to reach its sender with an ICMP error.
    pub sender: Sender,
}

/// An ESP packet for an SA of ours.
#[derive(Debug)]
pub struct Open {
    /// The packet, from the SPI on.
    pub packet: Packet,
    /// Its SPI.
    pub spi: Spi,
    /// Where it came from.
    pub arrival: Arrival,
}

/// An ESP echo request that is to be answered.
#[derive(Debug)]
pub struct Reply {
    /// The request, from its sub-type on.
    pub packet: Packet,
    /// The outbound SA that it names.
    pub outbound: OutboundIndex,
    /// Where it came from.
    pub arrival: Arrival,
}

/// An ESP packet that came in a TCP stream.
#[derive(Debug)]
pub struct FromStream {
    /// The packet.
    pub open: Open,
    /// The path whose SAs may come by this stream.
    pub path: PathId,
}

/// What one worker does and another may have to: the second half of a packet's way, at its SA's owner.
#[derive(Debug)]
pub enum Work {
    /// Encrypt and send.
    Seal(Seal),
    /// Decrypt and forward.
    Open(Open),
    /// Answer an ESP echo request.
    Reply(Reply),
}

impl Work {
    /// The SA that it needs.
    pub fn sa(&self) -> SaName {
        match self {
            Self::Seal(Seal { outbound, .. }) | Self::Reply(Reply { outbound, .. }) => {
                SaName::Outbound(*outbound)
            }
            Self::Open(open) => SaName::Inbound(open.spi),
        }
    }

    /// The packet.
    pub fn into_packet(self) -> Packet {
        match self {
            Self::Seal(seal) => seal.packet,
            Self::Open(open) => open.packet,
            Self::Reply(reply) => reply.packet,
        }
    }
}

/// Who sent a clear-text packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A neighbour on an AF_XDP port: the interface's index and the neighbour's link-layer address.
    Neighbour {
        /// Interface index.
        ifindex: u32,
        /// Where its frames come from.
        mac: [u8; 6],
    },
    /// The kernel, through this TUN device.
    Kernel {
        /// Its number.
        tun: usize,
    },
    /// A peer's host: it came out of a tunnel.
    Tunnel,
    /// This data plane: an ICMP error into a tunnel.
    Own,
}
