//! SAs, paths and their names as the control plane hands them over.

use core::fmt;
use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_common::Spi;
use portcullis_esp::Algorithm;
use zeroize::Zeroizing;

use crate::policy::{PolicyKey, Selector};
use crate::stream::StreamKey;

/// A pair of Child SAs; the control plane's number, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChildId(pub u64);

/// The path that all SAs of one IKE SA share; the control plane's number, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId(pub u64);

/// What happens to outbound ESP of a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Carrier {
    /// IP protocol 50.
    Ip,
    /// UDP (RFC 3948).
    Udp,
    /// Held, 64 packets for 1 s, until the carrier is known (transport policy rule 4).
    Hold,
    /// Written to this TCP stream, beside IKE (RFC 9329 section 3).
    Stream(StreamKey),
    /// Dropped as `path_shut`.
    Shut,
}

/// How ESP of one IKE SA travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// What carries outbound packets.
    pub carrier: Carrier,
    /// Our outer address.
    pub local: IpAddr,
    /// Our UDP port.
    pub local_port: u16,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// The peer's UDP port.
    pub remote_port: u16,
    /// Which echo requests of the peer are answered, whatever the carrier.
    pub echo: EchoAnswers,
    /// Inbound packets that come in a TCP stream pass. If not they are opened, so that a forged one is none of the peer's,
    /// reported and dropped as `carrier_refused` (transport policy rule 7).
    pub takes_tcp: bool,
}

/// Which ESP echo requests of the peer are answered (transport policy rules 3 and 6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct EchoAnswers {
    /// Those over direct carriers: this end has announced ESP echo.
    pub direct: bool,
    /// Those on TCP streams; never under fail-closed.
    pub stream: bool,
    /// A request over IP from another address is not answered.
    pub ip_only_from: Option<IpAddr>,
}

/// Key and salt as KEYMAT gives them; wiped when dropped, never printed.
#[derive(Clone)]
pub struct SaKey(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for SaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaKey(..)")
    }
}

/// Lifetimes that the data plane counts; time-based ones are the IKE endpoint's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// Octets after which a rekey is asked for.
    pub soft_bytes: u64,
    /// Octets after which the SA passes nothing more.
    pub hard_bytes: u64,
    /// Packets after which a rekey is asked for.
    pub soft_packets: u64,
    /// Packets after which the SA passes nothing more.
    pub hard_packets: u64,
    /// Time after which the SA passes nothing more even if the control plane is gone.
    pub hard_time: Duration,
}

/// The negotiated selectors of an SA: any of `local` with any of `remote`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaSelectors {
    /// Our side.
    pub local: Arc<[Selector]>,
    /// The peer's side.
    pub remote: Arc<[Selector]>,
}

/// What both directions of a Child SA share.
#[derive(Clone, Debug)]
pub struct SaCommon {
    /// The pair.
    pub child: ChildId,
    /// The path of its IKE SA.
    pub path: PathId,
    /// The PROTECT policy (connection and child) that it serves.
    pub policy: PolicyKey,
    /// Which of several with the same selectors it is (RFC 9611); 0 unless there are several. Each resource has its share of the
    /// flows, and its own worker.
    pub resource: u8,
    /// Algorithm.
    pub algorithm: Algorithm,
    /// Key and salt.
    pub key: SaKey,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Negotiated selectors.
    pub selectors: SaSelectors,
    /// Lifetimes.
    pub lifetime: Lifetime,
}

/// An inbound SA to install.
#[derive(Clone, Debug)]
pub struct InboundSa {
    /// Shared with the other direction, but for the key.
    pub common: SaCommon,
    /// A reserved SPI of ours.
    pub spi: Spi,
    /// Replay window in packets, 64 to 65536; `None` switches replay protection off.
    pub replay_window: Option<u32>,
}

/// An outbound SA to install.
#[derive(Clone, Debug)]
pub struct OutboundSa {
    /// Shared with the other direction, but for the key.
    pub common: SaCommon,
    /// The peer's SPI.
    pub spi: Spi,
    /// Every worker seals with it: packets leave in no order among flows, so that the peer needs a replay window of several batches
    /// of each worker.
    pub by_all_workers: bool,
}

/// The replay window in packets that a peer needs if so many workers seal with one SA: what one of them has sealed may leave when
/// each of the others has sent a batch, and there are queues on the way.
pub const fn least_peer_window(workers: u8) -> u32 {
    4 * crate::worker::run::BATCH as u32 * workers as u32
}

/// What an SA has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SaUsage {
    /// ESP packets, both good and sent.
    pub packets: u64,
    /// Inner octets.
    pub bytes: u64,
    /// Highest sequence number used or seen.
    pub sequence: u64,
    /// Dropped on this SA: replays.
    pub replays: u64,
    /// Dropped on this SA: authentication failures.
    pub icv_failures: u64,
}
