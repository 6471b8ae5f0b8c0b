//! REDIRECT while an IKE SA is set up (RFC 5685 sections 3 and 6), from us to strongSwan. strongSwan sends nobody anywhere by
//! itself: that takes a plugin which asks somebody else, and Debian has none.

use std::net::Ipv4Addr;

use portcullis_vm_tests::Side;
use portcullis_vm_tests::strongswan::IkeSa;

use super::{CHILD, OURS, Scene, THEIRS, is_up};
use crate::{SOON, change, wait_answered};

/// Another address of gw-a, which keeps what it gets.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

#[test]
fn strongswan_is_sent_to_our_other_address_in_ike_sa_init() {
    is_sent("ike-sa-init");
}

#[test]
fn strongswan_is_sent_to_our_other_address_in_ike_auth() {
    is_sent("ike-auth");
}

fn is_sent(when: &str) {
    let mut scene = Scene::new("udp-then-tcp", &[("children/net/start", "none")]);
    scene.pair.lab.gw_a.add_address("wan0", OTHER.into(), 24).unwrap();
    let first = Side::A.wan().0.to_string();
    change(&scene.pair.a, |config| {
        config.copy(&format!("connections/{OURS}"), "connections/first");
        for (ts, network) in [("local_ts", "[10.9.0.0/16]"), ("remote_ts", "[10.10.0.0/16]")] {
            config.set_yaml(&format!("connections/first/children/{CHILD}/{ts}"), network).unwrap();
        }
        config.set("connections/first/local/address", first.as_str());
        // A connection is found by identities, not by an address of ours.
        config.set("connections/first/local/id", "first.example.net");
        config.set_yaml("connections/first/redirect", &format!("{{ to: {OTHER}, when: {when} }}")).unwrap();
        config.set(&format!("connections/{OURS}/local/address"), OTHER.to_string());
    });
    let pair = &mut scene.pair;
    pair.settings.set(&format!("connections/{THEIRS}/remote/id"), "%any");
    for id in ["id-a", "id-b"] {
        pair.settings.remove(&format!("secrets/ike-{THEIRS}/{id}"));
    }
    pair.b.load(&pair.settings).unwrap();
    scene.pair.a.start().unwrap();
    scene.pair.b.initiate(CHILD).unwrap_or_else(|error| panic!("{error:#}\n{}", scene.logs()));
    let other = OTHER.to_string();
    let has_moved =
        |sas: &[IkeSa]| matches!(sas, [sa] if is_up(sa) && sa.details.text("remote-host") == Some(&*other));
    let sas = scene.pair.b.wait_sas(SOON, has_moved);
    sas.unwrap_or_else(|error| panic!("{error:#}\n{}", scene.logs()));
    wait_answered(&scene.pair.lab);
    let redirected = scene.pair.b.wait_log(SOON, |line| line.contains("redirect") && line.contains(&other));
    assert!(redirected.is_some(), "{}", scene.logs());
    scene.finish();
}
