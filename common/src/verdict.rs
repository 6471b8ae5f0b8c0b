//! What an XDP program did with a packet: one counter for each verdict.

use crate::DropReason;
use crate::opening::Opening;

/// What the kernel does with a packet after the program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// To the AF_XDP socket of the packet's queue.
    Redirect,
    /// On into the kernel.
    Pass,
    /// Nowhere.
    Drop,
}

macro_rules! verdicts {
    ($($(#[$doc:meta])* $variant:ident = $number:literal => $action:ident $(($reason:ident))?, $label:literal;)*) => {
        /// What an XDP program did with a packet, and why.
        ///
        /// Numbers are stable: they index a per-CPU array of [`Counter`] shared between kernel and user space.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Verdict { $($(#[$doc])* $variant = $number,)* }

        impl Verdict {
            /// Every verdict, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Length of the counter array.
            pub const COUNT: usize = 32;

            /// What the kernel does with the packet.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)* }
            }

            /// The value of the `verdict` label in metrics, status and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// Why the packet was dropped, if it was.
            pub const fn drop_reason(self) -> Option<DropReason> {
                match self {
                    $($(Self::$variant => Some(DropReason::$reason),)?)*
                    _ => None,
                }
            }
        }
    };
}

verdicts! {
    /// ESP with a live SPI, or protected traffic, to the worker.
    Redirected = 0 => Redirect, "redirected";
    /// ESP with a live SPI, to our sockets: the interface is in `tun` mode.
    PassedEsp = 1 => Pass, "passed_esp";
    /// IKE on UDP, or the first segment of a TCP connection for it.
    PassedIke = 2 => Pass, "passed_ike";
    /// A fragment, for the kernel to reassemble.
    PassedFragment = 3 => Pass, "passed_fragment";
    /// ESP, or UDP to port 4500, to somebody else.
    PassedTransit = 4 => Pass, "passed_transit";
    /// Nothing of ours, or, from inside, nothing to forward.
    PassedOther = 5 => Pass, "passed_other";
    /// Only BYPASS policies cover the destination, or none does and the interface is not protected.
    PassedBypass = 6 => Pass, "passed_bypass";
    /// Protected traffic for the kernel to route into the TUN: the interface is in `tun` mode.
    PassedProtected = 7 => Pass, "passed_protected";
    /// A header is malformed.
    Malformed = 16 => Drop(Malformed), "malformed";
    /// ESP to us with an SPI that names no live SA.
    UnknownSpi = 17 => Drop(UnknownSpi), "unknown_spi";
    /// No worker's socket takes it.
    NoWorker = 18 => Drop(NoWorker), "no_worker";
    /// No policy covers the destination and the interface is protected.
    NoPolicy = 19 => Drop(NoPolicy), "no_policy";
    /// A NAT keepalive.
    NatKeepalive = 20 => Drop(NatKeepalive), "nat_keepalive";
    /// An IKE_SA_INIT request without COOKIE above what its source prefix may send.
    InitLimited = 21 => Drop(InitLimited), "init_limited";
    /// An IKE_SA_INIT request with COOKIE above what its source prefix may send.
    CookieLimited = 22 => Drop(CookieLimited), "cookie_limited";
    /// A TCP SYN to the port of IKE above what its source prefix may send.
    SynLimited = 23 => Drop(SynLimited), "syn_limited";
}

impl Verdict {
    /// The verdict on an opening that is one too many.
    #[inline(always)]
    pub const fn limited(opening: Opening) -> Self {
        match opening {
            Opening::Init => Self::InitLimited,
            Opening::InitWithCookie => Self::CookieLimited,
            Opening::Syn => Self::SynLimited,
        }
    }
}

/// Packets and octets with one verdict on one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Octets of the frames.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_labels_are_unique_and_fit_the_array() {
        for (i, a) in Verdict::ALL.iter().enumerate() {
            assert!((*a as usize) < Verdict::COUNT);
            for b in &Verdict::ALL[i + 1..] {
                assert!(a.label() != b.label() && *a as u8 != *b as u8);
            }
        }
    }

    #[test]
    fn every_drop_has_the_label_of_its_reason() {
        for verdict in Verdict::ALL {
            assert_eq!(verdict.drop_reason().is_some(), verdict.action() == Action::Drop);
            if let Some(reason) = verdict.drop_reason() {
                assert_eq!(reason.label(), verdict.label());
            }
        }
    }

    #[test]
    fn the_counter_is_two_words() {
        assert_eq!((size_of::<Counter>(), align_of::<Counter>()), (16, 8));
    }
}
