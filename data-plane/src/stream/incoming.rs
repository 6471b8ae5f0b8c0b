//! Taking ESP packets out of what a stream brings; all other octets stay as they are, for the control plane.

/// The octets that the originator of a stream sends first (RFC 9329 section 4).
const PREFIX_LEN: usize = 6;
const LENGTH_LEN: usize = 2;
/// What IKE has where ESP has its SPI (RFC 9329 section 3).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// Enough of a frame to tell what it is.
const HEAD_LEN: usize = LENGTH_LEN + NON_ESP_MARKER.len();

/// Where in its frames a stream is.
#[derive(Debug)]
pub struct Incoming {
    state: State,
    /// An ESP packet that has arrived in part; empty, and without memory, otherwise.
    partial: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// The first octets of a frame.
    Head {
        bytes: [u8; HEAD_LEN],
        len: usize,
        /// As many of them were passed on already.
        passed: usize,
    },
    /// So many octets are passed on.
    Passing(usize),
    /// So many octets are still missing of the packet in `partial`.
    Esp(usize),
    /// What comes cannot be told into frames; the control plane will see the same and close the stream.
    Broken,
}

const START: State = State::Head { bytes: [0; HEAD_LEN], len: 0, passed: 0 };

impl Incoming {
    /// Of a stream that the peer opened: it sends the prefix first.
    pub fn accepted() -> Self {
        Self { state: State::Passing(PREFIX_LEN), partial: Vec::new() }
    }

    /// Of a stream that we opened.
    pub fn dialled() -> Self {
        Self { state: START, partial: Vec::new() }
    }

    /// Follows octets that all go to the control plane.
    pub fn follow(&mut self, bytes: &[u8]) {
        self.take(bytes, false, |_| {}, |_| {});
        if let State::Head { len, passed, .. } = &mut self.state {
            *passed = *len;
        }
    }

    /// Takes octets as they were read: whole ESP packets go to `esp` if they are accepted now, all else goes to `pass` in
    /// its order. Of a frame whose kind is not known yet up to five octets are kept back.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        accepts: bool,
        mut pass: impl FnMut(&[u8]),
        mut esp: impl FnMut(&[u8]),
    ) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Passing(left) => {
                    let (now, later) = bytes.split_at(bytes.len().min(*left));
                    pass(now);
                    *left -= now.len();
                    bytes = later;
                    if *left == 0 {
                        self.state = START;
                    }
                }
                State::Esp(left) => {
                    let (now, later) = bytes.split_at(bytes.len().min(*left));
                    self.partial.extend_from_slice(now);
                    *left -= now.len();
                    bytes = later;
                }
                State::Broken => return pass(bytes),
                State::Head { len: 0, .. } if accepts && let Some((packet, rest)) = whole_esp(bytes) => {
                    esp(packet);
                    bytes = rest;
                }
                State::Head { .. } => bytes = self.take_head(bytes, accepts, &mut pass),
            }
            if let State::Esp(0) = self.state {
                esp(&self.partial);
                (self.state, self.partial) = (START, Vec::new());
            }
        }
    }

    /// True if part of a packet is kept.
    pub fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    fn take_head<'a>(&mut self, bytes: &'a [u8], accepts: bool, pass: &mut impl FnMut(&[u8])) -> &'a [u8] {
        let State::Head { bytes: head, len, passed } = &mut self.state else { return bytes };
        let frame_len = |head: &[u8; HEAD_LEN]| usize::from(u16::from_be_bytes([head[0], head[1]]));
        // A frame shorter than a head has nothing but its length and what it says.
        let wanted = if *len < LENGTH_LEN { LENGTH_LEN } else { HEAD_LEN.min(frame_len(head)) };
        let (now, later) = bytes.split_at(bytes.len().min(wanted - *len));
        head[*len..*len + now.len()].copy_from_slice(now);
        *len += now.len();
        if *len < LENGTH_LEN {
            return later;
        }
        let frame = frame_len(head);
        if frame < LENGTH_LEN {
            pass(&head[*passed..*len]);
            self.state = State::Broken;
        } else if *len == HEAD_LEN.min(frame) {
            let is_esp = *len == HEAD_LEN && head[LENGTH_LEN..] != NON_ESP_MARKER;
            if is_esp && accepts && *passed == 0 {
                self.partial = Vec::with_capacity(frame - LENGTH_LEN);
                self.partial.extend_from_slice(&head[LENGTH_LEN..]);
                self.state = State::Esp(frame - HEAD_LEN);
            } else {
                pass(&head[*passed..*len]);
                self.state = if frame > *len { State::Passing(frame - *len) } else { START };
            }
        }
        later
    }
}

/// The ESP packet at the front, if it is one and all of it is there, and what follows.
fn whole_esp(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_LEN>()?;
    let body = usize::from(u16::from_be_bytes(*length)).checked_sub(LENGTH_LEN)?;
    let (packet, rest) = rest.split_at_checked(body)?;
    (packet.len() >= NON_ESP_MARKER.len() && !packet.starts_with(&NON_ESP_MARKER)).then_some((packet, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the portions: packets come out whole and in order, the rest is the stream without them.
        #[test]
        fn packets_are_taken_out_and_the_rest_stays(
            frames in proptest::collection::vec(frame(), 0..20),
            cuts in proptest::collection::vec(1_usize..60, 1..100),
            has_prefix in any::<bool>(),
        ) {
            let prefix: &[u8] = if has_prefix { b"IKETCP" } else { b"" };
            let (mut stream, mut passed, mut packets) = (prefix.to_vec(), prefix.to_vec(), Vec::new());
            for body in &frames {
                let frame = framed(body);
                if is_esp(body) { packets.push(body.clone()) } else { passed.extend_from_slice(&frame) }
                stream.extend_from_slice(&frame);
            }
            let mut incoming = if has_prefix { Incoming::accepted() } else { Incoming::dialled() };
            let (mut got_passed, mut got_packets) = (Vec::new(), Vec::new());
            for portion in portions(&stream, &cuts) {
                incoming.take(
                    portion,
                    true,
                    |octets| got_passed.extend_from_slice(octets),
                    |packet| got_packets.push(packet.to_vec()),
                );
            }
            prop_assert_eq!(got_passed, passed);
            prop_assert_eq!(got_packets, packets);
            prop_assert!(!incoming.has_partial());
        }

        /// The change from one way to the other loses and doubles nothing, wherever in a frame it comes.
        #[test]
        fn nothing_is_lost_where_acceptance_changes(
            frames in proptest::collection::vec(frame(), 1..20),
            cuts in proptest::collection::vec(1_usize..60, 1..100),
            followed in 0_usize..200,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|body| framed(body)).collect();
            let (first, second) = stream.split_at(followed.min(stream.len()));
            let mut incoming = Incoming::dialled();
            let (mut passed, mut packets) = (Vec::new(), Vec::new());
            for portion in portions(first, &cuts) {
                incoming.follow(portion);
                passed.extend_from_slice(portion);
            }
            for (i, portion) in portions(second, &cuts).enumerate() {
                incoming.take(
                    portion,
                    i % 3 != 0,
                    |octets| passed.extend_from_slice(octets),
                    |packet| packets.push(packet.to_vec()),
                );
            }
            let mut packets = packets.into_iter().peekable();
            let mut rest = passed.as_slice();
            for body in &frames {
                if rest.starts_with(&framed(body)) {
                    rest = &rest[body.len() + 2..];
                } else {
                    prop_assert_eq!(packets.next(), Some(body.clone()));
                }
            }
            prop_assert!(rest.is_empty() && packets.next().is_none());
        }

        #[test]
        fn any_octets_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300), accepts in any::<bool>()) {
            Incoming::dialled().take(&bytes, accepts, |_| {}, |_| {});
        }
    }

    /// RFC 9329 section 3: lengths 0 and 1 are fatal, which is the control plane's to decide.
    #[test]
    fn what_cannot_be_framed_is_passed_on_for_good() {
        let mut incoming = Incoming::dialled();
        let mut passed = Vec::new();
        for portion in [&[0][..], &[1, 9], &[0, 8, 1, 2, 3, 4, 5, 6]] {
            incoming.take(portion, true, |octets| passed.extend_from_slice(octets), |_| panic!("no packet"));
        }
        assert_eq!(passed, [0, 1, 9, 0, 8, 1, 2, 3, 4, 5, 6]);
    }

    /// RFC 9329 sections 3 and 6.6: empty frames and NAT keepalives are no packets.
    #[test]
    fn short_frames_are_passed_on() {
        let stream = [0, 2, 0, 3, 0xff, 0, 5, 1, 2, 3];
        let mut passed = Vec::new();
        Incoming::dialled().take(
            &stream,
            true,
            |octets| passed.extend_from_slice(octets),
            |_| panic!("no packet"),
        );
        assert_eq!(passed, stream);
    }

    fn frame() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            proptest::collection::vec(any::<u8>(), 0..80).prop_map(|rest| [&[0; 4][..], &rest].concat()),
        ]
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u16 + 2).to_be_bytes()[..], body].concat()
    }

    fn is_esp(body: &[u8]) -> bool {
        body.len() >= 4 && body[..4] != [0; 4]
    }

    fn portions<'a>(mut stream: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut cuts = cuts.iter().copied().cycle();
        std::iter::from_fn(move || {
            let (head, tail) = stream.split_at(cuts.next()?.min(stream.len()));
            stream = tail;
            (!head.is_empty()).then_some(head)
        })
    }
}
