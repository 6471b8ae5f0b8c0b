//! The messages of one set of IKE keys: SPIs, window, Initialization Vectors, fragments.

use super::payloads::Payload;
use super::protect::{self, IvCounter, Sealed};
use super::reassembly::{Piece, Reassembly};
use super::window::Window;
use crate::codec::{Encrypted, ExchangeType, Flags, Header, Message, PayloadChain};
use crate::crypto::AeadKey;
use crate::time::Time;

/// See the module. Rekeying an IKE SA makes a new one (RFC 7296 section 2.18: Message IDs start over).
#[derive(Debug)]
pub(crate) struct Channel {
    /// IKE SA Initiator's SPI.
    pub(crate) spi_i: u64,
    /// IKE SA Responder's SPI; zero until it is known.
    pub(crate) spi_r: u64,
    /// We are the initiator of this IKE SA: whose flag is set, and which keys are ours.
    pub(crate) is_initiator: bool,
    /// Message IDs and stored messages.
    pub(crate) window: Window,
    iv: IvCounter,
    /// Of a request and of a response: their Message IDs count apart.
    reassembly: [Option<Box<Reassembly>>; 2],
}

/// A message of the peer, authenticated and decrypted.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The inner payloads.
    pub(crate) content: PayloadChain,
    /// IntAuth_A (RFC 9242 section 3.3.2).
    pub(crate) int_auth_a: Vec<u8>,
}

/// What became of a received message.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Here it is.
    Whole(Opened),
    /// An authentic fragment of a message that is not complete yet.
    Part,
    /// Not authentic.
    Forged,
}

impl Channel {
    /// A channel with no message yet.
    pub(crate) fn new(spi_i: u64, spi_r: u64, is_initiator: bool) -> Self {
        Self {
            spi_i,
            spi_r,
            is_initiator,
            window: Window::default(),
            iv: IvCounter::default(),
            reassembly: [None, None],
        }
    }

    /// Our SPI: the one that messages to us are found by.
    pub(crate) fn our_spi(&self) -> u64 {
        if self.is_initiator { self.spi_i } else { self.spi_r }
    }

    /// Octets of messages and fragments that are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.window.kept_bytes() + self.reassembly.iter().flatten().map(|held| held.bytes()).sum::<usize>()
    }

    /// When an incomplete message is given up.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.reassembly.iter().flatten().map(|held| held.expires()).min()
    }

    /// Incomplete messages whose time is over are given up.
    pub(crate) fn forget_incomplete(&mut self, now: Time) {
        for slot in &mut self.reassembly {
            slot.take_if(|held| held.expires() <= now);
        }
    }

    /// The header of a message of ours.
    pub(crate) fn header(&self, exchange: ExchangeType, is_response: bool, message_id: u32) -> Header {
        let flags = Flags { initiator: self.is_initiator, response: is_response };
        Header { spi_i: self.spi_i, spi_r: self.spi_r, exchange, flags, message_id }
    }

    /// Encrypts a message of ours; `most_bytes` is the size from which it leaves in fragments.
    pub(crate) fn seal(
        &mut self,
        key: &AeadKey,
        header: &Header,
        content: &PayloadChain,
        most_bytes: Option<usize>,
    ) -> Option<Sealed> {
        self.seal_behind(&[], key, header, content, most_bytes)
    }

    /// The same, with the payloads of `clear` before the Encrypted payload.
    pub(crate) fn seal_behind(
        &mut self,
        clear: &[Payload],
        key: &AeadKey,
        header: &Header,
        content: &PayloadChain,
        most_bytes: Option<usize>,
    ) -> Option<Sealed> {
        protect::seal(header, clear, content, key, &mut self.iv, most_bytes)
    }

    /// Decrypts a message of the peer. Parts of fragmented ones are kept, at most `most_bytes` of them.
    pub(crate) fn open(
        &mut self,
        now: Time,
        key: &AeadKey,
        raw: &[u8],
        message: &Message<'_>,
        most_bytes: usize,
    ) -> Opening {
        let Some(encrypted) = &message.encrypted else { return Opening::Forged };
        let Some(text) = protect::open(encrypted, key) else { return Opening::Forged };
        let Some(fragment) = encrypted.fragment else {
            return opened(encrypted, text);
        };
        let piece = Piece {
            message_id: message.header.message_id,
            number: fragment.number,
            total: fragment.total,
            message: raw,
            content: text,
        };
        let [requests, responses] = &mut self.reassembly;
        let slot = if message.header.flags.response { responses } else { requests };
        match Reassembly::add(slot, now, piece, most_bytes) {
            None => Opening::Part,
            Some(whole) => match Message::decode(&whole.first).map(|first| first.encrypted) {
                Ok(Some(first)) => opened(&first, whole.content),
                _ => Opening::Forged,
            },
        }
    }
}

/// A message of the peer, or one fragment of it, is authentic; nothing of it is kept.
pub(crate) fn is_authentic(key: &AeadKey, message: &Message<'_>) -> bool {
    message.encrypted.as_ref().is_some_and(|encrypted| protect::open(encrypted, key).is_some())
}

fn opened(encrypted: &Encrypted<'_>, text: Vec<u8>) -> Opening {
    match encrypted.int_auth_a(text.len()) {
        Ok(int_auth_a) => {
            let content = PayloadChain { first: encrypted.first_inner, bytes: text };
            Opening::Whole(Opened { content, int_auth_a })
        }
        Err(_) => Opening::Forged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::PayloadType;
    use crate::crypto::Aead;

    /// RFC 7383 section 2.6.1 tells fragments apart by Message ID; RFC 7296 section 2.2 gives each direction its own.
    #[test]
    fn a_fragmented_request_and_a_fragmented_response_with_one_message_id_do_not_mix() {
        let key = AeadKey::new(Aead::Aes256Gcm16, &[7; 36]);
        let (mut peer, mut ours) = (Channel::new(1, 2, true), Channel::new(1, 2, false));
        let request = fragments(&mut peer, &key, false, 1);
        let response = fragments(&mut peer, &key, true, 2);
        let mut whole = Vec::new();
        for (a, b) in request.iter().zip(&response) {
            for raw in [a, b] {
                let message = Message::decode(raw).unwrap();
                if let Opening::Whole(opened) = ours.open(Time::ZERO, &key, raw, &message, 65_535) {
                    whole.push(opened.content.bytes);
                }
            }
        }
        assert_eq!(whole, [vec![1; 1000], vec![2; 1000]]);
    }

    /// RFC 7383 section 2.6: an incomplete message is given up after a time, and its repetition is whole again.
    #[test]
    fn an_incomplete_message_is_given_up_in_time() {
        let key = AeadKey::new(Aead::Aes256Gcm16, &[7; 36]);
        let (mut peer, mut ours) = (Channel::new(1, 2, true), Channel::new(1, 2, false));
        let raw = fragments(&mut peer, &key, false, 1);
        let open = |ours: &mut Channel, now, raw: &[u8]| {
            let opening = ours.open(now, &key, raw, &Message::decode(raw).unwrap(), 65_535);
            matches!(opening, Opening::Whole(_))
        };
        assert_eq!(ours.next_timeout(), None);
        assert!(!open(&mut ours, Time::ZERO, &raw[0]));
        let end = ours.next_timeout().unwrap();
        ours.forget_incomplete(Time::ZERO);
        assert!(ours.kept_bytes() > 0);
        ours.forget_incomplete(end);
        assert_eq!((ours.kept_bytes(), ours.next_timeout()), (0, None));
        let whole: Vec<_> = raw.iter().map(|raw| open(&mut ours, end, raw)).collect();
        assert_eq!(whole.iter().filter(|whole| **whole).count(), 1);
        assert_eq!(whole.last(), Some(&true));
    }

    fn fragments(channel: &mut Channel, key: &AeadKey, is_response: bool, octet: u8) -> Vec<Vec<u8>> {
        let header = channel.header(ExchangeType::INFORMATIONAL, is_response, 5);
        let content = PayloadChain { first: PayloadType::NOTIFY, bytes: vec![octet; 1000] };
        channel.seal(key, &header, &content, Some(400)).unwrap().messages
    }
}
