//! The layout of an ESP packet (RFC 4303 section 2) with an 8-octet IV and a 16-octet ICV.

use portcullis_common::Spi;

use crate::Algorithm;

/// Octets of SPI and sequence number.
pub(crate) const ESP_HEADER_LEN: usize = 8;
/// Octets of pad length and next header.
pub(crate) const TRAILER_LEN: usize = 2;
/// The trailer ends on a multiple of this. RFC 4303 section 2.4 asks for four octets and allows more; whole
/// AES blocks cost up to 12 octets and save a third of the AEAD's time on a 64-octet packet, an eighth on one
/// of 1400, because the provider handles a block in part one by one.
pub(crate) const ALIGNMENT: usize = 16;
/// What RFC 4303 section 2.4 asks for.
pub(crate) const LEAST_ALIGNMENT: usize = 4;

/// Octets that an ESP packet has before the payload data: the head room that sealing needs.
pub const HEAD_LEN: usize = ESP_HEADER_LEN + Algorithm::IV_LEN;
/// Most octets that an ESP packet has behind the payload data and TFC padding: the tail room that sealing
/// needs.
pub const MAX_TAIL_LEN: usize = ALIGNMENT - 1 + TRAILER_LEN + Algorithm::ICV_LEN;
/// Octets of the shortest ESP packet.
pub const MIN_PACKET_LEN: usize = HEAD_LEN + TRAILER_LEN + Algorithm::ICV_LEN;

/// What an ESP packet carries: an IP protocol number (RFC 4303 section 2.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NextHeader(pub u8);

impl NextHeader {
    /// An IPv4 packet (tunnel mode).
    pub const IPV4: Self = Self(4);
    /// An IPv6 packet (tunnel mode).
    pub const IPV6: Self = Self(41);
    /// Nothing: a dummy packet, to be dropped in silence (RFC 4303 section 2.6).
    pub const DUMMY: Self = Self(59);
    /// AGGFRAG payloads (RFC 9347) and ESP echo.
    pub const AGGFRAG: Self = Self(144);
}

/// The SPI of an ESP packet; `None` if it has none.
#[inline]
pub fn packet_spi(packet: &[u8]) -> Option<Spi> {
    packet.first_chunk().copied().map(Spi::from_be_bytes)
}

/// The sequence number that an ESP packet carries, with ESN the low 32 bits; `None` if it has none.
#[inline]
pub fn packet_sequence_low(packet: &[u8]) -> Option<u32> {
    packet.get(4..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// Octets of the ESP packet that `payload_len` octets of payload data (with TFC padding) become.
#[inline]
pub const fn sealed_len(payload_len: usize) -> usize {
    HEAD_LEN + payload_len + pad_len(payload_len, ALIGNMENT) + TRAILER_LEN + Algorithm::ICV_LEN
}

/// Octets of the ESP packet that `payload_len` octets of payload data become with the least padding allowed.
#[inline]
pub const fn least_padded_len(payload_len: usize) -> usize {
    HEAD_LEN + payload_len + pad_len(payload_len, LEAST_ALIGNMENT) + TRAILER_LEN + Algorithm::ICV_LEN
}

/// Octets of the longest payload data whose ESP packet has at most `packet_len` octets; 0 if there is none.
#[inline]
pub const fn max_payload_len(packet_len: usize) -> usize {
    max_payload_len_aligned(packet_len, ALIGNMENT)
}

/// Octets of the longest payload data that fits such a packet with the least padding allowed; 0 if there is none.
#[inline]
pub const fn least_padded_max_payload_len(packet_len: usize) -> usize {
    max_payload_len_aligned(packet_len, LEAST_ALIGNMENT)
}

const fn max_payload_len_aligned(packet_len: usize, alignment: usize) -> usize {
    let text_len = packet_len.saturating_sub(HEAD_LEN + Algorithm::ICV_LEN) / alignment * alignment;
    text_len.saturating_sub(TRAILER_LEN)
}

/// Octets of padding that let the trailer end on `alignment`, a power of two.
#[inline]
pub(crate) const fn pad_len(payload_len: usize, alignment: usize) -> usize {
    payload_len.wrapping_add(TRAILER_LEN).wrapping_neg() & (alignment - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4303 section 2.4: pad length and next header end on a 4-byte boundary.
    #[test]
    fn the_trailer_is_aligned_for_every_length() {
        for len in 0..2000 {
            for alignment in [ALIGNMENT, LEAST_ALIGNMENT] {
                let pad_len = pad_len(len, alignment);
                assert!(pad_len < alignment && (len + pad_len + TRAILER_LEN).is_multiple_of(4));
            }
            assert!(
                sealed_len(len) <= HEAD_LEN + len + MAX_TAIL_LEN && least_padded_len(len) <= sealed_len(len)
            );
        }
    }

    #[test]
    fn the_longest_payload_of_a_packet_fits_and_one_octet_more_does_not() {
        for packet_len in sealed_len(0)..2000 {
            let payload_len = max_payload_len(packet_len);
            assert!(sealed_len(payload_len) <= packet_len && sealed_len(payload_len + 1) > packet_len);
            let payload_len = least_padded_max_payload_len(packet_len);
            assert!(least_padded_len(payload_len) <= packet_len);
            assert!(least_padded_len(payload_len + 1) > packet_len);
        }
        assert_eq!(max_payload_len(sealed_len(0) - 1), 0);
    }

    #[test]
    fn header_fields_are_read_where_they_are() {
        let packet = [0xde, 0xad, 0xbe, 0xef, 0, 0, 1, 2, 9];
        assert_eq!(packet_spi(&packet), Some(Spi(0xdead_beef)));
        assert_eq!(packet_sequence_low(&packet), Some(0x102));
        assert_eq!((packet_spi(&packet[..3]), packet_sequence_low(&packet[..7])), (None, None));
    }
}
