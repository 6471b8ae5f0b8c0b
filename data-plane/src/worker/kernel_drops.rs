//! What the kernel drops before a worker can read it: it arrived and was dropped, by the kernel's own account.

use std::collections::BTreeMap;

use portcullis_common::DropReason;

use super::Worker;
use super::kernel_path::KernelPath;
use super::shared::Shared;
use crate::config::Role;
use crate::counters::{Source, WorkerCounters};
use crate::netlink::LinkDrops;

/// How much of the kernel's counts is in the books already.
#[derive(Default)]
pub struct KernelDrops {
    udp: Vec<u32>,
    raw: Vec<u32>,
    tuns: BTreeMap<u32, u64>,
    links: Option<LinkDrops>,
}

impl Worker {
    /// Puts into the books what the kernel has dropped since the last call.
    pub(super) fn collect_kernel_drops(&mut self, shared: &Shared) {
        let Some(mailbox) = shared.workers.get(usize::from(self.id)) else { return };
        for port in &mut self.ports {
            let Ok(drops) = port.socket.take_kernel_drops() else { continue };
            let source = match port.role {
                Role::Wan => Source::Wan,
                Role::Lan => Source::Lan,
            };
            for (reason, packets) in [
                (DropReason::XskRxFull, drops.rx_full),
                (DropReason::XskRxDropped, drops.rx_dropped),
                (DropReason::XskInvalidDescriptor, drops.invalid_descriptors),
            ] {
                count(&mailbox.counters, source, reason, packets);
            }
        }
        if self.id == 0 {
            self.kernel_drops.collect(&shared.kernel, &mailbox.counters);
        }
    }
}

impl KernelDrops {
    fn collect(&mut self, kernel: &KernelPath, counters: &WorkerCounters) {
        let udp = kernel.udp.iter().map(|socket| socket.kernel_drops());
        collect_sockets(&mut self.udp, udp, counters, Source::Udp);
        let raw = kernel.raw.iter().map(|socket| socket.kernel_drops());
        collect_sockets(&mut self.raw, raw, counters, Source::RawIp);
        if self.links.is_none() {
            self.links = LinkDrops::open().ok();
        }
        let Some(links) = &mut self.links else { return };
        let tuns = kernel.tuns();
        self.tuns.retain(|ifindex, _| tuns.iter().any(|port| port.tun.ifindex() == *ifindex));
        for port in tuns.iter() {
            // One that has just been removed takes its last count along.
            let Ok(dropped) = links.outbound(port.tun.ifindex()) else { continue };
            let seen = self.tuns.entry(port.tun.ifindex()).or_insert_with(|| port.tun.dropped_before());
            count(counters, Source::Tun, DropReason::TunQueueFull, dropped.saturating_sub(*seen));
            *seen = dropped;
        }
    }
}

fn collect_sockets(
    seen: &mut Vec<u32>,
    now: impl Iterator<Item = std::io::Result<u32>>,
    counters: &WorkerCounters,
    source: Source,
) {
    for (index, dropped) in now.enumerate() {
        if seen.len() <= index {
            seen.push(0);
        }
        if let (Ok(dropped), Some(seen)) = (dropped, seen.get_mut(index)) {
            let packets = u64::from(dropped.wrapping_sub(*seen));
            count(counters, source, DropReason::SocketRxDropped, packets);
            *seen = dropped;
        }
    }
}

fn count(counters: &WorkerCounters, source: Source, reason: DropReason, packets: u64) {
    counters.count_received_unseen(source, packets);
    counters.count_drops(reason, packets);
}
