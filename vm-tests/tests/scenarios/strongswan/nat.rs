//! A translator between the gateways, in front of the one or the other, which is where charon says that one is anyway.

use portcullis_vm_tests::{Nat, PairOptions, Side};

use super::{CHILD, Scene};

/// What gw-b begins comes from the router's address.
const OUTWARD: &str = "add chain ip lab after { type nat hook postrouting priority srcnat; }; \
     add rule ip lab after iifname wan-b oifname wan-a masquerade";

/// RFC 7296 section 2.23: both ends float to the addresses and ports that the translator gives them.
#[test]
fn either_gateway_may_be_behind_a_translator() {
    for (nat, initiator) in [(Nat::BeforeA, Side::A), (Nat::BeforeB, Side::A), (Nat::BeforeB, Side::B)] {
        let options = PairOptions { nat, transport: "udp-then-tcp", ..PairOptions::USUAL };
        let scene = match initiator {
            Side::A => Scene::with(options, &[]).up(),
            Side::B => {
                let mut scene = Scene::with(options, &[("children/net/start", "none")]);
                scene.pair.lab.router.nft(OUTWARD).unwrap();
                scene.pair.a.start().unwrap();
                scene.pair.b.initiate(CHILD).unwrap();
                scene
            }
        };
        let (ours, theirs) = scene.wait_up();
        assert_eq!(theirs.is_initiator, initiator == Side::B, "{nat:?}");
        // What each sees of the other is the router, if the other is behind it.
        let (router_a, router_b) = (Side::A.router().0.to_string(), Side::B.router().0.to_string());
        let seen = theirs.details.text("remote-host").unwrap_or_default();
        assert_eq!(seen == router_b, nat == Nat::BeforeA, "{nat:?}: {seen}");
        let seen = &ours.ike_sas[0].remote;
        assert_eq!(seen.starts_with(&format!("{router_a}:")), nat == Nat::BeforeB, "{nat:?}: {seen}");
        scene.carries_traffic();
        scene.says("direct_udp", "nat", "inbound");
        let counts = scene.finish();
        assert_eq!((counts.esp_ip, counts.esp_tcp), (0, 0), "{nat:?}: {counts:?}");
    }
}
