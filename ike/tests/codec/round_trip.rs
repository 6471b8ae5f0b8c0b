//! decode(encode(x)) == x.

use crate::strategies::{header, payload, payloads};
use portcullis_ike::codec::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_payload_survives(payload in payload()) {
        let payloads = [payload];
        let chain = PayloadChain::encode(&payloads).unwrap();
        prop_assert_eq!(decode_chain(chain.first, &chain.bytes).unwrap(), payloads);
    }

    #[test]
    fn chains_survive_in_their_order(payloads in payloads()) {
        let chain = PayloadChain::encode(&payloads).unwrap();
        prop_assert_eq!(decode_chain(chain.first, &chain.bytes).unwrap(), payloads);
    }

    #[test]
    fn messages_in_clear_survive(header in header(), payloads in payloads()) {
        let bytes = encode_message(&header, &payloads).unwrap();
        prop_assert_eq!(Message::decode(&bytes).unwrap(), Message { header, payloads, encrypted: None });
    }
}

/// RFC 9329 section 3: what 16 bits of length leave to a message; in one payload at most 65 535 (RFC 7296 section 3.2).
#[test]
fn a_message_may_have_65529_octets_and_not_one_more() {
    let header = header_of(ExchangeType::IKE_SA_INIT);
    let largest = [Payload::VendorId(VendorId(vec![0; MAX_MESSAGE_LEN - HEADER_LEN - 4].into()))];
    let bytes = encode_message(&header, &largest).unwrap();
    assert_eq!(bytes.len(), MAX_MESSAGE_LEN);
    assert_eq!(Message::decode(&bytes).unwrap().payloads, largest);

    let too_large = [Payload::VendorId(VendorId(vec![0; MAX_MESSAGE_LEN - HEADER_LEN - 3].into()))];
    let error = EncodeError::TooLong { what: "message", len: MAX_MESSAGE_LEN + 1, max: MAX_MESSAGE_LEN };
    assert_eq!(encode_message(&header, &too_large), Err(error));
}

#[test]
fn a_payload_that_its_length_field_cannot_say_is_refused() {
    let payloads = [Payload::VendorId(VendorId(vec![0; 65_532].into()))];
    let error = EncodeError::TooLong { what: "payload", len: 65_536, max: 65_535 };
    assert_eq!(PayloadChain::encode(&payloads), Err(error));
}

#[test]
fn what_the_decoder_would_refuse_is_not_sent() {
    let notify = Payload::Notify(Notify::new(NotifyType::INITIAL_CONTACT));
    let error = Err(EncodeError::TooMany(TooMany::Payloads));
    assert_eq!(PayloadChain::encode(&vec![notify; MAX_PAYLOADS + 1]), error);

    let transforms = vec![Transform::new(TransformType::ENCR, 20); 256];
    let proposal = Proposal { number: 1, protocol: ProtocolId::IKE, spi: Spi::None, transforms };
    let sa = Payload::Sa(SecurityAssociation { proposals: vec![proposal] });
    assert_eq!(PayloadChain::encode(&[sa]), Err(EncodeError::TooMany(TooMany::Transforms)));

    let spis = vec![1; MAX_SPIS + 1];
    let delete = Payload::Delete(Delete::Child { protocol: ProtocolId::ESP, spis });
    assert_eq!(PayloadChain::encode(&[delete]), Err(EncodeError::TooMany(TooMany::Spis)));
}

pub fn header_of(exchange: ExchangeType) -> Header {
    Header { spi_i: 1, spi_r: 2, exchange, flags: Flags { initiator: true, response: false }, message_id: 3 }
}
