//! Where the parts of Encrypted payloads lie.

use crate::round_trip::header_of;
use crate::strategies::{header, octets, payloads};
use portcullis_ike::codec::*;
use proptest::prelude::*;

const LAYOUT: CipherLayout = CipherLayout { iv_len: 8, icv_len: 16 };

proptest! {
    #[test]
    fn what_is_sealed_is_found_again(header in header(), clear in payloads(), content in octets(0..2000)) {
        let first_inner = PayloadType::NOTIFY;
        let message = Protected { header: &header, clear: &clear, first_inner, fragment: None };
        let mut associated = Vec::new();
        let bytes = message.seal(&content, LAYOUT, |parts| {
            associated = parts.associated_data.to_vec();
            mask(parts)
        }).unwrap();

        let received = Message::decode(&bytes).unwrap();
        prop_assert_eq!((received.header, &received.payloads), (header, &clear));
        let encrypted = received.encrypted.unwrap();
        prop_assert_eq!((encrypted.fragment, encrypted.first_inner), (None, first_inner));
        prop_assert_eq!(encrypted.associated_data, associated);
        prop_assert_eq!(unmask(&encrypted), content.clone());
        prop_assert_eq!(encrypted.int_auth_a(content.len()), message.int_auth_a(content.len()));
    }

    /// RFC 9242 section 3.3.2: fragmentation does not change what AUTH covers.
    #[test]
    fn a_fragmented_message_has_the_authenticated_octets_of_the_whole(
        header in header(),
        clear in payloads(),
        content in octets(2..2000),
    ) {
        let whole = Protected { header: &header, clear: &clear, first_inner: PayloadType::KE, fragment: None };
        let fragment = Some(Fragment { number: 1, total: 2 });
        let first = Protected { fragment, ..whole };
        let bytes = first.seal(&content[..content.len() / 2], LAYOUT, mask).unwrap();
        let encrypted = Message::decode(&bytes).unwrap().encrypted.unwrap();
        prop_assert_eq!(encrypted.fragment, fragment);
        prop_assert_eq!(encrypted.int_auth_a(content.len()), whole.int_auth_a(content.len()));
    }
}

/// RFC 5282 section 5.1 and RFC 9242 section 3.3.2, octet by octet.
#[test]
fn the_header_of_the_encrypted_payload_ends_the_associated_data() {
    let header = header_of(ExchangeType::IKE_INTERMEDIATE);
    let message = Protected::whole(&header, PayloadType::KE);
    let bytes = message.seal(&[0xaa; 10], LAYOUT, mask).unwrap();
    let total = 28 + 4 + 8 + 10 + 1 + 16;
    assert_eq!((bytes.len(), LAYOUT.overhead(false) + 10), (total, total));
    #[rustfmt::skip]
    let mut expected = vec![
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 46, 0x20, 43, 0x08, 0, 0, 0, 3, 0, 0, 0, total as u8,
        34, 0, 0, 39,
    ];
    assert_eq!(bytes[..32], expected);

    expected[27] = 28 + 4 + 10;
    expected[31] = 4 + 10;
    assert_eq!(message.int_auth_a(10).unwrap(), expected);
}

/// RFC 7383 section 2.5: fragment numbers are authenticated with the header.
#[test]
fn the_fragment_numbers_end_the_associated_data_of_a_fragment() {
    let header = header_of(ExchangeType::IKE_AUTH);
    let fragment = Some(Fragment { number: 2, total: 3 });
    let message = Protected { header: &header, clear: &[], first_inner: PayloadType::NONE, fragment };
    let bytes = message.seal(&[0xaa; 10], LAYOUT, mask).unwrap();
    assert_eq!(bytes.len(), LAYOUT.overhead(true) + 10);
    let encrypted = Message::decode(&bytes).unwrap().encrypted.unwrap();
    assert_eq!(encrypted.associated_data, &bytes[..36]);
    assert_eq!(encrypted.associated_data[28..], [0, 0, 0, 43, 0, 2, 0, 3]);
    assert_eq!(bytes[16], PayloadType::SKF.0);
}

/// RFC 7296 section 3.14: "the recipient MUST accept any length that results in proper alignment".
#[test]
fn padding_is_stripped_and_never_believed_beyond_the_content() {
    assert_eq!(Encrypted::content(&[1, 2, 3, 9, 9, 2]).unwrap(), [1, 2, 3]);
    assert_eq!(Encrypted::content(&[0]).unwrap(), []);
    assert_eq!(Encrypted::content(&[7, 7, 3]).unwrap_err().cause, Malformed::Padding(3));
    assert_eq!(Encrypted::content(&[]).unwrap_err().cause, Malformed::EncryptedTooShort(0));
}

#[test]
fn an_encrypted_payload_without_room_for_its_parts_is_refused() {
    let header = header_of(ExchangeType::INFORMATIONAL);
    let short = CipherLayout { iv_len: 8, icv_len: 15 };
    let bytes = Protected::whole(&header, PayloadType::NONE).seal(&[], short, mask).unwrap();
    let encrypted = Message::decode(&bytes).unwrap().encrypted.unwrap();
    assert!(encrypted.split(short).is_ok());
    assert_eq!(encrypted.split(LAYOUT).unwrap_err().cause, Malformed::EncryptedTooShort(24));
}

#[test]
fn a_cipher_that_refuses_makes_no_message() {
    let header = header_of(ExchangeType::INFORMATIONAL);
    let message = Protected::whole(&header, PayloadType::NONE);
    assert_eq!(message.seal(&[], LAYOUT, |_| None), Err(EncodeError::Seal));
}

/// A cipher whose effect shows where it was applied.
fn mask(parts: SealParts<'_>) -> Option<()> {
    parts.iv.fill(0x11);
    parts.text.iter_mut().for_each(|octet| *octet ^= 0x55);
    parts.icv.fill(0x22);
    Some(())
}

fn unmask(encrypted: &Encrypted<'_>) -> Vec<u8> {
    let (iv, rest) = encrypted.split(LAYOUT).unwrap();
    let (text, icv) = rest.split_at(rest.len() - LAYOUT.icv_len);
    assert!(iv.iter().all(|octet| *octet == 0x11) && icv.iter().all(|octet| *octet == 0x22));
    let text: Vec<u8> = text.iter().map(|octet| octet ^ 0x55).collect();
    Encrypted::content(&text).unwrap().to_vec()
}
