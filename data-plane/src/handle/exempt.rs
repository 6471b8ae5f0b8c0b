//! Whose openings XDP does not limit: configured peers, and those that have an IKE SA.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::bpf::{BpfError, SharedMaps};
use crate::policy::PolicySet;
use crate::sa::PathId;

/// The reasons that addresses have.
#[derive(Default)]
pub(super) struct Exempt {
    configured: BTreeSet<IpAddr>,
    paths: HashMap<PathId, IpAddr>,
}

impl Exempt {
    /// These peers are configured; new ones are exempt before old ones are not. An address that the kernel has no room for has
    /// a limit; the first such error is returned when all others are done.
    pub(super) fn set_configured(
        &mut self,
        policies: &PolicySet,
        maps: &mut SharedMaps,
    ) -> Result<(), BpfError> {
        let wanted: BTreeSet<_> = policies.peers.iter().flatten().copied().collect();
        let mut outcome = Ok(());
        let mut now = self.configured.clone();
        for address in wanted.difference(&self.configured) {
            match maps.exempt(*address) {
                Ok(()) => drop(now.insert(*address)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        for address in self.configured.difference(&wanted) {
            now.remove(address);
            outcome = outcome.and(maps.limit_again(*address));
        }
        self.configured = now;
        outcome
    }

    /// The peer of an IKE SA is at this address now, or has no IKE SA any more.
    pub(super) fn set_path(
        &mut self,
        path: PathId,
        remote: Option<IpAddr>,
        maps: &mut SharedMaps,
    ) -> Result<(), BpfError> {
        if self.paths.get(&path).copied() == remote {
            return Ok(());
        }
        let gained = match remote {
            Some(remote) => maps.exempt(remote),
            None => Ok(()),
        };
        let before = match remote.filter(|_| gained.is_ok()) {
            Some(remote) => self.paths.insert(path, remote),
            None => self.paths.remove(&path),
        };
        let lost = before.map_or(Ok(()), |before| maps.limit_again(before));
        gained.and(lost)
    }
}
