//! Several workers and several shards: packets change hands between workers and keep their order.

use std::collections::BTreeSet;

use portcullis_vm_tests::{CHILD, Lab, Nat, Pair, PairOptions, Side};

use crate::{SOON, add_site, artefacts, assert_perfect, change, flow, wait_more};

const WORKERS: u32 = 2;
/// Connections to addresses of gw-b enough that no shard has all of them: a connection's shard follows from its peer's
/// address.
const SITES: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
/// Flows at most until every queue has some: the sender's kernel picks the queue by a hash.
const FLOWS: usize = 32;

#[test]
fn packets_that_change_workers_keep_their_order_through_rekeys() {
    let lab = Lab::with_queues(Nat::None, WORKERS).unwrap();
    let mut pair = Pair::in_lab(lab, PairOptions::USUAL, &artefacts()).unwrap();
    for side in [Side::A, Side::B] {
        change(pair.gateway(side), |config| {
            config.set("data_plane/workers", WORKERS);
            config.set("ike/shards", 2);
            for (site, name) in (1..).zip(SITES) {
                add_site(config, side, name, site);
                // A gateway with several addresses is told which one a connection uses.
                let end = if side == Side::A { "remote" } else { "local" };
                config.set(&format!("connections/{name}/{end}/address"), address(site));
            }
        });
    }
    for (site, _) in (1..).zip(SITES) {
        pair.lab.gw_b.add_address("wan0", address(site).parse().unwrap(), 24).unwrap();
    }
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    for name in SITES {
        pair.a.wait_connection(name, SOON, |c| c.is_up()).unwrap();
    }
    let shards: BTreeSet<_> = pair.a.status().unwrap().connections.iter().map(shard).collect();
    assert!(shards.len() > 1, "every connection is on shard {shards:?}");

    let mut flows = Vec::new();
    while flows.len() < 4 || (flows.len() < FLOWS && !every_worker_takes_from_hosts(&pair)) {
        flows.extend([Side::A, Side::B].map(|side| flow(&pair.lab, side, 1000)));
        wait_more(&flows, 100);
    }
    assert!(every_worker_takes_from_hosts(&pair), "{} flows are on one queue", flows.len());
    for side in [Side::A, Side::B, Side::A, Side::B] {
        wait_more(&flows, 500);
        pair.gateway(side).verb(&["rekey", side.connection(), "--child", CHILD]).unwrap();
    }
    wait_more(&flows, 500);
    assert_perfect(flows);
    for side in [Side::A, Side::B] {
        let workers = pair.drained(side).unwrap().data_plane.workers;
        assert_eq!(workers.len(), WORKERS as usize);
        assert!(workers.iter().any(|worker| worker.handed_over > 0), "no packet changed hands");
    }
}

fn every_worker_takes_from_hosts(pair: &Pair) -> bool {
    [Side::A, Side::B].into_iter().all(|side| {
        let workers = pair.gateway(side).status().unwrap().data_plane.workers;
        workers.iter().all(|worker| worker.received.get("af_xdp_lan").is_some_and(|packets| *packets > 0))
    })
}

/// An address of gw-b towards the router for a connection of its own.
fn address(site: u8) -> String {
    format!("198.51.100.{}", 10 + site)
}

/// The shard is the first octet of our own IKE SPI.
fn shard(connection: &portcullis_vm_tests::status::ConnectionStatus) -> String {
    connection.ike_sas.first().map(|sa| sa.spi_i[..2].to_owned()).unwrap_or_default()
}
