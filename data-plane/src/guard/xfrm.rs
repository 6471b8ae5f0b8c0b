//! The guard as XFRM policies: kernel state that no process owns, which needs no kernel ESP.

mod message;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use self::message::{
    DELETE_POLICY, FLUSH_POLICY, GET_POLICY, KernelPolicy, POLICY_EXPIRED, POLICY_GROUP, UPDATE_POLICY, index,
};
use super::GuardError;
use super::model::{Action, DesiredPolicies, PolicySelector, PolicyValue};
use super::report::Reconciled;
use crate::netlink::owner;
use crate::netlink::raw::{NetlinkSocket, Request};

/// From so many on, policies are removed by the kernel's index: after a removal by selector it looks through all of its policies for
/// empty places. It does that after the last one, which is always by selector.
const MANY: usize = 64;

/// Room for the notifications of some ten thousand policies; what exceeds it is a reason to read anew.
const NOTIFICATION_BYTES: i32 = 4 << 20;

/// The policies of one owner: those whose selector has its tag in the `user` field, which the kernel compares when it
/// looks for a policy to replace or remove, and never when it matches packets.
#[derive(Debug)]
pub struct XfrmBackend {
    socket: NetlinkSocket,
    owner: u32,
}

/// Hears about policies that somebody else removed or replaced.
#[derive(Debug)]
pub struct XfrmMonitor {
    socket: NetlinkSocket,
    ours: u32,
}

impl XfrmBackend {
    /// # Errors
    /// When the kernel has no XFRM.
    pub fn open(instance: &str) -> io::Result<Self> {
        let mut backend =
            Self { socket: NetlinkSocket::open(libc::NETLINK_XFRM)?, owner: owner::tag(instance) };
        backend.installed()?;
        Ok(backend)
    }

    /// # Errors
    /// When the kernel refuses the subscription.
    pub fn monitor(&self) -> io::Result<XfrmMonitor> {
        let socket = NetlinkSocket::open(libc::NETLINK_XFRM)?;
        socket.subscribe(POLICY_GROUP, NOTIFICATION_BYTES)?;
        Ok(XfrmMonitor { socket, ours: self.socket.port() })
    }

    /// Makes the kernel hold exactly `desired` of this owner's policies; other people's are not touched. At no
    /// moment does clear text pass that would pass neither before nor after.
    ///
    /// # Errors
    /// When the kernel refuses a policy, or the socket fails.
    pub fn reconcile(&mut self, desired: &DesiredPolicies) -> Result<Reconciled, GuardError> {
        let Installed { policies: installed, indexes } = self.installed().map_err(GuardError::Xfrm)?;
        let changes = changes(&installed, desired);
        let owner = self.owner;
        let removals = changes.iter().filter(|change| matches!(change, Change::Remove(..))).count();
        let last = changes.iter().rposition(|change| matches!(change, Change::Remove(..)));
        let batch = changes.iter().enumerate().map(|(number, change)| match *change {
            Change::Put(selector, value) => {
                let body = KernelPolicy { owner, selector, value }.encode().to_vec();
                Request { kind: UPDATE_POLICY, flags: 0, body }
            }
            Change::Remove(selector, value) => {
                let by_index = removals >= MANY && Some(number) != last;
                let index = indexes.get(&selector).copied().filter(|_| by_index);
                let body = KernelPolicy { owner, selector, value }.encode_id(index).to_vec();
                Request { kind: DELETE_POLICY, flags: 0, body }
            }
        });
        let refused = self.socket.send_batch(batch).map_err(GuardError::Xfrm)?;
        // Gone already is as good as removed.
        let failed = refused.into_iter().find(|r| r.error.raw_os_error() != Some(libc::ENOENT));
        if let Some(failed) = failed {
            return Err(GuardError::Refused {
                policy: format!("{:?}", changes[failed.index]),
                error: failed.error,
            });
        }
        let missing = desired.keys().filter(|s| !installed.contains_key(s)).count();
        Ok(Reconciled { installed: desired.len(), missing, changed: changes.len() })
    }

    fn installed(&mut self) -> io::Result<Installed> {
        loop {
            let mut found = Installed::default();
            let owner = self.owner;
            let dumped = self.socket.dump(GET_POLICY, &[], |header, body| {
                if let Some(policy) = KernelPolicy::decode(header, body).filter(|p| p.owner == owner) {
                    found.policies.insert(policy.selector, policy.value);
                    found.indexes.extend(index(body).map(|index| (policy.selector, index)));
                }
            });
            match dumped {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(()) => return Ok(found),
            }
        }
    }
}

impl XfrmMonitor {
    /// Takes all notifications that wait; whether one of them may have cost us a policy.
    pub fn take(&mut self) -> bool {
        let ours = self.ours;
        let mut lost = false;
        let taken = self.socket.drain(|header, _| {
            lost |= header.port != ours
                && matches!(header.kind, DELETE_POLICY | FLUSH_POLICY | POLICY_EXPIRED | UPDATE_POLICY);
        });
        // Notifications that did not fit may have been about anything.
        lost || taken.is_err()
    }
}

impl AsFd for XfrmMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the kernel holds of an owner.
#[derive(Default)]
struct Installed {
    policies: BTreeMap<PolicySelector, PolicyValue>,
    indexes: BTreeMap<PolicySelector, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Put(PolicySelector, PolicyValue),
    Remove(PolicySelector, PolicyValue),
}

/// In an order in which every prefix is safe: first whatever makes the guard stricter, then blocks that move
/// behind others, then allows, and blocks that are no longer wanted last.
fn changes(installed: &BTreeMap<PolicySelector, PolicyValue>, desired: &DesiredPolicies) -> Vec<Change> {
    let mut steps: [Vec<Change>; 5] = Default::default();
    for (&selector, &value) in desired {
        let step = match (installed.get(&selector), value.action) {
            (Some(old), _) if *old == value => continue,
            (None, Action::Block) => 0,
            (None, Action::Allow) => 3,
            (Some(old), Action::Block) if old.action == Action::Allow => 0,
            (Some(old), Action::Allow) if old.action == Action::Block => 3,
            (Some(old), Action::Block) if value.priority < old.priority => 0,
            (Some(_), Action::Block) => 2,
            (Some(old), Action::Allow) if value.priority > old.priority => 1,
            (Some(_), Action::Allow) => 3,
        };
        steps[step].push(Change::Put(selector, value));
    }
    for (&selector, &value) in installed {
        if !desired.contains_key(&selector) {
            let step = if value.action == Action::Allow { 1 } else { 4 };
            steps[step].push(Change::Remove(selector, value));
        }
    }
    steps.concat()
}

#[cfg(test)]
mod tests;
