//! Whatever arrives: an error or a message, in bounded memory, and never a panic.

use crate::strategies::{header, octets, payloads};
use portcullis_ike::codec::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn random_octets_are_an_error_or_a_message(bytes in octets(0..400)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn random_payloads_behind_a_valid_header_are_an_error_or_a_message(
        header in header(),
        first in any::<u8>(),
        body in octets(0..400),
    ) {
        let mut bytes = encode_message(&header, &[]).unwrap();
        bytes[16] = first;
        bytes.extend_from_slice(&body);
        let len = (bytes.len() as u32).to_be_bytes();
        bytes[24..28].copy_from_slice(&len);
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert!(message.payloads.len() <= MAX_PAYLOADS);
        }
    }

    /// What a mutated message still says can be said again.
    #[test]
    fn a_mutated_chain_is_refused_or_survives_encoding(
        payloads in payloads(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut chain = PayloadChain::encode(&payloads).unwrap();
        for (index, value) in changes {
            if !chain.bytes.is_empty() {
                let at = index.index(chain.bytes.len());
                chain.bytes[at] = value;
            }
        }
        if let Ok(decoded) = decode_chain(chain.first, &chain.bytes) {
            let again = PayloadChain::encode(&decoded).unwrap();
            prop_assert_eq!(decode_chain(again.first, &again.bytes).unwrap(), decoded);
        }
    }

    #[test]
    fn a_truncated_message_is_refused(header in header(), payloads in payloads(), at in any::<prop::sample::Index>()) {
        let mut bytes = encode_message(&header, &payloads).unwrap();
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(Message::decode(&bytes).is_err());
    }

    #[test]
    fn a_truncated_chain_is_refused(payloads in payloads(), at in any::<prop::sample::Index>()) {
        prop_assume!(!payloads.is_empty());
        let chain = PayloadChain::encode(&payloads).unwrap();
        let shorter = &chain.bytes[..at.index(chain.bytes.len())];
        prop_assert!(decode_chain(chain.first, shorter).is_err());
    }

    #[test]
    fn an_error_names_a_place_within_the_input(first in 33_u8..55, content in octets(0..200)) {
        if let Err(error) = decode_chain(PayloadType(first), &content) {
            prop_assert!(error.offset <= content.len());
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
