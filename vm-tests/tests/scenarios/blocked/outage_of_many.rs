//! A router is out for longer than a verification takes, and 200 connections with it: nothing is decided, nothing falls, and
//! everything is as before when it is back (rule 5).

use std::collections::BTreeMap;

use portcullis_vm_tests::{Blocked, DataPlaneMode, Gateway, Pair, PairOptions, Side, Way, until};

use crate::{SOON, add_site, artefacts, capture, change, flow, nothing_in_clear, wait_more};

/// With the one that ships.
const CONNECTIONS: u8 = 200;
/// Lines that a connection may write about an outage: it became suspect, its verification, its stream lost and back, its
/// carrier; and as much again for a turn that it took twice.
const LINES_EACH: usize = 10;
/// What may be held for it, and is nobody's leak.
const MEMORY_KIB: u64 = 16 * 1024;

#[test]
fn router_outage_with_two_hundred_connections_lets_nothing_fall() {
    let options = PairOptions { mode: DataPlaneMode::Xdp, ..PairOptions::USUAL };
    let mut pair = Pair::new(options, &artefacts()).unwrap();
    for side in [Side::A, Side::B] {
        change(pair.gateway(side), |config| {
            (1..CONNECTIONS).for_each(|site| add_site(config, side, &format!("c{site}"), site));
            for name in config.connections() {
                let esp = format!("connections/{name}/esp");
                config.set(&format!("{esp}/on_unreachable"), "tcp-fallback");
                let probe = "{ timeout: 300ms, attempts: 3, stagger: 100ms, idle_interval: 1s }";
                config.set_yaml(&format!("{esp}/probe"), probe).unwrap();
            }
        });
    }
    let router = capture(&pair);
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    all_proven(&pair);
    // All of them come from one address: it has places for each.
    let refused = [
        ("portcullis_ike_streams_refused_total", None),
        ("portcullis_ike_rejected_total", Some(("reason", "too_many_streams"))),
        ("portcullis_ike_rejected_total", Some(("reason", "too_many_half_open"))),
    ];
    let refused = refused.map(|(metric, label)| sum(&pair.b, metric, label.as_slice()));
    assert_eq!(refused, [0.0; 3], "at a start together");
    let flows = vec![flow(&pair.lab, Side::A, 200), flow(&pair.lab, Side::B, 200)];
    wait_more(&flows, 50);
    let before = [&pair.a, &pair.b].map(Standing::of);

    pair.lab.block(Blocked::Everything, Way::Both).unwrap();
    for gateway in [&pair.a, &pair.b] {
        wait_for(gateway, "every connection is suspect, and its verification has come to nothing", || {
            let suspect = sum(gateway, "portcullis_connections", &[("state", "suspect")]);
            let undecided = sum(gateway, "portcullis_esp_verifications_total", &[("verdict", "undecided")]);
            suspect == f64::from(CONNECTIONS) && undecided >= f64::from(CONNECTIONS)
        });
    }
    pair.lab.unblock().unwrap();
    all_proven(&pair);
    wait_more(&flows, 50);

    for (gateway, before) in [&pair.a, &pair.b].into_iter().zip(before) {
        let after = Standing::of(gateway);
        assert_eq!(after.spis, before.spis, "{}: the same IKE SAs", gateway.name());
        assert_eq!(after.established, before.established, "{}: none was tried anew", gateway.name());
        assert_eq!(after.falls, before.falls, "{}: falls\n{}", gateway.name(), stopped(gateway));
        let lines = after.log_lines - before.log_lines;
        let memory = after.memory_kib.saturating_sub(before.memory_kib);
        println!("measured: {}: {lines} lines, {memory} KiB for {CONNECTIONS} connections", gateway.name());
        assert!(lines <= LINES_EACH * usize::from(CONNECTIONS), "{lines} lines");
        assert!(memory <= MEMORY_KIB, "{memory} KiB");
    }
    for flow in flows {
        let report = flow.finish().unwrap();
        assert_eq!((report.duplicated, report.refused), (0, 0), "{report}");
    }
    let counts = router.finish().unwrap();
    nothing_in_clear(&counts);
    assert_eq!(counts.esp_tcp, 0, "{counts:?}");
}

/// Every connection is on a direct carrier at both ends, shown by echo.
fn all_proven(pair: &Pair) {
    for gateway in [&pair.a, &pair.b] {
        wait_for(gateway, "every connection is direct, with evidence echo", || {
            let direct = ["direct_ip", "direct_udp"]
                .map(|state| sum(gateway, "portcullis_connections", &[("state", state)]));
            let echo = sum(gateway, "portcullis_connection_evidence", &[("evidence", "echo")]);
            direct.iter().sum::<f64>() == f64::from(CONNECTIONS) && echo == f64::from(CONNECTIONS)
        });
    }
}

/// What an outage has to leave as it was, or nearly.
struct Standing {
    spis: BTreeMap<String, Vec<String>>,
    established: f64,
    /// Into TCP, and to a stop.
    falls: [f64; 4],
    log_lines: usize,
    memory_kib: u64,
}

impl Standing {
    fn of(gateway: &Gateway) -> Self {
        let connections = gateway.status().unwrap().connections;
        let spis = |sas: &[portcullis_vm_tests::status::IkeSaStatus]| {
            sas.iter().map(|sa| format!("{}-{}", sa.spi_i, sa.spi_r)).collect()
        };
        let process = gateway.process().unwrap();
        Self {
            spis: connections.iter().map(|c| (c.name.clone(), spis(&c.ike_sas))).collect(),
            established: sum(gateway, "portcullis_ike_established_total", &[]),
            falls: [
                sum(gateway, "portcullis_esp_fallbacks_total", &[]),
                sum(gateway, "portcullis_esp_refusals_total", &[]),
                sum(gateway, "portcullis_connection_state_changes_total", &[("state", "tcp")]),
                sum(gateway, "portcullis_connection_state_changes_total", &[("state", "blocked")]),
            ],
            log_lines: process.lines(),
            memory_kib: resident_kib(process.id()),
        }
    }
}

fn wait_for(gateway: &Gateway, what: &str, holds: impl Fn() -> bool) {
    until(3 * SOON, || holds().then_some(())).unwrap_or_else(|| {
        let states = gateway.metrics().unwrap();
        let states: Vec<_> =
            states.samples().filter(|(name, ..)| *name == "portcullis_connections").collect();
        panic!("{}: {what}: {states:?}\n{}", gateway.name(), gateway.log_tail())
    });
}

/// The sum of the samples of a metric; nothing counted yet is 0.
fn sum(gateway: &Gateway, metric: &str, labels: &[(&str, &str)]) -> f64 {
    gateway.metrics().unwrap().sum(metric, labels).unwrap_or(0.0)
}

/// The last lines of the log about connections that went into TCP or were stopped.
fn stopped(gateway: &Gateway) -> String {
    const LINES: usize = 20;
    let is_about_it = |line: &String| line.contains("state=\"tcp\"") || line.contains("state=\"blocked\"");
    let output = gateway.process().unwrap().output();
    output.into_iter().rev().filter(is_about_it).take(LINES).collect::<Vec<_>>().join("\n")
}

fn resident_kib(process: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
