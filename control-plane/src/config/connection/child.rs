//! The `children:` section of a connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::codec::TrafficSelector;
use portcullis_ike::config::{ChildConfig, StartMode};
use portcullis_ike::proposal::EspProposal;

use crate::config::field::{Field, Place, Section};
use crate::config::problem::{Problems, Severity};
use crate::config::scalar::{duration, interface_name, name, size};
use crate::config::selector::{everything, pairable, prefix, selector};

const DEFAULT_REKEY: Duration = Duration::from_secs(3600);
const DEFAULT_LIFETIME: Duration = Duration::from_secs(75 * 60);
const DEFAULT_LINGER: Duration = Duration::from_secs(5);
/// Most Child SAs of one child with the same selectors.
const MOST_RESOURCES: u8 = 64;
/// What a child proposes unless its configuration says otherwise.
const DEFAULT_PROPOSALS: [&str; 3] = ["aes256gcm16", "aes128gcm16", "chacha20poly1305"];

/// One child as configured.
#[derive(Clone, Debug)]
pub struct Child {
    /// What the IKE endpoint has to know.
    pub ike: ChildConfig,
    /// Route-based: the TUN device whose packets it takes.
    pub interface: Option<Arc<str>>,
    /// Route-based: the prefixes that the guard covers.
    pub guard: Vec<(IpAddr, u8)>,
    /// Lifetimes that the data plane counts.
    pub limits: Limits,
    /// All workers seal with an SA at once, since its peer's replay window has so many packets.
    pub parallel_seal: Option<u32>,
    /// Where it is in the file.
    pub place: Place,
}

/// Lifetimes that the data plane counts, each soft and hard; none is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Octets.
    pub bytes: Option<(u64, u64)>,
    /// Packets.
    pub packets: Option<(u64, u64)>,
}

/// Reads the section. Children that are refused are left out.
pub(super) fn read(field: &Field<'_>) -> Vec<Child> {
    let entries = field.entries();
    if entries.is_empty() {
        field.refuse::<()>("at least one child is needed");
    }
    entries.into_iter().filter_map(|(key, entry)| child(key, &entry)).collect()
}

/// Reports what a child cannot be on this connection.
pub(super) fn refuse_contradictions(children: &[Child], remote_is_any: bool, problems: &Problems) {
    if !remote_is_any {
        return;
    }
    for child in children {
        let start = match child.ike.start {
            StartMode::Always => "always",
            StartMode::OnTraffic => "on-traffic",
            StartMode::None => continue,
        };
        let message =
            format!("start: {start} needs an address to dial, and remote.address is any; use start: none");
        problems.push(child.place.problem(Severity::Error, message));
    }
}

fn child(key: &str, entry: &Field<'_>) -> Option<Child> {
    if let Err(message) = name(key) {
        return entry.refuse(message);
    }
    entry.section(|s| {
        let interface =
            s.get("interface").and_then(|field| field.read(|text| interface_name(text).map(Arc::from)));
        let routed = interface.is_some();
        let local = selectors(s, "local_ts", routed);
        let remote = selectors(s, "remote_ts", routed);
        if !local.is_empty() && !remote.is_empty() && !pairable(&local, &remote) {
            s.refuse::<()>("local_ts and remote_ts have no address family in common");
        }
        let guard = guard(s, routed);
        let starts =
            [("always", StartMode::Always), ("on-traffic", StartMode::OnTraffic), ("none", StartMode::None)];
        let start = s.or("start", StartMode::None, |field| field.word(&starts));
        let proposals = proposals(s);
        let rekey_after = s.or("rekey_after", DEFAULT_REKEY, |field| field.read(duration));
        let lifetime = s.or("lifetime", DEFAULT_LIFETIME, |field| field.read(duration));
        if rekey_after >= lifetime {
            s.refuse::<()>("rekey_after has to be shorter than lifetime");
        }
        let per_resource = s.or("per_resource", 1, |field| field.number(1, MOST_RESOURCES));
        let parallel_seal = s.get("parallel_seal").and_then(|field| field.section(parallel_seal));
        let linger = s.or("linger", DEFAULT_LINGER, |field| field.read(duration));
        let limits = Limits {
            bytes: limit(s, "rekey_bytes", "lifetime_bytes", |field| field.read(size)),
            packets: limit(s, "rekey_packets", "lifetime_packets", |field| field.number(1, u64::MAX)),
        };
        if local.is_empty() || remote.is_empty() || proposals.is_empty() {
            return None;
        }
        let ike = ChildConfig {
            name: Arc::from(key),
            local_ts: local,
            remote_ts: remote,
            start,
            proposals,
            rekey_after,
            lifetime,
            linger,
            per_resource,
            resource: 0,
        };
        Some(Child { ike, interface, guard: guard?, limits, parallel_seal, place: s.place() })
    })
}

/// The peer's replay window in packets, which its operator has to know.
fn parallel_seal(s: &mut Section<'_>) -> Option<u32> {
    s.need("peer_window")?.number(64, u32::MAX)
}

/// Selectors of one side. A route-based child has 0/0 of both families unless it says otherwise.
fn selectors(s: &mut Section<'_>, key: &'static str, is_route_based: bool) -> Vec<TrafficSelector> {
    match s.get(key) {
        Some(field) => field.items("selector", |item| item.read(selector)),
        None if is_route_based => everything(),
        None => {
            s.refuse::<()>(format!("key '{key}' is missing"));
            Vec::new()
        }
    }
}

fn guard(s: &mut Section<'_>, is_route_based: bool) -> Option<Vec<(IpAddr, u8)>> {
    match (s.get("guard"), is_route_based) {
        (Some(field), true) => {
            Some(field.items("prefix", |item| item.read(prefix)))
        }
        (None, true) => s.refuse(
            "a route-based child needs guard: [prefixes]: with selectors 0/0 nothing else says what must never leave in clear",
        ),
        (Some(field), false) => {
            field.refuse("guard belongs to a child with interface:; others are guarded by their selectors")
        }
        (None, false) => Some(Vec::new()),
    }
}

fn proposals(s: &mut Section<'_>) -> Vec<EspProposal> {
    match s.get("proposals") {
        Some(field) => field.items("proposal", |item| item.read(str::parse::<EspProposal>)),
        None => DEFAULT_PROPOSALS.iter().filter_map(|text| text.parse().ok()).collect(),
    }
}

fn limit(
    s: &mut Section<'_>,
    soft: &'static str,
    hard: &'static str,
    read: impl Fn(&Field<'_>) -> Option<u64>,
) -> Option<(u64, u64)> {
    let (soft_value, hard_value) = (s.get(soft).and_then(|f| read(&f)), s.get(hard).and_then(|f| read(&f)));
    match (soft_value, hard_value) {
        (None, None) => None,
        (Some(soft_value), Some(hard_value)) if soft_value < hard_value => Some((soft_value, hard_value)),
        (Some(_), Some(_)) => s.refuse(format!("{soft} has to be less than {hard}")),
        _ => s.refuse(format!("{soft} and {hard} belong together")),
    }
}
