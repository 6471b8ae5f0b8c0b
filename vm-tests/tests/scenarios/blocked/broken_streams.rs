//! A middlebox breaks the stream of IKE: ESP on a direct carrier goes on as if nothing had happened (rules 5, row 20).

use std::time::SystemTime;

use portcullis_vm_tests::api::{receive, send};
use portcullis_vm_tests::{Blocked, Breakage, Side, Way, until};
use serde_json::json;

use super::{Scene, flows};
use crate::{SOON, assert_perfect, wait_more};

#[test]
fn reset_stream_is_dialled_again_and_esp_stays() {
    esp_stays(Breakage::Reset);
}

#[test]
fn stalled_stream_is_dialled_again_and_esp_stays() {
    esp_stays(Breakage::Stall);
}

fn esp_stays(how: Breakage) {
    let stage = Scene::USUAL.start();
    let before = stage.wait(Side::A, ("direct_ip", "none", "echo"));
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    let flows = flows(&stage);
    wait_more(&flows, 50);
    stage.pair.lab.break_streams(how).unwrap();

    // The request meets the broken stream, and is answered on the next one.
    stage.pair.a.verb(&["rekey", Side::A.connection(), "--ike"]).unwrap();
    let after = stage.wait(Side::A, ("direct_ip", "none", "echo"));
    assert_ne!(after.ike_sas[0].spi_i, before.ike_sas[0].spi_i, "new keys");
    wait_more(&flows, 50);
    let reconnects = |side: Side| {
        let metrics = stage.pair.gateway(side).metrics().unwrap();
        metrics.sum("portcullis_ike_stream_reconnects_total", &[]).unwrap_or(0.0)
    };
    assert!(reconnects(Side::A) >= 1.0, "gw-a has dialled again");
    assert_perfect(flows);
    let (_, counts) = stage.finish();
    assert_eq!(counts.esp_tcp, 0);
}

/// Row 20: the stream is reset, and no other one comes about for a while. IKE waits, and ESP does not notice.
#[test]
fn tcp_4500_blocked_in_mid_life_is_dialled_until_it_is_back_and_esp_stays() {
    let stage = Scene::USUAL.start();
    let before = stage.wait(Side::A, ("direct_ip", "none", "echo"));
    stage.wait(Side::B, ("direct_ip", "*", "echo"));
    let flows = flows(&stage);
    wait_more(&flows, 50);
    let blocked = SystemTime::now();
    stage.pair.lab.break_streams(Breakage::Reset).unwrap();
    stage.pair.lab.block(Blocked::Tcp4500, Way::Both).unwrap();

    let control = stage.pair.a.directory().join("control.sock");
    let rekey = format!("/v1/connections/{}/rekey", Side::A.connection());
    let rekey = send(&control, "POST", &rekey, "", &json!({ "ike": true })).unwrap();
    let stream_event = |up: bool| {
        let found = stage.pair.a.events().wait(SOON, |events| {
            let mut since = events.iter().filter(|event| event.time >= blocked);
            since.find(|event| event.kind == "ike_stream" && event.body["up"] == up).map(|_| ())
        });
        found.unwrap_or_else(|| panic!("the stream is up: {up}\n{}", stage.logs()));
    };
    stream_event(false);
    let met = stage.pair.lab.filtered().unwrap();
    until(SOON, || (stage.pair.lab.filtered().unwrap() >= met + 3).then_some(())).expect("it is dialled");
    wait_more(&flows, 200);
    stage.nothing_changed(blocked);

    stage.pair.lab.unblock().unwrap();
    stream_event(true);
    let rekeyed = receive(rekey).unwrap();
    assert_eq!(rekeyed.status, 200, "{rekeyed:?}");
    wait_more(&flows, 50);
    stage.nothing_changed(blocked);
    let after = stage.pair.a.connection(Side::A.connection()).unwrap();
    assert_eq!(after.ike_transport.as_deref(), Some("tcp"));
    assert_ne!(after.ike_sas[0].spi_i, before.ike_sas[0].spi_i, "the request was answered on the new stream");
    assert_perfect(flows);
    let counts = stage.router.finish().unwrap();
    crate::nothing_in_clear(&counts);
    assert_eq!((counts.esp_udp, counts.esp_tcp), (0, 0), "{counts:?}");
}
