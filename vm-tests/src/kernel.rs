//! Kernels that were built without something: the calling thread, and what it starts, get the answers of such a one.

use std::collections::BTreeMap;

use anyhow::Result;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// IP_XFRM_POLICY and IPV6_XFRM_POLICY (`linux/in.h`, `linux/in6.h`).
const SOCKET_POLICIES: [(i32, i32); 2] = [(libc::SOL_IP, 17), (libc::SOL_IPV6, 35)];

/// What the kernel has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// All that this one has.
    AsItIs,
    /// Neither XFRM nor nftables.
    WithoutXfrmAndNftables,
}

impl Kernel {
    /// Restricts the calling thread for the rest of its life.
    ///
    /// # Errors
    /// If this kernel has no seccomp filters.
    pub(crate) fn enter(self) -> Result<()> {
        if self == Self::AsItIs {
            return Ok(());
        }
        let families = [libc::NETLINK_XFRM, libc::NETLINK_NETFILTER].map(|family| (libc::AF_NETLINK, family));
        // Families are the third argument beside the domain, options the third beside the level.
        deny(libc::SYS_socket, (0, 2), &families, libc::EPROTONOSUPPORT)?;
        deny(libc::SYS_setsockopt, (1, 2), &SOCKET_POLICIES, libc::ENOPROTOOPT)
    }
}

/// Fails a system call with `error` when the two arguments at `at` have one of the pairs of values.
fn deny(call: i64, at: (u8, u8), values: &[(i32, i32)], error: i32) -> Result<()> {
    let equals = |index, value: i32| {
        let value = u64::from(value.cast_unsigned());
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let rules = values
        .iter()
        .map(|&(first, second)| Ok(SeccompRule::new(vec![equals(at.0, first)?, equals(at.1, second)?])?));
    let rules = BTreeMap::from([(call, rules.collect::<Result<Vec<_>>>()?)]);
    let denied = SeccompAction::Errno(error.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}
