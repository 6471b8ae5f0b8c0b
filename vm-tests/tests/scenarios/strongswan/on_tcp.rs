//! IKE in TCP with a peer that has RFC 9329 and no SEPARATE_TRANSPORTS: rows 14 and 15. What makes strongSwan such a peer is a
//! relay on the router, and nothing but TCP passes between it and gw-a.

use portcullis_vm_tests::{Relay, Side};

use super::{SOON, Scene, THEIRS};

/// Row 14.
#[test]
fn tcp_fallback_puts_esp_into_the_stream() {
    in_tcp("tcp");
}

/// Row 9, then row 14.
#[test]
fn silent_udp_leads_to_tcp_and_tcp_fallback_puts_esp_into_the_stream() {
    in_tcp("udp-then-tcp");
}

fn in_tcp(transport: &'static str) {
    let (scene, relay) = behind_relay(transport, "tcp-fallback");
    let (ours, theirs) = scene.wait_up();
    assert!(!ours.ike_sas[0].separate_transports);
    assert!(!theirs.is_initiator);
    scene.carries_traffic();
    let ours = scene.says("tcp", "peer_no_separate", "inbound");
    assert_eq!((ours.ike_transport.as_deref(), ours.esp_transport.as_deref()), (Some("tcp"), Some("tcp")));
    let relayed = relay.relayed();
    assert_eq!((relayed.streams, relayed.refused), (1, 0), "{relayed:?}");
    assert!(relayed.esp_in > 20 && relayed.esp_out > 20, "{relayed:?}");
    let counts = scene.finish();
    assert!(counts.esp_tcp > 20, "{counts:?}");
    assert_eq!(counts.esp_ip, 0);
}

/// Row 15.
#[test]
fn fail_closed_abandons_before_ike_auth() {
    let (scene, relay) = behind_relay("tcp", "fail-closed");
    let ours = scene.says("blocked", "peer_no_separate", "none");
    assert!(ours.ike_sas.is_empty());
    scene.stays_shut();
    let relayed = relay.relayed();
    assert_eq!((relayed.ike_in, relayed.esp_in), (relayed.streams, 0), "IKE_SA_INIT alone: {relayed:?}");
    assert!(relayed.streams >= 1 && relayed.refused == 0, "{relayed:?}");
    let sas = scene.pair.b.sas().unwrap();
    assert!(sas.iter().all(|sa| sa.state != "ESTABLISHED"), "{sas:?}");
    let counts = scene.finish();
    assert_eq!((counts.esp_ip, counts.esp_udp, counts.esp_tcp), (0, 0, 0), "{counts:?}");
}

/// Starts gw-a with the relay as its peer.
fn behind_relay(transport: &'static str, policy: &str) -> (Scene, Relay) {
    let (outside, inside) = (Side::A.router().0, Side::B.router().0);
    let remote = outside.to_string();
    let differs =
        [("remote/address", &*remote), ("esp/on_unreachable", policy), ("ike/retransmit_after", "300ms")];
    let mut scene = Scene::new(transport, &differs);
    let pair = &mut scene.pair;
    pair.settings.set(&format!("connections/{THEIRS}/remote_addrs"), "%any");
    pair.b.load(&pair.settings).unwrap();
    let only_tcp = |hook: &str, way: &str| {
        format!(
            "add chain inet outside {hook} {{ type filter hook {hook} priority filter; }}; \
             add rule inet outside {hook} {way} wan-a meta l4proto != tcp drop;"
        )
    };
    let rules = [only_tcp("input", "iifname"), only_tcp("output", "oifname")].concat();
    pair.lab.router.nft(&format!("add table inet outside; {rules}")).unwrap();
    let relay = Relay::start(&pair.lab.router, outside, inside, Side::B.wan().0).unwrap();
    pair.a.start().unwrap();
    assert!(relay.wait(SOON, |relayed| relayed.streams > 0).is_some(), "{}", scene.logs());
    (scene, relay)
}
