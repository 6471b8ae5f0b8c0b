//! RFC 9611: several Child SAs with the same selectors, one for each worker; flows are spread over them and keep their order.

use std::collections::BTreeSet;

use portcullis_vm_tests::status::ChildStatus;
use portcullis_vm_tests::{CHILD, DataPlaneMode, Gateway, Lab, Nat, Pair, PairOptions, Side};

use crate::{SOON, artefacts, assert_perfect, change, flow, wait_more};

const WORKERS: u32 = 2;
/// gw-b takes fewer than gw-a asks for.
const ASKED: u32 = 4;
/// Flows in either direction: that all are on one SA has a chance of 1 in 2 to the 15th.
const FLOWS: usize = 16;

#[test]
fn flows_have_a_child_sa_for_each_resource_through_rekeys() {
    for mode in [DataPlaneMode::Xdp, DataPlaneMode::Tun] {
        let lab = Lab::with_queues(Nat::None, WORKERS).unwrap();
        let options = PairOptions { mode, ..PairOptions::USUAL };
        let mut pair = Pair::in_lab(lab, options, &artefacts()).unwrap();
        for (side, resources) in [(Side::A, ASKED), (Side::B, WORKERS)] {
            change(pair.gateway(side), |config| {
                config.set("data_plane/workers", WORKERS);
                let child = format!("connections/{}/children/{CHILD}", side.connection());
                config.set(&format!("{child}/per_resource"), resources);
            });
        }
        pair.b.start().unwrap();
        pair.a.start().unwrap();
        pair.wait_up(SOON).unwrap();
        for side in [Side::A, Side::B] {
            let both = |connection: &portcullis_vm_tests::status::ConnectionStatus| {
                connection.is_up() && connection.ike_sas.iter().all(|sa| sa.children.len() == 2)
            };
            pair.gateway(side).wait_connection(side.connection(), SOON, both).unwrap();
        }

        let flows: Vec<_> =
            (0..FLOWS).flat_map(|_| [Side::A, Side::B].map(|side| flow(&pair.lab, side, 200))).collect();
        wait_more(&flows, 50);
        for side in [Side::A, Side::B] {
            let children = children(pair.gateway(side), side);
            let names: BTreeSet<_> = children.iter().map(|child| child.name.as_str()).collect();
            assert_eq!(names, BTreeSet::from([CHILD, "net#1"]), "{mode:?} {side:?}");
            let is_used = |child: &ChildStatus| child.in_use && child.packets_in > 0 && child.packets_out > 0;
            assert!(children.iter().all(is_used), "{mode:?} {side:?}: {children:?}");
        }
        for side in [Side::A, Side::B] {
            wait_more(&flows, 100);
            pair.gateway(side).verb(&["rekey", side.connection(), "--child", CHILD]).unwrap();
        }
        wait_more(&flows, 100);
        assert_perfect(flows);
        assert_eq!(children(&pair.a, Side::A).len(), 2, "{mode:?}: each was rekeyed, and no more came");
    }
}

fn children(gateway: &Gateway, side: Side) -> Vec<ChildStatus> {
    let status = gateway.status().unwrap();
    let connection = status.connections.into_iter().find(|c| c.name == side.connection()).unwrap();
    connection.ike_sas.into_iter().flat_map(|sa| sa.children).collect()
}
