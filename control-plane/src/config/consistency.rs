//! What shows only when connections are compared with each other.

use std::collections::HashMap;
use std::net::IpAddr;

use portcullis_data_plane::sa::least_peer_window;
use portcullis_ike::codec::TrafficSelector;
use portcullis_ike::config::RemoteAddress;
use portcullis_ike::shared::Shared;

use super::Config;
use super::connection::{Child, Connection};
use super::problem::{Problems, Severity};

/// A child with its connection.
type Named<'a> = (&'a Connection, &'a Child);

/// Reports connections that cannot be told apart and children that claim the same packets.
pub fn check(config: &Config, problems: &Problems) {
    same_peers(&config.connections, problems);
    let children: Vec<Named<'_>> = config
        .connections
        .iter()
        .flat_map(|connection| connection.children.iter().map(move |child| (&**connection, child)))
        .collect();
    same_packets(&children, problems);
    same_interfaces(config, &children, problems);
    narrow_windows(config, &children, problems);
}

/// Packets of several sealers arrive in no order: a peer whose window is too narrow drops them.
fn narrow_windows(config: &Config, children: &[Named<'_>], problems: &Problems) {
    let workers = config.data_plane.workers;
    let least = least_peer_window(workers);
    for (_, child) in children {
        let Some(window) = child.parallel_seal else { continue };
        if workers == 1 {
            let message = "parallel_seal does nothing with one worker: see data_plane.workers".to_owned();
            problems.push(child.place.problem(Severity::Warning, message));
        } else if window < least {
            let message = format!(
                "parallel_seal with {workers} workers needs a peer whose replay window has at least {least} packets, not {window}"
            );
            problems.push(child.place.problem(Severity::Error, message));
        }
    }
}

/// A responder finds the connection by the two identities (RFC 7296 section 2.15) and, before them, by address.
fn same_peers(connections: &[Shared<Connection>], problems: &Problems) {
    let mut by_identities: HashMap<_, Vec<&Connection>> = HashMap::new();
    for later in connections {
        let alike = by_identities.entry((&later.ike.local_id, &later.ike.remote_id)).or_default();
        let meets = |earlier: &&&Connection| {
            let (a, b) = (earlier.ike.remote_address, later.ike.remote_address);
            a == b || a == RemoteAddress::Any || b == RemoteAddress::Any
        };
        if let Some(earlier) = alike.iter().find(meets) {
            let message = format!(
                "cannot be told apart from connection {} in {}: the same identities and peer",
                earlier.ike.name, earlier.place.mark
            );
            problems.push(later.place.problem(Severity::Error, message));
        }
        alike.push(later);
    }
}

/// Selectors of different children must not meet: the packet in both could take either. Route-based children are
/// told apart by their interface. The remote sides are walked in the order of their first address, so that many
/// children with addresses of their own are compared with few others.
fn same_packets(children: &[Named<'_>], problems: &Problems) {
    let mut remotes: Vec<(IpAddr, IpAddr, usize)> = children
        .iter()
        .enumerate()
        .filter(|(_, (_, child))| child.interface.is_none())
        .flat_map(|(index, (_, child))| {
            child.ike.remote_ts.iter().map(move |ts| (ts.addresses.start(), ts.addresses.end(), index))
        })
        .collect();
    remotes.sort_unstable();
    let mut open: Vec<(IpAddr, usize)> = Vec::new();
    let mut reported = Vec::new();
    for (first, last, index) in remotes {
        open.retain(|(end, _)| end.is_ipv4() == first.is_ipv4() && *end >= first);
        for &(_, other) in open.iter().filter(|(_, other)| *other != index) {
            let pair = (index.min(other), index.max(other));
            if !reported.contains(&pair) && report_meeting(children, pair, problems) {
                reported.push(pair);
            }
        }
        open.push((last, index));
    }
}

fn report_meeting(children: &[Named<'_>], pair: (usize, usize), problems: &Problems) -> bool {
    let (Some((connection, a)), Some((_, b))) = (children.get(pair.0), children.get(pair.1)) else {
        return false;
    };
    let local = meeting(&a.ike.local_ts, &b.ike.local_ts);
    let remote = meeting(&a.ike.remote_ts, &b.ike.remote_ts);
    let (Some(local), Some(remote)) = (local, remote) else { return false };
    let message = format!(
        "claims packets of child {}.{} in {} too ({local} to {remote}): selectors of different children must not overlap",
        connection.ike.name, a.ike.name, a.place.mark
    );
    problems.push(b.place.problem(Severity::Error, message));
    true
}

fn meeting(a: &[TrafficSelector], b: &[TrafficSelector]) -> Option<TrafficSelector> {
    a.iter().find_map(|x| b.iter().find_map(|y| x.intersect(y)))
}

fn same_interfaces(config: &Config, children: &[Named<'_>], problems: &Problems) {
    let mut owners: HashMap<&str, Named<'_>> = HashMap::new();
    for &(connection, child) in children {
        let Some(interface) = child.interface.as_deref() else { continue };
        let is_taken = interface == &*config.data_plane.tun
            || config.data_plane.interfaces.iter().any(|other| &*other.name == interface);
        if is_taken {
            let message = format!(
                "interface {interface} is used by data_plane already; the child's TUN needs a name of its own"
            );
            problems.push(child.place.problem(Severity::Error, message));
        }
        if let Some((owner, earlier)) = owners.insert(interface, (connection, child)) {
            let message = format!(
                "interface {interface} belongs to child {}.{} in {} already",
                owner.ike.name, earlier.ike.name, earlier.place.mark
            );
            problems.push(child.place.problem(Severity::Error, message));
        }
    }
}
