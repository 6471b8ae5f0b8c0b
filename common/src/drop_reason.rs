//! Why a packet was not forwarded: one enum for the XDP programs, the workers and the metrics.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal => $label:literal,)*) => {
        /// Why a packet was not forwarded.
        ///
        /// Numbers are stable: they index counter arrays shared between kernel and user space, and a
        /// retired number stays reserved. Labels are the `reason` label of the metrics.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant = $number,)* }

        impl DropReason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Length of an array indexed by `self as usize`.
            pub const COUNT: usize = 64;

            /// The value of the `reason` label in metrics, status and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

drop_reasons! {
    /// A header is cut short, a length contradicts another, a version is wrong.
    Malformed = 0 => "malformed",
    /// ESP to us with an SPI that names no live SA.
    UnknownSpi = 1 => "unknown_spi",
    /// Protected traffic while no worker's socket takes it (RFC 4301 section 5: never in clear).
    NoWorker = 2 => "no_worker",
    /// A packet from a protected interface matched no policy (RFC 4301 section 4.4.1: final DISCARD).
    NoPolicy = 3 => "no_policy",
    /// A DISCARD policy matched.
    PolicyDiscard = 4 => "policy_discard",
    /// Clear text arrived from outside although a PROTECT policy covers it (RFC 4301 section 5.2).
    ClearText = 5 => "clear_text",
    /// A PROTECT policy matched and no SA is up.
    NoSa = 6 => "no_sa",
    /// The SA was removed between steering and the worker.
    StaleSa = 7 => "stale_sa",
    /// Shorter than the smallest ESP packet of the algorithm.
    EspTooShort = 8 => "esp_too_short",
    /// Below the replay window, or seen already (RFC 4303 section 3.4.3).
    Replay = 9 => "replay",
    /// Authentication failed (RFC 4303 section 3.4.4.2).
    IcvFailure = 10 => "icv_failure",
    /// Padding does not hold the expected octets or is longer than the packet (RFC 4303 section 2.4).
    BadPadding = 11 => "bad_padding",
    /// A dummy packet, next header 59: by design (RFC 4303 section 2.6).
    Dummy = 12 => "dummy",
    /// The next header of an opened packet is neither IPv4, IPv6 nor dummy.
    InnerProtocol = 13 => "inner_protocol",
    /// The inner packet is malformed or its length exceeds what was opened.
    InnerMalformed = 14 => "inner_malformed",
    /// The inner packet is outside its SA's selectors, either direction (RFC 4301 section 5.2 step 4).
    OutsideSelectors = 15 => "outside_selectors",
    /// The SA has used its last sequence number (RFC 4303 section 3.3.3).
    SequenceExhausted = 16 => "sequence_exhausted",
    /// The SA has reached its hard lifetime.
    LifetimeExpired = 17 => "lifetime_expired",
    /// No ESP carrier is known yet and the hold queue is full or timed out (transport policy rule 4).
    CarrierUnknown = 18 => "carrier_unknown",
    /// ESP came by a carrier that the policy refuses, such as TCP under fail-closed.
    CarrierRefused = 19 => "carrier_refused",
    /// Larger than the tunnel's path MTU with DF set; the sender got an ICMP error.
    TooBig = 20 => "too_big",
    /// TTL or hop limit exceeded; the sender got an ICMP error.
    TtlExceeded = 21 => "ttl_exceeded",
    /// No route to the next hop.
    NoRoute = 22 => "no_route",
    /// The next hop did not answer neighbour discovery, or too many packets wait for it.
    NoNeighbour = 23 => "no_neighbour",
    /// The transmit ring or the free-frame pool was exhausted.
    TxFull = 24 => "tx_full",
    /// The hand-over queue to the SA's owner was full.
    HandOverFull = 25 => "hand_over_full",
    /// The kernel refused a send on a socket or TUN.
    SendError = 26 => "send_error",
    /// AF_XDP, kernel side: the receive ring was full.
    XskRxFull = 27 => "xsk_rx_full",
    /// AF_XDP: no frame was free to receive into, or the packet was longer than any.
    XskRxDropped = 28 => "xsk_rx_dropped",
    /// AF_XDP, kernel side: an invalid descriptor in the transmit or fill ring.
    XskInvalidDescriptor = 29 => "xsk_invalid_descriptor",
    /// An inner fragment whose ports are unknown, under a policy that selects ports (RFC 4301 section 7).
    FragmentPorts = 30 => "fragment_ports",
    /// The path of this SA is shut by policy (blocked).
    PathShut = 31 => "path_shut",
    /// ESP arrived from or for an address that is not the SA's (only where the path is fixed).
    WrongEndpoint = 32 => "wrong_endpoint",
    /// Congestion was marked on a tunnel packet whose inner transport cannot hear it (RFC 6040 section 4.2).
    EcnMarked = 33 => "ecn_marked",
    /// The control plane took IKE messages more slowly than they came.
    IkeQueueFull = 34 => "ike_queue_full",
    /// A NAT keepalive, by design (RFC 3948 section 2.3).
    NatKeepalive = 35 => "nat_keepalive",
    /// TUN, kernel side: its queue was full, because the worker read too slowly.
    TunQueueFull = 40 => "tun_queue_full",
    /// A socket for ESP, kernel side: its receive buffer was full, or the datagram's checksum was wrong.
    SocketRxDropped = 41 => "socket_rx_dropped",
    /// Too many sealed packets wait for the TCP stream that carries them, or for all streams together.
    StreamQueueFull = 45 => "stream_queue_full",
    /// A sealed packet waited too long for its TCP stream.
    StreamLate = 46 => "stream_late",
    /// The TCP stream that carries ESP of this SA is not up, or broke before the packet was sent.
    StreamDown = 47 => "stream_down",
    /// An ESP echo request that was answered, by design: the reply is a packet of our own.
    EchoAnswered = 48 => "echo_answered",
    /// An ESP echo request that asks for no reply, by design (transport policy rule 10).
    EchoOneWay = 49 => "echo_one_way",
    /// An ESP echo reply that the control plane was told of, by design.
    EchoReply = 50 => "echo_reply",
    /// An ESP echo request that the policy does not answer: echo is not announced, it came over IP from another
    /// address than IKE's, or on a stream under fail-closed (transport policy rules 3 and 6).
    EchoRefused = 51 => "echo_refused",
    /// An ESP echo request whose return SPI names no outbound SA of the same IKE SA (transport policy rule 6).
    EchoReturnSpi = 52 => "echo_return_spi",
    /// An ESP echo message above the rate of its SA, or a reply that the control plane had no room for.
    EchoLimited = 53 => "echo_limited",
    /// An ESP echo message shorter than it says, or a reply too short to repeat what we sent.
    EchoMalformed = 54 => "echo_malformed",
    /// An AGGFRAG payload other than ESP echo; none is negotiated (RFC 9347 section 5.1).
    Aggfrag = 55 => "aggfrag",
    /// An IKE_SA_INIT request without COOKIE above what its source prefix may send.
    InitLimited = 56 => "init_limited",
    /// An IKE_SA_INIT request with COOKIE (RFC 7296 section 2.6) above what its source prefix may send.
    CookieLimited = 57 => "cookie_limited",
    /// A TCP SYN to the port of IKE above what its source prefix may send.
    SynLimited = 58 => "syn_limited",
    /// The checksum of an outer IPv4 header, or of the UDP datagram with ESP in it, is wrong (RFC 1122 sections 3.2.1.2 and
    /// 4.1.3.4, RFC 8200 section 8.1). Where the kernel takes packets first, it drops them itself.
    OuterChecksum = 59 => "outer_checksum",
}

impl DropReason {
    /// The reason with this number, if it is assigned.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| *r as u8 == number)
    }
}

#[cfg(feature = "user")]
impl core::fmt::Display for DropReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_labels_are_unique_and_fit_the_array() {
        for (i, a) in DropReason::ALL.iter().enumerate() {
            assert!((*a as usize) < DropReason::COUNT);
            assert_eq!(DropReason::from_number(*a as u8), Some(*a));
            for b in &DropReason::ALL[i + 1..] {
                assert!(a.label() != b.label() && *a as u8 != *b as u8);
            }
        }
        assert_eq!(DropReason::from_number(63), None);
    }
}
