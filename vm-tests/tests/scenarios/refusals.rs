//! What a peer or the network refuses: the connection that is concerned says why, in `status` and metrics, within
//! seconds; the others go on.

use std::fs::OpenOptions;
use std::io::Write;

use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{Gateway, Kernel, Pair, PairOptions, Side};

use crate::{SOON, artefacts, change, wait_answered};

#[test]
fn wrong_secret_is_named_at_both_ends() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let wrong = pair.lab.instance.directory().join("wrong");
    std::fs::copy(pair.lab.instance.directory().join("psk"), &wrong).unwrap();
    OpenOptions::new().append(true).open(&wrong).unwrap().write_all(b"wrong").unwrap();
    let wrong = wrong.to_str().unwrap().to_owned();
    change(&pair.b, |config| {
        config.set("connections/site-a/remote/secret_file", wrong.as_str());
        config.set("connections/site-a/local/secret_file", wrong.as_str());
    });
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    let a = refused(&pair.a, Side::A, "authentication_failed");
    let b = refused(&pair.b, Side::B, "authentication_failed");
    for connection in [&a, &b] {
        let detail = &connection.detail;
        assert!(detail.contains("secret") && detail.contains("compare"), "{detail}");
    }
    shown_in_metrics(&pair.a, Side::A, "authentication_failed");
}

#[test]
fn no_common_proposal_is_named() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    change(&pair.b, |config| {
        config.set_yaml("connections/site-a/ike/proposals", "[aes128gcm16-prfsha256-ecp256]").unwrap();
    });
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    let a = refused(&pair.a, Side::A, "no_proposal_chosen");
    assert!(a.detail.contains("NO_PROPOSAL_CHOSEN") && a.detail.contains("compare"), "{}", a.detail);
    shown_in_metrics(&pair.a, Side::A, "no_proposal_chosen");
}

#[test]
fn no_common_selectors_are_named_and_another_connection_is_not_disturbed() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    change(&pair.b, |config| {
        config.set_yaml("connections/site-a/children/other/local_ts", "[172.16.2.0/24]").unwrap();
        config.set_yaml("connections/site-a/children/other/remote_ts", "[172.16.1.0/24]").unwrap();
        config.set("connections/site-a/children/other/start", "none");
    });
    change(&pair.a, |config| {
        config.set_yaml("connections/site-b/children/foreign/local_ts", "[172.31.1.0/24]").unwrap();
        config.set_yaml("connections/site-b/children/foreign/remote_ts", "[172.31.2.0/24]").unwrap();
        config.set("connections/site-b/children/foreign/start", "none");
    });
    pair.b.start().unwrap();
    pair.a.start().unwrap();
    pair.wait_up(SOON).unwrap();
    let error = pair.a.verb(&["up", Side::A.connection(), "--child", "foreign"]).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("selector") || error.contains("TS_UNACCEPTABLE"), "{error}");
    wait_answered(&pair.lab);
}

#[test]
fn refused_tcp_is_named() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    // gw-b's daemon does not run: its kernel refuses the stream.
    pair.a.start().unwrap();
    let a = refused(&pair.a, Side::A, "ike_tcp_unreachable");
    assert_eq!(a.state, "blocked");
    assert!(a.detail.contains("refused") && a.detail.contains("4500"), "{}", a.detail);
    shown_in_metrics(&pair.a, Side::A, "ike_tcp_unreachable");
    pair.b.start().unwrap();
    pair.wait_up(std::time::Duration::from_secs(30)).unwrap();
}

#[test]
fn unreachable_peer_is_named() {
    let options = PairOptions { transport: "udp-then-tcp", ..PairOptions::USUAL };
    let mut pair = Pair::new(options, &artefacts()).unwrap();
    pair.lab
        .router
        .nft("add table inet t; add chain inet t f { type filter hook forward priority 0; policy drop; }")
        .unwrap();
    pair.a.start().unwrap();
    let limit = std::time::Duration::from_secs(40);
    let a = pair
        .a
        .wait_connection(Side::A.connection(), limit, |c| {
            c.state == "blocked" && c.reason == "ike_unreachable"
        })
        .unwrap();
    assert!(a.detail.contains("UDP 4500") && a.detail.contains("TCP 4500"), "{}", a.detail);
    pair.lab.router.nft("delete table inet t").unwrap();
    pair.b.start().unwrap();
    pair.wait_up(std::time::Duration::from_secs(90)).unwrap();
}

/// Transport policy, "Shut means shut": with neither back end of the guard the connection is refused.
#[test]
fn a_kernel_that_can_hold_no_guard_is_named_and_nothing_is_set_up() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    pair.a.run_on(Kernel::WithoutXfrmAndNftables);
    pair.a.start().unwrap();
    let a = refused(&pair.a, Side::A, "guard_missing");
    assert_eq!(a.state, "blocked");
    for part in ["XFRM: Protocol not supported", "nftables: ", "CONFIG_XFRM_USER"] {
        assert!(a.detail.contains(part), "{part} in {}", a.detail);
    }
    shown_in_metrics(&pair.a, Side::A, "guard_missing");
    assert_eq!(pair.a.metrics().unwrap().sum("portcullis_guard_installed", &[]), Some(0.0));
    assert!(!pair.a.status().unwrap().data_plane.guard.installed);
    assert!(pair.a.http("/readyz").is_err(), "not ready");
    assert!(pair.a.log_tail().contains("CONFIG_XFRM_USER"), "{}", pair.a.log_tail());
    let error = format!("{:#}", pair.a.verb(&["up", Side::A.connection()]).unwrap_err());
    assert!(error.contains(Side::A.connection()) && error.contains("can hold no guard"), "{error}");
    // The peer is refused as well.
    pair.b.start().unwrap();
    pair.b.verb(&["up", Side::B.connection(), "--child", portcullis_vm_tests::CHILD]).unwrap_err();
    refused(&pair.b, Side::B, "no_proposal_chosen");
    refused(&pair.a, Side::A, "guard_missing");

    pair.a.stop().unwrap();
    pair.a.run_on(Kernel::AsItIs);
    pair.a.start().unwrap();
    pair.wait_up(std::time::Duration::from_secs(60)).unwrap();
}

fn refused(gateway: &Gateway, side: Side, reason: &str) -> ConnectionStatus {
    let connection = gateway.wait_connection(side.connection(), SOON, |c| c.reason == reason).unwrap();
    gateway.agreed(side.connection()).unwrap();
    assert!(!connection.is_up());
    connection
}

fn shown_in_metrics(gateway: &Gateway, side: Side, reason: &str) {
    let metrics = gateway.metrics().unwrap();
    let shown = metrics.samples().any(|(_, labels, value)| {
        labels.contains(side.connection()) && labels.contains(reason) && value > 0.0
    });
    assert!(shown, "no sample for {} with reason {reason}", side.connection());
}
