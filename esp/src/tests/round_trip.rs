use proptest::prelude::*;

use super::*;

#[test]
fn a_sealed_packet_has_the_layout_of_rfc_4303_and_4106() {
    for algorithm in Algorithm::ALL {
        let mut sa = Setup { algorithm, sequence: 0x1_0000_0004, ..Setup::default() }.outbound();
        let packet = seal(&mut sa, b"0123456789").unwrap();
        assert_eq!(packet.len(), sealed_len(10));
        assert_eq!(packet_spi(&packet), Some(SPI));
        assert_eq!(packet_sequence_low(&packet), Some(5));
        assert_eq!(packet[8..16], 0x1_0000_0005u64.to_be_bytes(), "the IV is the 64-bit sequence number");

        // The AEAD alone, with what RFC 4106 sections 4 and 5 say: salt | IV, SPI | 64-bit number.
        let octets: Vec<u8> = (0..algorithm.keymat_len() as u8).collect();
        let (key, salt) = octets.split_at(algorithm.key_len());
        let nonce = [salt, &packet[8..16]].concat();
        let aad = [&SPI.to_be_bytes()[..], &0x1_0000_0005u64.to_be_bytes()].concat();
        let mut text = packet[16..].to_vec();
        let key = aead::ExpandedKey::new(algorithm, key).unwrap();
        key.open(nonce.try_into().unwrap(), &aad, &mut text).unwrap();
        assert_eq!(text[..16], *b"0123456789\x01\x02\x03\x04\x04\x04", "a whole block");
    }
}

/// RFC 4303 section 2.4: padding 1, 2, 3, ..., pad length, next header, whatever was in the buffer before.
#[test]
fn the_trailer_is_that_of_the_rfc_for_every_length() {
    let mut inbound = Setup { window: None, ..Setup::default() }.inbound();
    for len in 0..100 {
        let payload = vec![0xa5; len];
        let mut packet = seal(&mut Setup::default().outbound(), &payload).unwrap();
        let opened = open(&mut inbound, &packet).unwrap();
        assert_eq!((opened.0.next_header, &opened.1), (NextHeader::IPV4, &payload));

        let keymat = keymat(Algorithm::Aes256Gcm16);
        let aad = crate::outbound::aad(SPI, 1, true);
        keymat.key.open(keymat.nonce(1), aad.bytes(), &mut packet[16..]).unwrap();
        let text = &packet[16..packet.len() - Algorithm::ICV_LEN];
        let pad_len = (16 - (len + 2) % 16) % 16;
        let expected: Vec<u8> =
            payload.into_iter().chain(1..=pad_len as u8).chain([pad_len as u8, 4]).collect();
        assert_eq!(text, expected);
    }
}

#[test]
fn bytes_outside_the_packet_are_not_touched() {
    let mut sa = Setup::default().outbound();
    let mut buffer = [0xee; 200];
    let sealed = sa.seal(&mut buffer, 60..81, NextHeader::IPV6, 0).unwrap();
    assert_eq!(sealed.packet, 60 - HEAD_LEN..60 - HEAD_LEN + sealed_len(21));
    assert!(buffer[..sealed.packet.start].iter().all(|octet| *octet == 0xee));
    assert!(buffer[sealed.packet.end..].iter().all(|octet| *octet == 0xee));

    let opened = Setup::default().inbound().open(&mut buffer, sealed.packet, 7).unwrap();
    assert_eq!((opened.inner, opened.next_header), (60..81, NextHeader::IPV6));
}

/// RFC 4303 section 2.7: zeros behind the payload data; section 2.6: a dummy says 59.
#[test]
fn traffic_flow_padding_and_dummies_arrive_as_such() {
    let (mut outbound, mut inbound) = (Setup::default().outbound(), Setup::default().inbound());
    let mut buffer = [0xee; 300];
    buffer[16..20].copy_from_slice(b"data");
    let sealed = outbound.seal_padded(&mut buffer, 16..20, NextHeader::IPV4, 100, 0).unwrap();
    let opened = inbound.open(&mut buffer, sealed.packet, 0).unwrap();
    assert_eq!(opened.inner, 16..116);
    assert!(buffer[16..20] == *b"data" && buffer[20..116].iter().all(|octet| *octet == 0));
    assert_eq!((outbound.live().usage().bytes, inbound.live().usage().bytes), (4, 100));

    let sealed = outbound.seal(&mut buffer, 16..16, NextHeader::DUMMY, 0).unwrap();
    let opened = inbound.open(&mut buffer, sealed.packet, 0).unwrap();
    assert!(opened.is_dummy() && opened.inner.is_empty());
}

/// RFC 4303 section 3.4.3: a number is taken once, whatever the order.
#[test]
fn replays_are_refused_and_late_packets_taken_within_the_window() {
    let setup = Setup { window: Some(64), esn: false, ..Setup::default() };
    let (mut outbound, mut inbound) = (setup.outbound(), setup.inbound());
    let packets: Vec<_> = (0..70).map(|_| seal(&mut outbound, b"x").unwrap()).collect();
    assert!(open(&mut inbound, &packets[69]).unwrap().0.is_highest);
    assert_eq!(open(&mut inbound, &packets[69]), Err(OpenError::Replay));
    assert!(!open(&mut inbound, &packets[6]).unwrap().0.is_highest, "number 7 is the bottom of 70 - 63");
    assert_eq!(open(&mut inbound, &packets[5]), Err(OpenError::Replay));
    assert_eq!(open(&mut inbound, &packets[6]), Err(OpenError::Replay));
    let usage = inbound.live().usage();
    assert_eq!((usage.packets, usage.replays, usage.sequence), (2, 3, 70));
}

#[test]
fn a_forged_packet_moves_nothing() {
    let (mut outbound, mut inbound) = (Setup::default().outbound(), Setup::default().inbound());
    let good = seal(&mut outbound, b"payload").unwrap();
    let mut forged = good.clone();
    forged[4..8].copy_from_slice(&9999u32.to_be_bytes());
    assert_eq!(open(&mut inbound, &forged), Err(OpenError::IcvFailure));
    assert_eq!(inbound.live().usage().sequence, 0);
    assert_eq!(open(&mut inbound, &good).unwrap().1, b"payload");
    assert_eq!(inbound.live().usage().icv_failures, 1);
}

#[test]
fn without_a_window_replays_pass_and_order_is_still_known() {
    let setup = Setup { window: None, esn: false, ..Setup::default() };
    let (mut outbound, mut inbound) = (setup.outbound(), setup.inbound());
    let packets: Vec<_> = (0..3).map(|_| seal(&mut outbound, b"x").unwrap()).collect();
    let order: Vec<_> =
        [2, 0, 2].iter().map(|i| open(&mut inbound, &packets[*i]).unwrap().0.is_highest).collect();
    assert_eq!(order, [true, false, false]);
}

#[test]
fn memory_of_a_wrong_window_size_is_refused() {
    for words in [3, 1025, 2048] {
        let memory = Arc::new((InboundLive::default(), (0..words).map(|_| AtomicU64::new(0)).collect()));
        let parameters = InboundParameters { spi: SPI, esn: true, lifetime: Lifetime::default() };
        let sa: Result<TestInbound, _> = Inbound::new(parameters, keymat(Algorithm::Aes128Gcm16), memory);
        assert_eq!(sa.err(), Some(InvalidWindow));
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        algorithm in prop::sample::select(&Algorithm::ALL[..]),
        esn: bool,
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        head in 16usize..64,
        next_header: u8,
        sequence in 0u64..0xffff_fff0,
    ) {
        let setup = Setup { algorithm, esn, sequence, ..Setup::default() };
        let (mut outbound, mut inbound) = (setup.outbound(), setup.inbound());
        let mut buffer = vec![0; head + payload.len() + MAX_TAIL_LEN];
        let inner = head..head + payload.len();
        buffer[inner.clone()].copy_from_slice(&payload);
        let sealed = outbound.seal(&mut buffer, inner.clone(), NextHeader(next_header), 1).unwrap();
        let opened = inbound.open(&mut buffer, sealed.packet, 1).unwrap();
        prop_assert_eq!(&buffer[inner.clone()], &payload[..]);
        prop_assert_eq!(opened.inner, inner);
        prop_assert_eq!((opened.next_header.0, opened.sequence), (next_header, sequence + 1));
        prop_assert_eq!(sealed.sequence, sequence + 1);
        prop_assert!(opened.is_highest);
    }
}
