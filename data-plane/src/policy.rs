//! The security policy as the control plane hands it over (RFC 4301 section 4.4.1).

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::guard::Rule;

/// Names a PROTECT policy: connection and child.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyKey {
    /// Connection name.
    pub connection: Arc<str>,
    /// Child name.
    pub child: Arc<str>,
}

/// One side of a selector: an address range with protocol and ports.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Selector {
    /// First and last address, both of one family.
    pub addresses: RangeInclusive<IpAddr>,
    /// IP protocol, or any.
    pub protocol: Option<u8>,
    /// Ports of this side; the whole range if the protocol has none.
    pub ports: RangeInclusive<u16>,
}

/// What to do with a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Protect with the current SA of this child.
    Protect {
        /// The child.
        key: PolicyKey,
        /// Ask for an SA when a packet meets the policy without one (`start: on-traffic`).
        acquire: bool,
        /// Route-based: only packets that the kernel routes into this TUN.
        interface: Option<Arc<str>>,
    },
    /// Let pass in clear.
    Bypass,
    /// Drop.
    Discard,
}

/// One entry of the ordered SPD. Any local with any remote selector matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Our side.
    pub local: Vec<Selector>,
    /// The other side.
    pub remote: Vec<Selector>,
    /// What to do.
    pub disposition: Disposition,
}

/// Everything the guard and the workers need to know about policy, replaced as a whole.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PolicySet {
    /// Ordered; the first match decides. A final DISCARD holds on protected interfaces.
    pub policies: Vec<Policy>,
    /// Addresses of configured peers, for the guard's `allow` policies; `None` in it means any.
    pub peers: Vec<Option<IpAddr>>,
    /// Route-based children: prefixes that the guard covers although the selectors are 0/0.
    pub guard_prefixes: Vec<(IpAddr, u8)>,
    /// What the guard holds beside: rules it had before, whose connections nobody can tell any more.
    pub guard_rules: Vec<Rule>,
}
