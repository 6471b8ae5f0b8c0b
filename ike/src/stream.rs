//! Framing of IKE and ESP on a TCP stream (RFC 9329 sections 3 and 4).
//!
//! ```text
//! "IKETCP"  once, by the originator
//! length (2 octets, itself included) | four zero octets | IKE message
//! length (2 octets, itself included) | ESP packet
//! ```

use crate::codec::{MAX_MESSAGE_LEN, NON_ESP_MARKER};

/// What the originator sends first on every connection (RFC 9329 section 4).
pub const PREFIX: [u8; 6] = *b"IKETCP";

/// Octets before an IKE message: the length and the non-ESP marker.
pub const IKE_OVERHEAD: usize = LENGTH + NON_ESP_MARKER.len();

const LENGTH: usize = 2;
const NAT_KEEPALIVE: u8 = 0xff;

/// What came out of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// An IKE message, without length and marker.
    Ike(Vec<u8>),
    /// An ESP packet, without length.
    Esp(Vec<u8>),
}

/// Why a stream has to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamError {
    /// The first octets are not the prefix.
    BadPrefix,
    /// A length of 0 or 1 octets (RFC 9329 section 3).
    BadLength,
    /// A frame above the limit that the caller has set.
    TooLong,
}

impl core::fmt::Display for StreamError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::BadPrefix => "the stream does not start with IKETCP",
            Self::BadLength => "a frame claims a length below 2",
            Self::TooLong => "a frame is longer than allowed",
        })
    }
}

impl core::error::Error for StreamError {}

/// Cuts the received octets of one stream into frames. It keeps only octets that have arrived, at most one frame of them
/// once [`Deframer::next_frame`] has been called until it gave nothing.
#[derive(Debug)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// Octets at the front that were given out; they go when the rest is moved anyway.
    consumed: usize,
    awaits_prefix: bool,
    limit: usize,
}

impl Deframer {
    /// For a stream that the peer opened: its prefix comes first. Frames of more than `limit` octets are refused.
    pub fn accepted(limit: usize) -> Self {
        Self { buffer: Vec::new(), consumed: 0, awaits_prefix: true, limit }
    }

    /// For a stream that we opened: the peer sends no prefix.
    pub fn dialled() -> Self {
        Self { buffer: Vec::new(), consumed: 0, awaits_prefix: false, limit: u16::MAX as usize }
    }

    /// Sets the largest frame that is accepted from now on, octets.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The prefix has arrived, or none is due.
    pub fn has_prefix(&self) -> bool {
        !self.awaits_prefix
    }

    /// Octets kept now.
    pub fn buffered_bytes(&self) -> usize {
        self.rest().len()
    }

    /// Takes octets as they were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame. Empty frames and NAT keepalives are skipped.
    ///
    /// # Errors
    /// The stream has to be closed; what follows on it means nothing.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        if self.awaits_prefix && !self.take_prefix()? {
            return Ok(None);
        }
        while let Some((length, body)) = self.rest().split_first_chunk::<LENGTH>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length < LENGTH {
                return Err(StreamError::BadLength);
            }
            if length > self.limit {
                return Err(StreamError::TooLong);
            }
            let Some(body) = body.get(..length - LENGTH) else { break };
            let frame = frame(body);
            self.consumed += length;
            if frame.is_some() {
                return Ok(frame);
            }
        }
        if self.rest().is_empty() {
            (self.buffer, self.consumed) = (Vec::new(), 0);
        }
        Ok(None)
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.consumed..).unwrap_or_default()
    }

    fn take_prefix(&mut self) -> Result<bool, StreamError> {
        let length = self.rest().len().min(PREFIX.len());
        if self.rest().get(..length) != PREFIX.get(..length) {
            return Err(StreamError::BadPrefix);
        }
        if length < PREFIX.len() {
            return Ok(false);
        }
        self.consumed += length;
        self.awaits_prefix = false;
        Ok(true)
    }
}

/// What stands between two lengths; `None` for an empty frame and a NAT keepalive, which mean nothing on TCP (RFC 9329
/// sections 3 and 6.6).
fn frame(body: &[u8]) -> Option<Frame> {
    match body {
        [] | [NAT_KEEPALIVE] => None,
        _ => Some(match body.strip_prefix(&NON_ESP_MARKER) {
            Some(message) => Frame::Ike(message.to_vec()),
            None => Frame::Esp(body.to_vec()),
        }),
    }
}

/// Appends the frame of one IKE message to `out`; false, and nothing appended, if the message is longer than
/// [`MAX_MESSAGE_LEN`].
#[must_use]
pub fn push_ike(out: &mut Vec<u8>, message: &[u8]) -> bool {
    let length = u16::try_from(message.len() + IKE_OVERHEAD);
    let (true, Ok(length)) = (message.len() <= MAX_MESSAGE_LEN, length) else { return false };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&NON_ESP_MARKER);
    out.extend_from_slice(message);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_any_segmentation(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in proptest::collection::vec(1_usize..40, 1..200),
        ) {
            let mut stream = PREFIX.to_vec();
            for message in &messages {
                prop_assert!(push_ike(&mut stream, message));
            }
            let mut deframer = Deframer::accepted(65_535);
            let mut frames = Vec::new();
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                deframer.push(head);
                while let Some(frame) = deframer.next_frame().unwrap() {
                    frames.push(frame);
                }
                rest = tail;
            }
            prop_assert_eq!(frames, messages.into_iter().map(Frame::Ike).collect::<Vec<_>>());
            prop_assert_eq!(deframer.buffered_bytes(), 0);
        }

        #[test]
        fn any_octets_give_frames_an_error_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut deframer = Deframer::dialled();
            deframer.push(&bytes);
            while let Ok(Some(_)) = deframer.next_frame() {}
            prop_assert!(deframer.buffered_bytes() <= bytes.len());
        }
    }

    /// RFC 9329 section 3.
    #[test]
    fn lengths_below_two_are_fatal_and_empty_frames_and_keepalives_are_not() {
        for length in [0_u8, 1] {
            let mut deframer = Deframer::dialled();
            deframer.push(&[0, length]);
            assert_eq!(deframer.next_frame(), Err(StreamError::BadLength));
        }
        let mut deframer = Deframer::dialled();
        deframer.push(&[0, 2, 0, 3, 0xff, 0, 7, 0, 0, 0, 0, 9, 0, 6, 1, 2, 3, 4]);
        assert_eq!(deframer.next_frame(), Ok(Some(Frame::Ike(vec![9]))));
        assert_eq!(deframer.next_frame(), Ok(Some(Frame::Esp(vec![1, 2, 3, 4]))));
        assert_eq!(deframer.next_frame(), Ok(None));
    }

    /// RFC 9329 section 4.
    #[test]
    fn a_stream_without_the_prefix_is_refused_at_its_first_wrong_octet() {
        let mut deframer = Deframer::accepted(100);
        deframer.push(b"IKE");
        assert_eq!((deframer.next_frame(), deframer.has_prefix()), (Ok(None), false));
        deframer.push(b"UDP");
        assert_eq!(deframer.next_frame(), Err(StreamError::BadPrefix));
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_has_arrived() {
        let mut deframer = Deframer::accepted(100);
        deframer.push(b"IKETCP");
        deframer.push(&[0, 101]);
        assert_eq!(deframer.next_frame(), Err(StreamError::TooLong));
    }
}
