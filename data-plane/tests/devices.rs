//! Devices that go and come back under a running data plane: traffic stops, and passes again without a restart.

mod gateway;
mod tunnel;

use std::sync::Arc;

use portcullis_data_plane::event::DataPlaneEvent;

use gateway::{PATIENCE, bind, wait_until};
use tunnel::{HOST_A, HOST_B, Side, TUN, Tunnel, XDP};

#[test]
fn a_tun_that_is_removed_or_switched_off_is_back_and_traffic_passes() {
    for shape in [XDP, TUN] {
        let mut tunnel = Tunnel::new(shape);
        tunnel.exchange_all(5);
        for change in [&["link", "del", "pc0"][..], &["link", "set", "pc0", "down"]] {
            tunnel.a.gateway.ip(change);
            let restored = tunnel.a.event(|event| match event {
                DataPlaneEvent::TunRestored { name } => Some(name.clone()),
                _ => None,
            });
            assert_eq!(&*restored, "pc0");
            tunnel.exchange_all(5);
            // By the routes into the TUN alone.
            let receiver = tunnel.b.host.run(|| bind(HOST_B));
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            let sender = tunnel.a.gateway.run(|| bind("10.1.0.1"));
            sender.send_to(b"own", receiver.local_addr().unwrap()).unwrap();
            assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 3);
        }
        tunnel.assert_balanced();
    }
}

/// As network managers do with what they do not know.
#[test]
fn routes_and_rules_that_are_removed_are_put_back() {
    for shape in [XDP, TUN] {
        let mut tunnel = Tunnel::new(shape);
        let rules = |side: &Side| side.gateway.ip(&["rule"]) + &side.gateway.ip(&["-6", "rule"]);
        let complete = rules(&tunnel.a);
        let table = complete.lines().find(|line| line.starts_with("1872:")).unwrap();
        let table = table.split_whitespace().skip_while(|w| *w != "lookup").nth(1).unwrap().to_owned();
        let removals = [
            &["rule", "del", "pref", "1870"][..],
            &["rule", "del", "pref", "1871"],
            &["-6", "rule", "del", "pref", "1872"],
            &["route", "flush", "table", &table],
        ];
        for removal in removals {
            tunnel.a.gateway.ip(removal);
            let missing = tunnel.a.event(|event| match event {
                DataPlaneEvent::RoutingRestored { missing } => Some(*missing),
                _ => None,
            });
            assert!(missing >= 1, "{removal:?}");
        }
        assert_eq!(rules(&tunnel.a), complete);
        let receiver = tunnel.b.host.run(|| bind(HOST_B));
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = tunnel.a.gateway.run(|| bind("10.1.0.1"));
        sender.send_to(b"own", receiver.local_addr().unwrap()).unwrap();
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 3, "by the routes into the TUN alone");
    }
}

#[test]
fn interfaces_that_go_down_and_up_carry_traffic_again() {
    for shape in [XDP, TUN] {
        let tunnel = Tunnel::new(shape);
        tunnel.exchange(HOST_A, HOST_B, 5);
        for interface in ["lan0", "wan0"] {
            tunnel.a.gateway.ip(&["link", "set", interface, "down"]);
            tunnel.a.gateway.ip(&["link", "set", interface, "up"]);
            for side in [&tunnel.a, &tunnel.b] {
                wait_until("the carrier is back", || {
                    side.gateway.ip(&["-o", "link", "show", "dev", interface]).contains("state UP")
                });
            }
            for (from, to) in [(HOST_A, HOST_B), (HOST_B, HOST_A)] {
                tunnel.wait_until_passes(from, to);
                tunnel.exchange(from, to, 5);
            }
        }
        assert!(tunnel.a.plane.is_running());
    }
}

#[test]
fn an_interface_that_is_removed_and_comes_back_is_used_again_on_the_tun_path() {
    let mut tunnel = Tunnel::new(TUN);
    tunnel.exchange_all(5);
    replace_wan(&mut tunnel);
    for side in [&mut tunnel.a, &mut tunnel.b] {
        assert_eq!(returned(side), ("wan0".into(), true));
        assert!(side.plane.is_running());
    }
    tunnel.exchange_all(5);
    let report = tunnel.a.plane.report();
    let wan = report.interfaces.iter().find(|i| &*i.name == "wan0").unwrap();
    assert!(wan.xdp.iter().any(|(_, packets, _)| *packets > 0), "XDP classifies again: {wan:?}");
    tunnel.assert_balanced();
}

/// AF_XDP sockets are bound to the device, not to the name: whoever watches the process starts it anew.
#[test]
fn an_interface_of_af_xdp_that_is_replaced_is_said_and_asks_for_a_restart() {
    let mut tunnel = Tunnel::new(XDP);
    tunnel.exchange(HOST_A, HOST_B, 1);
    replace_wan(&mut tunnel);
    assert_eq!(returned(&mut tunnel.a), ("wan0".into(), false));
    assert!(!tunnel.a.plane.is_running());
}

fn replace_wan(tunnel: &mut Tunnel) {
    tunnel.a.gateway.ip(&["link", "del", "wan0"]);
    for side in [&mut tunnel.a, &mut tunnel.b] {
        let lost = side.event(|event| match event {
            DataPlaneEvent::InterfaceLost { name } => Some(name.clone()),
            _ => None,
        });
        assert_eq!(&*lost, "wan0");
    }
    tunnel.connect_wan();
}

fn returned(side: &mut Side) -> (Arc<str>, bool) {
    side.event(|event| match event {
        DataPlaneEvent::InterfaceReturned { name, is_used } => Some((name.clone(), *is_used)),
        _ => None,
    })
}
