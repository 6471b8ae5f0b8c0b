//! What a gateway with very many SAs and policies pays for each: `cargo xtask bench scale`.
//!
//! The SA table and the policy database alone, in memory, on one thread: installing includes wrapping the key, unwrapping and
//! expanding it at the worker. And two data planes that rekey all of their Child SAs while traffic passes.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "../tests/gateway/mod.rs"]
mod gateway;
#[path = "scale/numbered.rs"]
mod numbered;
#[path = "scale/storm.rs"]
mod storm;
#[path = "../tests/tunnel/mod.rs"]
mod tunnel;

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Instant;

use figure::{Better, Figure, Report};
use portcullis_common::Spi;
use portcullis_data_plane::packet::inner::Ports;
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};
use portcullis_data_plane::sa::{ChildId, InboundSa, Lifetime, PathId, SaCommon, SaKey, SaSelectors};
use portcullis_data_plane::sa_table::{Backing, Found, SaTable, TableConfig, WorkerSas, create};
use portcullis_data_plane::spd::{Decision, Flow, Spd};
use portcullis_esp::Algorithm;

const RUNS: usize = 5;
const ALGORITHM: Algorithm = Algorithm::Aes256Gcm16;
const TABLES: [u32; 4] = [1, 1_000, 100_000, 1 << 20];
const POLICIES: u32 = 10_000;
const FLOWS: u32 = 200_000;

fn main() -> ExitCode {
    let mut report = Report::begin();
    for count in TABLES {
        tables(&mut report, count);
    }
    decisions(&mut report);
    if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        storm::measure(&mut report);
    } else {
        eprintln!("scale: rekey storm left out: network namespaces and XDP need root");
    }
    report.finish()
}

/// Installs and removes `count` inbound SAs, and finds them at random.
fn tables(report: &mut Report, count: u32) {
    let (mut installed, mut removed, mut found, mut memory) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (table, mut sas) =
            create::<(), ()>(TableConfig { slots: 1 << 20, workers: 1 }, Backing::Memory).unwrap();
        let mut worker = sas.remove(0);
        let before = resident();
        let start = Instant::now();
        let spis = install(&table, &mut worker, count);
        installed.push(f64::from(count) / start.elapsed().as_secs_f64());
        // Once for each size: the allocator keeps what it had, and would give it again.
        if memory.is_empty() {
            memory.push((resident() - before) / f64::from(count));
        }
        found.push(find(&mut worker, &spis));
        let start = Instant::now();
        for spi in &spis {
            assert!(table.remove_inbound(*spi));
        }
        worker.begin_batch();
        while !worker.park() {
            worker.begin_batch();
        }
        removed.push(f64::from(count) / start.elapsed().as_secs_f64());
    }
    let mut add = |case: &str, unit, better, runs: Vec<f64>, against, limit: f64, goal: Option<f64>| {
        report.add(Figure {
            suite: "scale",
            case: format!("{case}, {count} SAs"),
            unit,
            better,
            runs,
            against,
            against_runs: vec![limit],
            goal,
        });
    };
    // Of one SA, clock and cache are most of it.
    if count > 1 {
        add(
            "install, key expansion included",
            "SAs/s",
            Better::Higher,
            installed,
            "limit",
            500_000.0,
            Some(1.0),
        );
        add("remove", "SAs/s", Better::Higher, removed, "limit", 500_000.0, Some(1.0));
        add("memory of an inbound SA, window 4096", "B", Better::Lower, memory, "limit", 1434.0, Some(1.0));
    }
    add(
        "look-up of a random SPI",
        "ns",
        Better::Lower,
        found,
        "one cache miss of memory, about",
        100.0,
        None,
    );
}

fn install(table: &SaTable<(), ()>, worker: &mut WorkerSas<(), ()>, count: u32) -> Vec<Spi> {
    let common = common();
    (0..count)
        .map(|number| {
            let spi = table.reserve_spi().unwrap();
            let sa = InboundSa { common: common.clone(), spi, replay_window: Some(4096) };
            table.install_inbound(&sa, 0, (), 0).unwrap();
            if number % 256 == 255 || number + 1 == count {
                worker.begin_batch();
            }
            spi
        })
        .collect()
}

fn find(worker: &mut WorkerSas<(), ()>, spis: &[Spi]) -> f64 {
    const LOOK_UPS: u64 = 1 << 20;
    let mut state = 1u64;
    let start = Instant::now();
    for _ in 0..LOOK_UPS {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let spi = spis[(state >> 33) as usize % spis.len()];
        assert!(matches!(black_box(worker.inbound(spi)), Found::Mine(_)));
    }
    start.elapsed().as_nanos() as f64 / LOOK_UPS as f64
}

/// What a flow costs that no worker has seen: the ordered policies, of one site and of very many.
fn decisions(report: &mut Report) {
    let runs = |policies: u32| -> Vec<f64> {
        let set = policy_set(policies);
        let spd = Spd::build(&set, &mut HashMap::new(), 1);
        (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                for number in 0..FLOWS {
                    let site = number.wrapping_mul(0x9e37_79b1) % policies;
                    let flow = Flow {
                        local: IpAddr::from([10, 0, 0, 1]),
                        remote: site_address(site, 7),
                        protocol: 6,
                        ports: Ports::Known(4000, 443),
                    };
                    assert_eq!(black_box(spd.decide(&flow, None)), Decision::Protect(site));
                }
                start.elapsed().as_nanos() as f64 / f64::from(FLOWS)
            })
            .collect()
    };
    report.add(Figure {
        suite: "scale",
        case: format!("decision about a new flow, {POLICIES} policies"),
        unit: "ns",
        better: Better::Lower,
        runs: runs(POLICIES),
        against: "one policy",
        against_runs: runs(1),
        goal: None,
    });
}

fn policy_set(count: u32) -> PolicySet {
    let policy = |site| Policy {
        local: vec![selector(Ipv4Addr::new(10, 0, 0, 0).into(), Ipv4Addr::new(10, 0, 255, 255).into())],
        remote: vec![selector(site_address(site, 0), site_address(site, 255))],
        disposition: Disposition::Protect {
            key: PolicyKey { connection: format!("site-{site}").into(), child: "net".into() },
            acquire: false,
            interface: None,
        },
    };
    PolicySet { policies: (0..count).map(policy).collect(), ..PolicySet::default() }
}

fn site_address(site: u32, host: u8) -> IpAddr {
    Ipv4Addr::from_bits((100 << 24) + site * 256 + u32::from(host)).into()
}

fn selector(first: IpAddr, last: IpAddr) -> Selector {
    Selector { addresses: first..=last, protocol: None, ports: 0..=u16::MAX }
}

fn common() -> SaCommon {
    let any = vec![selector(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into())];
    SaCommon {
        child: ChildId(1),
        path: PathId(1),
        policy: PolicyKey { connection: "bench".into(), child: "net".into() },
        algorithm: ALGORITHM,
        key: SaKey(vec![7; ALGORITHM.keymat_len()].into()),
        resource: 0,
        esn: true,
        selectors: SaSelectors { local: any.clone().into(), remote: any.into() },
        lifetime: Lifetime {
            soft_bytes: u64::MAX,
            hard_bytes: u64::MAX,
            soft_packets: u64::MAX,
            hard_packets: u64::MAX,
            hard_time: std::time::Duration::from_secs(3600),
        },
    }
}

/// Octets of this process that are in memory, shared ones included.
fn resident() -> f64 {
    const PAGE: f64 = 4096.0;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * PAGE
}
