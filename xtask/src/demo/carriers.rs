//! Both starts, without and with NAT: what carries IKE, what carries ESP, and what it is worth.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_vm_tests::capture::{Capture, Counts};
use portcullis_vm_tests::status::{ConnectionStatus, Status};
use portcullis_vm_tests::{
    Artefacts, BpfMap, DataPlaneMode, Metrics, Nat, Pair, PairOptions, Ping, Side, inner_prefixes,
    tcp_throughput,
};

use super::account::Account;
use super::figures;

struct Case {
    title: &'static str,
    transport: &'static str,
    nat: Nat,
    /// `ip` or `udp`: what carries ESP once an echo has proven it.
    esp: &'static str,
}

const CASES: [Case; 4] = [
    Case {
        title: "Start on TCP, no NAT: ESP is IP protocol 50",
        transport: "tcp",
        nat: Nat::None,
        esp: "ip",
    },
    Case {
        title: "Start on UDP, no NAT: ESP leaves on UDP, and moves to IP when its echo came back",
        transport: "udp-then-tcp",
        nat: Nat::None,
        esp: "ip",
    },
    Case {
        title: "Start on TCP, NAT before gw-a: ESP is in UDP",
        transport: "tcp",
        nat: Nat::BeforeA,
        esp: "udp",
    },
    Case {
        title: "Start on UDP, NAT before gw-a: ESP is in UDP",
        transport: "udp-then-tcp",
        nat: Nat::BeforeA,
        esp: "udp",
    },
];

const UP_LIMIT: Duration = Duration::from_secs(20);

/// Runs every case in a topology of its own.
pub(super) fn run(mode: DataPlaneMode, artefacts: &Artefacts, account: &mut Account) {
    for case in CASES {
        account.part(case.title, |account| case.run(mode, artefacts, account));
    }
}

impl Case {
    fn run(&self, mode: DataPlaneMode, artefacts: &Artefacts, account: &mut Account) -> Result<()> {
        let options = PairOptions { nat: self.nat, transport: self.transport, mode, b_starts: false };
        let mut pair = Pair::new(options, artefacts)?.leave_books();
        let capture = Capture::start(&pair.lab.router, inner_prefixes())?;
        pair.b.start()?;
        let start = Instant::now();
        pair.a.start()?;
        let (a, _) = pair.wait_up(UP_LIMIT)?;
        let up = start.elapsed();
        self.handshake(&a, up, &capture.counts(), account)?;

        for side in [Side::A, Side::B] {
            self.settled(&pair, side, account)?;
        }
        let early = figures::on_socket_path(&pair.a.status()?) + figures::on_socket_path(&pair.b.status()?);
        traffic(&pair, account)?;

        let (a, b) = figures::drained(&pair, account)?;
        keys_in_maps(&pair, account)?;
        let router = capture.finish()?;
        self.router(&router, account);
        figures::workers_agree_with_router(mode, (&a, &b), early, &router, account);
        metrics(&pair, (&a, &b), account)?;
        pair.a.stop()?;
        pair.b.stop()
    }

    fn handshake(
        &self,
        a: &ConnectionStatus,
        up: Duration,
        router: &Counts,
        account: &mut Account,
    ) -> Result<()> {
        let sa = a.ike_sas.first().context("an IKE SA")?;
        let handshake = sa.handshake.as_ref().context("the figures of the handshake")?;
        account.expect(
            "IKE SA with hybrid key exchange, IKE on TCP, separate transports",
            sa.algorithms.contains("x25519")
                && sa.algorithms.contains("mlkem768")
                && a.ike_transport.as_deref() == Some("tcp")
                && sa.separate_transports,
            format!("{}, up {:.0} ms after the start of gw-a", sa.algorithms, up.as_secs_f64() * 1e3),
        );
        account.note(
            "handshake",
            format!(
                "{:.1} ms; UDP {} octets sent, {} received; TCP {} sent, {} received",
                handshake.seconds * 1e3,
                handshake.udp_bytes.sent,
                handshake.udp_bytes.received,
                handshake.tcp_bytes.sent,
                handshake.tcp_bytes.received,
            ),
        );
        let on_udp = router.ike_udp_4500.packets;
        account.expect(
            "IKE messages at the router",
            // On a start on UDP, IKE_SA_INIT is all that uses UDP: a request and its response.
            on_udp == if self.transport == "tcp" { 0 } else { 2 }
                && router.ike_udp_500.packets == 0
                && router.ike_tcp.packets >= 4,
            format!(
                "UDP 4500: {on_udp} ({} octets), UDP 500: {}, TCP 4500: {} ({} octets)",
                router.ike_udp_4500.bytes,
                router.ike_udp_500.packets,
                router.ike_tcp.packets,
                router.ike_tcp.bytes
            ),
        );
        Ok(())
    }

    /// An echo has proven the carrier, at either end.
    fn settled(&self, pair: &Pair, side: Side, account: &mut Account) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(5);
        let state = format!("direct_{}", self.esp);
        let found = pair.gateway(side).wait_connection(side.connection(), LIMIT, |c| {
            c.state == state && c.evidence == "echo" && c.esp_transport.as_deref() == Some(self.esp)
        });
        let held = found.is_ok();
        let text = match &found {
            Ok(c) => format!("{}, reason {}, evidence {}", c.state, c.reason, c.evidence),
            Err(error) => format!("{error:#}"),
        };
        account.expect(&format!("{} sees {state}", side.gateway_name()), held, text);
        Ok(())
    }

    fn router(&self, router: &Counts, account: &mut Account) {
        let (wanted, other, name) = match self.esp {
            "ip" => (router.esp_ip, router.esp_udp, "protocol 50, and ESP in UDP,"),
            _ => (router.esp_udp, router.esp_ip, "ESP in UDP, and protocol 50,"),
        };
        // Before IP is proven, a start on UDP sends on the carrier that it knows to pass.
        let may_have_both = (self.transport, self.esp) == ("udp-then-tcp", "ip");
        account.expect(
            &format!("{name} at the router"),
            wanted > 0 && (other == 0 || may_have_both && other < wanted / 10),
            format!("{wanted} and {other}"),
        );
        figures::nothing_in_clear(router, account);
    }
}

fn traffic(pair: &Pair, account: &mut Account) -> Result<()> {
    const STREAM_TIME: Duration = Duration::from_millis(1500);
    for (name, from, to) in [
        ("IPv4 pings a to b", Side::A, IpAddr::from(Side::B.host().0)),
        ("IPv6 pings b to a", Side::B, IpAddr::from(Side::A.host().1)),
    ] {
        let report = Ping::to(to).run(pair.lab.host(from))?;
        let mut times: Vec<_> = report.round_trips.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
        account.expect(
            name,
            report.answered == report.sent,
            format!("{} of {} answered, median {median:.2} ms", report.answered, report.sent),
        );
    }
    for (name, from, to) in [("TCP a to b", Side::A, Side::B), ("TCP b to a", Side::B, Side::A)] {
        let end = |side: Side| (pair.lab.host(side), IpAddr::from(side.host().0));
        let report = tcp_throughput(end(from), end(to), STREAM_TIME)?;
        account.expect(name, report.bytes > 0, format!("{:.0} Mbit/s", report.mbit_per_second()));
    }
    Ok(())
}

/// Keys reach the data plane through a BPF map, wrapped: a record for each inbound SA. Where no XDP program runs they are in
/// memory of the daemon's own, laid out alike.
fn keys_in_maps(pair: &Pair, account: &mut Account) -> Result<()> {
    for side in [Side::A, Side::B] {
        let gateway = pair.gateway(side);
        let pid = gateway.process().context("the daemon runs")?.id();
        let maps = BpfMap::of_process(pid)?;
        let keys = maps.iter().find(|map| map.name == "KEYS");
        if gateway.status()?.data_plane.xdp.values().all(BTreeMap::is_empty) {
            account.expect(
                &format!("{} has no map for keys, as no XDP program runs", side.gateway_name()),
                keys.is_none(),
                "they are in the daemon's own memory".to_owned(),
            );
            continue;
        }
        let keys = keys.context("a BPF map for keys")?;
        let records = keys.values()?.iter().filter(|value| value.iter().any(|octet| *octet != 0)).count();
        account.expect(
            &format!("{} keys in its BPF map", side.gateway_name()),
            records >= 1,
            format!("{records} of its records are in use"),
        );
    }
    Ok(())
}

/// What Prometheus would see, against what `status` says.
fn metrics(pair: &Pair, statuses: (&Status, &Status), account: &mut Account) -> Result<()> {
    for (side, status) in [(Side::A, statuses.0), (Side::B, statuses.1)] {
        let metrics: Metrics = pair.gateway(side).metrics()?;
        let guard = metrics.sum("portcullis_guard_installed", &[]).unwrap_or(0.0);
        account.expect(
            &format!("{} /metrics and status: guard installed", side.gateway_name()),
            guard >= 1.0 && status.data_plane.guard.installed,
            format!("{guard}, {}; {} samples", status.data_plane.guard.installed, metrics.len()),
        );
    }
    Ok(())
}
