//! MTU needs no thought: large packets pass or their sender is told (RFC 4301 section 8), never a black hole.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_vm_tests::{DataPlaneMode, Ping, Rate, Side, UdpFlow, until};

use crate::{SOON, up, wait_answered};

#[test]
fn sender_of_a_packet_too_big_for_the_tunnel_is_told_on_xdp() {
    sender_of_a_packet_too_big_for_the_tunnel_is_told(DataPlaneMode::Xdp);
}

#[test]
fn sender_of_a_packet_too_big_for_the_tunnel_is_told_on_tun() {
    sender_of_a_packet_too_big_for_the_tunnel_is_told(DataPlaneMode::Tun);
}

fn sender_of_a_packet_too_big_for_the_tunnel_is_told(mode: DataPlaneMode) {
    let pair = up(mode);
    wait_answered(&pair.lab);
    let (v4, v6) = Side::B.host();
    // 1500 octets of IP: the interface takes them, the tunnel cannot.
    for (destination, payload_bytes) in [(IpAddr::from(v4), 1472), (v6.into(), 1452)] {
        let ping =
            Ping { count: 1, payload_bytes, timeout: Duration::from_millis(300), ..Ping::to(destination) };
        until(SOON, || (ping.run(&pair.lab.host_a).unwrap().answered == 1).then_some(()))
            .unwrap_or_else(|| panic!("{destination}: no answer once the sender could know the path MTU"));
        let route = pair.lab.host_a.ip(&["route", "get", &destination.to_string()]).unwrap();
        let mtu = route.split("mtu ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        assert!(
            mtu.is_some_and(|mtu: u32| (1280..1500).contains(&mtu)),
            "the sender learned no MTU: {route}"
        );
    }
}

#[test]
fn inner_fragments_pass_on_xdp() {
    inner_fragments_pass(DataPlaneMode::Xdp);
}

#[test]
fn inner_fragments_pass_on_tun() {
    inner_fragments_pass(DataPlaneMode::Tun);
}

fn inner_fragments_pass(mode: DataPlaneMode) {
    let pair = up(mode);
    wait_answered(&pair.lab);
    let rate = Rate { packets_per_second: 300, payload_bytes: 4000 };
    // Below the tunnel's MTU, so that the sender's fragments are what the tunnel carries.
    pair.lab.host_a.ip(&["link", "set", "eth0", "mtu", "1300"]).unwrap();
    let end = |side: Side| (pair.lab.host(side), IpAddr::from(side.host().0));
    let flow = UdpFlow::start(end(Side::A), end(Side::B), rate).unwrap();
    flow.wait(SOON, |p| p.received >= 200).expect("200 datagrams of several fragments");
    let report = flow.finish().unwrap();
    assert!(report.is_perfect(), "{report}");
}
