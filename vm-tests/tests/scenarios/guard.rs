//! The guard: whatever happens to the daemon, its devices or its routes, no inner packet crosses the router in
//! clear (transport policy, "Shut means shut"). The router routes inner networks plainly, so a leak would arrive.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use portcullis_vm_tests::{CHILD, DataPlaneMode, Pair, PairOptions, Rate, Side, UdpFlow};

use crate::{artefacts, capture, knock, nothing_in_clear, up, wait_answered};

#[test]
fn killed_daemon_leaks_nothing_on_xdp() {
    killed_daemon_leaks_nothing(DataPlaneMode::Xdp);
}

#[test]
fn killed_daemon_leaks_nothing_on_tun() {
    killed_daemon_leaks_nothing(DataPlaneMode::Tun);
}

fn killed_daemon_leaks_nothing(mode: DataPlaneMode) {
    let mut pair = up(mode);
    let capture = capture(&pair);
    pair.a.kill().unwrap();
    pair.b.kill().unwrap();
    assert_eq!(knock(&pair.lab), 0);
    nothing_in_clear(&capture.finish().unwrap());

    let control = crate::capture(&pair);
    pair.a.release().unwrap();
    pair.b.release().unwrap();
    // Detaching the programs takes the links down for a moment.
    wait_answered(&pair.lab);
    assert_eq!(knock(&pair.lab), 40, "with the guard off the plain routes work");
    assert!(control.finish().unwrap().inner_clear >= 80, "the capture sees clear text when there is any");
}

#[test]
fn stopped_daemon_leaks_nothing_and_resumes_on_xdp() {
    stopped_daemon_leaks_nothing_and_resumes(DataPlaneMode::Xdp);
}

#[test]
fn stopped_daemon_leaks_nothing_and_resumes_on_tun() {
    stopped_daemon_leaks_nothing_and_resumes(DataPlaneMode::Tun);
}

fn stopped_daemon_leaks_nothing_and_resumes(mode: DataPlaneMode) {
    let pair = up(mode);
    let capture = capture(&pair);
    pair.a.process().unwrap().freeze().unwrap();
    assert_eq!(knock(&pair.lab), 0);
    pair.a.signal(Signal::SIGCONT).unwrap();
    wait_answered(&pair.lab);
    nothing_in_clear(&capture.finish().unwrap());
}

#[test]
fn removal_of_the_tun_leaks_nothing_on_xdp() {
    removal_of_the_tun_leaks_nothing(DataPlaneMode::Xdp);
}

#[test]
fn removal_of_the_tun_leaks_nothing_on_tun() {
    removal_of_the_tun_leaks_nothing(DataPlaneMode::Tun);
}

fn removal_of_the_tun_leaks_nothing(mode: DataPlaneMode) {
    let pair = up(mode);
    let capture = capture(&pair);
    let devices = pair.lab.gw_a.ip(&["-o", "link", "show", "type", "tun"]).unwrap();
    let names: Vec<_> = devices.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert!(!names.is_empty(), "the gateway has a TUN");
    for name in names {
        pair.lab.gw_a.ip(&["link", "del", name]).unwrap();
    }
    knock(&pair.lab);
    portcullis_vm_tests::until(crate::SOON, || {
        let restores = pair.a.metrics().unwrap().sum("portcullis_tun_restores_total", &[]);
        (restores == Some(1.0)).then_some(())
    })
    .expect("the TUN is made again, and that is counted");
    // From the gateway itself there is no way but the TUN.
    let target = pair.lab.host_b.enter(|| UdpSocket::bind((Side::B.host().0, 0))).unwrap();
    target.set_read_timeout(Some(crate::SOON)).unwrap();
    let own = pair.lab.gw_a.enter(|| UdpSocket::bind((Side::A.lan().0, 0))).unwrap();
    own.send_to(b"own", target.local_addr().unwrap()).unwrap();
    assert_eq!(target.recv(&mut [0; 8]).unwrap(), 3);
    assert_eq!(knock(&pair.lab), 40, "traffic passes without a restart");
    nothing_in_clear(&capture.finish().unwrap());
}

#[test]
fn opened_packets_do_not_leave_by_the_wan_on_xdp() {
    opened_packets_do_not_leave_by_the_wan(DataPlaneMode::Xdp);
}

#[test]
fn opened_packets_do_not_leave_by_the_wan_on_tun() {
    opened_packets_do_not_leave_by_the_wan(DataPlaneMode::Tun);
}

/// gw-a loses the way to its protected hosts under traffic from host-b, and a default route over the WAN is left. RFC 4301
/// section 5.1: what was opened does not cross the boundary again. The capture sees clear text when there is any:
/// `killed_daemon_leaks_nothing` is the control.
fn opened_packets_do_not_leave_by_the_wan(mode: DataPlaneMode) {
    let pair = up(mode);
    wait_answered(&pair.lab);
    let capture = capture(&pair);
    let end = |side: Side| (pair.lab.host(side), IpAddr::from(side.host().0));
    let flow = UdpFlow::start(end(Side::B), end(Side::A), Rate::per_second(2000)).unwrap();
    flow.wait(crate::SOON, |p| p.received > 100).expect("traffic flows");
    let (v4, v6) = Side::A.router();
    pair.lab.gw_a.add_route("default", v4.into()).unwrap();
    pair.lab.gw_a.add_route("::/0", v6.into()).unwrap();
    for _ in 0..10 {
        pair.lab.gw_a.ip(&["link", "set", "lan0", "down"]).unwrap();
        let sent = flow.progress().sent;
        flow.wait(crate::SOON, |p| p.sent > sent + 200).expect("the sender goes on");
        pair.lab.gw_a.ip(&["link", "set", "lan0", "up"]).unwrap();
        let received = flow.progress().received;
        flow.wait(crate::SOON, |p| p.received > received + 100).expect("traffic flows again");
    }
    flow.finish().unwrap();
    nothing_in_clear(&capture.finish().unwrap());
}

#[test]
fn more_specific_route_leaks_nothing_on_xdp() {
    more_specific_route_leaks_nothing(DataPlaneMode::Xdp);
}

#[test]
fn more_specific_route_leaks_nothing_on_tun() {
    more_specific_route_leaks_nothing(DataPlaneMode::Tun);
}

fn more_specific_route_leaks_nothing(mode: DataPlaneMode) {
    let pair = up(mode);
    let capture = capture(&pair);
    let (v4, v6) = Side::A.router();
    pair.lab.gw_a.add_route("10.2.0.2/32", v4.into()).unwrap();
    pair.lab.gw_a.add_route("2001:db8:b2::2/128", v6.into()).unwrap();
    knock(&pair.lab);
    nothing_in_clear(&capture.finish().unwrap());
}

#[test]
fn down_and_the_peers_delete_leak_nothing_and_up_brings_the_tunnel_back() {
    let pair = up(DataPlaneMode::Xdp);
    let capture = capture(&pair);
    for side in [Side::A, Side::B] {
        pair.gateway(side).verb(&["down", side.connection()]).unwrap();
        for other in [Side::A, Side::B] {
            pair.gateway(other)
                .wait_connection(other.connection(), crate::SOON, |c| c.ike_sas.is_empty())
                .unwrap();
        }
        assert_eq!(knock(&pair.lab), 0);
        pair.a.verb(&["up", Side::A.connection(), "--child", CHILD]).unwrap();
        wait_answered(&pair.lab);
    }
    nothing_in_clear(&capture.finish().unwrap());
}

#[test]
fn restored_before_the_daemon_starts_the_guard_holds() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    // Once, so that there is something to restore; then as after a reboot: the kernel knows nothing.
    for side in [Side::A, Side::B] {
        pair.gateway_mut(side).start().unwrap();
        pair.gateway_mut(side).stop().unwrap();
        forget_kernel_state(&pair, side);
    }
    let control = capture(&pair);
    wait_answered(&pair.lab);
    assert_eq!(knock(&pair.lab), 40, "nothing guards, as after a reboot without the guard's service");
    assert!(control.finish().unwrap().inner_clear >= 80);

    let capture = capture(&pair);
    for side in [Side::A, Side::B] {
        pair.gateway(side).guard_restore().unwrap();
    }
    assert_eq!(knock(&pair.lab), 0);
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(crate::SOON).unwrap();
    wait_answered(&pair.lab);
    nothing_in_clear(&capture.finish().unwrap());
}

#[test]
fn clear_text_from_outside_is_not_let_in_on_xdp() {
    clear_text_from_outside_is_not_let_in(DataPlaneMode::Xdp);
}

#[test]
fn clear_text_from_outside_is_not_let_in_on_tun() {
    clear_text_from_outside_is_not_let_in(DataPlaneMode::Tun);
}

/// The router sends as if it were host-a, in clear. RFC 4301 section 5.2: discarded.
fn clear_text_from_outside_is_not_let_in(mode: DataPlaneMode) {
    let mut pair = up(mode);
    let (a, b) = (IpAddr::from(Side::A.host().0), IpAddr::from(Side::B.host().0));
    pair.lab.router.ip(&["address", "add", "10.1.0.2/32", "dev", "lo"]).unwrap();
    let forger = pair.lab.router.enter(|| UdpSocket::bind((a, 0))).unwrap();
    let honest = pair.lab.host_a.enter(|| UdpSocket::bind((a, 0))).unwrap();
    let target = pair.lab.host_b.enter(|| UdpSocket::bind((b, 0))).unwrap();
    target.set_read_timeout(Some(crate::SOON)).unwrap();
    let to = target.local_addr().unwrap();
    let mut buffer = [0; 64];

    for _ in 0..50 {
        forger.send_to(b"forged", to).unwrap();
    }
    honest.send_to(b"honest", to).unwrap();
    let length = target.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"honest", "what came in clear before was dropped");

    pair.a.stop().unwrap();
    pair.b.stop().unwrap();
    pair.b.release().unwrap();
    target.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    forger.send_to(b"forged", to).unwrap();
    let length = target.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"forged", "with the guard off the forgery arrives");
}

fn forget_kernel_state(pair: &Pair, side: Side) {
    let namespace = pair.lab.gateway(side);
    namespace.ip(&["xfrm", "policy", "flush"]).unwrap();
    for family in ["-4", "-6"] {
        namespace.ip(&[family, "rule", "flush", "protocol", "80"]).unwrap();
    }
    let pins = std::path::Path::new("/sys/fs/bpf/portcullis").join(pair.gateway(side).name());
    if pins.exists() {
        std::fs::remove_dir_all(pins).unwrap();
    }
    for interface in ["wan0", "lan0"] {
        portcullis_vm_tests::until(crate::SOON, || {
            let shown = namespace.ip(&["-o", "link", "show", interface]).unwrap();
            (!shown.contains("xdp")).then_some(())
        })
        .expect("the programs go with their pins");
    }
}
