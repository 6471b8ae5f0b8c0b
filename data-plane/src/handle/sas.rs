//! SAs and paths, as the control plane names them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use portcullis_common::Spi;
use portcullis_esp::Usage;

use super::{DataPlane, lock};
use crate::echo::EchoRequest;
use crate::policy::PolicyKey;
use crate::sa::{ChildId, InboundSa, OutboundSa, Path, PathId, SaCommon, SaSelectors, SaUsage};
use crate::sa_table::{self, MoveRefused, OutboundIndex, SaName, TableFull};
use crate::spd;
use crate::worker::command::Command;
use crate::worker::echo::{EchoState, Order};
use crate::worker::facts::{InboundFacts, OncePerSecond};
use crate::worker::load::Direction;
use crate::worker::paths::PathState;
use crate::worker::sas::{InboundExtra, OutboundExtra};

/// Why an SA was not installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InstallError {
    /// The table refused it.
    #[error(transparent)]
    Table(#[from] sa_table::InstallError),
    /// Its path was never set.
    #[error("path {} is not known", .0.0)]
    UnknownPath(PathId),
}

/// The SAs of each pair.
#[derive(Default)]
pub(super) struct Children {
    pairs: HashMap<ChildId, Pair>,
    /// SAs by owner.
    owned: Vec<usize>,
    /// How busy the workers are, in tenths: the next SA goes where that is least, and then where fewest are.
    busy: Vec<u8>,
    /// Pairs of which one replaces the other, in both directions. Among one worker nobody asks.
    rekeys: BTreeMap<ChildId, ChildId>,
}

#[derive(Default)]
struct Pair {
    inbound: Option<Spi>,
    outbound: Option<OutboundPart>,
    /// Both directions were negotiated with the same ones, as a rule: kept once.
    selectors: Option<SaSelectors>,
}

#[derive(Clone)]
struct OutboundPart {
    index: OutboundIndex,
    path: Arc<PathState>,
    policy: PolicyKey,
    selectors: SaSelectors,
    resource: u8,
}

impl DataPlane {
    /// Promises an inbound SPI to a negotiation.
    ///
    /// # Errors
    /// [`TableFull`]: every slot is in use.
    pub fn allocate_spi(&self) -> Result<Spi, TableFull> {
        self.inner.table.reserve_spi()
    }

    /// Gives a promised SPI back whose negotiation failed.
    pub fn release_spi(&self, spi: Spi) {
        self.inner.table.release_spi(spi);
    }

    /// Makes an inbound SA live: when this returns its packets are opened.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn install_inbound(&self, mut sa: InboundSa) -> Result<(), InstallError> {
        let inner = &*self.inner;
        let path = inner.shared.paths.get(sa.common.path).ok_or(InstallError::UnknownPath(sa.common.path))?;
        let tun = lock(&inner.policies).interface(&sa.common.policy);
        let tun = tun.and_then(|name| inner.shared.kernel.tun_named(&name));
        let predecessor = self.predecessor(&sa.common);
        let mut children = lock(&inner.children);
        let before = predecessor.and_then(|child| children.pairs.get(&child)?.inbound);
        let owner = before.and_then(|spi| inner.table.inbound_owner(spi));
        let owner = owner.unwrap_or_else(|| children.least_loaded(inner.shared.workers.len()));
        let extra = InboundExtra { path, tun, facts: InboundFacts::default(), echo: EchoState::default() };
        children.share(&mut sa.common);
        inner.table.install_inbound(&sa, owner, extra, self.now_ns())?;
        children.note_rekey(predecessor, sa.common.child);
        children.count(owner, 1);
        let pair = children.pairs.entry(sa.common.child).or_default();
        pair.inbound = Some(sa.spi);
        pair.selectors = Some(sa.common.selectors);
        Ok(())
    }

    /// Puts an outbound SA in place; nothing uses it until [`DataPlane::use_outbound`].
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn install_outbound(&self, mut sa: OutboundSa) -> Result<(), InstallError> {
        let inner = &*self.inner;
        let path = inner.shared.paths.get(sa.common.path).ok_or(InstallError::UnknownPath(sa.common.path))?;
        let predecessor = self.predecessor(&sa.common);
        let mut children = lock(&inner.children);
        let before = predecessor.and_then(|child| children.pairs.get(&child)?.outbound.as_ref());
        let owner = before.and_then(|part| inner.table.outbound_owner(part.index));
        let owner = owner.unwrap_or_else(|| children.least_loaded(inner.shared.workers.len()));
        let extra = OutboundExtra { path: path.clone(), reported: OncePerSecond::default() };
        children.share(&mut sa.common);
        let index = inner.table.install_outbound(&sa, owner, extra, self.now_ns())?;
        children.count(owner, 1);
        children.note_rekey(predecessor, sa.common.child);
        path.add_outbound(sa.spi, index);
        let SaCommon { policy, selectors, resource, .. } = sa.common;
        let part = OutboundPart { index, path, policy, selectors, resource };
        children.pairs.entry(sa.common.child).or_default().outbound = Some(part);
        Ok(())
    }

    /// The rekey switch: from now on packets of the pair's policy inside its selectors use its outbound SA.
    /// False if there is no such SA or policy.
    pub fn use_outbound(&self, child: ChildId) -> bool {
        let Some(part) = self.outbound_part(child) else { return false };
        let Some(protect) = lock(&self.inner.policies).protect(&part.policy) else { return false };
        let OutboundPart { index, selectors, resource, .. } = part;
        protect.use_outbound(spd::Outbound { child, index, selectors, resource });
        true
    }

    /// Stops using the pair's outbound SA and forgets it.
    pub fn remove_outbound(&self, child: ChildId) {
        let Some(part) = self.outbound_part(child) else { return };
        if let Some(protect) = lock(&self.inner.policies).protect(&part.policy) {
            protect.remove_outbound(child);
        }
        part.path.remove_outbound(part.index);
        let holders = self.holders(SaName::Outbound(part.index));
        self.inner.table.remove_outbound(part.index);
        self.forget(child, holders, |pair| pair.outbound = None);
    }

    /// Forgets the pair's inbound SA: packets with its SPI are unknown from now on.
    pub fn remove_inbound(&self, child: ChildId, spi: Spi) {
        let holders = self.holders(SaName::Inbound(spi));
        self.inner.table.remove_inbound(spi);
        self.forget(child, holders, |pair| pair.inbound = None);
    }

    /// Moves one direction of a pair to another worker, without loss, and with packets of each flow in their order.
    ///
    /// # Errors
    /// See [`MoveRefused`]; the SA then stays where it is.
    pub fn move_sa(&self, child: ChildId, direction: Direction, to: u8) -> Result<(), MoveRefused> {
        let inner = &*self.inner;
        if inner.is_on_veth() {
            return Err(MoveRefused::Veth);
        }
        let mut children = lock(&inner.children);
        let pair = children.pairs.get(&child).ok_or(MoveRefused::Unknown)?;
        let name = match direction {
            Direction::Inbound => pair.inbound.map(SaName::Inbound),
            Direction::Outbound => pair.outbound.as_ref().map(|part| SaName::Outbound(part.index)),
        };
        let name = name.ok_or(MoveRefused::Unknown)?;
        if children.rekeys.contains_key(&child) {
            return Err(MoveRefused::Rekeyed);
        }
        let from = inner.table.move_sa(name, to)?;
        children.count(from, -1);
        children.count(to, 1);
        for worker in [from, to] {
            if let Some(mailbox) = inner.shared.workers.get(usize::from(worker)) {
                mailbox.wake.wake();
            }
        }
        Ok(())
    }

    /// How busy workers are, in tenths.
    pub(super) fn set_busy(&self, busy: Vec<u8>) {
        lock(&self.inner.children).busy = busy;
    }

    /// Sets how ESP of an IKE SA travels. Always precedes the first SA of it.
    pub fn update_path(&self, id: PathId, path: Path) {
        if let Some(xdp) = &self.inner.xdp {
            xdp.set_path(id, Some(path.remote));
        }
        let shared = &self.inner.shared;
        shared.paths.update(id, path, shared.settings.tunnel, &shared.streams);
        // What was held for it lies with the owners of its SAs.
        for worker in 0..self.inner.shared.workers.len() {
            self.inner.shared.command(worker as u8, Command::PathChanged(id));
        }
    }

    /// Packets as long as the path's largest do not arrive: data takes the next smaller size, its senders are told, and the
    /// MSS that they announce is lowered with it.
    pub fn lower_path_mtu(&self, id: PathId) {
        self.inner.shared.command(0, Command::LowerPathMtu(id));
    }

    /// Forgets a path that no SA uses any more.
    pub fn remove_path(&self, id: PathId) {
        if let Some(xdp) = &self.inner.xdp {
            xdp.set_path(id, None);
        }
        self.inner.shared.paths.remove(id);
    }

    /// Sends one dummy packet (RFC 4303 section 2.6) on the pair's outbound SA.
    pub fn send_dummy(&self, child: ChildId) {
        let Some(part) = self.outbound_part(child) else { return };
        if let Some(owner) = self.inner.table.outbound_owner(part.index) {
            self.inner.shared.command(owner, Command::SendDummy(part.index));
        }
    }

    /// Sends one ESP echo request on the pair's outbound SA: after the data that its worker has in hand, on the way that
    /// the request names, whatever the SA's path is. Its reply, if one comes, is [`DataPlaneEvent::EchoReply`]. False if
    /// the pair has no outbound SA, or no inbound SA for a reply that is asked for.
    ///
    /// [`DataPlaneEvent::EchoReply`]: crate::event::DataPlaneEvent::EchoReply
    pub fn send_echo(&self, request: EchoRequest) -> bool {
        let parts = lock(&self.inner.children)
            .pairs
            .get(&request.child)
            .and_then(|pair| Some((pair.outbound.as_ref()?.index, pair.inbound)));
        let Some((outbound, inbound)) = parts else { return false };
        // Without the R flag the field means nothing.
        let reply_spi = if request.wants_reply { inbound } else { Some(Spi(0)) };
        let (Some(reply_spi), Some(owner)) = (reply_spi, self.inner.table.outbound_owner(outbound)) else {
            return false;
        };
        self.inner.shared.command(owner, Command::SendEcho(Order { outbound, reply_spi, request }));
        true
    }

    /// What the SAs of a pair have done so far, inbound and outbound; `None` if it has neither.
    pub fn usage(&self, child: ChildId) -> Option<(SaUsage, SaUsage)> {
        let children = lock(&self.inner.children);
        let pair = children.pairs.get(&child)?;
        let inbound = pair.inbound.and_then(|spi| self.inner.table.inbound_usage(spi));
        let outbound = pair.outbound.as_ref().and_then(|part| self.inner.table.outbound_usage(part.index));
        Some((inbound.map_or_else(SaUsage::default, usage), outbound.map_or_else(SaUsage::default, usage)))
    }

    /// The pair that an SA is going to replace, if it is a rekey: both have one owner, so that packets of a flow, which are
    /// handed over one after the other, stay in order while SAs change.
    fn predecessor(&self, new: &SaCommon) -> Option<ChildId> {
        // Among one worker there is no choice.
        if self.inner.shared.workers.len() < 2 {
            return None;
        }
        let protect = lock(&self.inner.policies).protect(&new.policy)?;
        let in_use = protect.outbound();
        let same = |sa: &&spd::Outbound| {
            sa.child != new.child && sa.resource == new.resource && sa.selectors == new.selectors
        };
        in_use.iter().find(same).map(|sa| sa.child)
    }

    /// The inbound SPI of a pair, and the path of its outbound SA.
    pub(super) fn pair(&self, child: ChildId) -> Option<(Option<Spi>, Arc<PathState>)> {
        let children = lock(&self.inner.children);
        let pair = children.pairs.get(&child)?;
        Some((pair.inbound, pair.outbound.as_ref()?.path.clone()))
    }

    fn outbound_part(&self, child: ChildId) -> Option<OutboundPart> {
        lock(&self.inner.children).pairs.get(&child)?.outbound.clone()
    }

    /// The owner of an SA, and the worker that has it still if it is on its way.
    fn holders(&self, name: SaName) -> [Option<u8>; 2] {
        let table = &self.inner.table;
        let owner = match name {
            SaName::Inbound(spi) => table.inbound_owner(spi),
            SaName::Outbound(index) => table.outbound_owner(index),
        };
        let may_move = self.inner.shared.workers.len() > 1;
        [owner, if may_move { table.mover(name) } else { None }]
    }

    /// Takes an SA out of the books and lets those who hold it, who may sleep, drop it. The first is its owner.
    fn forget(&self, child: ChildId, holders: [Option<u8>; 2], forget: impl FnOnce(&mut Pair)) {
        let mut children = lock(&self.inner.children);
        if let Some(pair) = children.pairs.get_mut(&child) {
            forget(pair);
            if pair.inbound.is_none() && pair.outbound.is_none() {
                children.pairs.remove(&child);
                children.end_rekey(child);
            }
        }
        if let Some(owner) = holders[0] {
            children.count(owner, -1);
        }
        for worker in holders.into_iter().flatten() {
            if let Some(mailbox) = self.inner.shared.workers.get(usize::from(worker)) {
                mailbox.wake.wake();
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.inner.shared.now().as_nanos() as u64
    }
}

impl Children {
    /// Replaces selectors by equal ones that the other direction has already.
    fn share(&self, common: &mut SaCommon) {
        let known = self.pairs.get(&common.child).and_then(|pair| pair.selectors.as_ref());
        if let Some(known) = known.filter(|known| **known == common.selectors) {
            common.selectors = known.clone();
        }
    }

    fn least_loaded(&mut self, workers: usize) -> u8 {
        self.owned.resize(workers, 0);
        let load = |worker: &usize| {
            (self.busy.get(*worker).copied().unwrap_or(0), self.owned.get(*worker).copied().unwrap_or(0))
        };
        (0..workers).min_by_key(load).map_or(0, |worker| worker as u8)
    }

    fn note_rekey(&mut self, predecessor: Option<ChildId>, successor: ChildId) {
        if let Some(predecessor) = predecessor {
            self.rekeys.insert(predecessor, successor);
            self.rekeys.insert(successor, predecessor);
        }
    }

    fn end_rekey(&mut self, child: ChildId) {
        if let Some(other) = self.rekeys.remove(&child)
            && self.rekeys.get(&other) == Some(&child)
        {
            self.rekeys.remove(&other);
        }
    }

    fn count(&mut self, owner: u8, change: isize) {
        if let Some(owned) = self.owned.get_mut(usize::from(owner)) {
            *owned = owned.saturating_add_signed(change);
        }
    }
}

fn usage(usage: Usage) -> SaUsage {
    let Usage { packets, bytes, sequence, replays, icv_failures, .. } = usage;
    SaUsage { packets, bytes, sequence, replays, icv_failures }
}
