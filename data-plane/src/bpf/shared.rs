//! The maps that all interfaces of an instance share.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData};
use aya::{Ebpf, Pod};
use portcullis_common::ip::Address;
use portcullis_common::limit::Limits;
use portcullis_common::maps::{
    KEYS, LAN_IPV4, LAN_IPV4_MIXED, LAN_IPV6, LAN_IPV6_LENGTHS, LIMIT_BUCKETS, LIMIT_EXEMPT, LOCAL_IPV4,
    LOCAL_IPV6, LOCAL_NEAR, STEER,
};
use portcullis_common::near::NearAddresses;
use portcullis_common::prefix_class::{Ipv6Lengths, Ipv6Prefix, MixedBlock, PrefixClass};

use super::class_array::ClassArray;
use super::interface::take;
use super::limiter::Limiter;
use super::{BpfError, LanClasses};

/// Shared maps.
pub struct SharedMaps {
    steer: Map,
    keys: Map,
    local_near: Array<MapData, Near>,
    near: NearAddresses,
    local_ipv4: HashMap<MapData, [u8; 4], u8>,
    local_ipv6: HashMap<MapData, [u8; 16], u8>,
    local: BTreeSet<IpAddr>,
    lan_ipv4: ClassArray,
    lan_ipv4_mixed: HashMap<MapData, u32, MixedBlock>,
    lan_ipv6: HashMap<MapData, PrefixKey, u8>,
    lan_ipv6_lengths: Array<MapData, Ipv6Lengths>,
    classes: Option<LanClasses>,
    limiter: Limiter,
}

/// The map's key, in a type of this crate.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PrefixKey(Ipv6Prefix);

// SAFETY: three u64 without padding (`Ipv6Prefix` is `repr(C)`, its size is pinned by a test): any bytes are a
// value.
unsafe impl Pod for PrefixKey {}

/// The map's value, in a type of this crate.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Near(NearAddresses);

// SAFETY: integers without padding (`NearAddresses` is `repr(C)`, its size is pinned by a test): any bytes are a value.
unsafe impl Pod for Near {}

impl SharedMaps {
    pub(super) fn take(ebpf: &mut Ebpf, limits: Limits) -> Result<Self, BpfError> {
        let buckets = descriptor(&take(ebpf, LIMIT_BUCKETS)?, LIMIT_BUCKETS)?;
        Ok(Self {
            steer: take(ebpf, STEER)?,
            keys: take(ebpf, KEYS)?,
            local_near: typed(ebpf, LOCAL_NEAR)?,
            near: NearAddresses::default(),
            local_ipv4: typed(ebpf, LOCAL_IPV4)?,
            local_ipv6: typed(ebpf, LOCAL_IPV6)?,
            local: BTreeSet::new(),
            lan_ipv4: ClassArray::map(descriptor(&take(ebpf, LAN_IPV4)?, LAN_IPV4)?)
                .map_err(|error| BpfError::map(LAN_IPV4, error))?,
            lan_ipv4_mixed: typed(ebpf, LAN_IPV4_MIXED)?,
            lan_ipv6: typed(ebpf, LAN_IPV6)?,
            lan_ipv6_lengths: typed(ebpf, LAN_IPV6_LENGTHS)?,
            classes: None,
            limiter: Limiter::new(limits, buckets, typed(ebpf, LIMIT_EXEMPT)?)?,
        })
    }

    /// A descriptor of the array of [`portcullis_common::SteerWord`], to be memory-mapped.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn steer(&self) -> Result<OwnedFd, BpfError> {
        descriptor(&self.steer, STEER)
    }

    /// A descriptor of the array of [`portcullis_common::maps::KeyRecord`], to be memory-mapped.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn keys(&self) -> Result<OwnedFd, BpfError> {
        descriptor(&self.keys, KEYS)
    }

    /// Makes these the addresses that are ours; new ones are added before old ones go.
    ///
    /// # Errors
    /// If the kernel refuses, such as for more than [`portcullis_common::maps::MAX_LOCAL_ADDRESSES`] of a
    /// family. What was added until then stays.
    pub fn set_local_addresses(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), BpfError> {
        let wanted: BTreeSet<_> = addresses.into_iter().collect();
        for address in wanted.difference(&self.local) {
            match address {
                IpAddr::V4(a) => {
                    self.local_ipv4.insert(a.octets(), 1, 0).map_err(|e| BpfError::map(LOCAL_IPV4, e))?;
                }
                IpAddr::V6(a) => {
                    self.local_ipv6.insert(a.octets(), 1, 0).map_err(|e| BpfError::map(LOCAL_IPV6, e))?;
                }
            }
        }
        let addresses = wanted.iter().map(|address| match address {
            IpAddr::V4(a) => Address::V4(a.octets()),
            IpAddr::V6(a) => Address::V6(a.octets()),
        });
        self.near = self.near.updated(addresses);
        self.local_near.set(0, Near(self.near), 0).map_err(|e| BpfError::map(LOCAL_NEAR, e))?;
        for address in self.local.difference(&wanted) {
            match address {
                IpAddr::V4(a) => {
                    self.local_ipv4.remove(&a.octets()).map_err(|e| BpfError::map(LOCAL_IPV4, e))?;
                }
                IpAddr::V6(a) => {
                    self.local_ipv6.remove(&a.octets()).map_err(|e| BpfError::map(LOCAL_IPV6, e))?;
                }
            }
        }
        self.local = wanted;
        Ok(())
    }

    /// What begins an IKE SA from this address has no limit any more, for one more reason.
    ///
    /// # Errors
    /// If the kernel refuses, such as for more than [`portcullis_common::maps::MAX_EXEMPT`]; it has a limit then.
    pub fn exempt(&mut self, address: IpAddr) -> Result<(), BpfError> {
        self.limiter.exempt(address)
    }

    /// Takes one such reason back.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn limit_again(&mut self, address: IpAddr) -> Result<(), BpfError> {
        self.limiter.limit_again(address)
    }

    /// Makes these the classes of destinations. New blocks and prefixes are there before words and lengths that
    /// lead to them, and old ones go after.
    ///
    /// # Errors
    /// If the kernel refuses, such as for more entries than a map has. What was changed until then stays; the
    /// next call mends it.
    pub fn set_lan_classes(&mut self, classes: LanClasses) -> Result<(), BpfError> {
        for (prefix, block) in classes.ipv4.mixed() {
            self.lan_ipv4_mixed.insert(prefix, block, 0).map_err(|e| BpfError::map(LAN_IPV4_MIXED, e))?;
        }
        self.lan_ipv4.store(classes.ipv4.words());
        for (prefix, class) in classes.ipv6.prefixes() {
            self.lan_ipv6
                .insert(PrefixKey(*prefix), class_bits(*class), 0)
                .map_err(|e| BpfError::map(LAN_IPV6, e))?;
        }
        self.lan_ipv6_lengths
            .set(0, classes.ipv6.lengths(), 0)
            .map_err(|e| BpfError::map(LAN_IPV6_LENGTHS, e))?;
        let old = self.classes.replace(classes);
        let (Some(old), Some(new)) = (old, &self.classes) else { return Ok(()) };
        for prefix in old.ipv4.mixed().keys().filter(|p| !new.ipv4.mixed().contains_key(p)) {
            self.lan_ipv4_mixed.remove(prefix).map_err(|e| BpfError::map(LAN_IPV4_MIXED, e))?;
        }
        for prefix in old.ipv6.prefixes().keys().filter(|p| !new.ipv6.prefixes().contains_key(p)) {
            self.lan_ipv6.remove(&PrefixKey(*prefix)).map_err(|e| BpfError::map(LAN_IPV6, e))?;
        }
        Ok(())
    }
}

fn class_bits(class: PrefixClass) -> u8 {
    class as u8
}

fn typed<M: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, BpfError> {
    M::try_from(take(ebpf, name)?).map_err(|error| BpfError::map(name, error))
}

fn descriptor(map: &Map, name: &'static str) -> Result<OwnedFd, BpfError> {
    let Map::Array(data) = map else {
        return Err(BpfError::map(name, io::Error::from(io::ErrorKind::InvalidData)));
    };
    data.fd().as_fd().try_clone_to_owned().map_err(|error| BpfError::map(name, error))
}
