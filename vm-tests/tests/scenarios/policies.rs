//! BYPASS and DISCARD beside PROTECT, and what does not belong on the side it comes from (RFC 4301 sections 4.4.1 and
//! 5).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use portcullis_vm_tests::{DataPlaneMode, Namespace, Pair, PairOptions, Side, until};

use crate::{SOON, artefacts, capture, change, nothing_in_clear, wait_answered};

/// To this port of host-b host-a may talk in clear.
const BYPASSED: u16 = 7001;
/// To this one it may not talk at all.
const DISCARDED: u16 = 7002;
/// Packets of one kind.
const PACKETS: u64 = 20;
/// A host that the shipped policies cover and the SAs of these scenarios do not.
const OUTSIDE_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 77);

#[test]
fn bypass_and_discard_apply_before_protect_on_xdp() {
    bypass_and_discard_apply_before_protect(DataPlaneMode::Xdp);
}

#[test]
fn bypass_and_discard_apply_before_protect_on_tun() {
    bypass_and_discard_apply_before_protect(DataPlaneMode::Tun);
}

fn bypass_and_discard_apply_before_protect(mode: DataPlaneMode) {
    let pair = with_policies(mode);
    wait_answered(&pair.lab);
    let a = sender(&pair.lab.host_a, Side::A.host().0);
    let b = receiver(&pair.lab.host_b, Side::B.host().0, BYPASSED);
    let forbidden = receiver(&pair.lab.host_b, Side::B.host().0, DISCARDED);
    let router = capture(&pair);

    // In clear, both ways.
    exchange(&a, &b);
    let counts =
        router.wait(SOON, |c| c.inner_clear >= 2 * PACKETS).expect("bypassed packets cross in clear");
    assert!(counts.inner_clear <= 2 * PACKETS + 2, "{:?}", counts.inner_clear_samples);
    let esp = counts.esp_direct();

    let before = drops(&pair, Side::A, "policy_discard");
    send(&a, (Side::B.host().0, DISCARDED));
    until(SOON, || (drops(&pair, Side::A, "policy_discard") == before + PACKETS).then_some(()))
        .expect("each is dropped for its reason");
    forbidden.set_nonblocking(true).unwrap();
    assert!(forbidden.recv(&mut [0; 64]).is_err());

    // Everything else is protected.
    let c = receiver(&pair.lab.host_b, Side::B.host().0, BYPASSED + 10);
    exchange(&a, &c);
    let counts = router.finish().unwrap();
    assert!(counts.esp_direct() >= esp + 2 * PACKETS, "{counts:?}");
    assert!(counts.inner_clear <= 2 * PACKETS + 2, "{:?}", counts.inner_clear_samples);
}

/// A BYPASS is no way in: neither for what claims to be inside and comes from outside, nor for what claims to be
/// outside and comes from inside.
#[test]
fn packets_that_match_a_bypass_from_the_wrong_side_are_dropped_on_xdp() {
    packets_that_match_a_bypass_from_the_wrong_side_are_dropped(DataPlaneMode::Xdp);
}

#[test]
fn packets_that_match_a_bypass_from_the_wrong_side_are_dropped_on_tun() {
    packets_that_match_a_bypass_from_the_wrong_side_are_dropped(DataPlaneMode::Tun);
}

fn packets_that_match_a_bypass_from_the_wrong_side_are_dropped(mode: DataPlaneMode) {
    let pair = with_policies(mode);
    wait_answered(&pair.lab);
    let (a, b) = (Side::A.host().0, Side::B.host().0);

    // From inside, as if it were host-b that answers a host behind gw-a: no policy has that local side.
    pair.lab.host_a.ip(&["address", "add", &format!("{b}/32"), "dev", "lo"]).unwrap();
    let forger = pair.lab.host_a.enter(|| UdpSocket::bind((b, BYPASSED)).unwrap());
    let router = capture(&pair);
    let before = no_policy(&pair);
    send(&forger, (Ipv4Addr::new(10, 1, 7, 7), 9999));
    until(SOON, || (no_policy(&pair) >= before + PACKETS).then_some(()))
        .expect("dropped for want of a policy");
    nothing_in_clear(&router.finish().unwrap());
    drop(forger);
    pair.lab.host_a.ip(&["address", "del", &format!("{b}/32"), "dev", "lo"]).unwrap();

    // From outside, as if it were host-a: to the bypassed port it is what the bypass says, to any other it is not.
    pair.lab.router.ip(&["address", "add", &format!("{a}/32"), "dev", "lo"]).unwrap();
    let forger = sender(&pair.lab.router, a);
    let honest = sender(&pair.lab.host_a, a);
    let target = receiver(&pair.lab.host_b, b, BYPASSED + 10);
    send(&forger, (b, BYPASSED + 10));
    honest.send_to(b"honest", (b, BYPASSED + 10)).unwrap();
    let mut buffer = [0; 64];
    let length = target.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"honest", "what came in clear before was dropped");
}

#[test]
fn inner_packets_outside_the_negotiated_selectors_are_dropped_on_xdp() {
    inner_packets_outside_the_negotiated_selectors_are_dropped(DataPlaneMode::Xdp);
}

#[test]
fn inner_packets_outside_the_negotiated_selectors_are_dropped_on_tun() {
    inner_packets_outside_the_negotiated_selectors_are_dropped(DataPlaneMode::Tun);
}

/// gw-b narrows what gw-a proposes (RFC 7296 section 2.9): what gw-a's policy covers beyond that has an SA that may not
/// carry it, and leaves neither in it nor in clear. The same for what gw-b's own host sends.
fn inner_packets_outside_the_negotiated_selectors_are_dropped(mode: DataPlaneMode) {
    let mut pair = Pair::new(PairOptions { mode, ..PairOptions::USUAL }, &artefacts()).unwrap();
    let narrow = format!("[{}/32]", Side::B.host().0);
    change(&pair.b, |config| {
        config.set_yaml("connections/site-a/children/net/local_ts", &narrow).unwrap();
        config.set_yaml("connections/site-a/children/net/remote_ts", "[10.1.0.0/16]").unwrap();
    });
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    wait_answered(&pair.lab);
    let router = capture(&pair);

    let a = sender(&pair.lab.host_a, Side::A.host().0);
    send(&a, (OUTSIDE_B, 9999));
    until(SOON, || (drops(&pair, Side::A, "outside_selectors") == PACKETS).then_some(()))
        .expect("each is dropped for its reason");

    // The other direction: gw-b's policy does not cover this source at all.
    pair.lab.host_b.ip(&["address", "add", &format!("{OUTSIDE_B}/32"), "dev", "lo"]).unwrap();
    let b = sender(&pair.lab.host_b, OUTSIDE_B);
    let before = drops(&pair, Side::B, "no_policy");
    send(&b, (Side::A.host().0, 9999));
    until(SOON, || (drops(&pair, Side::B, "no_policy") >= before + PACKETS).then_some(()))
        .expect("each is dropped for its reason");
    nothing_in_clear(&router.finish().unwrap());
}

/// gw-a and gw-b agree on a bypass and a discard before the shipped PROTECT.
fn with_policies(mode: DataPlaneMode) -> Pair {
    let mut pair = Pair::new(PairOptions { mode, ..PairOptions::USUAL }, &artefacts()).unwrap();
    for side in [Side::A, Side::B] {
        // The port is host-b's.
        let ports = if side == Side::A { "remote_ports" } else { "local_ports" };
        let policy = |action: &str, port: u16| {
            let (local, remote) = (side.inner()[0], side.other().inner()[0]);
            format!(
                "{{action: {action}, local: [{local}], remote: [{remote}], protocol: udp, {ports}: {port}}}"
            )
        };
        let policies = format!("[{}, {}]", policy("bypass", BYPASSED), policy("discard", DISCARDED));
        change(pair.gateway(side), |config| config.set_yaml("policies", &policies).unwrap());
    }
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    pair
}

fn sender(host: &Namespace, address: Ipv4Addr) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind((address, 0)).unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn receiver(host: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind((address, port)).unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// A guard's refusal is an answer too.
fn send(from: &UdpSocket, to: impl Into<SocketAddr>) {
    let to = to.into();
    for _ in 0..PACKETS {
        let _ = from.send_to(b"packet", to);
    }
}

/// Packets one by one, each answered before the next.
fn exchange(a: &UdpSocket, b: &UdpSocket) {
    let mut buffer = [0; 64];
    for _ in 0..PACKETS {
        a.send_to(b"there", b.local_addr().unwrap()).unwrap();
        let (_, from) = b.recv_from(&mut buffer).expect("it arrives");
        b.send_to(b"back", from).unwrap();
        a.recv_from(&mut buffer).expect("its answer arrives");
    }
}

fn drops(pair: &Pair, side: Side, reason: &str) -> u64 {
    pair.gateway(side).status().unwrap().data_plane.drops.get(reason).copied().unwrap_or_default()
}

/// Dropped by gw-a for want of a policy, by a worker or by XDP before it.
fn no_policy(pair: &Pair) -> u64 {
    let status = pair.a.status().unwrap().data_plane;
    let by_xdp = status.xdp.values().filter_map(|verdicts| verdicts.get("no_policy")).sum::<u64>();
    status.drops.get("no_policy").copied().unwrap_or_default() + by_xdp
}
