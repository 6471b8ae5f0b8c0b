//! One IKE SA in the place of another, with strongSwan: authentication anew (RFC 4478) and other gateways (RFC 5685).

use std::net::Ipv4Addr;
use std::time::Duration;

use portcullis_vm_tests::Side;
use portcullis_vm_tests::status::ConnectionStatus;

use super::{CHILD, OURS, Scene, THEIRS};
use crate::{SOON, flow, wait_answered, wait_more};

const PACKETS_PER_SECOND: u32 = 500;
/// strongSwan authenticates anew after this, makes before it breaks, and deletes the old IKE SA at once.
const LIFETIME: &str = "15s";
/// Packets that may wait at strongSwan, which decrypts in user space, when it forgets the SA they came on: a second's worth, on
/// a busy machine.
const QUEUED: u64 = PACKETS_PER_SECOND as u64;
/// Another address of either gateway, on its link to the router.
const OTHER: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 77), Ipv4Addr::new(198, 51, 100, 77)];

#[test]
fn strongswan_authenticates_anew_without_loss_at_our_end() {
    let mut scene = Scene::new("udp-then-tcp", &[]);
    let pair = &mut scene.pair;
    pair.settings.set(&format!("connections/{THEIRS}/reauth_time"), LIFETIME);
    // Until it gives the old one up although the new one is not there, on a busy machine.
    pair.settings.set(&format!("connections/{THEIRS}/over_time"), "60s");
    pair.settings.set(&format!("connections/{THEIRS}/rand_time"), "0s");
    pair.b.load(&pair.settings).unwrap();
    let scene = scene.up();
    wait_answered(&scene.pair.lab);
    let flows = [Side::A, Side::B].map(|side| flow(&scene.pair.lab, side, PACKETS_PER_SECOND));
    wait_more(&flows, 50);
    let old = scene.wait_up().0.ike_sas[0].spi_i.clone();
    let is_new = |c: &ConnectionStatus| c.is_up() && c.ike_sas.len() == 1 && c.ike_sas[0].spi_i != old;
    scene
        .pair
        .a
        .wait_connection(OURS, 2 * SOON, is_new)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", scene.logs()));
    scene.wait_up();
    wait_more(&flows, 50);
    let [ours, theirs] = flows.map(|flow| flow.finish().unwrap());
    assert!(theirs.is_perfect(), "{theirs}");
    let is_whole = (ours.duplicated, ours.reordered, ours.refused) == (0, 0, 0);
    assert!(is_whole && ours.lost <= QUEUED, "{ours}");
    let drops = scene.pair.a.status().unwrap().data_plane.drops;
    for reason in ["no_sa", "stale_sa", "unknown_spi", "replay"] {
        assert_eq!(drops.get(reason).copied().unwrap_or_default(), 0, "{reason}: {drops:?}");
    }
    scene.finish();
}

/// Section 5, from strongSwan.
#[test]
fn strongswan_sends_us_to_its_other_address() {
    let other = OTHER[1];
    let follow = format!("{{ follow: [{other}] }}");
    let mut scene = Scene::new("udp-then-tcp", &[("redirect", &follow)]);
    let pair = &mut scene.pair;
    pair.lab.gw_b.add_address("wan0", other.into(), 24).unwrap();
    pair.settings.set(&format!("connections/{THEIRS}/local_addrs"), "%any");
    pair.b.load(&pair.settings).unwrap();
    let scene = scene.up();
    wait_answered(&scene.pair.lab);
    scene.pair.b.redirect(THEIRS, &other.to_string()).unwrap();
    let has_moved = |c: &ConnectionStatus| {
        c.is_up() && c.ike_sas.len() == 1 && c.ike_sas[0].remote.starts_with(&format!("{other}:"))
    };
    scene
        .pair
        .a
        .wait_connection(OURS, SOON, has_moved)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", scene.logs()));
    scene.wait_up();
    wait_answered(&scene.pair.lab);
    scene.finish();
}

/// Section 5, from us.
#[test]
fn strongswan_goes_to_our_other_address_when_we_send_it_there() {
    let other = OTHER[0];
    // A gateway that answers on all its addresses: without that of the peer none of them is chosen.
    let mut scene = Scene::new("udp-then-tcp", &[("children/net/start", "none"), ("remote/address", "any")]);
    let pair = &mut scene.pair;
    pair.lab.gw_a.add_address("wan0", other.into(), 24).unwrap();
    pair.settings.set(&format!("connections/{THEIRS}/children/{CHILD}/start_action"), "trap");
    pair.b.load(&pair.settings).unwrap();
    scene.pair.a.start().unwrap();
    scene.pair.b.initiate(CHILD).unwrap();
    scene.wait_up();
    wait_answered(&scene.pair.lab);
    scene.pair.a.verb(&["redirect", OURS, "--to", &other.to_string()]).unwrap();
    let sees = |sas: &[portcullis_vm_tests::strongswan::IkeSa]| matches!(sas, [sa] if super::is_up(sa) && sa.details.text("remote-host") == Some(&other.to_string()));
    scene
        .pair
        .b
        .wait_sas(SOON + Duration::from_secs(10), sees)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", scene.logs()));
    wait_answered(&scene.pair.lab);
    scene.finish();
}
