//! One packet at a time, in place: what a router and a tunnel end do to headers.
//!
//! No I/O, no tables: callers bring addresses, MTUs and traffic classes. Every function takes any bytes;
//! what it cannot make sense of it refuses.

pub mod buffer;
pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod inner;
pub mod mss;
pub mod offload;
pub mod outer;
pub mod segment;

pub use buffer::PacketBuf;
pub use inner::{Inner, IpVersion};
pub use outer::{DontFragment, OuterHeader, TunnelOptions};

/// IP protocol numbers that the data plane looks at.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP: the next header of ESP that carries an IPv4 packet.
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 in IP: the next header of ESP that carries an IPv6 packet.
    pub const IPV6: u8 = 41;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// Dummy packet of ESP (RFC 4303 section 2.6).
    pub const NO_NEXT_HEADER: u8 = 59;
}
