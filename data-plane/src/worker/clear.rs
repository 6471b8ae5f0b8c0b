//! Clear-text packets from the protected side: which policy, which SA, which owner.

use portcullis_common::DropReason;

use super::Worker;
use super::batch::Batch;
use super::moving::Deferred;
use super::work::{Packet, Seal, Sender, Work};
use crate::event::DataPlaneEvent;
use crate::packet::icmp::IcmpError;
use crate::packet::inner::{self, Fragment};
use crate::packet::{Inner, checksum};
use crate::sa_table::{Found, OutboundIndex, SaName};
use crate::spd::{CachedFlow, Decision, Flow, FlowKey, Protect, SelectorMatch};

/// Between two requests for an SA of one policy.
const ACQUIRE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// What happens to a clear-text packet.
enum Verdict {
    Seal(OutboundIndex),
    ToKernel,
    Drop(DropReason),
}

impl Worker {
    /// Takes an IP packet from the protected side, or one of our own, through the SPD (RFC 4301 section 5.1).
    /// `protected`: it comes from an interface whose final policy is DISCARD.
    pub(super) fn take_clear(
        &mut self,
        batch: &Batch<'_>,
        mut packet: Packet,
        sender: Sender,
        protected: bool,
    ) {
        let parsed = Inner::parse(packet.bytes(batch.umem));
        // In its place: a copy of what was just written field by field is what a processor waits for.
        let Some(inner) = &parsed else {
            return self.discard(batch, packet, DropReason::Malformed);
        };
        packet.edit(batch.umem, |p| p.truncate(inner.total_len));
        self.take_parsed(batch, packet, inner, sender, protected);
    }

    /// As [`Worker::take_clear`], for a packet that ends where its headers say.
    pub(super) fn take_parsed(
        &mut self,
        batch: &Batch<'_>,
        mut packet: Packet,
        inner: &Inner,
        sender: Sender,
        protected: bool,
    ) {
        match self.verdict(batch, inner, sender, protected) {
            Verdict::Seal(outbound) => self.prepare(batch, packet, inner, outbound, sender),
            Verdict::ToKernel => {
                packet.edit(batch.umem, |p| complete_checksum(p.bytes_mut(), inner));
                self.send_to_tun(batch, packet, inner, 0);
            }
            Verdict::Drop(reason) => self.discard(batch, packet, reason),
        }
    }

    fn verdict(&mut self, batch: &Batch<'_>, inner: &Inner, sender: Sender, protected: bool) -> Verdict {
        let key = FlowKey::of(inner);
        let tuns = matches!(sender, Sender::Kernel { .. }).then(|| batch.shared.kernel.tuns());
        let interface = match (sender, &tuns) {
            (Sender::Kernel { tun }, Some(tuns)) => tuns.get(tun).and_then(|d| d.route_based.as_deref()),
            _ => None,
        };
        // What a route-based TUN delivers is decided apart: the same flow may mean another policy there.
        let cached = if interface.is_some() { None } else { self.flows.get(&key, batch.spd.version()) };
        let decision =
            cached.map_or_else(|| batch.spd.decide(&Flow::outbound(inner), interface), |c| c.decision);
        let known = cached.and_then(|c| c.outbound);
        let (verdict, outbound) = match decision {
            Decision::Protect(policy) => match batch.spd.protect(policy) {
                Some((protect, acquire)) => protected_by(batch, protect, acquire, inner, known),
                None => (Verdict::Drop(DropReason::NoPolicy), None),
            },
            Decision::Discard => (Verdict::Drop(DropReason::PolicyDiscard), None),
            Decision::FragmentPorts => (Verdict::Drop(DropReason::FragmentPorts), None),
            Decision::NoPolicy if protected => (Verdict::Drop(DropReason::NoPolicy), None),
            // The kernel routes what comes out of the TUN past the routes that lead into it. Those into the TUN of a
            // route-based connection are not ours to pass by.
            Decision::Bypass if matches!(sender, Sender::Kernel { .. }) && interface.is_none() => {
                (Verdict::ToKernel, None)
            }
            Decision::Bypass | Decision::NoPolicy => match sender {
                Sender::Neighbour { .. } | Sender::Tunnel => (Verdict::ToKernel, None),
                Sender::Kernel { .. } | Sender::Own => (Verdict::Drop(DropReason::NoPolicy), None),
            },
        };
        if interface.is_none() && (cached.is_none() || outbound != known) {
            self.flows.put(&key, CachedFlow { decision, outbound });
        }
        verdict
    }

    /// What a router does before it forwards, then on to the SA's owner.
    fn prepare(
        &mut self,
        batch: &Batch<'_>,
        mut packet: Packet,
        inner: &Inner,
        outbound: OutboundIndex,
        sender: Sender,
    ) {
        // What came through the TUN was forwarded or made by the kernel, which did all this.
        if matches!(sender, Sender::Neighbour { .. } | Sender::Tunnel) {
            if inner.ttl <= 1 {
                self.answer_sender(batch, &packet, inner, sender, IcmpError::TimeExceeded);
                return self.discard(batch, packet, DropReason::TtlExceeded);
            }
            packet.edit(batch.umem, |p| route(p.bytes_mut(), inner));
        }
        if matches!(self.sas.outbound(outbound), Found::Mine(_)) {
            return self.seal_here(batch, packet, inner, outbound, sender);
        }
        self.take_to_owner(batch, Seal { packet, inner: *inner, outbound, sender });
    }

    /// The SA that was chosen for a packet went while the packet waited for its owner: what the policy uses by now takes it, so
    /// that a rekey loses nothing however late a worker is.
    pub(super) fn choose_again(&mut self, batch: &Batch<'_>, seal: Seal) {
        match self.verdict(batch, &seal.inner, seal.sender, true) {
            Verdict::Seal(outbound) if outbound != seal.outbound => {
                self.take_to_owner(batch, Seal { outbound, ..seal });
            }
            _ => self.discard(batch, seal.packet, DropReason::StaleSa),
        }
    }

    fn take_to_owner(&mut self, batch: &Batch<'_>, seal: Seal) {
        match self.sas.outbound(seal.outbound) {
            Found::Mine(_) => self.seal(batch, seal),
            Found::Other(owner) => self.hand_over(batch, owner, Work::Seal(seal)),
            Found::Coming => {
                self.defer(batch, SaName::Outbound(seal.outbound), Deferred::Work(Work::Seal(seal)));
            }
            Found::Unknown => self.discard(batch, seal.packet, DropReason::StaleSa),
        }
    }

    /// True if the SPD sends a packet that came out of one tunnel into another.
    pub(super) fn enters_a_tunnel(&mut self, batch: &Batch<'_>, inner: &Inner) -> bool {
        let cached = self.flows.get(&FlowKey::of(inner), batch.spd.version());
        let decision = cached.map_or_else(|| batch.spd.decide(&Flow::outbound(inner), None), |c| c.decision);
        matches!(decision, Decision::Protect(_))
    }

    /// Passes a packet to the worker that owns its SA.
    pub(super) fn hand_over(&mut self, batch: &Batch<'_>, owner: u8, work: Work) {
        let Some(mailbox) = batch.shared.workers.get(usize::from(owner)) else {
            return self.discard(batch, work.into_packet(), DropReason::StaleSa);
        };
        match mailbox.work.push(work) {
            Ok(()) => {
                batch.counters().handed_over.add(1);
                mailbox.wake.wake();
            }
            Err(work) => self.discard(batch, work.into_packet(), DropReason::HandOverFull),
        }
    }
}

/// What a router does to a packet, and what a sender on a virtual link may have left undone.
fn route(packet: &mut [u8], inner: &Inner) {
    inner::decrement_ttl(packet, inner.version);
    complete_checksum(packet, inner);
}

/// What a sender on a virtual link leaves to a card that there is none of.
fn complete_checksum(packet: &mut [u8], inner: &Inner) {
    if inner.fragment == Fragment::Whole
        && let Some(segment) = packet.get_mut(inner.payload_offset..)
    {
        checksum::complete(segment, inner.source, inner.destination, inner.protocol);
    }
}

/// The SA of a PROTECT policy for a packet, and what to remember: its index and the version of the choice.
#[inline]
fn protected_by(
    batch: &Batch<'_>,
    protect: &Protect,
    acquire: bool,
    inner: &Inner,
    known: Option<(OutboundIndex, u32)>,
) -> (Verdict, Option<(OutboundIndex, u32)>) {
    let version = protect.version();
    if let Some((outbound, seen)) = known
        && seen == version
    {
        return (Verdict::Seal(outbound), known);
    }
    let flow = Flow::outbound(inner);
    match protect.choose(&flow) {
        Ok(Some(outbound)) => (Verdict::Seal(outbound), Some((outbound, version))),
        Ok(None) => {
            if acquire && protect.may_acquire(batch.now, ACQUIRE_INTERVAL) {
                batch.notify(DataPlaneEvent::Acquire { policy: protect.key().clone(), flow });
            }
            (Verdict::Drop(DropReason::NoSa), None)
        }
        Err(SelectorMatch::PortsUnknown) => (Verdict::Drop(DropReason::FragmentPorts), None),
        Err(SelectorMatch::No | SelectorMatch::Yes) => (Verdict::Drop(DropReason::OutsideSelectors), None),
    }
}
