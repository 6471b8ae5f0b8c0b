//! Twenty seconds of traffic in every direction and family under rekeys: nothing is lost, doubled or out of order, and
//! nothing is left behind. Ten minutes of it at full rate are `cargo xtask bench soak`.

use std::time::Duration;

use portcullis_vm_tests::{DataPlaneMode, Rate, Soak};

use crate::artefacts;

#[test]
fn rekeys_under_traffic_lose_and_leave_nothing_on_xdp() {
    rekeys_under_traffic_lose_and_leave_nothing(DataPlaneMode::Xdp);
}

#[test]
fn rekeys_under_traffic_lose_and_leave_nothing_on_tun() {
    rekeys_under_traffic_lose_and_leave_nothing(DataPlaneMode::Tun);
}

fn rekeys_under_traffic_lose_and_leave_nothing(mode: DataPlaneMode) {
    let soak = Soak {
        mode,
        duration: Duration::from_secs(20),
        rekey_after: Duration::from_secs(2),
        rate: Rate { packets_per_second: 500, payload_bytes: 1200 },
        tcp: false,
    };
    let report = soak.run(&artefacts()).unwrap();
    for flow in &report.flows {
        assert!(flow.is_perfect(), "{flow}");
    }
    for end in &report.ends {
        assert!(end.child_rekeys >= 6 && end.ike_rekeys >= 1, "{}, {}", end.child_rekeys, end.ike_rekeys);
        // The pair in use, and those of the last 5 s, which open what is still on the way.
        let table = end.status.data_plane.sa_table;
        assert!((1..=5).contains(&table.inbound), "{table:?} after {} rekeys", end.child_rekeys);
        assert!(end.files.1 <= end.files.0 + 4, "{:?} files open", end.files);
    }
}
