//! The `policies:` section: what passes in clear or is dropped, before any connection is looked at.

use portcullis_data_plane::policy::{Disposition, Policy};
use portcullis_ike::codec::{PortRange, TrafficSelector};

use super::field::{Field, Section};
use super::selector::{PORTS_NEED_PROTOCOL, everything, for_data_plane, has_ports, pairable, selector};

/// Reads the ordered list.
pub fn policies(field: Option<Field<'_>>) -> Vec<Policy> {
    field.map(|field| field.list(|item| item.section(policy))).unwrap_or_default()
}

fn policy(s: &mut Section<'_>) -> Option<Policy> {
    let actions = [("bypass", Disposition::Bypass), ("discard", Disposition::Discard)];
    let disposition = s.need("action").and_then(|field| {
        let words: Vec<(&str, &Disposition)> = actions.iter().map(|(word, action)| (*word, action)).collect();
        field.word(&words).cloned()
    });
    let mut local = side(s, "local");
    let mut remote = side(s, "remote");
    if !pairable(&local, &remote) {
        s.refuse::<()>("local and remote have no address family in common: nothing would match");
    }
    if let Some(protocol) = s.get("protocol").and_then(|field| field.read(protocol)) {
        local.iter_mut().chain(&mut remote).for_each(|selector| selector.protocol = protocol);
    }
    limit_ports(s, "local_ports", &mut local);
    limit_ports(s, "remote_ports", &mut remote);
    Some(Policy {
        local: local.iter().map(for_data_plane).collect(),
        remote: remote.iter().map(for_data_plane).collect(),
        disposition: disposition?,
    })
}

/// The selectors of a side; everything without the key.
fn side(s: &mut Section<'_>, key: &'static str) -> Vec<TrafficSelector> {
    s.get(key).map_or_else(everything, |field| field.list(|item| item.read(selector)))
}

fn limit_ports(s: &mut Section<'_>, key: &'static str, side: &mut [TrafficSelector]) {
    let Some(field) = s.get(key) else { return };
    let Some(range) = field.read(ports) else { return };
    if side.iter().any(|selector| !has_ports(selector.protocol)) {
        field.refuse::<()>(PORTS_NEED_PROTOCOL);
    }
    side.iter_mut().for_each(|selector| selector.ports = range);
}

/// Protocols are named as in selectors.
fn protocol(text: &str) -> Result<u8, String> {
    selector(&format!("0.0.0.0/0[{text}]")).map(|selector| selector.protocol)
}

fn ports(text: &str) -> Result<PortRange, String> {
    selector(&format!("0.0.0.0/0[tcp/{text}]")).map(|selector| selector.ports)
}
