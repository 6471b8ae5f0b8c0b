//! What a stream's task writes next: IKE before ESP, and never inside an ESP frame.

use super::CHUNK_BYTES;

const LENGTH_LEN: usize = 2;

/// Octets that wait for the kernel.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// What the control plane wants to say, whole messages, and how much of it has left.
    ike: Option<(Vec<u8>, usize)>,
    /// Whole ESP frames, and how much of them has left.
    esp: Vec<u8>,
    sent: usize,
    /// Where in `esp` the frame starts that has not left as a whole.
    boundary: usize,
}

/// What has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Part of the control plane's octets.
    PartOfIke,
    /// All of them, so many.
    Ike(usize),
    /// So many ESP packets as a whole, and their octets without framing.
    Esp { packets: u64, bytes: u64 },
}

impl Outgoing {
    /// True if the control plane may say something: what it said before has left.
    pub(super) fn wants_ike(&self) -> bool {
        self.ike.is_none()
    }

    /// Takes whole messages of the control plane.
    pub(super) fn push_ike(&mut self, octets: Vec<u8>) {
        debug_assert!(self.wants_ike());
        self.ike = (!octets.is_empty()).then_some((octets, 0));
    }

    /// True if ESP frames should be added: those before have left, or there are few of them yet.
    pub(super) fn wants_esp(&self) -> bool {
        self.sent == 0 && self.esp.len() < CHUNK_BYTES
    }

    /// Adds the frame of an ESP packet; false if it is too long for one (RFC 9329 section 3).
    pub(super) fn push_esp(&mut self, packet: &[u8]) -> bool {
        let Ok(length) = u16::try_from(packet.len() + LENGTH_LEN) else { return false };
        self.esp.extend_from_slice(&length.to_be_bytes());
        self.esp.extend_from_slice(packet);
        true
    }

    /// What has to be written next; `None` if nothing waits.
    pub(super) fn next(&self) -> Option<&[u8]> {
        let octets = match &self.ike {
            Some((_, 0)) if self.sent > self.boundary => self.esp.get(self.sent..self.next_boundary()),
            Some((octets, sent)) => octets.get(*sent..),
            None => self.esp.get(self.sent..),
        };
        octets.filter(|octets| !octets.is_empty())
    }

    /// So many octets of [`Outgoing::next`] were written.
    pub(super) fn advance(&mut self, written: usize) -> Left {
        let is_ike = matches!(self.ike, Some((_, sent)) if sent > 0 || self.sent == self.boundary);
        if is_ike && let Some((octets, sent)) = &mut self.ike {
            *sent += written;
            if *sent < octets.len() {
                return Left::PartOfIke;
            }
            let all = octets.len();
            self.ike = None;
            return Left::Ike(all);
        }
        self.sent += written;
        let (mut packets, mut bytes) = (0, 0);
        while self.boundary < self.esp.len() && self.next_boundary() <= self.sent {
            packets += 1;
            bytes += (self.next_boundary() - self.boundary - LENGTH_LEN) as u64;
            self.boundary = self.next_boundary();
        }
        if self.sent == self.esp.len() {
            self.esp.clear();
            (self.sent, self.boundary) = (0, 0);
        }
        Left::Esp { packets, bytes }
    }

    /// Packets that have not left as a whole.
    pub(super) fn packets(&self) -> u64 {
        let (mut at, mut packets) = (self.boundary, 0);
        while at < self.esp.len() {
            at = self.end_of_frame(at);
            packets += 1;
        }
        packets
    }

    /// Gives memory back that nothing is in.
    pub(super) fn rest(&mut self) {
        if self.esp.is_empty() {
            self.esp = Vec::new();
        }
    }

    fn next_boundary(&self) -> usize {
        self.end_of_frame(self.boundary)
    }

    fn end_of_frame(&self, start: usize) -> usize {
        let length = self.esp.get(start..).and_then(|frame| frame.first_chunk::<LENGTH_LEN>());
        // Only whole frames are pushed.
        length.map_or(self.esp.len(), |length| start + usize::from(u16::from_be_bytes(*length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ike_goes_first_and_an_esp_frame_is_finished_before() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.push_esp(&[1; 8]) && outgoing.push_esp(&[2; 8]));
        assert_eq!(outgoing.next().unwrap().len(), 20);
        assert_eq!(outgoing.advance(3), Left::Esp { packets: 0, bytes: 0 });
        outgoing.push_ike(vec![9; 5]);
        assert_eq!(outgoing.next().unwrap(), [1; 7]);
        assert_eq!(outgoing.advance(7), Left::Esp { packets: 1, bytes: 8 });
        assert_eq!(outgoing.next().unwrap(), [9; 5]);
        assert_eq!(outgoing.advance(2), Left::PartOfIke);
        assert_eq!(outgoing.next().unwrap(), [9; 3]);
        assert_eq!(outgoing.advance(3), Left::Ike(5));
        assert_eq!((outgoing.next().unwrap().len(), outgoing.packets()), (10, 1));
        assert_eq!(outgoing.advance(10), Left::Esp { packets: 1, bytes: 8 });
        assert_eq!((outgoing.next(), outgoing.packets()), (None, 0));
    }

    #[test]
    fn a_packet_that_no_length_describes_is_refused() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.push_esp(&vec![1; 65_533]));
        assert!(!outgoing.push_esp(&vec![1; 65_534]));
        assert_eq!(outgoing.packets(), 1);
    }

    #[test]
    fn an_idle_stream_holds_no_memory() {
        let mut outgoing = Outgoing::default();
        outgoing.push_esp(&[1; 1400]);
        outgoing.advance(1402);
        outgoing.rest();
        assert_eq!(outgoing.esp.capacity(), 0);
    }

    proptest! {
        /// However little the kernel takes at a time: both kinds arrive whole, in their order, IKE at the next boundary.
        #[test]
        fn both_kinds_arrive_whole(
            steps in proptest::collection::vec((any::<bool>(), 1_usize..50, 1_usize..120), 1..60),
        ) {
            let (mut outgoing, mut written) = (Outgoing::default(), Vec::new());
            let (mut ike, mut esp, mut packets) = (Vec::new(), Vec::new(), 0);
            let mut take = |outgoing: &mut Outgoing, written: &mut Vec<u8>, most: usize| {
                let Some(next) = outgoing.next() else { return false };
                let len = next.len().min(most);
                written.extend_from_slice(&next[..len]);
                if let Left::Esp { packets: left, .. } = outgoing.advance(len) { packets += left }
                true
            };
            for (i, (is_ike, len, takes)) in steps.into_iter().enumerate() {
                let body = vec![i as u8 | 0x80; len];
                if is_ike && outgoing.wants_ike() {
                    let frame = [&(len as u16 + 6).to_be_bytes()[..], &[0; 4], &body].concat();
                    ike.push(frame.clone());
                    outgoing.push_ike(frame);
                } else if outgoing.wants_esp() {
                    let packet = [&[1; 4][..], &body].concat();
                    prop_assert!(outgoing.push_esp(&packet));
                    esp.push(packet);
                }
                take(&mut outgoing, &mut written, takes);
            }
            while take(&mut outgoing, &mut written, usize::MAX) {}
            let (mut got_ike, mut got_esp) = (Vec::new(), Vec::new());
            super::super::Incoming::dialled().take(
                &written,
                true,
                |octets| got_ike.extend_from_slice(octets),
                |packet| got_esp.push(packet.to_vec()),
            );
            prop_assert_eq!(got_ike, ike.concat());
            prop_assert_eq!(packets, esp.len() as u64);
            prop_assert_eq!(got_esp, esp);
        }
    }
}
