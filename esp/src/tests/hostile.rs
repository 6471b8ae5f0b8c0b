use core::ops::Range;

use proptest::prelude::*;

use super::*;

/// RFC 4303 section 2.4: authenticated, and still not what a sender may write.
#[test]
fn wrong_padding_is_refused_after_authentication() {
    let long = [&[9; 6][..], &[7, 4]].concat();
    let wrong = [&[0; 6][..], &[1, 2, 9, 3, 4]].concat();
    let sound = [&[0; 6][..], &[1, 2, 3, 3, 4]].concat();
    let mut inbound = Setup::default().inbound();
    for (number, text, expected) in
        [(1, long, Err(OpenError::BadPadding)), (2, wrong, Err(OpenError::BadPadding)), (3, sound, Ok(6))]
    {
        let packet = packet_with_text(number, &text);
        assert_eq!(open(&mut inbound, &packet).map(|(opened, _)| opened.inner.len()), expected);
        assert_eq!(open(&mut inbound, &packet), Err(OpenError::Replay), "it was authentic and is seen");
    }
    let usage = inbound.live().usage();
    assert_eq!((usage.packets, usage.malformed), (1, 2));
}

#[test]
fn the_longest_padding_is_accepted() {
    let text: Vec<u8> = b"ip".iter().copied().chain(1..=255).chain([255, 41]).collect();
    let (opened, payload) = open(&mut Setup::default().inbound(), &packet_with_text(1, &text)).unwrap();
    assert_eq!((opened.next_header, &payload[..]), (NextHeader::IPV6, &b"ip"[..]));
}

#[test]
fn every_shorter_packet_is_too_short_and_counted() {
    let mut inbound = Setup::default().inbound();
    let packet = seal(&mut Setup::default().outbound(), b"").unwrap();
    for len in 0..MIN_PACKET_LEN {
        assert_eq!(open(&mut inbound, &packet[..len]), Err(OpenError::TooShort));
    }
    assert_eq!(inbound.live().usage().malformed, MIN_PACKET_LEN as u64);
    assert_eq!(inbound.open(&mut [0; 50], 20..60, 0), Err(OpenError::TooShort));
}

#[test]
fn another_spi_and_number_zero_are_refused() {
    let mut inbound = Setup { esn: false, ..Setup::default() }.inbound();
    let mut packet = seal(&mut Setup { esn: false, ..Setup::default() }.outbound(), b"x").unwrap();
    packet[4..8].fill(0);
    assert_eq!(open(&mut inbound, &packet), Err(OpenError::Replay));
    packet[0] ^= 1;
    assert_eq!(open(&mut inbound, &packet), Err(OpenError::WrongSpi));
}

#[test]
fn a_buffer_without_room_is_refused_and_no_number_is_used() {
    let mut sa = Setup::default().outbound();
    let mut buffer = [0; 100];
    let ranges =
        [15..20, 16..79, Range { start: 90, end: 80 }, 16..101, usize::MAX - 2..usize::MAX, 99..usize::MAX];
    for inner in ranges {
        let refused = sa.seal(&mut buffer, inner.clone(), NextHeader::IPV4, 0);
        assert_eq!(refused, Err(SealError::NoRoom), "{inner:?}");
    }
    for padded_len in [63, 100, usize::MAX] {
        let refused = sa.seal_padded(&mut buffer, 16..20, NextHeader::IPV4, padded_len, 0);
        assert_eq!(refused, Err(SealError::NoRoom), "{padded_len}");
    }
    assert_eq!(sa.live().usage(), Usage::default());
    assert_eq!(sa.seal(&mut buffer, 16..78, NextHeader::IPV4, 0).unwrap().packet, 0..96);
}

proptest! {
    #[test]
    fn no_bytes_panic_or_pass(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        start in 0usize..220,
        end in 0usize..220,
        esn: bool,
    ) {
        let mut inbound = Setup { esn, ..Setup::default() }.inbound();
        let mut buffer = bytes.clone();
        prop_assert!(inbound.open(&mut buffer, start..end, 0).is_err());
        // With the right SPI they get as far as the AEAD.
        let packet = [&SPI.to_be_bytes()[..], &bytes].concat();
        prop_assert!(open(&mut inbound, &packet).is_err());
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused(bit in 0usize..8 * 60) {
        let mut packet = seal(&mut Setup::default().outbound(), &[0x5a; 24]).unwrap();
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(&mut Setup::default().inbound(), &packet).is_err());
    }
}

/// An authentic packet with any text, trailer included.
fn packet_with_text(sequence: u64, text: &[u8]) -> Vec<u8> {
    let keymat = keymat(Algorithm::Aes256Gcm16);
    let iv = sequence.to_be_bytes();
    let aad = [&SPI.to_be_bytes()[..], &iv].concat();
    let mut text = text.to_vec();
    let mut icv = [0; Algorithm::ICV_LEN];
    keymat.key.seal(keymat.nonce(sequence), &aad, &mut text, &mut icv).unwrap();
    [&SPI.to_be_bytes()[..], &iv[4..], &iv, &text, &icv].concat()
}
