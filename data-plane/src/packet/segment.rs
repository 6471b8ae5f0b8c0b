//! Cutting what a sender left for its network card to cut: TCP (RFC 9293) and UDP (RFC 768) over IPv4 and IPv6.

use std::ops::Range;

use super::offload::{Segmentation, Segmented};
use super::{Inner, IpVersion, checksum, protocol};
use crate::packet::inner::Fragment;

const UDP_HEADER_LEN: usize = 8;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A packet and how it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    inner: Inner,
    /// Bytes of IP and TCP or UDP headers, which every segment gets.
    header_len: usize,
    size: usize,
}

impl<'a> Segments<'a> {
    /// A packet to cut, whose headers are `inner`; `None` if it is no whole packet of that kind, or its header says
    /// that segments are empty.
    pub fn new(packet: &'a [u8], inner: &Inner, segmentation: Segmentation) -> Option<Self> {
        let packet = packet.get(..inner.total_len)?;
        let expected = match segmentation.kind {
            Segmented::TcpV4 => (protocol::TCP, inner.version == IpVersion::V4),
            Segmented::TcpV6 => (protocol::TCP, inner.version == IpVersion::V6),
            Segmented::Udp => (protocol::UDP, true),
        };
        if expected != (inner.protocol, true) || inner.fragment != Fragment::Whole || segmentation.size == 0 {
            return None;
        }
        let upper = packet.get(inner.payload_offset..)?;
        let upper_len = match inner.protocol {
            protocol::TCP => usize::from(upper.first_chunk::<20>()?[12] >> 4) * 4,
            _ => UDP_HEADER_LEN,
        };
        let is_header = upper_len >= UDP_HEADER_LEN && upper_len <= upper.len();
        let header_len = inner.payload_offset + upper_len;
        (is_header && (inner.protocol != protocol::TCP || upper_len >= 20)).then_some(Self {
            packet,
            inner: *inner,
            header_len,
            size: usize::from(segmentation.size),
        })
    }

    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        (self.packet.len() - self.header_len).div_ceil(self.size).max(1)
    }

    /// The headers of segment `number`, from 0 on: those of the packet, with the length of that segment.
    pub fn inner(&self, number: usize) -> Inner {
        Inner { total_len: self.header_len + self.data(number).len(), ..self.inner }
    }

    /// Writes segment `number` to `out`, checksums included, and returns its length in bytes; `None` if there is no room or
    /// no such segment.
    pub fn write(&self, number: usize, out: &mut [u8]) -> Option<usize> {
        if number >= self.count() {
            return None;
        }
        let data = self.packet.get(self.data(number))?;
        let len = self.header_len + data.len();
        let out = out.get_mut(..len)?;
        let (header, room) = out.split_at_mut(self.header_len);
        header.copy_from_slice(self.packet.get(..self.header_len)?);
        room.copy_from_slice(data);
        self.finish_ip(header, number, len);
        let is_last = number + 1 == self.count();
        self.finish_upper(out.get_mut(self.inner.payload_offset..)?, number, is_last);
        Some(len)
    }

    /// Where the data of a segment lies.
    fn data(&self, number: usize) -> Range<usize> {
        let start = (self.header_len + number * self.size).min(self.packet.len());
        start..(start + self.size).min(self.packet.len())
    }

    fn finish_ip(&self, header: &mut [u8], number: usize, len: usize) {
        match self.inner.version {
            IpVersion::V4 => {
                header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                let identification = u16::from_be_bytes([header[4], header[5]]).wrapping_add(number as u16);
                header[4..6].copy_from_slice(&identification.to_be_bytes());
                let header_len = usize::from(header[0] & 0x0f) * 4;
                checksum::set_ipv4_header(&mut header[..header_len]);
            }
            IpVersion::V6 => header[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes()),
        }
    }

    /// Each segment carries what is true of it: its place in the stream, FIN and PSH with the last, CWR with the first
    /// (RFC 3168 section 6.1.2).
    fn finish_upper(&self, upper: &mut [u8], number: usize, is_last: bool) {
        let len = upper.len();
        let at = match self.inner.protocol {
            protocol::TCP => {
                let sequence = u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]);
                let sequence = sequence.wrapping_add((number * self.size) as u32);
                upper[4..8].copy_from_slice(&sequence.to_be_bytes());
                upper[13] &= if is_last { 0xff } else { !(FIN | PSH) };
                upper[13] &= if number == 0 { 0xff } else { !CWR };
                16
            }
            _ => {
                upper[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                6
            }
        };
        let Inner { source, destination, protocol, .. } = self.inner;
        let pseudo = checksum::fold(checksum::pseudo_header(source, destination, protocol, len));
        upper[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        checksum::finish(upper, at);
    }
}
