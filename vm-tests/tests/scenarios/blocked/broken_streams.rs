//! A middlebox breaks the stream of IKE: ESP on a direct carrier goes on as if nothing had happened (rules 5, row 20).

use portcullis_vm_tests::{Breakage, Side};

use super::Scene;
use crate::{assert_perfect, flow, wait_more};

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
    let flows: Vec<_> = [Side::A, Side::B].map(|side| flow(&stage.pair.lab, side, 200)).into();
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
