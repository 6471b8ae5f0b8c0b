//! Each fault has its error, with its place, and each list its limit.

use crate::round_trip::header_of;
use portcullis_ike::codec::*;

/// RFC 7296 section 2.5: an unknown critical payload is named to the sender; one that is not critical is skipped, and
/// on known types the bit is ignored.
#[test]
fn only_an_unknown_critical_payload_is_unsupported() {
    let error = decode_chain(PayloadType(200), &[0, 0x80, 0, 5, 1]).unwrap_err();
    assert_eq!(error.cause, Malformed::UnsupportedCritical(PayloadType(200)));
    assert_eq!((error.payload, error.offset), (Some(PayloadType(200)), 0));
    assert_eq!(error.notify_type(), NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD);

    let kept = decode_chain(PayloadType(200), &[0, 0x7f, 0, 5, 1]).unwrap();
    let unknown = UnknownPayload { payload_type: PayloadType(200), body: vec![1].into() };
    assert_eq!(kept, [Payload::Unknown(unknown)]);
    assert!(decode_chain(PayloadType::VENDOR_ID, &[0, 0x80, 0, 5, 1]).is_ok());
}

/// RFC 7296 section 2.5.
#[test]
fn a_higher_major_version_is_refused_and_a_higher_minor_version_ignored() {
    let mut bytes = encode_message(&header_of(ExchangeType::IKE_SA_INIT), &[]).unwrap();
    bytes[17] = 0x2f;
    assert!(Message::decode(&bytes).is_ok());
    bytes[17] = 0x30;
    let error = Message::decode(&bytes).unwrap_err();
    assert_eq!((error.cause, error.offset), (Malformed::MajorVersion(3), 17));
    assert_eq!(error.notify_type(), NotifyType::INVALID_MAJOR_VERSION);
}

/// RFC 7296 section 3.1: X bits and V "MUST be ignored on receipt".
#[test]
fn unknown_flags_are_ignored() {
    let mut bytes = encode_message(&header_of(ExchangeType::IKE_SA_INIT), &[]).unwrap();
    bytes[19] = !0x20;
    let flags = Message::decode(&bytes).unwrap().header.flags;
    assert_eq!(flags, Flags { initiator: true, response: false });
}

#[test]
fn the_length_of_the_header_has_to_be_that_of_the_message() {
    let bytes = encode_message(&header_of(ExchangeType::IKE_SA_INIT), &[]).unwrap();
    let mut longer = bytes.clone();
    longer.push(0);
    let error = Message::decode(&longer).unwrap_err();
    assert_eq!((error.cause, error.offset), (Malformed::MessageLength { declared: 28, actual: 29 }, 24));
    let huge = vec![0; MAX_MESSAGE_LEN + 1];
    assert_eq!(Message::decode(&huge).unwrap_err().cause, Malformed::MessageTooLong(MAX_MESSAGE_LEN + 1));
    let mut zero_spi = bytes;
    zero_spi[7] = 0;
    assert_eq!(Message::decode(&zero_spi).unwrap_err().cause, Malformed::ZeroInitiatorSpi);
}

#[test]
fn nothing_may_follow_the_last_payload_or_the_encrypted_one() {
    let error = decode_chain(PayloadType::VENDOR_ID, &[0, 0, 0, 4, 9]).unwrap_err();
    assert_eq!(error.cause, Malformed::TrailingBytes { after: "last payload", count: 1 });
    let header = header_of(ExchangeType::IKE_AUTH);
    let body = VendorId(vec![0, 0, 0, 8, 1, 2, 3, 4, 0, 0, 0, 4].into());
    let mut bytes = encode_message(&header, &[Payload::VendorId(body)]).unwrap();
    bytes.drain(28..32);
    bytes[16] = PayloadType::SK.0;
    bytes[27] -= 4;
    let error = Message::decode(&bytes).unwrap_err();
    assert_eq!(error.cause, Malformed::TrailingBytes { after: "Encrypted payload", count: 4 });
}

/// RFC 7296 section 3.1: "an Encrypted payload MUST NOT contain another Encrypted payload".
#[test]
fn encrypted_payloads_do_not_nest() {
    let error = decode_chain(PayloadType::VENDOR_ID, &[46, 0, 0, 4, 0, 0, 0, 4]).unwrap_err();
    assert_eq!((error.cause, error.offset), (Malformed::NestedEncrypted, 4));
}

#[test]
fn a_payload_shorter_than_its_header_is_refused() {
    let error = decode_chain(PayloadType::VENDOR_ID, &[0, 0, 0, 3]).unwrap_err();
    assert_eq!(error.cause, Malformed::Length { what: "payload", declared: 3 });
    let error = decode_chain(PayloadType::VENDOR_ID, &[0, 0, 0, 9, 1]).unwrap_err();
    assert_eq!(error.cause, Malformed::Truncated { field: "payload", needed: 5, left: 1 });
}

#[test]
fn payloads_that_no_message_has_twice_are_refused_the_second_time() {
    let nonce = Payload::Nonce(Nonce(vec![1; 16].into()));
    let chain = PayloadChain::encode(&[nonce.clone(), nonce]).unwrap();
    let error = decode_chain(chain.first, &chain.bytes).unwrap_err();
    assert_eq!((error.cause, error.offset), (Malformed::Duplicate(PayloadType::NONCE), 20));
}

#[test]
fn a_chain_longer_than_the_limit_is_refused() {
    let bytes = [43, 0, 0, 4].repeat(MAX_PAYLOADS + 1);
    let error = decode_chain(PayloadType::VENDOR_ID, &bytes).unwrap_err();
    assert_eq!(error.cause, Malformed::TooMany(TooMany::Payloads));
}

/// RFC 7296 section 3.9.
#[test]
fn nonces_have_16_to_256_octets() {
    for (len, refused) in [(15, true), (16, false), (256, false), (257, true)] {
        let cause = decode_one(PayloadType::NONCE, &vec![0; len]);
        assert_eq!(cause, refused.then_some(Malformed::NonceLength(len)), "{len}");
    }
}

/// draft-ietf-ipsecme-ikev2-mlkem section 2.1: 1184 octets from the initiator, 1088 from the responder.
#[test]
fn key_exchange_data_has_a_length_of_its_method() {
    for (len, refused) in [(1184, false), (1088, false), (1185, true), (0, true)] {
        let body = [&[0, 36, 0, 0], vec![1; len].as_slice()].concat();
        let expected = Malformed::KeyExchangeLength { method: KeMethod::ML_KEM_768, len };
        assert_eq!(decode_one(PayloadType::KE, &body), refused.then_some(expected), "{len}");
    }
}

#[test]
fn address_identities_have_the_length_of_an_address() {
    let expected = Malformed::IdentificationLength { id_type: IdType::IPV4_ADDR, len: 3 };
    assert_eq!(decode_one(PayloadType::ID_I, &[1, 0, 0, 0, 10, 0, 0]), Some(expected));
}

/// RFC 7383 section 2.6.
#[test]
fn fragment_numbers_run_from_one_to_their_total() {
    for (number, total, refused) in [(1, 1, false), (0, 1, true), (2, 1, true), (1, 0, true)] {
        let cause = decode_skf(PayloadType::NONE, number, total);
        assert_eq!(cause, refused.then_some(Malformed::Fragment { number, total }), "{number} of {total}");
    }
    let next = PayloadType::NOTIFY;
    assert_eq!(decode_skf(next, 1, 2), None);
    assert_eq!(decode_skf(next, 2, 2), Some(Malformed::FragmentNextPayload(next)));
}

/// RFC 7296 section 3.3: "an implementation MUST check that the total Payload Length is consistent with the payload's
/// internal lengths and counts".
#[test]
fn the_lengths_and_counts_inside_an_sa_payload_have_to_agree() {
    let valid = [0, 0, 0, 16, 1, 1, 0, 1, 0, 0, 0, 8, 2, 0, 0, 5];
    assert_eq!(decode_one(PayloadType::SA, &valid), None);
    assert_eq!(sa_with(&valid, 7, 2).0, "Truncated");
    assert_eq!(sa_with(&valid, 7, 0), ("Empty", 12));
    assert_eq!(sa_with(&valid, 0, 2), ("LastSubstruc", 4));
    assert_eq!(sa_with(&valid, 8, 3), ("LastSubstruc", 12));
    assert_eq!(sa_with(&valid, 3, 15), ("LastSubstruc", 4));
    assert_eq!(sa_with(&valid, 3, 3), ("Length", 4));
    assert_eq!(sa_with(&valid, 11, 7), ("LastSubstruc", 12));
    assert_eq!(sa_with(&valid, 11, 3), ("Length", 12));
    assert_eq!(sa_with(&valid, 4, 0), ("ProposalNumber", 8));
    assert_eq!(sa_with(&valid, 5, 3), ("SpiSize", 10));

    let mut two = [&[2], &valid[1..], &valid].concat();
    assert_eq!(sa_with(&two, 20, 2).0, "none");
    two[20] = 3;
    let wrong = Malformed::ProposalNumber { expected: 2, found: 3 };
    assert_eq!(decode_one(PayloadType::SA, &two), Some(wrong));
}

#[test]
fn an_sa_payload_has_a_limit_of_proposals_transforms_and_attributes() {
    let transforms = vec![Transform::new(TransformType::ENCR, 20); 9];
    let proposal = |number| Proposal {
        number,
        protocol: ProtocolId::IKE,
        spi: Spi::None,
        transforms: transforms.clone(),
    };
    let sa = SecurityAssociation { proposals: (1..=56).map(proposal).collect() };
    let mut body = PayloadChain::encode(&[Payload::Sa(sa)]).unwrap().bytes.split_off(4);
    assert_eq!(decode_one(PayloadType::SA, &body), None);
    let mut more = body.split_off(55 * 80);
    more[0] = 2;
    body.extend_from_slice(&more);
    more[0] = 0;
    more[4] = 57;
    body.extend_from_slice(&more);
    assert_eq!(decode_one(PayloadType::SA, &body), Some(Malformed::TooMany(TooMany::Transforms)));

    let one = [2, 0, 0, 16, 1, 1, 0, 1, 0, 0, 0, 8, 2, 0, 0, 5];
    let mut many = one.repeat(MAX_PROPOSALS + 1);
    many.chunks_mut(16).zip(1..).for_each(|(proposal, number)| proposal[4] = number);
    assert_eq!(decode_one(PayloadType::SA, &many), Some(Malformed::TooMany(TooMany::Proposals)));

    let attributes = [0x80, 14, 1, 0].repeat(MAX_ATTRIBUTES + 1);
    let len = 8 + attributes.len() as u8;
    let body = [&[0, 0, 0, 8 + len, 1, 1, 0, 1, 0, 0, 0, len, 1, 0, 0, 20], attributes.as_slice()].concat();
    assert_eq!(decode_one(PayloadType::SA, &body), Some(Malformed::TooMany(TooMany::Attributes)));
}

/// RFC 7296 section 3.13.
#[test]
fn traffic_selectors_have_the_length_of_their_type_and_run_forwards() {
    let valid = [1, 0, 0, 0, 7, 6, 0, 16, 0, 80, 0, 90, 10, 0, 0, 1, 10, 0, 0, 9];
    assert_eq!(decode_one(PayloadType::TS_I, &valid), None);
    let with = |at: usize, value: u8| {
        let mut body = valid;
        body[at] = value;
        decode_one(PayloadType::TS_I, &body)
    };
    assert_eq!(with(0, 0), Some(Malformed::Empty("traffic selectors")));
    assert_eq!(with(0, 129), Some(Malformed::TooMany(TooMany::TrafficSelectors)));
    assert_eq!(with(7, 15), Some(Malformed::SelectorLength { ts_type: TsType::IPV4_ADDR_RANGE, len: 15 }));
    assert_eq!(with(4, 8), Some(Malformed::SelectorLength { ts_type: TsType::IPV6_ADDR_RANGE, len: 16 }));
    assert_eq!(with(11, 79), Some(Malformed::PortRange { start: 80, end: 79 }));
    assert_eq!(with(19, 0), Some(Malformed::AddressRange));
    assert_eq!(with(4, 10), None, "an unknown type is kept");
}

/// RFC 7296 section 3.11: no SPI for IKE, four octets for AH and ESP.
#[test]
fn spis_to_delete_have_the_size_of_their_protocol() {
    let wrong = |protocol, size| Some(Malformed::SpiSize { protocol, size });
    assert_eq!(
        decode_one(PayloadType::DELETE, &[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
        wrong(ProtocolId::IKE, 8)
    );
    assert_eq!(decode_one(PayloadType::DELETE, &[3, 0, 0, 0]), wrong(ProtocolId::ESP, 0));
    assert_eq!(decode_one(PayloadType::DELETE, &[3, 4, 0xff, 0xff]), Some(Malformed::TooMany(TooMany::Spis)));
}

/// RFC 7296 section 3.16: the EAP length "MUST be four less than the Payload Length".
#[test]
fn an_eap_message_fills_its_payload() {
    assert_eq!(decode_one(PayloadType::EAP, &[3, 1, 0, 4]), None);
    let wrong = Malformed::EapLength { declared: 5, actual: 4 };
    assert_eq!(decode_one(PayloadType::EAP, &[3, 1, 0, 5]), Some(wrong));
}

/// RFC 8019 section 8.2: four keys of the same size, and not empty.
#[test]
fn a_puzzle_solution_holds_four_keys() {
    assert_eq!(decode_one(PayloadType::PS, &[1; 16]), None);
    for len in [0, 1, 3, 5] {
        let wrong = Malformed::PuzzleSolutionLength(len);
        assert_eq!(decode_one(PayloadType::PS, &vec![1; len]), Some(wrong));
    }
}

/// The fault in one payload with this body, if there is one.
fn decode_one(payload_type: PayloadType, body: &[u8]) -> Option<Malformed> {
    let len = (4 + body.len() as u16).to_be_bytes();
    let bytes = [&[0, 0], &len[..], body].concat();
    let error = decode_chain(payload_type, &bytes).err()?;
    assert_eq!(error.payload, Some(payload_type));
    Some(error.cause)
}

fn decode_skf(first_inner: PayloadType, number: u16, total: u16) -> Option<Malformed> {
    let header = header_of(ExchangeType::IKE_AUTH);
    let fragment = Some(Fragment { number, total });
    let layout = CipherLayout { iv_len: 8, icv_len: 16 };
    let message = Protected { header: &header, clear: &[], first_inner, fragment };
    let bytes = message.seal(&[], layout, |_| Some(())).unwrap();
    Message::decode(&bytes).err().map(|error| error.cause)
}

/// Name of the fault, and its place, when one octet of an SA payload's body is changed.
fn sa_with(body: &[u8], at: usize, value: u8) -> (&'static str, usize) {
    let mut body = body.to_vec();
    body[at] = value;
    let len = (4 + body.len() as u16).to_be_bytes();
    let bytes = [&[0, 0], &len[..], &body].concat();
    let Err(error) = decode_chain(PayloadType::SA, &bytes) else {
        return ("none", 0);
    };
    let name = match error.cause {
        Malformed::Truncated { .. } => "Truncated",
        Malformed::Empty(_) => "Empty",
        Malformed::LastSubstruc(_) => "LastSubstruc",
        Malformed::Length { .. } => "Length",
        Malformed::ProposalNumber { .. } => "ProposalNumber",
        Malformed::SpiSize { .. } => "SpiSize",
        other => panic!("{other}"),
    };
    (name, error.offset)
}
