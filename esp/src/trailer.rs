//! What follows the payload of an ESP packet: padding, pad length, next header (RFC 4303 sections 2.4 to 2.6).

use crate::Algorithm;
use crate::header::{ALIGNMENT, LEAST_ALIGNMENT, NextHeader, TRAILER_LEN, pad_len};

/// Writes what follows the inner packet: TFC padding, padding 1, 2, 3, pad length, next header.
#[inline]
pub(crate) fn write_trailer(
    text: &mut [u8],
    inner_len: usize,
    payload_len: usize,
    NextHeader(next): NextHeader,
) {
    if payload_len > inner_len
        && let Some(tfc) = text.get_mut(inner_len..payload_len)
    {
        tfc.fill(0);
    }
    let pad_len = pad_len(payload_len, ALIGNMENT);
    let (Some(trailer), Some(end)) = (TRAILERS.get(pad_len), text.last_chunk_mut::<ALIGNMENT>()) else {
        return;
    };
    let payload =
        u128::from_be_bytes(*end) & u128::MAX.checked_shl(8 * (pad_len + TRAILER_LEN) as u32).unwrap_or(0);
    *end = (payload | trailer | u128::from(next)).to_be_bytes();
    // The longest padding begins one octet before that.
    if pad_len == ALIGNMENT - 1
        && let Some(first) = text.get_mut(payload_len)
    {
        *first = 1;
    }
}

/// Writes the trailer behind a payload that was aligned to four octets only, whose text may be shorter than a block.
pub(crate) fn write_least_trailer(text: &mut [u8], payload_len: usize, NextHeader(next): NextHeader) {
    let pad_len = pad_len(payload_len, LEAST_ALIGNMENT) as u8;
    if let Some(trailer) = text.get_mut(payload_len..) {
        let octets = (1..=pad_len).chain([pad_len, next]);
        trailer.iter_mut().zip(octets).for_each(|(place, octet)| *place = octet);
    }
}

/// Length of the payload data and the next header, if the padding is what RFC 4303 section 2.4 says: at most
/// as long as the text, its octets 1, 2, 3, ...
#[inline]
pub(crate) fn read_trailer(text_and_icv: &[u8]) -> Option<(usize, NextHeader)> {
    let text_len = text_and_icv.len().checked_sub(Algorithm::ICV_LEN)?;
    let text = text_and_icv.get(..text_len)?;
    let [.., pad_len, next_header] = *text else { return None };
    let pad_len = usize::from(pad_len);
    let payload_len = text.len().checked_sub(pad_len + TRAILER_LEN)?;
    let is_sound = match (TRAILERS.get(pad_len), text.last_chunk::<ALIGNMENT>()) {
        // In one piece, as it was decrypted.
        (Some(trailer), Some(end)) if pad_len + TRAILER_LEN <= ALIGNMENT => {
            let payload = u128::MAX.checked_shl(8 * (pad_len + TRAILER_LEN) as u32).unwrap_or(0);
            u128::from_be_bytes(*end) & !payload == trailer | u128::from(next_header)
        }
        _ => {
            let padding = text.get(payload_len..payload_len + pad_len)?;
            padding.iter().zip(1u8..=u8::MAX).all(|(octet, expected)| *octet == expected)
        }
    };
    is_sound.then_some((payload_len, NextHeader(next_header)))
}

/// The trailer for each pad length, as the last octets of a block with a zero for the next header.
const TRAILERS: [u128; ALIGNMENT] = [
    trailer(0),
    trailer(1),
    trailer(2),
    trailer(3),
    trailer(4),
    trailer(5),
    trailer(6),
    trailer(7),
    trailer(8),
    trailer(9),
    trailer(10),
    trailer(11),
    trailer(12),
    trailer(13),
    trailer(14),
    trailer(15),
];

/// Padding 1, 2, 3, ..., then pad length and next header (RFC 4303 section 2.4).
const fn trailer(pad_len: u128) -> u128 {
    let (mut trailer, mut octet) = (0, 1);
    while octet <= pad_len {
        trailer = trailer << 8 | octet;
        octet += 1;
    }
    (trailer << 8 | pad_len) << 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As RFC 4303 section 2.4 has it, octet by octet.
    fn read_plainly(text: &[u8]) -> Option<(usize, NextHeader)> {
        let (rest, [pad_len, next_header]) = text.split_last_chunk::<2>()?;
        let payload_len = rest.len().checked_sub(usize::from(*pad_len))?;
        let is_sound =
            rest[payload_len..].iter().zip(1u8..=u8::MAX).all(|(octet, expected)| *octet == expected);
        is_sound.then_some((payload_len, NextHeader(*next_header)))
    }

    proptest! {
        #[test]
        fn trailers_are_read_as_they_are_written(
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            pad_len in prop_oneof![0u8..20, any::<u8>()],
            next in any::<u8>(),
            change in proptest::option::of((any::<proptest::sample::Index>(), 1u8..)),
        ) {
            let mut text: Vec<u8> = payload.iter().copied().chain(1..=pad_len).chain([pad_len, next]).collect();
            if let Some((place, bits)) = change {
                let place = place.index(text.len());
                text[place] ^= bits;
            }
            let with_icv = [&text[..], &[0; Algorithm::ICV_LEN]].concat();
            prop_assert_eq!(read_trailer(&with_icv), read_plainly(&text));
            if change.is_none() {
                prop_assert_eq!(read_trailer(&with_icv), Some((payload.len(), NextHeader(next))));
            }
        }

        #[test]
        fn any_text_has_a_trailer_or_none(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let expected = text.len().checked_sub(Algorithm::ICV_LEN).and_then(|len| read_plainly(&text[..len]));
            prop_assert_eq!(read_trailer(&text), expected);
        }
    }
}
