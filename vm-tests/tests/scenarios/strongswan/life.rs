//! A life with strongSwan: new keys from either end under numbered traffic, its questions while idle, DELETE from either end.

use portcullis_vm_tests::Side;
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::strongswan::IkeSa;

use super::{CHILD, OURS, Scene, THEIRS};
use crate::{SOON, assert_perfect, flow, wait_answered, wait_more};

const PACKETS_PER_SECOND: u32 = 500;

#[test]
fn either_end_rekeys_child_and_ike_sa_and_nothing_is_lost() {
    let scene = Scene::new("udp-then-tcp", &[]).up();
    wait_answered(&scene.pair.lab);
    let flows = [Side::A, Side::B].map(|side| flow(&scene.pair.lab, side, PACKETS_PER_SECOND));
    wait_more(&flows, 50);
    let b = &scene.pair.b;
    let ours = |arguments: &[&str]| drop(scene.pair.a.verb(arguments).unwrap());
    let child = |sa: &IkeSa| sa.installed(CHILD).unwrap().spis.clone();
    renewed(&scene, "child by Portcullis", child, || ours(&["rekey", OURS, "--child", CHILD]));
    wait_more(&flows, 50);
    renewed(&scene, "child by strongSwan", child, || b.rekey_child(CHILD).unwrap());
    wait_more(&flows, 50);
    let ike = |sa: &IkeSa| sa.spis.clone();
    renewed(&scene, "IKE SA by Portcullis", ike, || ours(&["rekey", OURS, "--ike"]));
    wait_more(&flows, 50);
    renewed(&scene, "IKE SA by strongSwan", ike, || b.rekey_ike(THEIRS).unwrap());
    wait_more(&flows, 50);
    // On the IKE SA that strongSwan has made.
    renewed(&scene, "child by Portcullis again", child, || ours(&["rekey", OURS, "--child", CHILD]));
    wait_more(&flows, 50);
    assert_perfect(flows.into());
    scene.finish();
}

/// Both ends have exactly one IKE SA with one child in use, with other SPIs than before, the same at both.
pub(super) fn renewed(
    scene: &Scene,
    what: &str,
    spis: impl Fn(&IkeSa) -> (String, String),
    start: impl FnOnce(),
) {
    let before = spis(&scene.wait_up().1);
    start();
    let is_new = |sas: &[IkeSa]| matches!(sas, [sa] if super::is_up(sa) && spis(sa) != before);
    let theirs = scene.pair.b.wait_sas(SOON, is_new).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let (ike, child) = (&theirs[0].spis, &theirs[0].installed(CHILD).unwrap().spis);
    let agrees = |ours: &ConnectionStatus| {
        let [sa] = &ours.ike_sas[..] else { return false };
        let [own] = &sa.children[..] else { return false };
        (&sa.spi_i, &sa.spi_r, &own.spi_out, &own.spi_in) == (&ike.0, &ike.1, &child.0, &child.1)
    };
    scene
        .pair
        .a
        .wait_connection(OURS, SOON, agrees)
        .unwrap_or_else(|error| panic!("{what}: {error:#}\n{theirs:#?}"));
}

/// RFC 7296 section 2.4: an empty INFORMATIONAL is answered.
#[test]
fn strongswan_asks_whether_we_live_and_is_answered() {
    let mut scene = Scene::new("udp-then-tcp", &[]);
    let pair = &mut scene.pair;
    pair.settings.set(&format!("connections/{THEIRS}/dpd_delay"), "1s");
    pair.b.load(&pair.settings).unwrap();
    let scene = scene.up();
    for line in ["sending DPD request", "parsed INFORMATIONAL response"] {
        assert!(scene.pair.b.wait_log(SOON, |l| l.contains(line)).is_some(), "{line}\n{}", scene.logs());
    }
    wait_answered(&scene.pair.lab);
    scene.finish();
}

#[test]
fn delete_from_either_end_takes_the_sas_and_the_guard_stays() {
    let scene = Scene::new("udp-then-tcp", &[]).up();
    wait_answered(&scene.pair.lab);
    let (a, b) = (&scene.pair.a, &scene.pair.b);

    b.terminate(THEIRS).unwrap();
    a.wait_connection(OURS, SOON, |c| c.ike_sas.is_empty()).unwrap();
    scene.stays_shut();

    a.verb(&["up", OURS, "--child", CHILD]).unwrap();
    wait_answered(&scene.pair.lab);
    a.verb(&["down", OURS]).unwrap();
    b.wait_sas(SOON, <[IkeSa]>::is_empty).unwrap();
    scene.stays_shut();
    scene.finish();
}
