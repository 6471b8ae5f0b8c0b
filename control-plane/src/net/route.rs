//! Which shard a message belongs to.
//!
//! Our IKE SPIs carry the shard in their top octet. An IKE_SA_INIT request has no SPI of ours yet; it goes where
//! the peer's address leads, and a connection with that address is initiated there too, so that two ends that
//! start at once meet in one shard.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// The part of an IKE header (RFC 7296 section 3.1) that says where it belongs: both SPIs to the flags.
pub const HEADER_PART: usize = 20;
/// What precedes an IKE message on a fresh stream: `IKETCP` (RFC 9329 section 4), length and non-ESP marker.
pub const STREAM_PREFACE: usize = 6 + 2 + 4;
const PREFIX: &[u8] = b"IKETCP";
const NON_ESP_MARKER: &[u8] = &[0; 4];
const FLAG_INITIATOR: u8 = 0x08;

/// How shards are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Shards {
    count: u8,
}

impl Shards {
    /// For `count` shards; at least one.
    pub fn new(count: u8) -> Self {
        Self { count: count.max(1) }
    }

    /// How many.
    pub fn count(self) -> usize {
        usize::from(self.count)
    }

    /// The shard where everything of a peer's address begins.
    pub fn of_peer(self, peer: IpAddr) -> usize {
        self.of(peer)
    }

    /// The shard of a connection by its name, where it has no address to go by.
    pub fn of_name(self, name: &str) -> usize {
        self.of(name)
    }

    /// The hash has no secret: an address that lands in a busy shard has no advantage over one that does not.
    fn of(self, key: impl Hash) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        (hasher.finish() % u64::from(self.count)) as usize
    }

    /// The shard of a datagram, by an SPI of ours or else by the peer. On port 4500 the non-ESP marker precedes the
    /// message; elsewhere the same octets are part of an SPI.
    pub fn of_datagram(self, payload: &[u8], has_marker: bool, peer: IpAddr) -> usize {
        let message = if has_marker { payload.strip_prefix(NON_ESP_MARKER) } else { Some(payload) };
        message.map_or_else(|| self.of_peer(peer), |message| self.of_header(message, peer))
    }

    /// The shard of a stream by its first octets; `None` while there are too few of them. A stream that does not
    /// begin as it should goes by its peer: the endpoint closes and counts it.
    pub fn of_stream(self, first: &[u8], peer: IpAddr) -> Option<usize> {
        let prefix = PREFIX.get(..first.len().min(PREFIX.len()))?;
        if self.count == 1 || !first.starts_with(prefix) {
            return Some(self.of_peer(peer));
        }
        let header = first.get(STREAM_PREFACE..STREAM_PREFACE + HEADER_PART)?;
        Some(self.of_header(header, peer))
    }

    fn of_header(self, message: &[u8], peer: IpAddr) -> usize {
        let (Some(initiator), Some(responder), Some(flags)) =
            (message.first(), message.get(8..16), message.get(19))
        else {
            return self.of_peer(peer);
        };
        // The Initiator flag says that the sender is the original initiator, so the other SPI is ours.
        let is_from_initiator = flags & FLAG_INITIATOR != 0;
        let shard = match (is_from_initiator, responder) {
            (true, [0, 0, 0, 0, 0, 0, 0, 0]) => return self.of_peer(peer),
            (true, responder) => responder.first().copied().unwrap_or(0),
            (false, _) => *initiator,
        };
        usize::from(shard) % self.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn messages_go_where_our_spi_says() {
        let shards = Shards::new(4);
        assert_eq!(shards.of_datagram(&header(0x1122, 3 << 56, FLAG_INITIATOR), false, PEER), 3);
        assert_eq!(shards.of_datagram(&header(2 << 56, 0x1122, 0), false, PEER), 2);
        let marked = [&[0; 4], header(1 << 56, 0, 0).as_slice()].concat();
        assert_eq!(shards.of_datagram(&marked, true, PEER), 1);
    }

    #[test]
    fn a_first_request_goes_where_its_peer_leads() {
        let shards = Shards::new(4);
        let request = header(0x1122, 0, FLAG_INITIATOR);
        assert_eq!(shards.of_datagram(&request, false, PEER), shards.of_peer(PEER));
        assert_eq!(shards.of_datagram(&[0; 3], true, PEER), shards.of_peer(PEER));
        let spread: std::collections::BTreeSet<usize> =
            (0..64).map(|n| shards.of_peer(std::net::Ipv4Addr::new(192, 0, 2, n).into())).collect();
        assert_eq!(spread.len(), 4, "peers spread over every shard");
    }

    #[test]
    fn a_stream_waits_for_the_first_header_unless_it_is_garbage() {
        let shards = Shards::new(4);
        let first =
            [b"IKETCP".as_slice(), &[0, 60], &[0; 4], &header(0x1122, 3 << 56, FLAG_INITIATOR)].concat();
        assert_eq!(shards.of_stream(&first, PEER), Some(3));
        for cut in 0..STREAM_PREFACE + HEADER_PART {
            assert_eq!(shards.of_stream(&first[..cut], PEER), None, "{cut}");
        }
        assert_eq!(shards.of_stream(b"GET /", PEER), Some(shards.of_peer(PEER)));
        assert_eq!(Shards::new(1).of_stream(b"", PEER), Some(0));
    }

    fn header(initiator: u64, responder: u64, flags: u8) -> Vec<u8> {
        [&initiator.to_be_bytes()[..], &responder.to_be_bytes(), &[33, 0x20, 34, flags], &[0; 8]].concat()
    }
}
