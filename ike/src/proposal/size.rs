//! Whether an IKE_SA_INIT request fits into one UDP packet: it cannot be fragmented (RFC 7383 section 2.5).

use super::{IkeProposal, offer_ike};
use crate::codec::{HEADER_LEN, NON_ESP_MARKER, Payload, PayloadChain, Spi};

/// Every IPv6 path carries packets of this size (RFC 8200 section 5).
const MAX_PACKET_LEN: usize = 1280;
const IPV6_AND_UDP_LEN: usize = 40 + 8;
const GENERIC_HEADER_LEN: usize = 4;
const KEY_EXCHANGE_HEADER_LEN: usize = 8;
const NONCE_LEN: usize = 32;
const NOTIFY_HEADER_LEN: usize = 8;
/// NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP.
const NAT_DETECTION_LEN: usize = 2 * (NOTIFY_HEADER_LEN + 20);
/// IKEV2_FRAGMENTATION_SUPPORTED, INTERMEDIATE_EXCHANGE_SUPPORTED, IKE_SA_INIT_FULL_TRANSCRIPT_AUTH, SEPARATE_TRANSPORTS,
/// REDIRECT_SUPPORTED, USE_PPK, USE_PPK_INT.
const FLAGS_LEN: usize = 7 * NOTIFY_HEADER_LEN;
/// SIGNATURE_HASH_ALGORITHMS with every hash that is registered.
const HASH_ALGORITHMS_LEN: usize = NOTIFY_HEADER_LEN + 7 * 2;
const VENDOR_ID_LEN: usize = GENERIC_HEADER_LEN + 16;
/// The longest COOKIE a responder may ask for (RFC 7296 section 2.6).
const COOKIE_LEN: usize = NOTIFY_HEADER_LEN + 64;

/// The IKE_SA_INIT request with these proposals, a public value for the first method of the first, the notifications we
/// send and the longest cookie makes an IPv6 packet of at most 1280 octets.
pub fn ike_sa_init_fits_udp(proposals: &[IkeProposal]) -> bool {
    ike_sa_init_len(proposals)
        .is_some_and(|len| IPV6_AND_UDP_LEN + NON_ESP_MARKER.len() + len <= MAX_PACKET_LEN)
}

/// Octets of the message; `None` if it cannot be encoded or its first method has no known length.
fn ike_sa_init_len(proposals: &[IkeProposal]) -> Option<usize> {
    let sa = PayloadChain::encode(&[Payload::Sa(offer_ike(proposals, Spi::None))]).ok()?;
    let public_value = proposals.first()?.ke.first()?.lengths()?.initiator;
    let rest = NAT_DETECTION_LEN + FLAGS_LEN + HASH_ALGORITHMS_LEN + VENDOR_ID_LEN + COOKIE_LEN;
    Some(
        HEADER_LEN
            + sa.bytes.len()
            + KEY_EXCHANGE_HEADER_LEN
            + public_value
            + GENERIC_HEADER_LEN
            + NONCE_LEN
            + rest,
    )
}
