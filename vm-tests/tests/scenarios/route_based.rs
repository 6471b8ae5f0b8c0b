//! Route-based connections: kernel routes into a TUN of the connection's own decide, `guard` says what may never leave in
//! clear, and the device outlives the process.

use portcullis_vm_tests::{DataPlaneMode, Pair, PairOptions, Side};

use crate::{SOON, artefacts, capture, change, knock, nothing_in_clear, wait_answered};

const DEVICE: &str = "ipsec0";

#[test]
fn routes_into_the_tun_carry_traffic_and_survive_a_kill_without_a_leak_on_xdp() {
    routes_into_the_tun_carry_traffic_and_survive_a_kill_without_a_leak(DataPlaneMode::Xdp);
}

#[test]
fn routes_into_the_tun_carry_traffic_and_survive_a_kill_without_a_leak_on_tun() {
    routes_into_the_tun_carry_traffic_and_survive_a_kill_without_a_leak(DataPlaneMode::Tun);
}

fn routes_into_the_tun_carry_traffic_and_survive_a_kill_without_a_leak(mode: DataPlaneMode) {
    let options = PairOptions { mode, b_starts: true, ..PairOptions::USUAL };
    let mut pair = Pair::new(options, &artefacts()).unwrap();
    for side in [Side::A, Side::B] {
        let child = format!("connections/{}/children/net", side.connection());
        let [v4, v6] = side.other().inner();
        change(pair.gateway(side), |config| {
            config.remove(&format!("{child}/local_ts"));
            config.remove(&format!("{child}/remote_ts"));
            config.set(&format!("{child}/interface"), DEVICE);
            config.set_yaml(&format!("{child}/guard"), &format!("[{v4}, \"{v6}\"]")).unwrap();
        });
    }
    let router = capture(&pair);
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    assert_eq!(knock(&pair.lab), 0, "no route leads into the tunnel yet, and the guard holds");
    for side in [Side::A, Side::B] {
        for prefix in side.other().inner() {
            pair.lab.gateway(side).ip(&["route", "replace", prefix, "dev", DEVICE]).unwrap();
        }
    }
    wait_answered(&pair.lab);
    assert_eq!(knock(&pair.lab), 40, "both families, both ways");

    for side in [Side::A, Side::B] {
        pair.gateway_mut(side).kill().unwrap();
        assert!(
            pair.lab.gateway(side).ip(&["link", "show", DEVICE]).is_ok(),
            "the device outlives the process"
        );
        assert_eq!(knock(&pair.lab), 0);
        pair.gateway_mut(side).start().unwrap();
        pair.wait_up(SOON).unwrap();
        // The routes are those from before.
        wait_answered(&pair.lab);
    }
    assert_eq!(knock(&pair.lab), 40);

    // Without its route the packet takes the next best one, out of the WAN.
    pair.lab.gw_a.ip(&["route", "del", "10.2.0.0/16", "dev", DEVICE]).unwrap();
    knock(&pair.lab);
    nothing_in_clear(&router.finish().unwrap());
}
