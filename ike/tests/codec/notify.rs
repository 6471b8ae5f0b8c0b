//! Notifications that have data.

use portcullis_ike::codec::*;

#[test]
fn typed_data_is_read_as_it_was_written() {
    let ke = Notify::invalid_ke_payload(KeMethod::ECP_384);
    assert_eq!((&*ke.data, ke.wanted_ke_method()), (&[0, 20][..], Some(KeMethod::ECP_384)));
    let critical = Notify::unsupported_critical_payload(PayloadType(200));
    assert_eq!(critical.unsupported_payload(), Some(PayloadType(200)));
    assert_eq!(Notify::set_window_size(8).window_size(), Some(8));
    let demand = PuzzleDemand { prf: PrfId::HMAC_SHA2_256, difficulty: 20 };
    assert_eq!(Notify::puzzle(demand).puzzle_demand(), Some(demand));
    assert_eq!(&*Notify::puzzle(demand).data, [0, 5, 20], "RFC 8019 section 8.1");
    assert_eq!(Notify::invalid_message_id(7).message_id(), Some(7));
    let hashes = [HashAlgorithm::SHA2_256, HashAlgorithm::IDENTITY];
    assert_eq!(Notify::signature_hash_algorithms(&hashes).hash_algorithms().unwrap(), hashes);
    assert_eq!(*Notify::invalid_major_version().data, [2]);
}

#[test]
fn data_of_the_wrong_length_or_type_means_nothing() {
    let short = Notify::with_data(NotifyType::INVALID_KE_PAYLOAD, vec![20].into());
    assert_eq!(short.wanted_ke_method(), None);
    let other = Notify::with_data(NotifyType::COOKIE2, vec![0, 20].into());
    assert_eq!((other.wanted_ke_method(), other.cookie(), other.window_size()), (None, None, None));
    let odd = Notify::with_data(NotifyType::SIGNATURE_HASH_ALGORITHMS, vec![0, 2, 0].into());
    assert_eq!(odd.hash_algorithms(), None);
    let hash = |notify_type, len| Notify::with_data(notify_type, vec![1; len].into()).nat_detection_hash();
    assert_eq!(hash(NotifyType::NAT_DETECTION_SOURCE_IP, 20), Some([1; 20]));
    assert_eq!(hash(NotifyType::NAT_DETECTION_DESTINATION_IP, 20), Some([1; 20]));
    assert_eq!(hash(NotifyType::NAT_DETECTION_SOURCE_IP, 19), None);
}

/// RFC 7296 section 2.6: "between 1 and 64 octets in length (inclusive)".
#[test]
fn cookies_have_1_to_64_octets() {
    for (len, valid) in [(0, false), (1, true), (64, true), (65, false)] {
        let notify = Notify::with_data(NotifyType::COOKIE, vec![7; len].into());
        assert_eq!(notify.cookie().is_some(), valid, "{len}");
    }
}

/// RFC 7296 section 3.10.1.
#[test]
fn types_below_16384_are_errors() {
    assert!(NotifyType::TS_UNACCEPTABLE.is_error() && NotifyType(16383).is_error());
    assert!(NotifyType::INITIAL_CONTACT.is_status() && NotifyType(42241).is_status());
    assert!(NotifyType(42241).is_private_use() && !NotifyType::REKEY_SA.is_private_use());
}
