//! What shows only when connections are compared with each other.

use portcullis_ike::codec::TrafficSelector;
use portcullis_ike::config::RemoteAddress;

use super::Config;
use super::connection::{Child, Connection};
use super::problem::{Problems, Severity};

/// Reports connections that cannot be told apart and children that claim the same packets.
pub fn check(config: &Config, problems: &Problems) {
    for (index, connection) in config.connections.iter().enumerate() {
        for earlier in config.connections.iter().take(index) {
            same_peer(earlier, connection, problems);
        }
    }
    let children: Vec<(&Connection, &Child)> = config
        .connections
        .iter()
        .flat_map(|connection| connection.children.iter().map(move |child| (connection, child)))
        .collect();
    for (index, later) in children.iter().enumerate() {
        for earlier in children.iter().take(index) {
            same_packets(*earlier, *later, problems);
            same_interface(*earlier, *later, problems);
        }
        if let Some(interface) = &later.1.interface
            && (*interface == config.data_plane.tun
                || config.data_plane.interfaces.iter().any(|other| other.name == *interface))
        {
            let message = format!(
                "interface {interface} is used by data_plane already; the child's TUN needs a name of its own"
            );
            problems.push(later.1.place.problem(Severity::Error, message));
        }
    }
}

/// A responder finds the connection by the two identities (RFC 7296 section 2.15) and, before them, by address.
fn same_peer(earlier: &Connection, later: &Connection, problems: &Problems) {
    let (a, b) = (&earlier.ike, &later.ike);
    let addresses_meet = a.remote_address == b.remote_address
        || a.remote_address == RemoteAddress::Any
        || b.remote_address == RemoteAddress::Any;
    if a.remote_id == b.remote_id && a.local_id == b.local_id && addresses_meet {
        let message = format!(
            "cannot be told apart from connection {} in line {}: the same identities and peer",
            a.name, earlier.place.mark.line
        );
        problems.push(later.place.problem(Severity::Error, message));
    }
}

/// Route-based children are told apart by their interface, so their selectors may meet.
fn same_packets(earlier: (&Connection, &Child), later: (&Connection, &Child), problems: &Problems) {
    let ((connection, a), (_, b)) = (earlier, later);
    if a.interface.is_some() || b.interface.is_some() {
        return;
    }
    let local = meeting(&a.ike.local_ts, &b.ike.local_ts);
    let remote = meeting(&a.ike.remote_ts, &b.ike.remote_ts);
    if let (Some(local), Some(remote)) = (local, remote) {
        let message = format!(
            "claims packets of child {}.{} in line {} too ({} to {}): selectors of different children must not overlap",
            connection.ike.name, a.ike.name, a.place.mark.line, local, remote,
        );
        problems.push(b.place.problem(Severity::Error, message));
    }
}

fn same_interface(earlier: (&Connection, &Child), later: (&Connection, &Child), problems: &Problems) {
    let ((connection, a), (_, b)) = (earlier, later);
    if let (Some(first), Some(second)) = (&a.interface, &b.interface)
        && first == second
    {
        let message = format!(
            "interface {second} belongs to child {}.{} in line {} already",
            connection.ike.name, a.ike.name, a.place.mark.line
        );
        problems.push(b.place.problem(Severity::Error, message));
    }
}

fn meeting(a: &[TrafficSelector], b: &[TrafficSelector]) -> Option<TrafficSelector> {
    a.iter().find_map(|x| b.iter().find_map(|y| x.intersect(y)))
}
