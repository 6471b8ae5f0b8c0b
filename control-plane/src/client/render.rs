//! The status for people: how ESP travels now, and why, first.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::status::{Connection, DataPlane, Esp, IkeSa, Status};

/// The whole page.
pub fn status(status: &Status) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_status(&mut page, status);
    page
}

fn write_status(page: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(page, "{} {}, up {}", status.instance, status.version, duration(status.uptime_seconds))?;
    if let Some(cause) = &status.policy_store_problem {
        writeln!(page, "THE POLICY STORE CANNOT BE READ, every connection is fail-closed: {cause}")?;
    }
    for connection in &status.connections {
        write_connection(page, connection)?;
    }
    write_data_plane(page, &status.data_plane)
}

/// The data plane alone, in full.
pub fn data_plane(data_plane: &DataPlane) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_data_plane(&mut page, data_plane).and_then(|()| write_workers(&mut page, data_plane));
    page
}

fn write_workers(page: &mut String, data_plane: &DataPlane) -> std::fmt::Result {
    let counts = |counts: &BTreeMap<String, u64>| {
        let some: Vec<_> =
            counts.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    };
    for (interface, verdicts) in &data_plane.xdp {
        writeln!(page, "\nXDP on {interface}: {}", counts(verdicts))?;
    }
    for worker in &data_plane.workers {
        let packets: u64 = worker.received.values().sum();
        let each = |of: f64, whole: u64| if whole == 0 { 0.0 } else { of / whole as f64 };
        writeln!(page, "\nworker {}: busy for {:.1} s", worker.index, worker.busy_seconds)?;
        writeln!(
            page,
            "  packets in:  {} ({})",
            counts(&worker.received),
            octets(worker.received_bytes.values().sum())
        )?;
        writeln!(
            page,
            "  packets out: {} ({})",
            counts(&worker.sent),
            octets(worker.sent_bytes.values().sum())
        )?;
        writeln!(page, "  given to the kernel with others of their flow: {}", counts(&worker.joined))?;
        writeln!(
            page,
            "  {} batches, {:.1} packets each, {:.0} ns for each packet; {} handed to other workers, and {} SAs; {} waiting",
            worker.batches,
            each(packets as f64, worker.batches),
            each(worker.busy_seconds * 1e9, packets),
            worker.handed_over,
            worker.moved_sas,
            worker.held
        )?;
        writeln!(page, "  dropped: {}", counts(&worker.drops))?;
    }
    Ok(())
}

fn write_connection(page: &mut String, c: &Connection) -> std::fmt::Result {
    writeln!(page, "\n{}: {}{}", c.name, c.state, because(&c.reason))?;
    if !c.detail.is_empty() {
        writeln!(page, "  {}", c.detail)?;
    }
    if let Some(seconds) = c.next_attempt_in_seconds {
        writeln!(page, "  next attempt in {seconds} s")?;
    }
    let esp = c.esp_transport.as_deref().unwrap_or("none");
    writeln!(
        page,
        "  ESP over {esp}, evidence {}; policy {} by {}",
        c.evidence, c.policy.on_unreachable, c.policy.source
    )?;
    c.ike_sas.iter().try_for_each(|sa| write_ike_sa(page, sa))
}

fn write_ike_sa(page: &mut String, sa: &IkeSa) -> std::fmt::Result {
    let role = if sa.initiator { "initiator" } else { "responder" };
    writeln!(
        page,
        "  IKE over {} with {} ({}), {role}, {}",
        sa.transport, sa.remote, sa.remote_id, sa.algorithms
    )?;
    writeln!(
        page,
        "    SPIs {} {}, since {}, rekeyed {} times, next rekey {}",
        sa.spi_i, sa.spi_r, sa.established_at, sa.rekeys, sa.next_rekey_at
    )?;
    if let Some(at) = &sa.leaves_at {
        writeln!(page, "    another takes its place at {at}")?;
    }
    let nat = match (sa.nat.local, sa.nat.remote) {
        (false, false) => "no NAT",
        (true, false) => "NAT in front of us",
        (false, true) => "NAT in front of the peer",
        (true, true) => "NAT at both ends",
    };
    let separate = if sa.separate_transports { "agreed" } else { "not agreed" };
    let transcript = if sa.full_transcript_auth { "whole" } else { "one message each" };
    let ppk = if sa.ppk { "; PPK" } else { "" };
    writeln!(
        page,
        "    {nat}; separate transports {separate}; IKE_SA_INIT authenticated: {transcript}{ppk}"
    )?;
    writeln!(page, "    {}", esp(&sa.esp))?;
    for child in &sa.children {
        let used = if child.in_use { "" } else { " (draining)" };
        writeln!(
            page,
            "    child {}{used}: {} === {}, {}, SPIs in {} out {}",
            child.name,
            child.local_ts.join(" "),
            child.remote_ts.join(" "),
            child.algorithms,
            child.spi_in,
            child.spi_out
        )?;
        writeln!(
            page,
            "      in {} packets {}, out {} packets {}, next rekey {}",
            child.packets_in,
            octets(child.bytes_in),
            child.packets_out,
            octets(child.bytes_out),
            child.next_rekey_at
        )?;
    }
    Ok(())
}

fn write_data_plane(page: &mut String, data_plane: &DataPlane) -> std::fmt::Result {
    writeln!(page, "\ndata plane: {}", data_plane.mode)?;
    for interface in &data_plane.interfaces {
        writeln!(
            page,
            "  {} ({}): {}{}",
            interface.name,
            interface.role,
            interface.path,
            because(&interface.reason)
        )?;
    }
    let guard = &data_plane.guard;
    let installed = if guard.installed { "installed" } else { "NOT INSTALLED" };
    writeln!(
        page,
        "  guard {installed}: {} policies in {}, stopped {} packets out and {} in",
        guard.policies, guard.backend, guard.drops_outbound, guard.drops_inbound
    )?;
    let table = data_plane.sa_table;
    writeln!(
        page,
        "  SA table: {} inbound and {} outbound of {}",
        table.inbound, table.outbound, table.slots
    )?;
    let drops: Vec<_> =
        data_plane.drops.iter().filter(|(_, n)| **n > 0).map(|(reason, n)| format!("{reason} {n}")).collect();
    let sums = data_plane.accounting;
    let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
    writeln!(
        page,
        "  packets in {}, out {}, dropped {} ({drops}), waiting {}",
        sums.received, sums.sent, sums.dropped, sums.held
    )
}

fn because(reason: &str) -> String {
    if reason.is_empty() || reason == "none" { String::new() } else { format!(", {reason}") }
}

fn duration(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

/// Octets with a binary prefix, three digits at most.
fn octets(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn esp(esp: &Esp) -> String {
    if !esp.echo {
        return "no ESP echo: inbound ESP is all the evidence there is".to_owned();
    }
    let last = esp.last_verification.as_ref().map_or_else(
        || "not verified yet".to_owned(),
        |last| format!("{} in {:.3} s at {}", last.verdict, last.seconds, last.at),
    );
    let rtt: Vec<_> =
        esp.rtt_seconds.iter().map(|(carrier, rtt)| format!("{carrier} {:.1} ms", rtt * 1000.0)).collect();
    let rtt = if rtt.is_empty() { String::new() } else { format!("; RTT {}", rtt.join(", ")) };
    format!("ESP echo: {last}; a decision takes up to {:.2} s{rtt}", esp.decision_within_seconds)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::status::{Accounting, Guard, Policy, SaTable};

    /// One that has done next to nothing, without workers.
    pub fn idle_data_plane() -> DataPlane {
        DataPlane {
            mode: "tun".to_owned(),
            interfaces: vec![],
            guard: Guard {
                installed: false,
                backend: "xfrm".to_owned(),
                policies: 6,
                restores: 0,
                drops_outbound: 3,
                drops_inbound: 0,
            },
            sa_table: SaTable { slots: 4096, inbound: 1, outbound: 1 },
            workers: vec![],
            xdp: Default::default(),
            drops: Default::default(),
            accounting: Accounting { received: 10, sent: 8, dropped: 2, held: 0 },
        }
    }

    #[test]
    fn a_blocked_connection_shows_cause_and_next_attempt_first() {
        let text = status(&Status {
            instance: "gw-a".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 61,
            policy_store_problem: Some("damaged".to_owned()),
            connections: vec![Connection {
                name: "site-b".to_owned(),
                state: "blocked".to_owned(),
                reason: "ike_tcp_unreachable".to_owned(),
                evidence: "none".to_owned(),
                detail: "198.51.100.2:4500 refuses TCP: let it through, or start the daemon there".to_owned(),
                ike_transport: None,
                esp_transport: None,
                next_attempt_in_seconds: Some(7),
                policy: Policy {
                    on_unreachable: "fail-closed".to_owned(),
                    source: "configuration".to_owned(),
                },
                ike_sas: vec![],
            }],
            data_plane: DataPlane {
                drops: [("replay".to_owned(), 2), ("malformed".to_owned(), 0)].into(),
                ..idle_data_plane()
            },
        });
        assert!(text.contains("gw-a 0.1.0, up 1m 1s"), "{text}");
        assert!(text.contains("POLICY STORE CANNOT BE READ, every connection is fail-closed: damaged"));
        assert!(
            text.contains("site-b: blocked, ike_tcp_unreachable\n  198.51.100.2:4500 refuses TCP"),
            "{text}"
        );
        assert!(text.contains("next attempt in 7 s"), "{text}");
        assert!(text.contains("guard NOT INSTALLED"), "{text}");
        assert!(text.contains("(replay 2)"), "{text}");
    }

    #[test]
    fn octets_have_a_binary_prefix() {
        assert_eq!(
            (octets(999), octets(1024), octets(5 << 30)),
            ("999 B".into(), "1.0 KiB".into(), "5.0 GiB".into())
        );
    }
}
