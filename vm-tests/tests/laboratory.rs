//! The laboratory itself: before it judges gateways, it must see clear text, count exactly and clean up.
#![cfg(feature = "root-tests")]

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use portcullis_vm_tests::capture::Capture;
use portcullis_vm_tests::{
    Exit, Instance, Lab, Nat, Ping, Process, Rate, Side, UdpFlow, inner_prefixes, tcp_throughput,
};

#[test]
fn without_gateways_inner_packets_cross_the_router_and_every_one_is_seen() {
    let lab = Lab::new(Nat::None).unwrap();
    let capture = Capture::start(&lab.router, inner_prefixes()).unwrap();

    let v4 = Ping::to(Side::B.host().0).run(&lab.host_a).unwrap();
    let v6 = Ping::to(Side::B.host().1).run(&lab.host_a).unwrap();

    assert_eq!((v4.answered, v6.answered), (10, 10));
    let counts = capture.finish().unwrap();
    assert_eq!(counts.inner_clear, 40, "{counts:?}");
    assert_eq!(counts.esp_direct() + counts.esp_tcp, 0);
}

#[test]
fn a_numbered_flow_and_the_capture_agree_packet_for_packet() {
    let lab = Lab::new(Nat::None).unwrap();
    let capture = Capture::start(&lab.router, inner_prefixes()).unwrap();
    let (a, b) = (IpAddr::from(Side::A.host().0), IpAddr::from(Side::B.host().0));

    let there = UdpFlow::start((&lab.host_a, a), (&lab.host_b, b), Rate::per_second(20_000)).unwrap();
    let back = UdpFlow::start((&lab.host_b, b), (&lab.host_a, a), Rate::per_second(20_000)).unwrap();
    for flow in [&there, &back] {
        flow.wait(Duration::from_secs(20), |p| p.received > 20_000).expect("20 000 packets within 20 s");
    }
    let (there, back) = (there.finish().unwrap(), back.finish().unwrap());

    assert!(there.is_perfect() && back.is_perfect(), "{there}, {back}");
    let counts = capture.finish().unwrap();
    let markers = counts.inner_clear - there.sent - back.sent;
    assert!((2..=200).contains(&markers), "{markers} packets are neither data nor end markers");
}

#[test]
fn a_flow_reports_loss_where_the_router_drops() {
    let lab = Lab::new(Nat::None).unwrap();
    // One datagram in ten, the end markers among them.
    lab.router
        .nft(
            "add table ip t; add chain ip t f { type filter hook forward priority 0; }; \
             add rule ip t f ip protocol udp numgen inc mod 10 0 drop",
        )
        .unwrap();
    let (a, b) = (IpAddr::from(Side::A.host().0), IpAddr::from(Side::B.host().0));
    let flow = UdpFlow::start((&lab.host_a, a), (&lab.host_b, b), Rate::per_second(5000)).unwrap();
    flow.wait(Duration::from_secs(20), |p| p.sent >= 2000).expect("2000 packets within 20 s");
    let report = flow.finish().unwrap();
    assert_eq!(report.lost, report.sent.div_ceil(10), "{report}");
    assert_eq!((report.duplicated, report.reordered), (0, 0));
}

#[test]
fn tcp_arrives_unchanged_through_the_translator() {
    let lab = Lab::new(Nat::BeforeA).unwrap();
    let (a, b) = (Side::A.wan().0.into(), Side::B.wan().0.into());
    let report = tcp_throughput((&lab.gw_a, a), (&lab.gw_b, b), Duration::from_millis(300)).unwrap();
    assert!(report.bytes > 0);
    assert!(
        tcp_throughput((&lab.gw_a, a), (&lab.gw_b, "198.51.100.77".parse().unwrap()), Duration::ZERO)
            .is_err()
    );
}

#[test]
fn an_interrupted_laboratory_removes_everything_and_a_killed_one_is_swept() {
    use nix::sys::signal::Signal;
    for (signal, swept) in [(Signal::SIGINT, false), (Signal::SIGTERM, false), (Signal::SIGKILL, true)] {
        let own = Lab::new(Nat::None).unwrap();
        let other = Process::start(&own.router, &mut Command::new(env!("CARGO_BIN_EXE_lab"))).unwrap();
        let line =
            other.wait_for_line(Duration::from_secs(20), |l| l.ends_with("until interrupted")).unwrap();
        let name = line.split_whitespace().next().unwrap().to_owned();
        assert!(Instance::remains(&name).len() >= 6, "{:?}", Instance::remains(&name));
        other.signal(signal).unwrap();
        let exit = other.wait(Duration::from_secs(20)).unwrap();
        if swept {
            assert!(!Instance::remains(&name).is_empty());
            Instance::sweep();
        } else {
            assert_eq!(exit, Exit::Status(128 + signal as i32));
        }
        assert_eq!(Instance::remains(&name), Vec::<String>::new(), "after {signal}");
        assert!(!Instance::remains(own.instance.name()).is_empty(), "one laboratory removed another");
    }
}

#[test]
fn nothing_remains_of_a_dropped_laboratory_or_of_a_kept_one_once_removed() {
    let lab = Lab::new(Nat::None).unwrap();
    let name = lab.instance.name().to_owned();
    let process = Process::start(&lab.host_a, Command::new("sleep").arg("1000")).unwrap();
    let pid = process.id();
    assert!(!Instance::remains(&name).is_empty());
    drop(process);
    drop(lab);
    assert_eq!(Instance::remains(&name), Vec::<String>::new());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());

    let lab = Lab::new(Nat::None).unwrap();
    let process = Process::start(&lab.host_a, Command::new("sleep").arg("1000")).unwrap();
    let pid = process.id();
    process.keep();
    let name = lab.keep().unwrap();
    Instance::sweep();
    assert!(Instance::remains(&name).len() >= 6, "{:?}", Instance::remains(&name));
    Instance::remove(&name).unwrap();
    assert_eq!(Instance::remains(&name), Vec::<String>::new());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "process {pid} lives: {state}");
}
