//! Putting fragments of one message together again (RFC 7383 section 2.6).

use core::time::Duration;

use crate::time::Time;

/// Most fragments of one message that are accepted.
const MOST_FRAGMENTS: u16 = 64;
/// An incomplete message is kept for so long (RFC 7383 section 2.6: "in a reasonable time"): what comes later is a repetition of all
/// of it.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// The decrypted content of the fragments of one message, as far as it has arrived. Fragments are authenticated before
/// they come here, so only the peer that holds the keys can make us keep them.
#[derive(Debug)]
pub(crate) struct Reassembly {
    message_id: u32,
    total: u16,
    parts: Vec<Option<Vec<u8>>>,
    bytes: usize,
    first: Option<Vec<u8>>,
    began: Time,
}

/// One fragment after decryption.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    /// Of the message.
    pub(crate) message_id: u32,
    /// Fragment Number, from 1.
    pub(crate) number: u16,
    /// Total Fragments.
    pub(crate) total: u16,
    /// The message that it came in; kept of fragment 1, because AUTH covers its headers (RFC 9242 section 3.3.2).
    pub(crate) message: &'a [u8],
    /// The part of the content.
    pub(crate) content: Vec<u8>,
}

/// A message put together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    /// The message that fragment 1 came in.
    pub(crate) first: Vec<u8>,
    /// The inner payloads.
    pub(crate) content: Vec<u8>,
}

impl Reassembly {
    /// Octets that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.first.as_ref().map_or(0, Vec::len)
    }

    /// When it is given up.
    pub(crate) fn expires(&self) -> Time {
        self.began + KEPT_FOR
    }

    /// Adds a fragment to what `slot` holds and returns the message when it is complete. `None` in the slot is nothing yet;
    /// fragments of another message replace it. Nothing beyond `most_bytes` is kept.
    pub(crate) fn add(
        slot: &mut Option<Box<Self>>,
        now: Time,
        fragment: Piece<'_>,
        most_bytes: usize,
    ) -> Option<Whole> {
        if fragment.number == 0 || fragment.number > fragment.total || fragment.total > MOST_FRAGMENTS {
            return None;
        }
        let fits = |held: &Self| held.message_id == fragment.message_id && held.total >= fragment.total;
        let held = match slot {
            // RFC 7383 section 2.6: a larger total means that the peer has fragmented anew, into smaller pieces.
            Some(held) if fits(held) && held.total == fragment.total => held,
            Some(held) if fits(held) => return None,
            _ => slot.insert(Box::new(Self {
                message_id: fragment.message_id,
                total: fragment.total,
                parts: vec![None; usize::from(fragment.total)],
                bytes: 0,
                first: None,
                began: now,
            })),
        };
        let part = held.parts.get_mut(usize::from(fragment.number) - 1)?;
        if part.is_some() || held.bytes + fragment.content.len() > most_bytes {
            return None;
        }
        held.bytes += fragment.content.len();
        *part = Some(fragment.content);
        if fragment.number == 1 {
            held.first = Some(fragment.message.to_vec());
        }
        if held.parts.iter().any(Option::is_none) {
            return None;
        }
        let held = slot.take()?;
        Some(Whole { first: held.first?, content: held.parts.into_iter().flatten().flatten().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_in_any_order_give_the_message() {
        let mut slot = None;
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(2, 3, b"b"), 100), None);
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(3, 3, b"c"), 100), None);
        assert_eq!(
            Reassembly::add(&mut slot, Time::ZERO, part(2, 3, b"x"), 100),
            None,
            "a repeated number is dropped"
        );
        let whole = Reassembly::add(&mut slot, Time::ZERO, part(1, 3, b"a"), 100).unwrap();
        assert_eq!(whole, Whole { first: b"message 1".to_vec(), content: b"abc".to_vec() });
        assert!(slot.is_none());
    }

    #[test]
    fn a_larger_total_starts_over_and_a_smaller_one_is_dropped() {
        let mut slot = None;
        Reassembly::add(&mut slot, Time::ZERO, part(1, 2, b"old"), 100);
        Reassembly::add(&mut slot, Time::ZERO, part(1, 3, b"a"), 100);
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(2, 2, b"old"), 100), None);
        Reassembly::add(&mut slot, Time::ZERO, part(2, 3, b"b"), 100);
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(3, 3, b"c"), 100).unwrap().content, b"abc");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut slot = None;
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(1, 65, b""), 100), None);
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(0, 2, b""), 100), None);
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(3, 2, b""), 100), None);
        assert!(slot.is_none());
        Reassembly::add(&mut slot, Time::ZERO, part(1, 2, &[0; 60]), 100);
        assert_eq!(Reassembly::add(&mut slot, Time::ZERO, part(2, 2, &[0; 60]), 100), None);
        assert!(Reassembly::add(&mut slot, Time::ZERO, part(2, 2, &[0; 40]), 100).is_some());
    }

    fn part(number: u16, total: u16, content: &[u8]) -> Piece<'static> {
        let message: &[u8] = if number == 1 { b"message 1" } else { b"another" };
        Piece { message_id: 1, number, total, message, content: content.to_vec() }
    }
}
