//! Scenarios: real gateways, real packets, judged from outside. One module each, its description at its head.
#![cfg(feature = "root-tests")]

mod address;
mod api;
mod api_described;
mod blocked;
mod captured;
mod dissected;
mod flood;
mod guard;
mod keys_hidden;
mod life;
mod load;
mod many_workers;
mod nat;
mod overload;
mod policies;
mod promtool;
mod refusals;
mod refusals_at_start;
mod reload;
mod resources;
mod restarts;
mod route_based;
mod sa_table;
mod sizes;
mod soak;
mod starts;
mod status_items;
mod strongswan;
mod three_sites;
mod units;

use std::net::IpAddr;
use std::time::Duration;

use portcullis_vm_tests::capture::{Capture, Counts};
use portcullis_vm_tests::{
    Artefacts, DaemonConfig, DataPlaneMode, Gateway, Lab, Pair, PairOptions, Ping, Rate, Side, UdpFlow,
    inner_prefixes, until,
};

/// How long a gateway may take for what is due at once, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn artefacts() -> Artefacts {
    Artefacts::from_environment().unwrap()
}

fn up(mode: DataPlaneMode) -> Pair {
    Pair::up(PairOptions { mode, ..PairOptions::USUAL }, &artefacts()).unwrap()
}

fn capture(pair: &Pair) -> Capture {
    Capture::start(&pair.lab.router, inner_prefixes()).unwrap()
}

fn nothing_in_clear(counts: &Counts) {
    assert_eq!(counts.inner_clear, 0, "{:?}", counts.inner_clear_samples);
}

/// Writes a configuration that differs, for the next start or SIGHUP.
fn change(gateway: &Gateway, change: impl FnOnce(&mut DaemonConfig)) {
    let mut config = gateway.configuration().unwrap();
    change(&mut config);
    gateway.configure(config).unwrap();
}

/// Adds a connection with identities and selectors of its own, beside the one that ships: `site` 1 protects
/// 172.16.1.0/24 behind gw-a and 172.17.1.0/24 behind gw-b. gw-a starts it.
fn add_site(config: &mut DaemonConfig, side: Side, name: &str, site: u8) {
    let from = format!("connections/{}", side.connection());
    let secret = config.text(&format!("{from}/local/secret_file")).unwrap().to_owned();
    let id = |side: Side| format!("{}-{name}.example.net", side.gateway_name());
    let to = format!("connections/{name}");
    for (end, who) in [("local", side), ("remote", side.other())] {
        config.set(&format!("{to}/{end}/id"), id(who));
        config.set(&format!("{to}/{end}/auth"), "psk");
        config.set(&format!("{to}/{end}/secret_file"), secret.as_str());
    }
    config.set(&format!("{to}/remote/address"), side.other().wan().0.to_string());
    config.set(&format!("{to}/ike/transport"), "tcp");
    let (a, b) = (format!("[172.16.{site}.0/24]"), format!("[172.17.{site}.0/24]"));
    let (local, remote) = if side == Side::A { (a, b) } else { (b, a) };
    config.set_yaml(&format!("{to}/children/net/local_ts"), &local).unwrap();
    config.set_yaml(&format!("{to}/children/net/remote_ts"), &remote).unwrap();
    config.set(&format!("{to}/children/net/start"), if side == Side::A { "always" } else { "none" });
}

/// A numbered flow of small packets from the host of one side to that of the other.
fn flow(lab: &Lab, from: Side, packets_per_second: u32) -> UdpFlow {
    let end = |side: Side| (lab.host(side), IpAddr::from(side.host().0));
    UdpFlow::start(end(from), end(from.other()), Rate::per_second(packets_per_second)).unwrap()
}

/// Waits until so many more packets of every flow have arrived.
fn wait_more(flows: &[UdpFlow], packets: u64) {
    let before: Vec<_> = flows.iter().map(|flow| flow.progress().received).collect();
    for (flow, before) in flows.iter().zip(before) {
        flow.wait(SOON, |p| p.received >= before + packets).expect("packets keep arriving");
    }
}

/// Ends flows that have to have lost, doubled and reordered nothing.
fn assert_perfect(flows: Vec<UdpFlow>) {
    for flow in flows {
        let report = flow.finish().unwrap();
        assert!(report.is_perfect(), "{report}");
    }
}

/// Requests of both families from both hosts, with little patience; how many were answered, of 40.
fn knock(lab: &Lab) -> u32 {
    let mut answered = 0;
    for side in [Side::A, Side::B] {
        let (v4, v6) = side.other().host();
        for destination in [IpAddr::from(v4), v6.into()] {
            let ping = Ping { timeout: Duration::from_millis(100), ..Ping::to(destination) };
            answered += ping.run(lab.host(side)).unwrap().answered;
        }
    }
    answered
}

/// Waits until a ping from host-a to host-b is answered.
fn wait_answered(lab: &Lab) {
    let ping = Ping { count: 1, timeout: Duration::from_millis(200), ..Ping::to(Side::B.host().0) };
    until(SOON, || (ping.run(&lab.host_a).unwrap().answered == 1).then_some(()))
        .expect("an answer to a ping");
}
