use proptest::prelude::*;

use super::*;

const SUB_TYPES: EchoSubTypes = EchoSubTypes::DEFAULT;

/// Section 5.3: the format, octet by octet.
#[test]
fn a_request_is_laid_out_as_the_draft_draws_it() {
    let mut octets = [0xee; 20];
    assert_eq!(request(b"ping").write(SUB_TYPES, &mut octets), Ok(16));
    let expected = [2, 0x80, 0, 4, 0x12, 0x34, 0x56, 0x78, 0xc0, 0xde, 0, 1, b'p', b'i', b'n', b'g'];
    assert_eq!((&octets[..16], &octets[16..]), (&expected[..], &[0xee; 4][..]));
    assert_eq!(Echo::parse(&expected, SUB_TYPES), Ok(request(b"ping")));
}

/// Section 5.3: without the R flag no reply is asked for; the other seven bits mean nothing.
#[test]
fn only_the_first_bit_of_the_flags_counts() {
    let mut octets = [0; 12];
    request(b"").write(SUB_TYPES, &mut octets).unwrap();
    for flags in 0..=u8::MAX {
        octets[1] = flags;
        let echo = Echo::parse(&octets, SUB_TYPES).unwrap();
        assert_eq!(echo, Echo { wants_reply: flags >= 0x80, ..request(b"") });
    }
}

/// RFC 9347 section 6.1: sub-types 0 and 1 carry aggregated packets, all others are unknown to us.
#[test]
fn other_sub_types_are_told_from_malformed_echo() {
    let mut octets = [0; 12];
    request(b"").write(SUB_TYPES, &mut octets).unwrap();
    for sub_type in 0..=u8::MAX {
        octets[0] = sub_type;
        let kind = Echo::parse(&octets, SUB_TYPES).map(|echo| echo.kind);
        let expected = match sub_type {
            2 => Ok(EchoKind::Request),
            3 => Ok(EchoKind::Reply),
            _ => Err(EchoError::OtherSubType),
        };
        assert_eq!(kind, expected);
    }
    assert_eq!(Echo::parse(&[], SUB_TYPES), Err(EchoError::OtherSubType));
    for len in 1..12 {
        assert_eq!(Echo::parse(&[&[2][..], &[0; 12]].concat()[..len], SUB_TYPES), Err(EchoError::Truncated));
    }
    let one_too_many = [&[2, 0x80, 0, 5][..], &[0; 8], b"data"].concat();
    assert_eq!(Echo::parse(&one_too_many, SUB_TYPES), Err(EchoError::Truncated));
}

/// IANA will choose the numbers; whatever they are they cannot be those of RFC 9347.
#[test]
fn other_numbers_can_be_configured() {
    let others = EchoSubTypes::new(5, 4).unwrap();
    let mut octets = [0; 12];
    request(b"").write(others, &mut octets).unwrap();
    assert_eq!(octets[0], 5);
    assert_eq!(Echo::parse(&octets, SUB_TYPES), Err(EchoError::OtherSubType));
    assert_eq!(turn_into_reply(&mut octets, others, 12), Ok(12));
    assert_eq!((octets[0], Echo::parse(&octets, others).unwrap().kind), (4, EchoKind::Reply));
    for (request, reply) in [(2, 2), (0, 3), (1, 3), (2, 0), (2, 1)] {
        assert_eq!(EchoSubTypes::new(request, reply), Err(InvalidSubTypes));
    }
}

/// Section 5.4: a reply is no request, and is never answered.
#[test]
fn a_reply_is_not_answered() {
    let mut octets = [0; 16];
    Echo { kind: EchoKind::Reply, ..request(b"ping") }.write(SUB_TYPES, &mut octets).unwrap();
    let before = octets;
    assert_eq!(turn_into_reply(&mut octets, SUB_TYPES, 100), Err(EchoError::OtherSubType));
    assert_eq!(octets, before);
}

#[test]
fn data_that_its_length_cannot_tell_is_refused() {
    let data = vec![0; 65_536];
    let mut buffer = vec![0; 70_000];
    assert_eq!(request(&data).write(SUB_TYPES, &mut buffer), Err(EchoTooLong));
    assert_eq!(request(&data[1..]).write(SUB_TYPES, &mut buffer), Ok(65_547));
}

/// Section 5.3: the trailer has the least padding that the cipher and RFC 4303 section 2.4 allow.
#[test]
fn an_echo_is_padded_to_four_octets_and_a_reply_is_never_the_longer_packet() {
    for len in 0..200 {
        let mut buffer = vec![0xee; HEAD_LEN + len + MAX_TAIL_LEN];
        let mut outbound = Setup::default().outbound();
        let place = HEAD_LEN..HEAD_LEN + len;
        let sealed = outbound.seal_least_padded(&mut buffer, place, NextHeader::AGGFRAG, 0).unwrap();
        let packet = buffer[sealed.packet].to_vec();
        assert_eq!(packet.len(), HEAD_LEN + (len + 2).next_multiple_of(4) + 16);
        let (opened, payload) = open(&mut Setup::default().inbound(), &packet).unwrap();
        assert_eq!((opened.next_header, payload), (NextHeader::AGGFRAG, vec![0xee; len]));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(echo in any_echo(), numbers in any_sub_types(), room in 0usize..400) {
        let (kind, wants_reply, identifier, sequence, spi, data) = &echo;
        let echo = Echo {
            kind: *kind,
            wants_reply: *wants_reply,
            identifier: *identifier,
            sequence: *sequence,
            reply_spi: Spi(*spi),
            data,
        };
        let mut buffer = vec![0xee; room];
        match echo.write(numbers, &mut buffer) {
            Ok(len) => {
                prop_assert_eq!(len, ECHO_HEADER_LEN + data.len());
                // What follows the data means nothing.
                prop_assert_eq!(Echo::parse(&buffer, numbers), Ok(echo));
                prop_assert_eq!(Echo::parse(&buffer[..len], numbers), Ok(echo));
                prop_assert_eq!(Echo::parse(&buffer[..len - 1], numbers).is_ok(), false);
            }
            Err(EchoTooLong) => {
                prop_assert!(room < ECHO_HEADER_LEN + data.len());
                prop_assert!(buffer.iter().all(|octet| *octet == 0xee));
            }
        }
    }

    /// Section 5.4: the same but for the sub-type, cut to what the reply path takes, and nothing longer.
    #[test]
    fn a_reply_repeats_its_request(
        data in prop::collection::vec(any::<u8>(), 0..300),
        behind in prop::collection::vec(any::<u8>(), 0..20),
        flags: u8,
        max_len in 0usize..400,
    ) {
        let mut octets = vec![0; ECHO_HEADER_LEN + data.len()];
        request(&data).write(SUB_TYPES, &mut octets).unwrap();
        octets[1] = flags;
        octets.extend(&behind);
        let before = octets.clone();
        let Ok(len) = turn_into_reply(&mut octets, SUB_TYPES, max_len) else {
            prop_assert!(max_len < ECHO_HEADER_LEN);
            prop_assert_eq!(octets, before);
            return Ok(());
        };
        prop_assert!(len <= max_len && len <= ECHO_HEADER_LEN + data.len());
        prop_assert_eq!(len, max_len.min(ECHO_HEADER_LEN + data.len()));
        prop_assert_eq!((octets[0], octets[1]), (3, flags));
        let reply = Echo::parse(&octets[..len], SUB_TYPES).unwrap();
        let expected = Echo { kind: EchoKind::Reply, wants_reply: flags >= 0x80, ..request(reply.data) };
        prop_assert_eq!(reply, expected);
        prop_assert!(data.starts_with(reply.data));
    }
}

fn request(data: &[u8]) -> Echo<'_> {
    Echo {
        kind: EchoKind::Request,
        wants_reply: true,
        identifier: 0x1234,
        sequence: 0x5678,
        reply_spi: SPI,
        data,
    }
}

fn any_echo() -> impl Strategy<Value = (EchoKind, bool, u16, u16, u32, Vec<u8>)> {
    let kind = prop::sample::select(&[EchoKind::Request, EchoKind::Reply][..]);
    (
        kind,
        any::<bool>(),
        any::<u16>(),
        any::<u16>(),
        any::<u32>(),
        prop::collection::vec(any::<u8>(), 0..300),
    )
}

fn any_sub_types() -> impl Strategy<Value = EchoSubTypes> {
    any::<(u8, u8)>()
        .prop_filter_map("two numbers above 1", |(request, reply)| EchoSubTypes::new(request, reply).ok())
}
