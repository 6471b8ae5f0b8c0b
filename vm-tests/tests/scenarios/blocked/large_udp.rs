//! Small packets pass and large ones do not, and no router says so (rule 3: an echo as long as the path takes, with DF).

use std::time::Duration;

use portcullis_vm_tests::{Blocked, Nat, Ping, Side, Way, until};

use super::Scene;
use crate::SOON;

#[test]
fn large_udp_dropped_lowers_the_path_mtu_until_large_packets_arrive() {
    let filters = &[(Blocked::UdpAbove(1300), Way::Both)];
    let stage = Scene { nat: Nat::BeforeA, filters, ..Scene::USUAL }.start();
    stage.wait(Side::A, ("direct_udp", "nat", "echo"));
    stage.passes();
    // Too large for the path in one piece: the gateway says so to the sender, or cuts it.
    for side in [Side::A, Side::B] {
        let ping = Ping {
            count: 1,
            payload_bytes: 1372,
            timeout: Duration::from_millis(500),
            ..Ping::to(side.other().host().0)
        };
        until(SOON, || (ping.run(stage.pair.lab.host(side)).unwrap().answered == 1).then_some(()))
            .unwrap_or_else(|| panic!("a large ping from {side:?}\n{}", stage.logs()));
    }
    let (_, counts) = stage.finish();
    assert_eq!((counts.esp_ip, counts.esp_tcp), (0, 0));
}
