//! A full SA table: what finds no room says so, where, and what to do; what has its place goes on; room that is made is
//! used.

use portcullis_vm_tests::{Pair, PairOptions, Side};

use crate::{SOON, add_site, artefacts, assert_perfect, change, flow, wait_more};

/// The smallest table that can be configured.
const SLOTS: usize = 256;
/// More children than fit beside the one of the connection that ships.
const CHILDREN: usize = SLOTS + 4;
const MANY: &str = "many";

#[test]
fn full_sa_table_is_named_disturbs_nobody_and_has_room_again() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    for side in [Side::A, Side::B] {
        change(pair.gateway(side), |config| {
            add_site(config, side, MANY, 0);
            config.set("ike/max_children", 1000);
            config.set(&format!("connections/{MANY}/ike/retry_min"), "200ms");
            config.set(&format!("connections/{MANY}/ike/retry_max"), "1s");
            config.remove(&format!("connections/{MANY}/children"));
            for child in 0..CHILDREN {
                let to = format!("connections/{MANY}/children/c{child}");
                let end = |net: u8| format!("[172.{net}.{}.{}/32]", child / 256, child % 256);
                let (local, remote) = if side == Side::A { (16, 17) } else { (17, 16) };
                config.set_yaml(&format!("{to}/local_ts"), &end(local)).unwrap();
                config.set_yaml(&format!("{to}/remote_ts"), &end(remote)).unwrap();
                config.set(&format!("{to}/start"), if side == Side::A { "always" } else { "none" });
            }
        });
    }
    // The peer has room: it is gw-a that has none.
    change(&pair.a, |config| config.set("data_plane/sa_slots", SLOTS));
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    let flows = vec![flow(&pair.lab, Side::A, 500), flow(&pair.lab, Side::B, 500)];

    let full = pair.a.wait_connection(MANY, 3 * SOON, |c| c.detail.contains("data_plane.sa_slots")).unwrap();
    assert!(full.is_up(), "those that have room stay");
    assert!(full.detail.contains("child c"), "the child is named: {}", full.detail);
    let table = pair.a.status().unwrap().data_plane.sa_table;
    assert_eq!((table.slots, table.inbound), (SLOTS as u32, SLOTS as u32));
    let metrics = pair.a.metrics().unwrap();
    let failures = [("connection", MANY), ("reason", "local_limit")];
    assert!(
        metrics.sum("portcullis_child_failures_total", &failures).is_some_and(|failures| failures >= 1.0)
    );
    let used = metrics.sum("portcullis_sa_table_used", &[("direction", "inbound")]);
    assert_eq!(used, metrics.sum("portcullis_sa_table_slots", &[]));
    let missing = missing_children(&full);
    let error = pair.a.verb(&["up", MANY, "--child", &missing[0]]).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("data_plane.sa_slots"), "{error}");
    wait_more(&flows, 200);

    // Room for those that are missing; they are wanted, and come by themselves.
    for child in ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"] {
        pair.a.verb(&["down", MANY, "--child", child]).unwrap();
    }
    let healed = pair
        .a
        .wait_connection(MANY, 4 * SOON, |c| {
            missing.iter().all(|name| has_child(c, name)) && c.detail.is_empty()
        })
        .unwrap();
    assert!(!has_child(&healed, "c0"));
    wait_more(&flows, 200);
    assert_perfect(flows);
}

fn has_child(connection: &portcullis_vm_tests::status::ConnectionStatus, name: &str) -> bool {
    connection.ike_sas.iter().any(|sa| sa.children.iter().any(|child| child.name == name))
}

fn missing_children(connection: &portcullis_vm_tests::status::ConnectionStatus) -> Vec<String> {
    (0..CHILDREN).map(|child| format!("c{child}")).filter(|name| !has_child(connection, name)).collect()
}
