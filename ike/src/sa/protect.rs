//! The Encrypted payload: sealing, opening and fragmenting messages (RFC 7296 section 3.14, RFC 5282, RFC 7383).

use super::payloads::Payload;
use super::window::Messages;
use crate::codec::{CipherLayout, Encrypted, Fragment, Header, PayloadChain, PayloadType, Protected};
use crate::crypto::AeadKey;
use crate::crypto::aead::{ICV_LEN, IV_LEN};

/// Most fragments of a message that we send.
const MOST_FRAGMENTS: usize = 64;
const LAYOUT: CipherLayout = CipherLayout { iv_len: IV_LEN, icv_len: ICV_LEN };

/// A message ready to leave, and what RFC 9242 section 3.3.2 authenticates of it.
pub(crate) struct Sealed {
    /// One message, or its fragments.
    pub(crate) messages: Messages,
    /// IntAuth_A: header and generic header with adjusted lengths.
    pub(crate) int_auth_a: Vec<u8>,
}

/// Numbers the Initialization Vectors of one key; none is used twice.
#[derive(Debug, Default)]
pub(crate) struct IvCounter(u64);

impl IvCounter {
    /// The next one; `None` after 2^64 - 1 of them.
    fn next(&mut self) -> Option<[u8; IV_LEN]> {
        self.0 = self.0.checked_add(1)?;
        Some(self.0.to_be_bytes())
    }
}

/// Encrypts `content`. If `most_bytes` is given and the message is longer, it leaves in fragments of at most that many octets
/// each. `None` if it does not fit a message, or needs more than 64 fragments.
pub(crate) fn seal(
    header: &Header,
    clear: &[Payload],
    content: &PayloadChain,
    key: &AeadKey,
    iv: &mut IvCounter,
    most_bytes: Option<usize>,
) -> Option<Sealed> {
    let whole = Protected { clear, ..Protected::whole(header, content.first) };
    let int_auth_a = whole.int_auth_a(content.bytes.len()).ok()?;
    let clear_len = clear_len(clear)?;
    let messages = match most_bytes {
        Some(most) if LAYOUT.overhead(false) + clear_len + content.bytes.len() > most => {
            fragments(whole, clear_len, &content.bytes, key, iv, most)?
        }
        _ => vec![seal_one(whole, &content.bytes, key, iv)?],
    };
    Some(Sealed { messages, int_auth_a })
}

/// Decrypts; `None` if it is not authentic or its padding is impossible.
pub(crate) fn open(encrypted: &Encrypted<'_>, key: &AeadKey) -> Option<Vec<u8>> {
    let (iv, sealed) = encrypted.split(LAYOUT).ok()?;
    let mut text = sealed.to_vec();
    let length = key.open(iv.try_into().ok()?, encrypted.associated_data, &mut text)?.len();
    text.truncate(length);
    let length = Encrypted::content(&text).ok()?.len();
    text.truncate(length);
    Some(text)
}

/// RFC 7383 section 2.5.3: what is in clear is in the first fragment alone.
fn fragments(
    whole: Protected<'_>,
    clear_len: usize,
    content: &[u8],
    key: &AeadKey,
    iv: &mut IvCounter,
    most: usize,
) -> Option<Messages> {
    let room = most.checked_sub(LAYOUT.overhead(true)).filter(|room| *room > clear_len)?;
    let (first, rest) = content.split_at_checked(room - clear_len).unwrap_or((content, &[]));
    let parts: Vec<&[u8]> = core::iter::once(first).chain(rest.chunks(room)).collect();
    let total = u16::try_from(parts.len()).ok().filter(|total| usize::from(*total) <= MOST_FRAGMENTS)?;
    let fragment = |(number, part)| {
        let fragment = Some(Fragment { number, total });
        let protected = match number {
            1 => Protected { fragment, ..whole },
            _ => Protected { clear: &[], first_inner: PayloadType::NONE, fragment, ..whole },
        };
        seal_one(protected, part, key, iv)
    };
    (1..).zip(parts).map(fragment).collect()
}

/// Octets that payloads in clear take.
fn clear_len(clear: &[Payload]) -> Option<usize> {
    if clear.is_empty() { Some(0) } else { super::payloads::encode(clear).map(|chain| chain.bytes.len()) }
}

fn seal_one(protected: Protected<'_>, text: &[u8], key: &AeadKey, iv: &mut IvCounter) -> Option<Vec<u8>> {
    let iv = iv.next()?;
    let seal = |parts: crate::codec::SealParts<'_>| {
        let icv = key.seal(iv, parts.associated_data, parts.text)?;
        parts.iv.copy_from_slice(&iv);
        parts.icv.copy_from_slice(&icv);
        Some(())
    };
    protected.seal(text, LAYOUT, seal).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{ExchangeType, Flags, Message};
    use crate::crypto::Aead;

    #[test]
    fn what_is_sealed_opens_again_and_fits_the_fragment_size() {
        let key = AeadKey::new(Aead::Aes256Gcm16, &[7; 36]);
        for (length, most, expected) in
            [(0, None, 1), (100, Some(500), 1), (2000, Some(500), 5), (2000, None, 1)]
        {
            let content =
                PayloadChain { first: PayloadType(41), bytes: (0..length).map(|n| n as u8).collect() };
            let sealed = seal(&HEADER, &[], &content, &key, &mut IvCounter::default(), most).unwrap();
            assert_eq!(sealed.messages.len(), expected);
            let mut opened = Vec::new();
            for message in &sealed.messages {
                assert!(most.is_none_or(|most| message.len() <= most));
                let decoded = Message::decode(message).unwrap();
                opened.extend(open(&decoded.encrypted.unwrap(), &key).unwrap());
            }
            assert_eq!(opened, content.bytes);
        }
    }

    /// RFC 7383 section 2.5.3, RFC 8019 section 7.2.2.
    #[test]
    fn payloads_in_clear_are_in_the_first_fragment_alone() {
        let key = AeadKey::new(Aead::Aes256Gcm16, &[7; 36]);
        let content = PayloadChain { first: PayloadType(41), bytes: (0..2000).map(|n| n as u8).collect() };
        let clear = [crate::sa::payloads::puzzle_solution(vec![9; 16])];
        let sealed = seal(&HEADER, &clear, &content, &key, &mut IvCounter::default(), Some(500)).unwrap();
        let mut opened = Vec::new();
        for (n, message) in sealed.messages.iter().enumerate() {
            assert!(message.len() <= 500, "{} octets", message.len());
            let decoded = Message::decode(message).unwrap();
            assert_eq!(decoded.payloads.len(), usize::from(n == 0));
            opened.extend(open(&decoded.encrypted.unwrap(), &key).unwrap());
        }
        assert_eq!(opened, content.bytes);
    }

    #[test]
    fn a_message_that_needs_too_many_fragments_is_not_sent() {
        let key = AeadKey::new(Aead::Aes256Gcm16, &[7; 36]);
        let content = PayloadChain { first: PayloadType(41), bytes: vec![0; 40_000] };
        assert!(seal(&HEADER, &[], &content, &key, &mut IvCounter::default(), Some(500)).is_none());
    }

    #[test]
    fn no_initialization_vector_is_used_twice() {
        let mut counter = IvCounter(u64::MAX - 1);
        assert_eq!(counter.next(), Some([0xff; 8]));
        assert_eq!(counter.next(), None);
    }

    const HEADER: Header = Header {
        spi_i: 1,
        spi_r: 2,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags { initiator: true, response: false },
        message_id: 3,
    };
}
