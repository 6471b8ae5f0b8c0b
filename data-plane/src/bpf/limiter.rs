//! The buckets that the WAN program takes from, and the addresses that have no limit.

use std::collections::HashMap as Counts;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;
use aya::maps::{HashMap, MapData};
use portcullis_common::ip::Source;
use portcullis_common::limit::{BUCKETS, Buckets, Limits};
use portcullis_common::maps::{LIMIT_BUCKETS, LIMIT_EXEMPT};

use super::BpfError;
use crate::xsk::Mapping;

/// What user space does about limits.
pub(super) struct Limiter {
    limits: Limits,
    buckets: Mapping,
    exempt: HashMap<MapData, SourceKey, u8>,
    /// Who has no limit, with the number of reasons.
    reasons: Counts<IpAddr, usize>,
}

/// The global's value, in a type of this crate.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct LimitsValue(pub Limits);

// SAFETY: integers without padding (`Limits` is `repr(C)`, its size is pinned by a test): any bytes are a value.
unsafe impl Pod for LimitsValue {}

/// The map's key, in a type of this crate.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct SourceKey(Source);

// SAFETY: two u64 without padding (`Source` is `repr(C)`, its size is pinned by a test): any bytes are a value.
unsafe impl Pod for SourceKey {}

impl Limiter {
    /// Maps the buckets behind a descriptor.
    pub(super) fn new(
        limits: Limits,
        buckets: OwnedFd,
        exempt: HashMap<MapData, SourceKey, u8>,
    ) -> Result<Self, BpfError> {
        let buckets = Mapping::shared(buckets.as_fd(), BUCKETS as usize * size_of::<Buckets>(), 0)
            .map_err(|error| BpfError::map(LIMIT_BUCKETS, error))?;
        Ok(Self { limits, buckets, exempt, reasons: Counts::new() })
    }

    /// One more reason why an address has no limit.
    pub(super) fn exempt(&mut self, address: IpAddr) -> Result<(), BpfError> {
        let address = address.to_canonical();
        if !self.reasons.contains_key(&address) {
            let key = source(address);
            self.exempt.insert(SourceKey(key), 1, 0).map_err(|e| BpfError::map(LIMIT_EXEMPT, e))?;
            self.place(&key).fetch_add(1, Ordering::Release);
        }
        *self.reasons.entry(address).or_default() += 1;
        Ok(())
    }

    /// One reason less.
    pub(super) fn limit_again(&mut self, address: IpAddr) -> Result<(), BpfError> {
        let address = address.to_canonical();
        let Some(reasons) = self.reasons.get_mut(&address) else { return Ok(()) };
        *reasons -= 1;
        if *reasons > 0 {
            return Ok(());
        }
        self.reasons.remove(&address);
        let key = source(address);
        self.place(&key).fetch_sub(1, Ordering::Release);
        self.exempt.remove(&SourceKey(key)).map_err(|e| BpfError::map(LIMIT_EXEMPT, e))
    }

    /// The number of addresses without limit in the buckets of this one.
    fn place(&self, address: &Source) -> &AtomicU64 {
        let bucket = self.limits.place(address) as usize;
        let offset = bucket * size_of::<Buckets>() + std::mem::offset_of!(Buckets, exempt);
        // SAFETY: `place` is below `BUCKETS`, for which the mapping has room, page aligned and alive as long as `self`; the
        // field is an aligned word that nobody but us writes, and that is read in one load.
        unsafe { AtomicU64::from_ptr(self.buckets.base().as_ptr().add(offset).cast()) }
    }
}

fn source(address: IpAddr) -> Source {
    match address {
        IpAddr::V4(a) => Source::v4(a.octets()),
        IpAddr::V6(a) => Source::v6(a.octets()),
    }
}
