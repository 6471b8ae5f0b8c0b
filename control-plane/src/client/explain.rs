//! What would become of a packet, for people.

use std::fmt::Write;

use crate::status::explain::Explained;

/// A line for each step of its way.
pub fn page(explained: &Explained) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, explained);
    page
}

fn write_page(page: &mut String, explained: &Explained) -> std::fmt::Result {
    let Explained { decision, connection, child, tunnel, dropped, way } = explained;
    match decision.as_str() {
        "protect" => {
            let name = |name: &Option<String>| name.clone().unwrap_or_default();
            writeln!(page, "policy:  protected by {}, child {}", name(connection), name(child))?;
        }
        "bypass" => writeln!(page, "policy:  passes in clear, by a bypass policy")?,
        "discard" => writeln!(page, "policy:  discarded")?,
        "none" => writeln!(
            page,
            "policy:  none covers it: dropped at a protected interface, the kernel's to route at others"
        )?,
        other => writeln!(page, "policy:  {other} decide, which were not given")?,
    }
    let worker = |worker: Option<u8>| worker.map_or_else(String::new, |number| format!(", worker {number}"));
    if let Some(tunnel) = tunnel {
        writeln!(page, "SA:      out {}{}", tunnel.spi_out, worker(tunnel.worker_out))?;
        if let Some(spi_in) = &tunnel.spi_in {
            writeln!(page, "         in  {spi_in}{}", worker(tunnel.worker_in))?;
        }
        let carrier = match tunnel.carrier.as_str() {
            "hold" => "not known yet: packets wait for a second",
            "shut" => "shut by policy",
            carrier => carrier,
        };
        writeln!(page, "carrier: {carrier}, {} to {}", tunnel.local, tunnel.remote)?;
        if let Some(mtu) = tunnel.inner_mtu {
            writeln!(page, "MTU:     {mtu} octets inside")?;
        }
    }
    if let Some(way) = way {
        let interface = way.interface.as_deref().unwrap_or("an interface without a name");
        let by = if way.by == "ring" { "a ring of the worker" } else { "the kernel" };
        let resolved = if way.is_resolved { "" } else { ", whose link-layer address is not known" };
        writeln!(page, "way:     {interface} to {}{resolved}, by {by}", way.next_hop)?;
    }
    match dropped {
        Some(reason) => writeln!(page, "it is DROPPED: {reason}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::explain::{ExplainedTunnel, ExplainedWay};

    #[test]
    fn a_protected_packet_shows_its_way_and_a_dropped_one_why() {
        let mut explained = Explained {
            decision: "protect".to_owned(),
            connection: Some("site-b".to_owned()),
            child: Some("net".to_owned()),
            tunnel: Some(ExplainedTunnel {
                spi_out: "0badcafe".to_owned(),
                worker_out: Some(2),
                spi_in: Some("00c0ffee".to_owned()),
                worker_in: None,
                carrier: "udp".to_owned(),
                local: "192.0.2.1:4500".to_owned(),
                remote: "192.0.2.2:4500".to_owned(),
                inner_mtu: Some(1422),
            }),
            dropped: None,
            way: Some(ExplainedWay {
                destination: "192.0.2.2".to_owned(),
                interface: Some("wan0".to_owned()),
                next_hop: "192.0.2.254".to_owned(),
                is_resolved: false,
                by: "kernel".to_owned(),
            }),
        };
        let expected = "policy:  protected by site-b, child net\n\
            SA:      out 0badcafe, worker 2\n         in  00c0ffee\n\
            carrier: udp, 192.0.2.1:4500 to 192.0.2.2:4500\n\
            MTU:     1422 octets inside\n\
            way:     wan0 to 192.0.2.254, whose link-layer address is not known, by the kernel\n";
        assert_eq!(page(&explained), expected);
        explained.dropped = Some("path_shut".to_owned());
        assert!(page(&explained).ends_with("it is DROPPED: path_shut\n"));
        explained.decision = "ports".to_owned();
        assert!(page(&explained).starts_with("policy:  ports decide, which were not given\n"));
    }
}
