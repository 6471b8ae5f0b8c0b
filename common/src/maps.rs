//! Maps and globals of the XDP programs, by name, with the layout of what is in them.
//!
//! Each interface has its own copy of the program and of the maps of [`PER_INTERFACE`]; the maps of [`SHARED`]
//! exist once for an instance.

/// Array of [`crate::SteerWord`], memory-mapped; as many as the SA table has slots.
pub const STEER: &str = "STEER";
/// Array of [`KeyRecord`], memory-mapped: the inbound slots, then as many outbound ones. No program reads it.
pub const KEYS: &str = "KEYS";
/// Hash of our IPv4 addresses.
pub const LOCAL_IPV4: &str = "LOCAL_IPV4";
/// Hash of our IPv6 addresses.
pub const LOCAL_IPV6: &str = "LOCAL_IPV6";
/// Array of one [`crate::near::NearAddresses`].
pub const LOCAL_NEAR: &str = "LOCAL_NEAR";
/// Array of words with the classes of all IPv4 /24s, memory-mapped.
pub const LAN_IPV4: &str = "LAN_IPV4";
/// Hash from a /24 to its [`crate::prefix_class::MixedBlock`].
pub const LAN_IPV4_MIXED: &str = "LAN_IPV4_MIXED";
/// Hash from an [`crate::prefix_class::Ipv6Prefix`] to its class.
pub const LAN_IPV6: &str = "LAN_IPV6";
/// Array of one [`crate::prefix_class::Ipv6Lengths`].
pub const LAN_IPV6_LENGTHS: &str = "LAN_IPV6_LENGTHS";
/// Array of [`crate::limit::Buckets`], memory-mapped: [`crate::limit::BUCKETS`] of them.
pub const LIMIT_BUCKETS: &str = "LIMIT_BUCKETS";
/// Hash of [`crate::ip::Source`]: addresses whose openings have no limit.
pub const LIMIT_EXEMPT: &str = "LIMIT_EXEMPT";
/// AF_XDP sockets by receive queue.
pub const SOCKETS: &str = "SOCKETS";
/// Per-CPU array of [`crate::verdict::Counter`] by [`crate::verdict::Verdict`].
pub const VERDICTS: &str = "VERDICTS";

/// Maps that all interfaces of an instance share.
pub const SHARED: &[&str] = &[
    STEER,
    KEYS,
    LOCAL_NEAR,
    LOCAL_IPV4,
    LOCAL_IPV6,
    LAN_IPV4,
    LAN_IPV4_MIXED,
    LAN_IPV6,
    LAN_IPV6_LENGTHS,
    LIMIT_BUCKETS,
    LIMIT_EXEMPT,
];
/// Maps of one interface.
pub const PER_INTERFACE: &[&str] = &[SOCKETS, VERDICTS];

/// Global, `u8`: 1 where known SPIs and protected traffic go to a socket, 0 where they go to the kernel.
pub const REDIRECT: &str = "REDIRECT";
/// Global, `u8`: 1 where a destination without policy is dropped (RFC 4301 section 4.4.1).
pub const FINAL_DISCARD: &str = "FINAL_DISCARD";
/// Global, [`crate::limit::Limits`].
pub const LIMITS: &str = "LIMITS";

/// The program for interfaces where ESP arrives.
pub const WAN_PROGRAM: &str = "portcullis_wan";
/// The program for interfaces with protected hosts.
pub const LAN_PROGRAM: &str = "portcullis_lan";

/// Octets of a key record.
pub const KEY_RECORD_LEN: usize = 64;
/// Key material of a slot, wrapped; what is in it is the SA table's business.
pub type KeyRecord = [u8; KEY_RECORD_LEN];

/// Most addresses of each family that can be ours.
pub const MAX_LOCAL_ADDRESSES: u32 = 4096;
/// Most IPv4 /24s with more than one class.
pub const MAX_MIXED: u32 = 65_536;
/// Most IPv6 prefixes.
pub const MAX_IPV6_PREFIXES: u32 = 65_536;
/// Most addresses without limit.
pub const MAX_EXEMPT: u32 = 131_072;
/// Most receive queues of an interface.
pub const MAX_QUEUES: u32 = 256;
