//! ESP packets and octets per connection: sums that outlive the SAs that carried them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use portcullis_data_plane::sa::SaUsage;
use portcullis_ike::action::ChildId;

use super::Shown;
use super::page::Page;
use crate::snapshot::Snapshot;
use crate::status::connections;

/// What is remembered between scrapes. What an SA carried between the last scrape and its removal is missing here; the
/// counters of the workers are exact.
#[derive(Default, Debug)]
pub(super) struct Traffic {
    /// As last seen, by shard and pair.
    seen: HashMap<(usize, ChildId), (SaUsage, SaUsage)>,
    sums: BTreeMap<Arc<str>, Sums>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Sums {
    packets: [u64; 2],
    bytes: [u64; 2],
}

impl Traffic {
    /// Takes a snapshot in and adds the sums to the page.
    pub(super) fn add(&mut self, page: &mut Page, snapshot: &Snapshot, shown: &Shown<'_>) {
        self.take(snapshot, shown);
        const DIRECTIONS: [&str; 2] = ["inbound", "outbound"];
        let packets = page.counter("esp_packets", "ESP packets opened and sealed");
        for (connection, sums) in &self.sums {
            for (direction, count) in DIRECTIONS.into_iter().zip(sums.packets) {
                packets.sample(
                    [("connection", connection.clone().into()), ("direction", direction.into())],
                    count,
                );
            }
        }
        let bytes = page.counter("esp_bytes", "Inner octets of ESP packets opened and sealed");
        for (connection, sums) in &self.sums {
            for (direction, count) in DIRECTIONS.into_iter().zip(sums.bytes) {
                bytes.sample(
                    [("connection", connection.clone().into()), ("direction", direction.into())],
                    count,
                );
            }
        }
    }

    fn take(&mut self, snapshot: &Snapshot, shown: &Shown<'_>) {
        let mut live = HashMap::with_capacity(self.seen.len());
        for connection in connections(snapshot) {
            let label = shown.label_of(connection.config);
            let sums = self.sums.entry(label).or_default();
            for (shard, sa) in &connection.ike_sas {
                let Some(index) = snapshot.shards.iter().position(|s| std::ptr::eq(s, *shard)) else {
                    continue;
                };
                for child in &sa.children {
                    let Some(now) = shard.usage.get(&child.id) else { continue };
                    let before = self.seen.get(&(index, child.id)).copied().unwrap_or_default();
                    for (i, (now, before)) in [(now.0, before.0), (now.1, before.1)].into_iter().enumerate() {
                        sums.packets[i] += now.packets.saturating_sub(before.packets);
                        sums.bytes[i] += now.bytes.saturating_sub(before.bytes);
                    }
                    live.insert((index, child.id), *now);
                }
            }
        }
        self.seen = live;
    }
}
