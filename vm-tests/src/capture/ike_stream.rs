//! TCP 4500 streams taken apart into the frames of RFC 9329 section 3: a 16-bit length that counts itself,
//! then IKE behind a non-ESP marker, or ESP.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::Counts;
use super::classify::Segment;

/// What the originator sends once, before its first frame.
const PREFIX: &[u8] = b"IKETCP";
const PORT: u16 = 4500;

/// All streams seen, one per direction.
#[derive(Default)]
pub(super) struct IkeStreams(HashMap<(SocketAddr, SocketAddr), Stream>);

struct Stream {
    /// The sequence number of the next octet in order.
    next: u32,
    /// Segments that arrived before those in front of them.
    early: BTreeMap<u32, Vec<u8>>,
    /// Octets in order that do not make a whole frame yet.
    rest: Vec<u8>,
    /// The prefix is still to come.
    awaits_prefix: bool,
}

impl IkeStreams {
    /// Counts the frames that a segment completes.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, counts: &mut Counts) {
        let key = (segment.source, segment.destination);
        if segment.syn {
            let awaits_prefix = segment.destination.port() == PORT;
            let next = segment.sequence.wrapping_add(1);
            // A repeated SYN of the same stream changes nothing.
            if self.0.get(&key).is_none_or(|stream| stream.next != next || !stream.rest.is_empty()) {
                counts.tcp_streams += 1;
                let stream = Stream { next, early: BTreeMap::new(), rest: Vec::new(), awaits_prefix };
                self.0.insert(key, stream);
            }
            return;
        }
        if segment.payload.is_empty() {
            return;
        }
        match self.0.get_mut(&key) {
            Some(stream) => {
                stream.arrive(segment.sequence, segment.payload);
                stream.count_frames(counts);
            }
            None => counts.tcp_unreadable += segment.payload.len() as u64,
        }
    }
}

impl Stream {
    fn arrive(&mut self, sequence: u32, payload: &[u8]) {
        self.early.insert(sequence, payload.to_vec());
        while let Some((&sequence, _)) = self.early.iter().find(|(s, _)| precedes(**s, self.next)) {
            let payload = self.early.remove(&sequence).unwrap_or_default();
            let known = self.next.wrapping_sub(sequence) as usize;
            // A retransmission may hold octets known already, and new ones behind them.
            if let Some(new) = payload.get(known..) {
                self.rest.extend_from_slice(new);
                self.next = self.next.wrapping_add(new.len() as u32);
            }
        }
    }

    fn count_frames(&mut self, counts: &mut Counts) {
        let mut at = 0;
        if self.awaits_prefix {
            if self.rest.len() < PREFIX.len() {
                return;
            }
            if !self.rest.starts_with(PREFIX) {
                counts.tcp_unreadable += self.rest.len() as u64;
                self.rest.clear();
                return;
            }
            self.awaits_prefix = false;
            at = PREFIX.len();
        }
        while let Some(length) =
            self.rest.get(at..at + 2).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]])))
        {
            if length < 2 {
                // No frame: such a length closes the stream.
                counts.tcp_unreadable += (self.rest.len() - at) as u64;
                at = self.rest.len();
                break;
            }
            let Some(content) = self.rest.get(at + 2..at + length) else { break };
            match content {
                [] | [0xff] => counts.nat_keepalives += content.len() as u64,
                [0, 0, 0, 0, message @ ..] => counts.ike_tcp.add(message.len()),
                _ => counts.esp_tcp += 1,
            }
            at += length;
        }
        self.rest.drain(..at);
    }
}

/// True if `sequence` is not after `next`, in the arithmetic of sequence numbers.
fn precedes(sequence: u32, next: u32) -> bool {
    next.wrapping_sub(sequence) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_whatever_the_segments_look_like() {
        let bytes =
            [PREFIX, &frame(&[0, 0, 0, 0, 7, 7]), &frame(&[0, 0, 1, 0, 9]), &frame(&[0, 0, 0, 0])].concat();
        for size in 1..bytes.len() {
            let mut streams = IkeStreams::default();
            let mut counts = Counts::default();
            // The sequence number wraps inside the stream.
            let start = u32::MAX - 4;
            streams.segment(&segment(start, true, &[]), &mut counts);
            let mut segments: Vec<_> = bytes.chunks(size).enumerate().collect();
            segments.reverse();
            segments.push((0, &bytes[..size]));
            for (i, chunk) in segments {
                let sequence = start.wrapping_add(1 + (i * size) as u32);
                streams.segment(&segment(sequence, false, chunk), &mut counts);
            }
            assert_eq!(
                (counts.ike_tcp.packets, counts.ike_tcp.bytes, counts.esp_tcp),
                (2, 2, 1),
                "size {size}"
            );
            assert_eq!((counts.tcp_unreadable, counts.tcp_streams), (0, 1));
        }
    }

    #[test]
    fn what_is_no_frame_is_counted_as_unreadable() {
        let mut counts = Counts::default();
        let mut streams = IkeStreams::default();
        streams.segment(&segment(0, false, b"mid-stream"), &mut counts);
        assert_eq!(counts.tcp_unreadable, 10);
        streams.segment(&segment(0, true, &[]), &mut counts);
        streams.segment(&segment(1, false, b"GET / HTTP/1.1"), &mut counts);
        assert_eq!(counts.tcp_unreadable, 24);
    }

    fn frame(content: &[u8]) -> Vec<u8> {
        let mut frame = (content.len() as u16 + 2).to_be_bytes().to_vec();
        frame.extend(content);
        frame
    }

    fn segment(sequence: u32, syn: bool, payload: &[u8]) -> Segment<'_> {
        Segment {
            source: "192.0.2.2:4501".parse().unwrap(),
            destination: "198.51.100.2:4500".parse().unwrap(),
            sequence,
            syn,
            payload,
        }
    }
}
